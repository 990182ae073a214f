"""The run directory: append-only JSONL with stable keys, whole rows, and files that are replaced atomically (docs/run-directory.md)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from markovlm.content import check_regular, read_content
from markovlm.errors import UserError
from markovlm.runs.rows import CannotWrite, encode_rows, parse_row, replace_whole, writing

QUESTIONS_FILE = "questions.jsonl"  # of a run on questions that a program brought
ROW_FILES = ("metrics.jsonl", "samples.jsonl", "evals.jsonl")


class RunDirectory:
    """Paths and writes of one run. One process writes; any number may read at any time."""

    def __init__(self, path: Path):
        self.path = path
        self._lock: Any = None

    # ---- paths

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:06d}"

    def saved_steps(self) -> list[int]:
        """Steps of the intact checkpoints, ascending."""
        if not self.checkpoints.is_dir():
            return []
        names = (entry.name for entry in self.checkpoints.iterdir() if entry.is_dir())
        steps = {int(name[5:]) for name in names if re.fullmatch("step-[0-9]+", name)}
        return sorted(step for step in steps if self.checkpoint(step).is_dir())

    # ---- writing

    def create(self) -> None:
        """Make the directory. Raises UserError if it can't be made or already holds something."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--out {self.path}: is a file; name a new directory")
        if self.path.is_dir() and not self._never_began():
            raise UserError(
                f"--out {self.path}: is not empty; name a new directory, or continue the run with --resume {self.path}"
            )
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {self.path}: cannot be created: {error.strerror}") from None

    def _never_began(self) -> bool:
        """Empty, or left by a run that was killed before it wrote its configuration (it can't be resumed, so it may be replaced)."""
        before_config = {".lock", "checkpoints", QUESTIONS_FILE, "environment.json", ".environment.json.tmp", ".config.yaml.tmp"}
        return all(entry.name in before_config for entry in self.path.iterdir()) and not self.saved_steps()

    def discard(self) -> None:
        """Remove what `create` made, for a run that never began."""
        if self.config.exists():
            return
        (self.path / ".lock").unlink(missing_ok=True)
        (self.path / "environment.json").unlink(missing_ok=True)
        for folder in (self.checkpoints, self.path):
            with contextlib.suppress(OSError):  # not empty: somebody else's files stay
                folder.rmdir()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run for writing; a second process that trains the same run is refused."""
        with self._open_lock() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{self.path}: another process is training this run; wait for it, or name another --out"
                ) from None
            yield

    def _open_lock(self) -> TextIO:
        path = self.path / ".lock"
        try:
            if path.exists():
                check_regular(path)
            return open(path, "w")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise CannotWrite(path, error.errno, error.strerror or str(error)) from error
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror}), but training writes into the run directory: make it writable, or copy it "
                "to a writable place and continue it there"
            ) from None

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append whole rows to a JSONL file."""
        data = encode_rows(rows)
        if not data:
            return
        path = self.path / name
        with writing(path), contextlib.ExitStack() as stack:
            if path.exists():
                check_regular(path)
            file = stack.enter_context(open(path, "ab+"))
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                data = b"\n" + data  # behind a torn line: of a process that was killed, or of a full disk
            file.write(data)
            file.flush()

    def event(self, kind: str, step: int, message: str, **details: Any) -> None:
        """One row of events.jsonl."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.append("events.jsonl", [{"time": stamp, "step": step, "kind": kind, "message": message, **details}])

    def write(self, name: str, text: str) -> None:
        """Write a small file atomically."""
        replace_whole(self.path / name, text.encode("utf-8"))

    def cut_after(self, step: int) -> dict[str, int]:
        """Drop the rows past a checkpoint and a truncated last line. Returns file -> number of rows dropped."""
        dropped = {}
        for name in ROW_FILES:
            gone = self._take_after(name, step)
            if gone:
                dropped[name] = len(gone)
        self.mend_last_line("events.jsonl")
        return dropped

    def is_put_aside(self, number: int) -> bool:
        """Whether rollback NUMBER has its directory already."""
        return (self.path / "rollbacks" / str(number)).is_dir()

    def put_aside(self, step: int, number: int) -> None:
        """Move rows and checkpoints past `step` to rollbacks/NUMBER: the record of what went wrong."""
        aside = self.path / "rollbacks" / str(number)
        with writing(aside):
            (aside / "checkpoints").mkdir(parents=True, exist_ok=True)
        for name in ROW_FILES:
            gone = self._take_after(name, step)
            if gone:
                with writing(aside / name), open(aside / name, "ab") as file:
                    file.write(b"".join(gone))
        with writing(aside):
            for later in (saved for saved in self.saved_steps() if saved > step):
                place = aside / "checkpoints" / self.checkpoint(later).name
                shutil.rmtree(place, ignore_errors=True)  # of a rollback that was killed and is made again
                os.replace(self.checkpoint(later), place)

    def _take_after(self, name: str, step: int) -> list[bytes]:
        """Take the lines past `step` (and torn ones) out of a row file; returns them."""
        path = self.path / name
        kept: list[bytes] = []
        gone: list[bytes] = []
        for line in read_content(path).splitlines(keepends=True) if path.exists() else ():
            row = parse_row(line)
            whole = row is not None and line.endswith(b"\n") and isinstance(at := row.get("step", 0), int) and at <= step
            (kept if whole else gone).append(line)
        if gone:
            replace_whole(path, b"".join(kept))
        return gone

    def mend_last_line(self, name: str) -> None:
        path = self.path / name
        if path.exists() and not (data := read_content(path)).endswith(b"\n") and data:
            replace_whole(path, data[: data.rfind(b"\n") + 1])

    def clear_leftovers(self) -> None:
        """Remove half-written files and checkpoints of a killed process."""
        for folder in (self.path, self.checkpoints):
            if not folder.is_dir():
                continue
            for entry in folder.iterdir():
                if entry.name.startswith(".") and entry.name.endswith(".tmp"):
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def new_run_directory(label: str) -> Path:
    """runs/LABEL-DATE-TIME-XXXX"""
    return Path("runs") / f"{label}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
