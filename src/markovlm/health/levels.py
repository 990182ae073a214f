"""Levels of a run as means over windows with standard errors, for the table of runs and for milestones.

    levels(course(run, "answer_logprob")).end   # Level(mean=-0.31, error=0.02, rows=30, first_step=271, last_step=300)

Start and end are the first and the last tenth of the rows (at least ten where there are forty), best is the best window of
that length; standard errors allow for autocorrelation. Where a run has fewer than three rows in a window there is no error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from markovlm.health.series import Course, Floats, course, noise, window_means
from markovlm.health.trend import Persistence, persistence
from markovlm.logs.records import RunData
from markovlm.logs.schema import METRIC


@dataclass(frozen=True, slots=True)
class Level:
    """The mean of neighbouring rows. `error` is its standard error, `spread` the standard deviation of its rows; None where too few."""

    mean: float
    error: float | None
    spread: float | None
    rows: int
    first_step: int
    last_step: int

    def as_json(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "standard_error": self.error,
            "standard_deviation": self.spread,
            "rows": self.rows,
            "first_step": self.first_step,
            "last_step": self.last_step,
        }


@dataclass(frozen=True, slots=True)
class Levels:
    """Where a signal began, was best, and ended. `best` is the highest of many windows, so luck has raised it a little."""

    start: Level
    best: Level
    end: Level

    def as_json(self) -> dict[str, Any]:
        return {"start": self.start.as_json(), "best": self.best.as_json(), "end": self.end.as_json()}


def window_of(n: int) -> int:
    """Rows of a window in a course of `n`: a tenth, at least ten where that leaves four windows."""
    return max(1, min(max(10, n // 10), n // 4))


def level(c: Course, start: int, end: int, memory: Persistence | None = None) -> Level:
    """The rows `start` to `end` (exclusive) of a course as a level. `memory`: of the course, where it is known."""
    values = c.values[start:end]
    spread = float(values.std(ddof=1)) if len(values) > 2 else None
    error = None if len(values) < 3 else (memory or memory_of(c)).mean_error(values)
    if error == 0.0 and values[0] in (0.0, 1.0) and c.key in METRIC and METRIC[c.key].unit == "fraction":
        n = len(values)  # none or all of n: as if two more rows, one of each kind, had been seen (Agresti & Coull 1998)
        error = math.sqrt((n + 1) / (n + 2) / (n + 2)) / math.sqrt(n + 2)
    return Level(float(values.mean()), error, spread, len(values), int(c.steps[start]), int(c.steps[end - 1]))


def memory_of(c: Course) -> Persistence:
    """How long its rows remember; fewer than eight can't show it."""
    return persistence(c.values) if len(c) >= 8 else Persistence(0.0)


def window_error(c: Course, window: int) -> float:
    """Standard error of the mean of a window of a course that may change its level: the noise of a row and how long rows remember, both without
    the course's jumps (which `memory_of` takes for memory)."""
    steps = np.diff(c.values)
    most = 2.5 * max(noise(c.values), 0.25 * float(np.std(steps)) / math.sqrt(2.0)) * math.sqrt(2.0)
    clipped = np.clip(steps, -most, most)
    rho = memory_of(Course(c.key, c.steps, np.concatenate(([0.0], np.cumsum(clipped))))).rho
    spread = float(np.std(clipped)) / math.sqrt(2.0 * max(1.0 - rho, 0.02))  # of neighbours that remember each other
    f = ((1.0 + rho) / (1.0 - rho) - 2.0 * rho * (1.0 - rho**window) / (window * (1.0 - rho) ** 2)) / window
    return max(spread * math.sqrt(f), 1e-9)


def surely_above(c: Course, high: Floats, low: Floats) -> bool:
    """Is one stretch of a course above another, by five standard errors of the means, or row by row? A slow change looks like noise that rows share,
    so means alone would miss it; five, as one of the two is often the best of several."""
    error = math.hypot(window_error(c, len(high)), window_error(c, len(low)))
    return float(high.mean() - low.mean()) > 5.0 * error or bool(high.min() > low.max())


def levels(c: Course) -> Levels:
    """Start, best and end of a course (of one finite value or more)."""
    n, window = len(c), window_of(len(c))
    means = window_means(c.values, window)
    best = int(np.argmax(means))
    memory = memory_of(c)
    return Levels(level(c, 0, window, memory), level(c, best, best + window, memory), level(c, n - window, n, memory))


# --- milestones --------------------------------------------------------------------------------------------------------


def milestone_levels(run: RunData, key: str, steps: Sequence[int]) -> list[Level | None]:
    """The level of a metric around each step: a twentieth of its rows, at least five; None if it has no value.

    Windows at the ends of a course are shifted inwards, not cut. Under forty rows a level is the one nearest row.
    """
    c = course(run, key)
    if c is None:
        return [None] * len(steps)
    n = len(c)
    window, memory = max(5, n // 20) if n >= 40 else 1, memory_of(c)
    found: list[Level | None] = []
    for step in steps:
        at = int(np.argmin(np.abs(c.steps - step)))
        start = min(max(0, at - window // 2), n - window)
        found.append(level(c, start, start + window, memory))
    return found
