"""Rows of data files: JSON, JSONL, CSV (each gzipped or not) and Parquet, each row with the file and line it came from.

A file that cannot be read at all is a UserError. A single malformed row is a `BadRow`, which the caller counts or makes fatal.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from markovlm.content import read_content, unpack
from markovlm.errors import UserError
from markovlm.tasks.base import LETTERS
from markovlm.tasks.rows import BadRow, DataRow, first_line

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
GZIPPED = ".gz"
_MOST_ROWS = 20_000_000  # of a Parquet file, whose few bytes can stand for any number
_HEADER_WORDS = frozenset({"question", "problem", "input", "prompt", "body", "stem"})


def read_rows(path: Path, headerless: Sequence[str] = ()) -> Iterator[DataRow | BadRow]:
    """Every row of a file, in order.

    `headerless` names the columns of a CSV file that has no header. Raises UserError if the file is missing, not UTF-8,
    of an unknown kind, or broken beyond single rows.
    """
    suffix = data_suffix(path)
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown kind of data file; expected one of {', '.join(SUFFIXES)}, also gzipped (.csv.gz)")
    if suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    text = read_text(path)
    if suffix in (".csv", ".tsv"):
        yield from _csv_rows(path, text, "\t" if suffix == ".tsv" else ",", headerless)
    elif suffix == ".json":
        yield from _json_rows(path, text)
    else:
        yield from _jsonl_rows(path, text)


def data_suffix(path: Path) -> str:
    """The kind of file, gzipped or not: `train.csv.gz` -> `.csv`."""
    return (path.with_suffix("") if path.suffix.lower() == GZIPPED else path).suffix.lower()


def data_stem(path: Path) -> str:
    """The name without its suffixes: `train.csv.gz` -> `train`."""
    return (path.with_suffix("") if path.suffix.lower() == GZIPPED else path).stem


def read_text(path: Path) -> str:
    """The whole of a UTF-8 file, gzipped or not, without byte-order mark, line ends as they are. Raises UserError if it cannot be read."""
    try:
        return _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8 text (byte {error.start}); convert the file to UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _bytes(path: Path) -> bytes:
    data = read_content(path)
    return unpack(data) if path.suffix.lower() == GZIPPED else data


def _parquet_rows(path: Path) -> Iterator[DataRow | BadRow]:
    """Row 1 is the first. Lists and structs come as lists and dicts."""
    import polars

    try:
        data = _bytes(path)
        rows = int(polars.scan_parquet(io.BytesIO(data)).select(polars.len()).collect().item())
        if rows > _MOST_ROWS:
            raise OSError(0, f"{rows:,} rows, but at most {_MOST_ROWS:,} are read; split it")
        table = polars.read_parquet(io.BytesIO(data))
    except (OSError, polars.exceptions.PolarsError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"{path}: cannot be read as Parquet: {reason:.160}") from error
    for index, values in enumerate(table.iter_rows(named=True)):
        yield _record(path, index + 1, index, values)


def _record(path: Path, line: int, index: int, value: Any) -> DataRow | BadRow:
    if not isinstance(value, Mapping):
        return BadRow(f"{path}:{line}", f"expected an object with named fields, found {type(value).__name__}")
    values = {str(key).strip(): item for key, item in cast(Mapping[Any, Any], value).items()}
    return DataRow(f"{path}:{line}", index, data_stem(path), values)


def _jsonl_rows(path: Path, text: str) -> Iterator[DataRow | BadRow]:
    index = 0
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: U+2028 may stand inside a string
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield BadRow(f"{path}:{number}", f"not valid JSON: {first_line(error)}")
        else:
            yield _record(path, number, index, value)
        index += 1


def _json_rows(path: Path, text: str) -> Iterator[DataRow | BadRow]:
    """An array of objects, an object that holds one, or (some files named .json) JSON lines."""
    start = len(text) - len(text.lstrip())
    if text[start : start + 1] == "[":
        yield from _array_rows(path, text, start)
        return
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        yield from _jsonl_rows(path, text)
        return
    table = _table_in(document)
    if table is None:
        yield _record(path, 1, 0, document)
        return
    for index, value in enumerate(table):
        yield _record(path, 1, index, value)


def _table_in(document: Any) -> list[Any] | None:
    """The first list of objects in an object such as `{"data": [{…}, …]}`."""
    if not isinstance(document, Mapping):
        return None
    for value in cast(Mapping[str, Any], document).values():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            return cast(list[Any], value)
    return None


def _array_rows(path: Path, text: str, start: int) -> Iterator[DataRow | BadRow]:
    """Elements of the array that opens at `text[start]`, decoded one by one so that each has its line."""
    decoder = json.JSONDecoder()
    position, line, counted, index = start + 1, 1, 0, 0
    while True:
        position = _skip_separators(text, position)
        line, counted = line + text.count("\n", counted, position), position
        if text[position : position + 1] == "]":
            return
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{line}: not valid JSON: {first_line(error)}; repair the file") from error
        yield _record(path, line, index, value)
        position, index = end, index + 1


def _skip_separators(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t", "\r", "\n", ","):
        position += 1
    return position


def _csv_rows(path: Path, text: str, delimiter: str, headerless: Sequence[str]) -> Iterator[DataRow | BadRow]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header: list[str] | None = None
    line, index = 1, 0
    try:
        for cells in reader:
            first_line, line = line, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                is_header = not headerless or _looks_like_header(cells)
                header = cells if is_header else list(headerless)
                if is_header:
                    continue
            if len(cells) != len(header):
                yield BadRow(f"{path}:{first_line}", f"{len(cells)} cells, expected {len(header)}")
            else:
                yield _record(path, first_line, index, dict(zip(header, cells, strict=True)))
            index += 1
    except csv.Error as error:
        raise UserError(f"{path}:{line}: not valid CSV: {error}") from error


def _looks_like_header(cells: Sequence[str]) -> bool:
    """A data row ends in its answer letter; a header names a question column."""
    names = {cell.strip().lower() for cell in cells}
    return bool(names & _HEADER_WORDS) and cells[-1].strip().upper() not in tuple(LETTERS)
