"""Files as records: JSON Lines, JSON, CSV and Parquet, also compressed. The type of a file is decided by its content."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from markovlm.errors import UserError

MOST_BYTES = 4 << 30  # of one file, unpacked
MOST_ROWS = 1_000_000
_CHUNK = 1 << 20
_SEPARATORS = (",", "\t", ";", "|")
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}

Record = tuple[int, Mapping[str, Any]]  # line or row number from 1, and the row


@dataclass(slots=True)
class Records:
    """What a file holds."""

    rows: list[Record] = field(default_factory=list[Record])
    broken: list[str] = field(default_factory=list[str])  # lines that are no record: where, why
    whole: Any = None  # the value of a file that is one JSON value


def read_records(path: Path, readable: str) -> Records:
    """The records of a file. Raises UserError in one line if it can't be read; `readable` says what could be."""
    with path.open("rb") as file:
        data = _unpacked(path, file)
    if data[:4] == b"PAR1":
        return Records(_parquet(path, data))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}); audit reads {readable}") from None
    del data
    if not text.strip():
        raise UserError(f"{path}: is empty; audit reads {readable}")
    if text.lstrip()[0] not in "{[":
        return Records(_table(path, text, readable))
    whole = _json(text)
    if whole is None:
        return _lines(path, text)
    listed = whole if isinstance(whole, list) else [whole]
    rows = [(number, row) for number, row in enumerate(listed, 1) if isinstance(row, Mapping)]
    broken = [f"{path.name}:{number}: not a JSON object" for number, row in enumerate(listed, 1) if not isinstance(row, Mapping)]
    return Records(rows, broken, whole)


def _unpacked(path: Path, file: IO[bytes]) -> bytes:
    magic = file.read(8)
    file.seek(0)
    packing = next((name for start, name in _PACKED.items() if magic.startswith(start)), None)
    pieces: list[bytes] = []
    size = 0
    try:
        stream = _opened(path, file, packing)
        while piece := stream.read(_CHUNK):
            size += len(piece)
            if size > MOST_BYTES:
                raise UserError(f"{path}: unpacks to more than {MOST_BYTES >> 30} GB; split it")
            pieces.append(piece)
    except UserError:
        raise
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        what = f"a broken {packing} file" if packing else "cannot be read"
        raise UserError(f"{path}: {what} ({' '.join(str(error).split()):.120})") from None
    return b"".join(pieces)


def _opened(path: Path, file: IO[bytes], packing: str | None) -> Any:
    if packing == "gzip":
        return gzip.open(file)
    if packing == "bzip2":
        return bz2.open(file)
    if packing == "xz":
        return lzma.open(file)
    if packing == "zstd":
        try:
            import pyarrow
        except ImportError:
            raise UserError(f"{path}: compressed with Zstandard, which needs pyarrow (pip install pyarrow)") from None
        return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd")
    return file


def _parquet(path: Path, data: bytes) -> list[Record]:
    import polars as pl

    try:
        frame = pl.read_parquet(io.BytesIO(data), n_rows=MOST_ROWS)
    except Exception as error:  # polars has a dozen unrelated types; all mean: this file cannot be read
        raise UserError(f"{path}: cannot be read as Parquet ({' '.join(str(error).split()):.120})") from None
    return list(enumerate(frame.iter_rows(named=True), 1))


def _table(path: Path, text: str, readable: str) -> list[Record]:
    """A table with a line of names: CSV, or separated by tabs, semicolons or bars. Every cell is text; empty ones are None."""
    import polars as pl

    head = text.lstrip("\r\n").partition("\n")[0]
    separator = max(_SEPARATORS, key=head.count)
    if not head.count(separator):
        raise UserError(f"{path}: holds neither a JSON object nor a table with named columns; audit reads {readable}")
    try:
        frame = pl.read_csv(io.StringIO(text), separator=separator, infer_schema=False, n_rows=MOST_ROWS)
    except Exception as error:  # as above
        raise UserError(f"{path}: cannot be read as a table ({' '.join(str(error).split()):.120})") from None
    return list(enumerate(frame.iter_rows(named=True), 2))


def _json(text: str) -> Any:
    """The value of a text that is one JSON value and not lines of them."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _lines(path: Path, text: str) -> Records:
    found = Records()
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            value = _json(line)
            if isinstance(value, Mapping):
                found.rows.append((number, value))
            else:
                found.broken.append(f"{path.name}:{number}: not a JSON object")
    return found


def rows_inside(whole: Mapping[str, Any]) -> tuple[list[Record], str]:
    """The rows in one JSON object, given as columns or as a list, and a note about what is left out. May be empty."""
    columns = list(enumerate(_columns(whole), 1))
    if columns:
        return columns, ""
    listed = [(key, value) for key, value in whole.items() if _is_rows(value)]
    if listed:
        key, rows = max(listed, key=lambda pair: len(pair[1]))
        return list(enumerate(rows, 1)), f"rows are read from {key!r}; the other keys are ignored"
    return [], ""


def _is_rows(value: Any) -> bool:
    """A list of objects that are no messages of a conversation."""
    return _are_objects(value) and not _is_conversation(value)


def _is_conversation(value: Any) -> bool:
    return _are_objects(value) and all({"role", "from"} & set(one) for one in value)


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _columns(whole: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """`{"question": {"0": …}, …}` as pandas writes a table, or `{"question": […], …}`."""
    values = list(whole.values())
    if len(values) < 2:
        return
    if all(isinstance(column, Mapping) for column in values):
        keys = list(values[0])
        if all(list(column) == keys for column in values):
            for key in keys:
                yield {name: cast(Mapping[str, Any], column)[key] for name, column in whole.items()}
    elif (
        all(isinstance(column, list) and not _is_conversation(column) for column in values) and len({len(c) for c in values}) == 1
    ):
        for number in range(len(values[0])):
            yield {name: column[number] for name, column in whole.items()}
