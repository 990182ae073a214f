"""A run in progress on this process, its watchers, and what it records."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from markovlm.config import RunConfig
from markovlm.rollouts.types import Sampler
from markovlm.runs.directory import RunDirectory
from markovlm.runs.setup import Setup
from markovlm.tasks.base import Example
from markovlm.training.guard import Guard
from markovlm.training.questions import Questions
from markovlm.training.records import Learner


class Progress(Protocol):
    """What watches a run; every method may do nothing."""

    def start(self, steps: int, done: int) -> None: ...
    def step(self, row: dict[str, Any]) -> None: ...
    def evaluation(self, row: dict[str, Any]) -> None: ...
    def note(self, message: str) -> None: ...


class Silent:
    """Watches nothing."""

    def start(self, steps: int, done: int) -> None: ...
    def step(self, row: dict[str, Any]) -> None: ...
    def evaluation(self, row: dict[str, Any]) -> None: ...
    def note(self, message: str) -> None: ...


@dataclass(slots=True)
class Run:
    """A run in progress on this process."""

    directory: RunDirectory
    setup: Setup
    learner: Learner
    questions: Questions
    dev: list[Example]
    fingerprint: str
    progress: Progress  # silent on all processes but the main one
    guard: Guard
    best: dict[str, Any] | None = None
    trackers: Any = None
    step: int = 0  # last step that is whole
    saved: set[int] = field(default_factory=set[int])  # steps with a checkpoint
    interim: set[int] = field(default_factory=set[int])  # of these, saved only because the run ended there
    stop: threading.Event = field(default_factory=threading.Event)  # Ctrl-C
    asked_to_stop: Callable[[], bool] = field(default=lambda: False)  # a program that watches

    @property
    def config(self) -> RunConfig:
        return self.setup.config

    @property
    def evaluator(self) -> Sampler:
        """The sampler of evaluations, made as in `markovlm eval`: by the trainer's weights, whoever samples the CoTs of training."""
        return self.setup.sampler() if self.config.rollouts.foreign else self.learner.sampler

    @property
    def main(self) -> bool:
        return self.learner.world.is_main


def note_event(run: Run, kind: str, message: str, **details: Any) -> None:
    if run.main:
        run.directory.event(kind, run.step, message, **details)


def warn(run: Run, message: str) -> None:
    note_event(run, "warning", message)
    run.progress.note(message)
