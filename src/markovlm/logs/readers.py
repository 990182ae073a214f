"""What a reader of logs is, ours or a plug-in's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markovlm.logs.records import RunData
from markovlm.registry import READERS


@dataclass(frozen=True, slots=True)
class LogReader:
    """Recognises files of one kind by content, and reads them."""

    name: str
    recognises: Callable[[Path, Sequence[Mapping[str, Any]]], bool]  # path, its first JSON objects
    read: Callable[[Path, int], RunData]  # path, samples to keep at most


def reader_of(path: Path, first_rows: Sequence[Mapping[str, Any]]) -> LogReader | None:
    """The plug-in that knows this file, if one does."""
    return next((found for found in READERS.usable().values() if found.recognises(path, first_rows)), None)
