"""Which of other people's formats a file is in, told by content, and its reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from markovlm.logs.console import looks_printed, read_console
from markovlm.logs.records import RunData
from markovlm.logs.trainer_state import is_trainer_state, read_trainer_state

HEAD = 1 << 16  # bytes that tell most kinds


def reader_for(path: Path) -> Callable[[Path], RunData] | None:
    """The reader of a file; None where it is of no known kind. Raises OSError where it can't be read."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not head.strip():
        return None
    if is_trainer_state(head):
        return read_trainer_state
    if b"\0" not in head[:4096] and looks_printed(path):
        return read_console
    return None


_SUFFIXES = (".json", ".log", ".txt", ".out", ".err")  # in a directory only these are opened to look what they are


def is_external(path: Path) -> bool:
    """Is a file found in a directory a log of others?"""
    if not path.name.endswith(_SUFFIXES):
        return False
    try:
        return reader_for(path) is not None
    except OSError:
        return False


def read_external(path: Path, max_samples: int) -> RunData | None:
    """One log of others as a run; None where it is none."""
    reader = reader_for(path)
    return None if reader is None else reader(path)
