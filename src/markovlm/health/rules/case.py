"""One run as the rules see it, and what a rule finds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from markovlm.health.samples import TEXT_KEYS, courses_of_samples, empty_stretches
from markovlm.health.series import (
    Course,
    base_evaluation,
    best_evaluation,
    course,
    evaluation_groups,
    evaluation_series,
    last_evaluation,
    reward_course,
)
from markovlm.health.verdict import Verdict
from markovlm.logs.records import Evaluation, RunData
from markovlm.tasks.chance import chance_level

Confidence = Literal["high", "medium", "low"]


Weight = Literal["note", "caution", "problem"]  # how much a finding should worry the reader


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a rule found: `evidence` is a sentence with the numbers in it."""

    rule: str
    evidence: str
    confidence: Confidence
    weight: Weight = "note"
    step: int | None = None
    advice: tuple[str, ...] = ()


@dataclass
class Case:
    """One run as the rules see it."""

    run: RunData
    verdict: Verdict
    checkpoints: tuple[int, ...] = ()  # steps that can be loaded

    @cached_property
    def series(self) -> list[Evaluation]:
        return evaluation_series(self.run)

    @cached_property
    def headline(self) -> list[Evaluation]:
        """The comparable evaluations on the most questions (of trained checkpoints, where there are any): a test of 500 speaks before a
        dev split of 100. Of equals the longest series."""
        groups = evaluation_groups(self.run)
        trained = [group for group in groups if last_evaluation(group)]
        return max(trained or groups, key=lambda group: max(e.n for e in group), default=[])

    @cached_property
    def base(self) -> Evaluation | None:
        return base_evaluation(self.headline)

    @cached_property
    def best(self) -> Evaluation | None:
        return best_evaluation(self.headline)

    @cached_property
    def last(self) -> Evaluation | None:
        return last_evaluation(self.headline)

    @cached_property
    def best_step(self) -> int | None:
        """The best checkpoint: by the series that shows the course, where that has two of them or more, else by the headline."""
        several = len({e.step for e in self.series if e.of_actor and e.step > 0}) > 1
        series = self.series if several else self.headline
        found = best_evaluation([e for e in series if not e.of_actor or self.safe_step(e.step) == e.step])
        return found.step if found else None

    @cached_property
    def chance(self) -> float | None:
        """Accuracy of guessing on the run's task."""
        return chance_level(self.run.task)

    @cached_property
    def reward(self) -> Course | None:
        return reward_course(self.run)

    def course(self, key: str) -> Course | None:
        """A metric's course; what only texts show is measured on the samples where no column has it."""
        found = course(self.run, key)
        return self.of_samples.get(key) if found is None and key in TEXT_KEYS else found

    @cached_property
    def of_samples(self) -> dict[str, Course]:
        """What the samples' texts say, where no column has it."""
        return courses_of_samples(self.run)

    @cached_property
    def stretches(self) -> list[tuple[int, int, str]]:
        """(first step, last step, rule) where the CoTs copy or ignore their questions: no checkpoint there is to be recommended."""
        return empty_stretches(self.course)

    def safe_step(self, step: int) -> int | None:
        """The step itself, or the last one before the stretches it lies in; None where there is none."""
        first = int(self.run.metrics["step"][0]) if self.run.steps else 0
        for _ in range(len(self.stretches) + 1):
            inside = [start for start, end, _ in self.stretches if start <= step <= end]
            if not inside:
                return step
            step = min(inside) - 1
        return step if step > first else None

    def setting(self, name: str) -> Any:
        return self.run.config.get(name)

    @property
    def collapsed(self) -> bool:
        return self.verdict.verdict == "collapsed"


def percent(value: float) -> str:
    """57.1 %"""
    return f"{100 * value:.1f} %"


def scored(e: Evaluation) -> str:
    """`57.1 % [54.4, 59.8], n = 1,319`"""
    s = e.score
    interval = f" [{100 * s.low:.1f}, {100 * s.high:.1f}]" if s.low is not None and s.high is not None else ""
    return f"{percent(s.accuracy)}{interval}, n = {e.n:,}"
