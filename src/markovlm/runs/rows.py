"""Rows of JSONL files: whole lines, stable keys, atomic files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from markovlm.content import read_content, system_error
from markovlm.errors import RunFailed


class CannotWrite(RunFailed):
    """A full disk, a lost permission: nothing is half-written, and what was finished before is kept."""

    def __init__(self, path: Path, number: int | None, reason: str):
        where = "free space" if number in (errno.ENOSPC, errno.EDQUOT) else "make it writable, or name another place,"
        self.failure = f"{path}: cannot be written: {reason}"
        self.remedy = where if number in _REMEDIES else "mend that"
        super().__init__(f"{self.failure}; {self.remedy} and run the command again: it goes on from what it has finished")


_REMEDIES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """A full disk or a lost permission ends the command with one line (CannotWrite); what is written so far stays."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(path, error.errno, error.strerror or str(error)) from error
    except Exception as error:  # safetensors and tokenizers put the system's error into words of their own
        found = system_error(error)
        if found is None:
            raise
        raise CannotWrite(path, found.errno, found.strerror or str(error)) from error


def replace_whole(path: Path, data: bytes) -> None:
    """Write a file beside and rename it into place: whole or not at all, also where several processes write the same file."""
    with writing(path):
        beside = path.with_name(f".{path.name}.tmp")
        with _alone(beside) as file:
            try:
                file.write(data)
                file.flush()
                os.replace(beside, path)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """The file, emptied, for this process alone: another one waits, and then makes a new one."""
    while True:
        with open(path, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    file.truncate(0)
                    yield file
                    return


@contextlib.contextmanager
def whole_directory(final: Path) -> Iterator[Path]:
    """A directory to be filled, beside `final` and renamed to it at the end: whole or not at all.

    What a killed call left there is removed first, and what a failed one made; CannotWrite as in `writing`.
    """
    beside = final.with_name(f".{final.name}.tmp")
    with writing(final):
        shutil.rmtree(beside, ignore_errors=True)
        try:
            beside.mkdir(parents=True)
            yield beside
            for path in beside.iterdir():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
            os.replace(beside, final)  # an empty directory may be there
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)  # half a checkpoint must not fill the disk
            raise


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
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All whole rows of a JSONL file; an absent file has none. OSError for what is no file."""
    if not path.exists():
        return []
    return [row for line in read_content(path).splitlines() if (row := parse_row(line)) is not None]
