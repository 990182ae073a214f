"""Rows of JSONL files: whole lines, stable keys, files replaced atomically."""

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
    """A full disk or a missing permission. Nothing is half-written, and what was finished before is kept."""

    def __init__(self, path: Path, number: int | None, reason: str):
        where = "free space" if number in (errno.ENOSPC, errno.EDQUOT) else "make it writable, or name another place,"
        self.failure = f"{path}: cannot be written: {reason}"
        self.remedy = where if number in _REMEDIES else "fix this"
        super().__init__(f"{self.failure}; {self.remedy} and run the command again; it continues from what is finished")


_REMEDIES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into an error of one line (CannotWrite); what is written so far is kept."""
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
    """Write a file to a temporary name and rename it into place: atomic, even if several processes write the same file."""
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
    """A directory to be filled under a temporary name and renamed to `final` at the end, so that it appears complete or not at all.
    Leftovers of a killed call are removed first, those of a failed one at its end. Raises CannotWrite as `writing` does.
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
    """The JSON value of a row: a float that is not finite becomes null (the training loop reports it as an event)."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def parse_row(line: bytes | str) -> dict[str, Any] | None:
    """Parse one row of a JSONL file; None for a truncated or foreign line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All whole rows of a JSONL file; none if the file is absent. Raises OSError if the path is not a file."""
    if not path.exists():
        return []
    return [row for line in read_content(path).splitlines() if (row := parse_row(line)) is not None]
