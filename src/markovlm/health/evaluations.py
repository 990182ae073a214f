"""Accuracies measured on the way (dev evaluations): the best signal there is of a fall, and of a run that is rising.

An accuracy is k of n questions, so its noise is known and nothing has to be estimated. A fall is the difference between the best evaluation and
the last one to three pooled: a warning at z of 3, a collapse where the 99 % Wilson interval of the last lies under half of that of the best
(the best of m evaluations is lucky: its interval is at 1 - 0.01 / m).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from markovlm.health.verdict import Evidence, Level
from markovlm.statistics import two_rates_z, wilson

SIGNAL = "dev_accuracy"
POOLED = 3
WARN_Z = 3.0
RISING_Z = 2.0
SOLVED = 0.75
LEAST_N = 20  # questions


@dataclass(frozen=True, slots=True)
class Measured:
    """One evaluation."""

    step: int
    accuracy: float
    n: int


def _z(a: Measured, b: Measured) -> float:
    return two_rates_z(a.accuracy, a.n, b.accuracy, b.n)


class Evaluations:
    """The evaluations of one run in step order."""

    def __init__(self) -> None:
        self.rows: list[Measured] = []

    def add(self, step: int, accuracy: float, n: int) -> None:
        """Take one more; a step that is there already (a resumed run) is replaced, later ones are dropped."""
        self.rows = [row for row in self.rows if row.step < step]
        if n > 0 and 0.0 <= accuracy <= 1.0:
            self.rows.append(Measured(step, accuracy, n))

    def cut(self, step: int) -> None:
        """Forget what was measured after `step`: the run went back there."""
        self.rows = [row for row in self.rows if row.step <= step]

    @property
    def best(self) -> Measured | None:
        """The best so far, the latest of equals."""
        return max(self.rows, key=lambda row: (row.accuracy, row.step), default=None)

    def evidence(self) -> Evidence | None:
        """A fall from the best evaluation, with the steps between which it began."""
        best = self.best
        after = [row for row in self.rows if best is not None and row.step > best.step]
        if best is None or not after:
            return None
        bound = wilson(best.accuracy * best.n, best.n, 1.0 - 0.01 / len(self.rows)).low / 2.0
        for level in ("collapsed", "warn"):
            for m in range(1, min(POOLED, len(after)) + 1):
                if self._fallen(level, best, after[-m:], bound):
                    first = self._first_below(level, best, after)
                    before = [row.step for row in self.rows if row.step < first.step]
                    return Evidence(
                        SIGNAL, first.step, first.accuracy, bound if level == "collapsed" else best.accuracy, level, "evaluation_fell",
                        onset=(max([best.step, *(s for s in before if s >= best.step)]) + 1, first.step),
                    )  # fmt: skip
        return None

    @staticmethod
    def _fallen(level: Level, best: Measured, last: list[Measured], bound: float) -> bool:
        n, right = sum(row.n for row in last), sum(row.accuracy * row.n for row in last)
        if level == "collapsed":
            return wilson(right, n, 0.99).high < bound and last[-1].accuracy < 0.5 * best.accuracy
        return _z(best, Measured(last[-1].step, right / n, n)) > WARN_Z and last[-1].accuracy < best.accuracy

    @staticmethod
    def _first_below(level: Level, best: Measured, after: list[Measured]) -> Measured:
        """The first evaluation of the fall: from it on all lie surely under the best (under half of it, for a collapse)."""
        first = after[-1]
        for row in reversed(after):
            below = level == "collapsed" and row.accuracy < 0.5 * best.accuracy
            if not (below or _z(best, row) > WARN_Z):
                break
            first = row
        return first

    @property
    def rising(self) -> bool:
        """Has accuracy risen, beyond noise, from the lowest of the evaluations since the best one (or since the first) to the last?

        The last evaluation must be the highest since that low: a run that has turned down again is not rising.
        """
        if len(self.rows) < 2:
            return False
        last, best = self.rows[-1], self.best
        assert best is not None
        since = self.rows[:-1] if best is last else [row for row in self.rows[:-1] if row.step >= best.step]
        low = min(since, key=lambda row: row.accuracy)
        after = [row for row in self.rows if row.step > low.step]
        if low.accuracy >= last.accuracy or any(row.accuracy > last.accuracy for row in after):
            return False
        return _z(last, low) > RISING_Z

    def standing(self) -> Literal["solved", "gained"] | None:
        """What the last evaluation says of the run: answers are right, or surely more often than at the first; None where neither."""
        if not self.rows:
            return None
        if self.rows[-1].accuracy >= SOLVED and self.rows[-1].n >= LEAST_N:
            return "solved"
        return "gained" if _z(self.rows[-1], self.rows[0]) > RISING_Z else None

    def state(self) -> list[list[Any]]:
        return [[row.step, row.accuracy, row.n] for row in self.rows]

    def load(self, state: list[list[Any]]) -> None:
        self.rows = [Measured(*row) for row in state]


def independent(n: int, texts: int | None) -> int:
    """How many independent questions an accuracy of `n` questions rests on.

    Chains ask several questions of one text, which stand or fall with its states: there a text counts once.
    """
    return n if texts is None else min(n, texts)
