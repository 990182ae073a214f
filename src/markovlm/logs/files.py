"""Opening a log in any packaging: plain lines, gzip, a JSON array. Anything but a regular file is never opened."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from markovlm.content import GZIP, check_regular
from markovlm.logs.rows import Problems, objects, parse

MOST_UNPACKED = 1 << 30  # bytes of a gzip file or a JSON array held in memory


def open_lines(path: Path, problems: Problems | None = None) -> BinaryIO:
    """A file of JSON lines: gzip unpacked, the objects of a JSON array one a line (then a line number is that of the record)."""
    check_regular(path)
    with open(path, "rb") as file:
        head = file.read(4096)
    if head[:2] != GZIP and head.lstrip()[:1] != b"[":
        return open(path, "rb")
    data = whole(path, problems)
    if data.lstrip()[:1] == b"[":
        return io.BytesIO(_lines(data, problems))
    return io.BytesIO(data)


def open_stream(path: Path) -> BinaryIO:
    """A file's bytes as they come, gzip unpacked on the way. A torn gzip file ends where it is torn."""
    check_regular(path)
    with open(path, "rb") as file:
        packed = file.read(2) == GZIP
    return cast("BinaryIO", io.BufferedReader(_Unpacking(path))) if packed else open(path, "rb")


class _Unpacking(io.RawIOBase):
    def __init__(self, path: Path) -> None:
        self._file = gzip.GzipFile(path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            data = self._file.read1(len(buffer))
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return 0
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def whole(path: Path, problems: Problems | None = None) -> bytes:
    """All of a file, gzip unpacked."""
    check_regular(path)
    with open(path, "rb") as file:
        data = file.read(MOST_UNPACKED)
    return _unpacked(data, MOST_UNPACKED, problems) if data[:2] == GZIP else data


def beginning(path: Path, most: int) -> bytes:
    """The first `most` bytes of a file, gzip unpacked."""
    check_regular(path)
    with open(path, "rb") as file:
        data = file.read(most)
    return _unpacked(data, most, None) if data[:2] == GZIP else data


def _unpacked(data: bytes, most: int, problems: Problems | None) -> bytes:
    """What can be unpacked of one or several gzip members, up to `most` bytes."""
    found = bytearray()
    while data[:2] == GZIP and len(found) < most:
        unpacker = zlib.decompressobj(31)
        try:
            found += unpacker.decompress(data, most - len(found))
        except zlib.error:
            _note(problems, "damaged gzip: read up to the damage")
            break
        if not unpacker.eof:
            over = bool(unpacker.unconsumed_tail)
            _note(problems, f"unpacks to more than {most:,} bytes; only these were read" if over else "gzip that ends early")
            break
        data = unpacker.unused_data
    return bytes(found)


def _lines(data: bytes, problems: Problems | None) -> bytes:
    """A JSON array as JSON lines; what follows a damaged element is left out."""
    text = data.decode("utf-8", "replace")
    records = [json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") for record in array_elements(text)]
    try:
        parse(data)
    except ValueError:
        _note(problems, "a JSON array with an error: read up to the error")
    _note(problems, "a JSON array: line numbers are numbers of records")
    return b"".join(record + b"\n" for record in records)


def array_elements(text: str) -> Any:
    """The elements of a JSON array one by one, up to its end or the first fault."""
    decode = json.JSONDecoder().raw_decode
    at, n = text.find("[") + 1, len(text)
    while at < n:
        while at < n and text[at] in " \t\r\n,":
            at += 1
        if at >= n or text[at] == "]":
            return
        try:
            value, at = decode(text, at)
        except (ValueError, RecursionError):
            return
        yield value


def first_objects(path: Path) -> list[dict[str, Any]]:
    """The first five JSON objects of a file (within its first 4 MB)."""
    data = beginning(path, 1 << 22)
    if data.lstrip()[:1] == b"[":
        found = (row for row in array_elements(data.decode("utf-8", "replace")) if isinstance(row, dict))
    else:
        found = (row for _, _, row in objects(data.splitlines(keepends=True), Problems()))
    return list(islice(found, 5))


def stem_of(path: Path) -> str:
    """`a.jsonl.gz` -> `a`"""
    return path.with_suffix("").stem if path.suffix == ".gz" else path.stem


def _note(problems: Problems | None, message: str) -> None:
    if problems is not None:
        problems.note(message)


def split_run(path: Path) -> tuple[Path, str | None]:
    """`project.db::RUN` -> (file, run): so a run is named that shares its file with others."""
    file, separator, run = str(path).rpartition("::")
    return (Path(file), run) if separator else (path, None)
