"""Rows of JSONL files: whole lines, stable keys, atomic files."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from markovlm.errors import RunFailed


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """A full disk or a lost permission ends the run with one line; what is written so far stays."""
    try:
        yield
    except OSError as error:
        raise RunFailed(
            f"{path}: cannot be written: {error.strerror or error}; finished work is kept, free space and --resume"
        ) from error


def replace_whole(path: Path, data: bytes) -> None:
    """Write a file beside and rename it into place: whole or not at all."""
    with writing(path):
        beside = path.with_name(f".{path.name}.tmp")
        beside.write_bytes(data)
        os.replace(beside, path)


def encode_rows(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as whole lines of JSONL."""
    text = "".join(json.dumps(clean(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    return text.encode("utf-8", errors="replace")


def clean(value: Any) -> Any:
    """JSON value of a row: a float that is not finite becomes null (the loop reports it as an event)."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def parse_row(line: bytes | str) -> dict[str, Any] | None:
    """A row of a JSONL file; None for a torn or foreign line."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All whole rows of a JSONL file; an absent file has none."""
    if not path.exists():
        return []
    return [row for line in path.read_bytes().splitlines() if (row := parse_row(line)) is not None]
