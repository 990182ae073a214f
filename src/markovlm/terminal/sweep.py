"""A sweep while it runs, and what it came to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from markovlm.intervals import MISSING, estimate_text
from markovlm.terminal.console import stdout, table

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
        self.console.print(Text(message), soft_wrap=True)

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
    """Taken down whatever happens."""
    progress = SweepProgress(console, look)
    if progress.live is not None:
        progress.live.start()
    try:
        yield progress
    finally:
        if progress.live is not None:
            progress.live.stop()


def show_comparison(comparison: Any, metric: str, notes: Sequence[str] = ()) -> None:
    """Cells over their seeds, and against the reference."""
    console = stdout()
    rows = [
        [
            g.group,
            f"{len(g.seeds)}/{g.planned}",
            estimate_text(*g.score),
            _verdicts(g.verdicts),
            "" if g.seconds is None else f"{g.seconds:.0f}",
        ]
        for g in comparison.groups
    ]
    console.print(
        table(
            f"{metric} by cell (mean, 95 % interval over {_over(comparison.groups)})",
            ["cell", "seeds", metric, "verdicts", "s/run"],
            rows,
        )
    )
    if comparison.differences:
        against = [[d.group, str(d.seeds), estimate_text(*d.difference), _p(d.p_adjusted)] for d in comparison.differences]
        title = f"difference to {comparison.reference}, paired by seed (95 % interval over {_over(comparison.differences)})"
        console.print(table(title, ["cell", "seeds", "difference", "p (Holm)"], against))
    for note in notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)


def _over(rows: Sequence[Any]) -> str:
    """What the intervals of a table are over."""
    return " or ".join(dict.fromkeys(row.over for row in rows)) or "seeds"


def _p(p: float | None) -> str:
    return MISSING if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _verdicts(verdicts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())


def show_cells(rows: Sequence[Mapping[str, Any]], lines: Sequence[str]) -> None:
    """`markovlm sweep --dry-run`."""
    console = stdout()
    console.print(table("cells", ["run", "status"], [[row["name"], row["status"]] for row in rows]))
    for line in lines:
        console.print(Text(line), soft_wrap=True)
