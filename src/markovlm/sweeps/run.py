"""A sweep from its first cell to its report. Its whole state is on disk: started again, it continues."""

from __future__ import annotations

import contextlib
import fcntl
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from markovlm.content import one_line
from markovlm.errors import UserError
from markovlm.runs.rows import encode_rows, replace_whole, writing
from markovlm.sweeps.cells import Cell, expand, in_names
from markovlm.sweeps.checks import check_evaluation, doubts, reference_of
from markovlm.sweeps.engines import Engine, Job, build_engine
from markovlm.sweeps.spec import SweepSpec, read_spec
from markovlm.sweeps.state import Layout, ended, status_of

POLL = 0.2  # seconds
BAD_INPUT, STOPPED = 2, 3  # exit codes of `markovlm train`


class SweepWatcher(Protocol):
    """What watches a sweep."""

    def update(self, statuses: Mapping[str, str]) -> None: ...
    def note(self, message: str) -> None: ...


@dataclass(slots=True)
class Sweep:
    """A sweep in its directory."""

    spec: SweepSpec
    path: Path
    cells: list[Cell]
    layout: Layout
    reference: str  # the group that others are compared with
    messages: dict[str, str] = field(default_factory=dict)  # name -> the last line of a failed run


@dataclass(frozen=True, slots=True)
class SweepResult:
    """How each cell ended; `as_json` is what `markovlm sweep --json` prints."""

    sweep: Sweep
    statuses: Mapping[str, str]  # cell name -> status
    seconds: float
    interrupted: bool
    report: Path | None = None  # the page that compares cells
    runs_report: Path | None = None  # the report on all runs

    def with_report(self, page: Path, runs_report: Path | None) -> SweepResult:
        return replace(self, report=page, runs_report=runs_report)

    def as_json(self) -> dict[str, Any]:
        """Names, statuses, directories and values of all cells, and where the pages are."""
        layout = self.sweep.layout
        return {
            "cells": [
                {
                    "name": cell.name,
                    "status": self.statuses[cell.name],
                    "run": str(layout.run(cell)),
                    "values": cell.to_json(),
                    "group": cell.group,
                    "message": self.sweep.messages.get(cell.name),
                }
                for cell in self.sweep.cells
            ],
            "report": None if self.report is None else str(self.report),
            "runs_report": None if self.runs_report is None else str(self.runs_report),
            "interrupted": self.interrupted,
            "seconds": round(self.seconds, 3),
        }


def open_sweep(path: Path, out: Path | None, over: Mapping[str, Any] | None = None) -> Sweep:
    """Read and check SWEEP.yaml; nothing is written. `out`: default runs/NAME-sweep, the same at every call."""
    spec = read_spec(path)
    cells = expand(spec, path, over)
    check_evaluation(spec, cells, path)
    layout = Layout(out or Path("runs") / f"{path.stem}-sweep")
    return Sweep(spec, path, cells, layout, reference_of(spec, cells, path))


def part_of(sweep: Sweep, words: Sequence[str]) -> Sweep:
    """The cells whose names contain all of `words`, which may be written as in the sweep's file (`lr=linear 1e-3 -> 0`), in the same
    directory; all where there are none. Raises UserError if no cell is left.
    """
    cells = [cell for cell in sweep.cells if all(word in cell.name or in_names(word) in cell.name for word in words)]
    if not cells:
        raise UserError(f"--only {' '.join(words)}: no cell has such a name; the first is {sweep.cells[0].name}")
    return replace(sweep, cells=cells)


def run_sweep(
    sweep: Sweep, *, engine: str | Engine = "local", jobs: int | None = None, watcher: SweepWatcher | None = None
) -> SweepResult:
    """Run what is not done yet. Ctrl-C (or SIGTERM) ends the running ones after their step; the same call continues.

    Raises UserError if another process works on the same directory.
    """
    started = time.perf_counter()
    layout, watch = sweep.layout, watcher or _Nobody()
    _check_place(layout)
    made = build_engine(engine, sweep.spec.resources, jobs) if isinstance(engine, str) else engine
    with contextlib.closing(made):
        _prepare(layout)
        with _locked(layout):
            layout.stop.unlink(missing_ok=True)
            _write_cells(sweep)
            try:
                with _interruptible(layout, made, watch) as asked:
                    statuses = _Scheduler(sweep, made, watch, asked).work()
            finally:
                made.close()  # waits for its jobs while the stop file still asks them to end
                layout.stop.unlink(missing_ok=True)
    interrupted = asked.is_set()
    return SweepResult(sweep, statuses, time.perf_counter() - started, interrupted)


class _Nobody:
    def update(self, statuses: Mapping[str, str]) -> None: ...
    def note(self, message: str) -> None: ...


class _Scheduler:
    """Cells in order, first come first served; a failed one is continued once the others had their turn."""

    def __init__(self, sweep: Sweep, engine: Engine, watch: SweepWatcher, asked: threading.Event):
        self.sweep, self.engine, self.watch, self.asked = sweep, engine, watch, asked
        self.by_name = {cell.name: cell for cell in sweep.cells}
        self.statuses: dict[str, str] = {}
        self.queue: list[str] = []
        self.tries: dict[str, int] = {}
        self.running: set[str] = set()

    def work(self) -> dict[str, str]:
        for cell in self.sweep.cells:
            status = self._status(cell)
            self.statuses[cell.name] = status
            if status not in ("done", "stopped"):
                self.queue.append(cell.name)
        done = len(self.sweep.cells) - len(self.queue)
        if done:
            self.watch.note(f"{done} of {len(self.sweep.cells)} cells are done already")
        again = sum(self._is_owed_another_evaluation(self.by_name[name]) for name in self.queue)
        if again:
            self.watch.note(
                f"{again} of {len(self.sweep.cells)} cells are trained already; they are evaluated again because `evaluate` has changed"
            )
        for doubt in doubts(self.sweep.spec, self.sweep.cells):
            self.watch.note(doubt)
        while self.running or (self.queue and not self.asked.is_set()):
            self._start_some()
            for name, code in self.engine.poll():
                self._ended(name, code)
            self.watch.update({name: self._shown(name) for name in self.statuses})
            time.sleep(POLL)
        return self.statuses

    def _status(self, cell: Cell) -> str:
        return status_of(self.sweep.layout, cell, self.sweep.spec.evaluate)

    def _is_owed_another_evaluation(self, cell: Cell) -> bool:
        return ended(self.sweep.layout.run(cell)) and self.sweep.layout.evaluation(cell).exists()

    def _shown(self, name: str) -> str:
        return "running" if name in self.running else self.statuses[name]

    def _start_some(self) -> None:
        for name in list(self.queue):
            if self.asked.is_set() or not self.engine.free():
                return
            cell = self.by_name[name]
            if self._status(cell) == "running":
                continue  # an orphan of a sweep that was killed: it ends by itself after its step
            self.queue.remove(name)
            self.running.add(name)
            self._event(cell, "start", attempt=self.tries.get(name, 0) + 1)
            self.engine.start(_job(self.sweep, cell))

    def _ended(self, name: str, code: int) -> None:
        cell = self.by_name[name]
        self.running.discard(name)
        status: str = self._status(cell)
        failed = code not in (0, STOPPED)
        if failed:
            message = _reason(code, self.sweep.layout.log(cell))
            self.tries[name] = self.tries.get(name, 0) + 1
            again = self.tries[name] <= self.sweep.spec.retries and code != BAD_INPUT and not self.asked.is_set()
            if again:
                self.queue.append(name)
                self.watch.note(f"{name}: {message}; continued from its last checkpoint (try {self.tries[name] + 1})")
            elif not self.asked.is_set() or code in (1, BAD_INPUT):
                status = "failed"
                self.sweep.messages[name] = message
                self.watch.note(f"{name}: failed: {message} (log: {self.sweep.layout.log(cell)})")
        elif status in ("pending", "unfinished") and not self.asked.is_set():
            status = "failed"  # it says it is done and is not
            self.sweep.messages[name] = "ended before its last step"
        self.statuses[name] = status
        self._event(cell, "end", code=code, status=status)

    def _event(self, cell: Cell, kind: str, **details: Any) -> None:
        row = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "cell": cell.name, "kind": kind, **details}
        path = self.sweep.layout.path / "events.jsonl"
        with writing(path), open(path, "ab") as file:
            file.write(encode_rows([row]))


def _job(sweep: Sweep, cell: Cell) -> Job:
    layout = sweep.layout
    command = [sys.executable, "-m", "markovlm", "sweep-cell", str(layout.config(cell)), "--out", str(layout.run(cell))]
    command += ["--stop-file", str(layout.stop)]
    if sweep.spec.evaluate is not None:
        command += ["--evaluate", json.dumps(sweep.spec.evaluate.model_dump()), "--evaluation", str(layout.evaluation(cell))]
    return Job(cell.name, command, layout.log(cell))


def _reason(code: int, log: Path) -> str:
    """Why a run failed: what it said last, unless it was killed and had no say."""
    if code == -signal.SIGKILL:
        return "killed by signal 9 (out of memory?)"
    if code < 0:
        known = -code in set(signal.Signals)
        return f"killed by signal {-code}" + (f" ({signal.Signals(-code).name})" if known else "")
    return _last_line(log) or f"ended with code {code}"


def _last_line(log: Path) -> str:
    """What a failed run said last, printable and short."""
    try:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    said = [line for line in lines if line.startswith("markovlm")] or lines
    return one_line(said[-1], 300).removeprefix("markovlm: ") if said else ""


def _check_place(layout: Layout) -> None:
    if layout.path.is_file():
        raise UserError(f"--out {layout.path}: is a file; name a directory")
    if layout.path.is_dir() and any(layout.path.iterdir()) and not (layout.path / "cells").is_dir():
        raise UserError(f"--out {layout.path}: is not empty and not a sweep; name a new directory")


def _prepare(layout: Layout) -> None:
    try:
        for folder in (layout.path, layout.path / "runs", layout.path / "cells", layout.path / "logs"):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {layout.path}: cannot be created: {error.strerror}") from None


def _write_cells(sweep: Sweep) -> None:
    for cell in sweep.cells:
        path = sweep.layout.config(cell)
        if not path.exists():  # the name carries a fingerprint: what is there is the same
            replace_whole(path, cell.yaml().encode())


@contextlib.contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    with open(layout.lock, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{layout.path}: another sweep is running here; wait for it, or name another --out") from None
        yield


@contextlib.contextmanager
def _interruptible(layout: Layout, engine: Engine, watch: SweepWatcher) -> Iterator[threading.Event]:
    """The first signal asks all runs to end after their step, with a checkpoint; a second one ends them at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: Any) -> None:
        if asked.is_set():
            engine.kill()
            return
        asked.set()
        layout.stop.touch()
        watch.note("stopping: runs end after the current step; the same command continues")

    before: dict[int, Any] = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def watch_parent(stop_file: Path, ask: Callable[[], None], parent: int, alive: Callable[[], int], every: float = 0.5) -> None:
    """In a run's process: call `ask` once when the sweep's process is gone or `stop_file` appears. Never returns before."""
    while alive() == parent and not stop_file.exists():
        time.sleep(every)
    ask()


def statuses_of(sweep: Sweep) -> dict[str, str]:
    """As they are on disk."""
    return {cell.name: status_of(sweep.layout, cell, sweep.spec.evaluate) for cell in sweep.cells}
