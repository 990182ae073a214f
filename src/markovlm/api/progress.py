"""The progress bar of `markovlm.train` in a terminal or a notebook."""

from __future__ import annotations

import os
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def is_watched() -> bool:
    """Whether there is a terminal or a notebook, and this is the main process."""
    return os.environ.get("RANK", "0") == "0" and (sys.stderr.isatty() or "ipykernel" in sys.modules)


class ShownProgress:
    """A bar with steps, reward, share of right answers, and the last accuracy on dev questions."""

    def __init__(self) -> None:
        columns = (TextColumn("train"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, TextColumn("{task.fields[state]}", markup=False), console=Console(stderr=True))
        self.task, self.steps, self.dev = self.bar.add_task("train", start=False, state=""), 0, ""

    def start(self, steps: int, done: int) -> None:
        self.steps = steps
        self.bar.update(self.task, total=steps, completed=done)
        self.bar.start_task(self.task)
        self.bar.start()

    def step(self, row: dict[str, Any]) -> None:
        state = f"reward {row['reward_mean']:+.3f}  right {row['answer_correct_fraction']:.2f}{self.dev}"
        self.bar.update(self.task, completed=row["step"], state=state)
        if row["step"] == self.steps:
            self.stop()

    def evaluation(self, row: dict[str, Any]) -> None:
        self.dev = f"  dev {row['logprob'] if row['accuracy'] is None else row['accuracy']:.3f}"

    def note(self, message: str) -> None:
        self.bar.console.print(message.replace("\x1b", "␛"), markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        self.bar.stop()
