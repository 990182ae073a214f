"""How far a run of a sweep is, read from its directory alone, so that a killed sweep finds everything there."""

from __future__ import annotations

import fcntl
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import parse_row, read_rows, replace_whole
from markovlm.sweeps.cells import Cell
from markovlm.sweeps.spec import FinalEvaluation

Status = Literal["pending", "running", "unfinished", "done", "stopped", "failed"]
_TAIL = 16_384  # bytes in which the last metric row is


@dataclass(slots=True)
class Layout:
    """The directory of a sweep."""

    path: Path

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def stop(self) -> Path:
        """While this file is there, runs end after their step, wherever they are."""
        return self.path / ".stop"

    def run(self, cell: Cell) -> Path:
        return self.path / "runs" / cell.name

    def config(self, cell: Cell) -> Path:
        return self.path / "cells" / f"{cell.name}.yaml"

    def evaluation(self, cell: Cell) -> Path:
        return self.path / "cells" / f"{cell.name}.eval.json"

    def log(self, cell: Cell) -> Path:
        """Standard output and error of the run's processes."""
        return self.path / "logs" / f"{cell.name}.log"

    @property
    def report(self) -> Path:
        return self.path / "report"


@dataclass(slots=True)
class CellProgress:
    """What a live table shows of a run."""

    status: Status
    step: int = 0
    steps: int = 0
    row: dict[str, Any] = field(default_factory=dict)  # the last metric row
    dev: float | None = None  # the last dev accuracy, or log-likelihood where there is none
    seconds: float | None = None  # a step, mean of the last rows


def status_of(layout: Layout, cell: Cell, asked: FinalEvaluation | None) -> Status:
    """`asked`: a finished run counts as done only with this evaluation beside it."""
    run = RunDirectory(layout.run(cell))
    if _is_locked(run.path / ".lock"):
        return "running"
    if not run.config.exists():
        return "pending"
    last = last_event(run.path)
    if last == "stopped":
        return "stopped" if is_evaluated(layout.evaluation(cell), asked) or not run.saved_steps() else "unfinished"
    saved = run.saved_steps()
    if last == "end" and saved and saved[-1] >= cell.config.training.steps:
        return "done" if is_evaluated(layout.evaluation(cell), asked) else "unfinished"
    return "unfinished"


def ended(path: Path) -> bool:
    """Whether the training of the run at `path` is over, by itself or stopped by its guard."""
    return last_event(path) in ("end", "stopped")


def last_event(path: Path) -> str | None:
    """The last event that says how a process of the run began or ended."""
    ends = {"start", "resume", "end", "interrupted", "stopped", "failed"}
    kinds = [row.get("kind") for row in read_rows(path / "events.jsonl") if row.get("kind") in ends]
    return kinds[-1] if kinds else None


def _is_locked(path: Path) -> bool:
    try:
        with open(path, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def progress_of(layout: Layout, cell: Cell, status: Status) -> CellProgress:
    """Reads the ends of the run's files only."""
    path = layout.run(cell)
    rows = _last_rows(path / "metrics.jsonl")
    made = CellProgress(status, 0, cell.config.training.steps)
    if rows:
        made.row, made.step = rows[-1], int(rows[-1].get("step", 0))
        times = [row["step_seconds"] for row in rows if isinstance(row.get("step_seconds"), int | float)]
        made.seconds = sum(times) / len(times) if times else None
    evals = [row for row in _last_rows(path / "evals.jsonl") if row.get("role") == "dev"]
    if evals:
        made.dev = evals[-1].get("accuracy") if evals[-1].get("accuracy") is not None else evals[-1].get("logprob")
    return made


def _last_rows(path: Path) -> list[dict[str, Any]]:
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL))
            lines = file.read().splitlines()
    except OSError:
        return []
    return [row for line in lines if (row := parse_row(line)) is not None]


def read_evaluation(path: Path) -> dict[str, Any] | None:
    """What `markovlm eval` found, where it was asked for."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def is_evaluated(path: Path, asked: FinalEvaluation | None) -> bool:
    """Whether the evaluation at `path` is the one asked for; not if it does not say what was asked (earlier versions)."""
    return asked is None or (read_evaluation(path) or {}).get("asked") == asked.model_dump(mode="json")


def write_evaluation(path: Path, asked: FinalEvaluation, report: dict[str, Any]) -> None:
    whole = {"asked": asked.model_dump(mode="json"), **report}
    replace_whole(path, (json.dumps(whole, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode())
