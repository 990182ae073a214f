"""`run-ID.wandb` of an offline Weights & Biases run.

The file is LevelDB's log format (blocks of 32 KiB, records in pieces) of protobuf messages. W&B's own Python reader of it is no longer
part of the package (0.31), so the few fields that hold the history are read from the wire format here; nothing is unpickled.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markovlm.logs.external import Row, fill, new_run, step_of
from markovlm.logs.records import RunData
from markovlm.logs.rows import Problems, parse
from markovlm.logs.settings import take_settings

MAGIC = b":W&B"
_BLOCK = 32_768
_HEADER = 7  # bytes, of the file and of a piece: checksum, length, kind
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_MAX_RECORD = 16 << 20
_MAX_VALUE = 1 << 20
_STEPS = ("train/global_step", "trainer/global_step", "training/global_step", "global_step", "step", "_step")


def records(path: Path, problems: Problems) -> Iterator[bytes]:
    """The records of the file, up to where it is cut off."""
    with open(path, "rb") as file:
        offset = len(file.read(_HEADER))
        whole: bytearray = bytearray()
        while True:
            left = _BLOCK - offset % _BLOCK
            if left < _HEADER:
                offset += len(file.read(left))
                continue
            head = file.read(_HEADER)
            offset += len(head)
            if len(head) < _HEADER:
                if head.strip(b"\0"):
                    problems.note("the file is cut off in its last record")
                return
            _, length, kind = struct.unpack("<IHB", head)
            if kind == 0 and length == 0:  # zeros that the writer has put ahead
                offset += len(file.read(_BLOCK - offset % _BLOCK)) if offset % _BLOCK else 0
                if not file.peek(1):
                    return
                continue
            piece = file.read(length)
            offset += len(piece)
            if len(piece) < length or kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
                problems.note("the file is cut off or damaged; the records before are used")
                return
            if kind in (_FULL, _FIRST):
                whole = bytearray()
            whole += piece
            if len(whole) > _MAX_RECORD:
                whole = bytearray()
            if kind in (_FULL, _LAST):
                yield bytes(whole)


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, integer or bytes) of a protobuf message; raises ValueError where it is none."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
        elif kind == 2:
            length, at = _varint(message, at)
            if at + length > end:
                raise ValueError("a field that is longer than its message")
            value, at = message[at : at + length], at + length
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = message[at : at + size], at + size
        else:
            raise ValueError("an unknown wire type")
        yield tag >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("an unterminated number")
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _items(message: bytes) -> dict[str, Any]:
    """HistoryItem and ConfigItem: key (1), nested_key (2), value_json (16); newer: integer (5), number (6), text (7), json (8)."""
    out: dict[str, Any] = {}
    for number, item in fields(message):
        if number != 1 or not isinstance(item, bytes):
            continue
        key: list[bytes] = []
        value: Any = None
        for inner, content in fields(item):
            if inner in (1, 2) and content:
                key.append(content)
            elif inner in (8, 16) and len(content) <= _MAX_VALUE:
                value = _json(content)
            elif inner in (4, 5):
                value = content - 2**64 if content >= 2**63 else content
            elif inner == 6:
                value = struct.unpack("<d", content)[0]
            elif inner == 7:
                value = content[:_MAX_VALUE].decode("utf-8", "replace")
        out[b".".join(key).decode("utf-8", "replace")] = value
    return out


def _json(value: bytes) -> Any:
    try:
        return parse(value)
    except ValueError:
        return None


_HISTORY, _CONFIG, _RUN = 2, 5, 17  # fields of a Record
_RUN_CONFIG, _RUN_NAME = 4, 8  # of a RunRecord: config, display_name


def read_wandb(path: Path) -> RunData:
    """One offline run."""
    run, problems = new_run(path, "wandb"), Problems()
    told: dict[str, Any] = {}

    def rows() -> Iterator[Row]:
        for count, record in enumerate(records(path, problems), 1):
            try:
                for number, message in fields(record):
                    if number == _HISTORY:
                        row = _items(message)
                        yield count, step_of(row, _STEPS), row
                    elif number == _CONFIG:
                        told.update(_items(message))
                    elif number == _RUN:
                        for inner, content in fields(message):
                            if inner == _RUN_CONFIG:
                                told.update(_items(content))
                            elif inner == _RUN_NAME:
                                run.name = content.decode("utf-8", "replace")[:200] or run.name
            except (ValueError, AttributeError, TypeError, struct.error):
                problems.add("a damaged record", count)

    fill(run, rows(), problems)
    take_settings(run, told)
    run.problems += problems.lines(path.name)
    return run
