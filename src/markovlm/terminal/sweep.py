"""A sweep on the terminal, while it runs and when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from markovlm.present.table import table_of
from markovlm.sweeps.tables import compared
from markovlm.terminal.console import say, show, stdout

_EVERY = 1.0  # seconds between looks at the runs' files
_MOST = 16  # rows of the live table
_MARKS = {"running": "cyan", "done": "green", "failed": "red", "stopped": "yellow", "unfinished": "magenta", "pending": "dim"}
_SHOWN_FIRST = ("running", "failed", "unfinished", "pending", "stopped", "done")


class SweepProgress:
    """A live table of all runs; without a terminal a line whenever a run changes. `look` gives a run's progress by name and status."""

    def __init__(self, console: Console, look: Callable[[str, str], Any]):
        self.console, self.look = console, look
        self.live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self.before: dict[str, str] = {}
        self.last = 0.0
        self.began = time.perf_counter()

    def note(self, message: str) -> None:
        say(self.console, message)

    def update(self, statuses: Mapping[str, str]) -> None:
        now = dict(statuses)
        if self.live is None:
            self._say_changes(now)
        elif time.perf_counter() - self.last >= _EVERY:
            self.last = time.perf_counter()
            self.live.update(self._table(now))
        self.before = now

    def _say_changes(self, now: Mapping[str, str]) -> None:
        for name, status in now.items():
            if status != self.before.get(name, status if status in ("pending", "done", "stopped") else None):
                left = sum(other not in ("done", "stopped", "failed") for other in now.values())
                self.note(f"{name}: {status}{_said(self.look(name, status))}  ({left} of {len(now)} to go)")

    def _table(self, now: Mapping[str, str]) -> Group:
        made = Table(show_edge=False, pad_edge=False)
        for column in ("run", "status", "step", "reward", "dev", "s/step", "left"):
            made.add_column(column, justify="left" if column in ("run", "status") else "right", no_wrap=True, overflow="ellipsis")
        order = sorted(now, key=lambda name: _SHOWN_FIRST.index(now[name]))
        for name in order[:_MOST]:
            made.add_row(Text(name), Text(now[name], style=_MARKS[now[name]]), *_numbers(self.look(name, now[name])))
        count = {status: sum(other == status for other in now.values()) for status in _MARKS}
        said = "  ".join(f"{status} {count[status]}" for status in _SHOWN_FIRST if count[status])
        more = f"  (+{len(order) - _MOST} more)" if len(order) > _MOST else ""
        return Group(made, Text(f"{said}{more}  {time.perf_counter() - self.began:,.0f} s"))


def _numbers(progress: Any) -> list[Text]:
    row = progress.row
    reward = row.get("reward_mean")
    left = (
        (progress.steps - progress.step) * progress.seconds
        if progress.seconds is not None and progress.status == "running"
        else None
    )
    return [
        Text(f"{progress.step}/{progress.steps}"),
        Text("" if reward is None else f"{reward:+.3f}"),
        Text("" if progress.dev is None else f"{progress.dev:.3f}"),
        Text("" if progress.seconds is None else f"{progress.seconds:.2f}"),
        Text("" if left is None else f"{left:,.0f} s"),
    ]


def _said(progress: Any) -> str:
    dev = "" if progress.dev is None else f", dev {progress.dev:.3f}"
    return f" at step {progress.step}/{progress.steps}{dev}" if progress.step else ""


@contextmanager
def sweep_progress(console: Console, look: Callable[[str, str], Any]) -> Iterator[SweepProgress]:
    """A live table that is removed whatever happens."""
    progress = SweepProgress(console, look)
    if progress.live is not None:
        progress.live.start()
    try:
        yield progress
    finally:
        if progress.live is not None:
            progress.live.stop()


def show_comparison(comparison: Any, metric: str, notes: Sequence[str] = ()) -> None:
    """Print cells over their seeds, and against the reference."""
    console = stdout()
    for found in compared(comparison, metric):
        show(console, found)
    for note in notes:
        say(console, f"note: {note}")


def show_cells(rows: Sequence[Mapping[str, Any]], lines: Sequence[str]) -> None:
    """Print `markovlm sweep --dry-run`."""
    console = stdout()
    show(console, table_of("cells", "cells", rows, {"run": "name", "status": "status"}))
    for line in lines:
        say(console, line)
