"""The terminal: tables and results go to standard output, progress and notes to standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from markovlm.present import table as present
from markovlm.terminal.plain import printable

_SAID_EVERY = 30.0  # seconds, where there is no terminal
_LINES = 10  # progress lines a run where there is no terminal


class PlainConsole(Console):
    """A console on which text is only text: control characters are made visible instead of being sent (`printable`)."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control or text == (safe := printable(text)) else Segment(safe, style)


def stderr() -> Console:
    """The console for notes and progress."""
    return PlainConsole(stderr=True, highlight=False)


def stdout() -> Console:
    """The console for results; wide enough for tables if it is not a terminal."""
    return PlainConsole(highlight=False, width=None if sys.stdout.isatty() else 120)


def say(console: Console, text: str) -> None:
    """Print a line as text, never as markup."""
    console.print(Text(text), soft_wrap=not console.is_jupyter)  # a notebook wraps no line itself


def as_text(found: present.Table) -> Group:
    """A table for the console; columns of numbers are right-aligned, empty cells grey.

    Cells are text and never markup. A title of the table itself would wrap at the table's width.
    """
    made = Table(show_edge=False, pad_edge=False)
    for name, kind in found.headings:
        made.add_column(Text(name), justify="right" if kind == "number" else "left")
    for row in found.rows:
        made.add_row(*(Text(cell.text, style="dim" if "null" in cell.kind else "") for cell in row))
    return Group(*([Text(found.title)] if found.title else []), made)


def show(console: Console, found: present.Table) -> None:
    """Print a table with its note."""
    console.print(as_text(found))
    if found.note:
        say(console, found.note)


class TrainingProgress:
    """Live reward, accuracy, KL, tokens per second and time left; lines instead of a bar if there is no terminal."""

    def __init__(self, console: Console):
        self.console = console
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("train"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task: TaskID | None = None
        self.steps = 0
        self.began = time.perf_counter()
        self.first = 0
        self.dev = ""

    def start(self, steps: int, done: int) -> None:
        self.steps, self.first, self.began = steps, done, time.perf_counter()
        self.task = self.bar.add_task("train", total=steps, completed=done, state="")
        self.bar.start()

    def step(self, row: dict[str, Any]) -> None:
        step = row["step"]
        state = (
            f"reward {row['reward_mean']:+.3f}  right {row['answer_correct_fraction']:.2f}{self.dev}  "
            f"KL {row['kl']:.3f}  {row['tokens_per_second']:,.0f} tok/s"
        )
        if self.task is not None:
            self.bar.update(self.task, completed=step, state=state)
        if not self.console.is_terminal and (step % max(1, self.steps // _LINES) == 0 or step == self.steps):
            left = (time.perf_counter() - self.began) / max(1, step - self.first) * (self.steps - step)
            say(self.console, f"step {step}/{self.steps}  {state}  {left:.0f} s left")
        if step == self.steps:
            self.stop()

    def evaluation(self, row: dict[str, Any]) -> None:
        none = row["accuracy"] is None  # a task judged by log-likelihood
        self.dev = f"  dev {row['logprob'] if none else row['accuracy']:.3f}"
        result = f"log-likelihood {row['logprob']:.3f}" if none else f"accuracy {present.scored_cell(row, 'accuracy').text}"
        self.note(f"step {row['step']}: {row['split']} {result} (n={row['n']})")

    def note(self, message: str) -> None:
        say(self.console, message)

    def stop(self) -> None:
        self.bar.stop()


@contextmanager
def training_progress(console: Console) -> Iterator[TrainingProgress]:
    """A progress display that is removed whatever happens."""
    progress = TrainingProgress(console)
    try:
        yield progress
    finally:
        progress.stop()


class _Lines:
    """What a bar would show, as a line every half minute."""

    def __init__(self, console: Console, label: str, total: int):
        self.console, self.label, self.total = console, label, total
        self.done, self.said = 0, time.perf_counter()

    def __call__(self, done: int) -> None:
        self.done += done
        now = time.perf_counter()
        if now - self.said >= _SAID_EVERY:
            self.said = now
            say(self.console, f"{printable(self.label)}: {self.done}/{self.total}")


@contextmanager
def counting(console: Console, label: str, total: int) -> Iterator[Any]:
    """A bar that is called with the number of items just done; without a terminal, a line now and then for work that takes long."""
    if not console.is_terminal:
        yield _Lines(console, label, total)
        return
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True,
    )  # fmt: skip
    task = bar.add_task(label, total=total)
    with bar:
        yield lambda done: bar.advance(task, done)
