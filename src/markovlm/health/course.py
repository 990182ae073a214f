"""The state of one signal: early level, noise, averages, the best of them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from markovlm.health.thresholds import Measure

MIN_ROWS = 4  # fewer rows than this say nothing about a course of training
EARLY_ROWS = 10  # the run's early level: mean of its first ten rows (of the first half while there are fewer than twenty)


CLAMP = 1e9  # finite but absurd values must not drown sums
FAST, _MIDDLE, _SLOW = 3, 10, 100  # windows: median of 3, means of 10 and 100 rows
_MARGIN = 4.0  # standard errors allowed for noise
_CHANCE = 1e-3  # that ten rows are as low as they are although nothing has changed


class Course:
    """The course of one log-prob, reward or fraction: early level, noise, levels over 3, 10 and 100 rows, the best of each."""

    __slots__ = (
        "best_middle", "best_slow", "bounded", "diff_n", "diff_sq", "early", "early_n", "fast", "first", "last", "middle", "n",
        "negative", "noise_floor", "recent", "slow", "tail", "total",
    )  # fmt: skip
    _PLAIN = (
        "n", "total", "diff_n", "diff_sq", "best_middle", "best_slow", "bounded", "negative", "early", "early_n", "fast", "middle", "slow",
        "last",
    )  # fmt: skip

    def __init__(self, noise_floor: float) -> None:
        self.noise_floor = noise_floor
        self.n = 0
        self.last = 0.0
        self.first: list[float] = []
        self.recent: deque[tuple[int, float, float]] = deque(maxlen=_SLOW)  # (step, value, value without spikes)
        self.tail: deque[float] = deque(maxlen=_MIDDLE)
        self.total = 0.0  # running sum of the values without spikes
        self.diff_n = 0
        self.diff_sq = 0.0
        self.fast: float | None = None  # median of the last 3
        self.middle: float | None = None  # median of the last 10
        self.slow: float | None = None  # mean of the last 100, single spikes cut
        self.best_middle = -math.inf
        self.best_slow = -math.inf
        self.bounded = True  # every value so far lies in [0, 1]
        self.negative = True  # no value so far is above 0, as of a log-prob
        self.early = 0.0
        self.early_n = 0

    def add(self, step: int, value: float) -> None:
        value = min(max(value, -CLAMP), CLAMP)
        if self.n:
            self._add_difference(abs(value - self.last))
        calm = value
        if self.middle is not None:  # drawn to within 8 noise widths of the last median; a level that stays moves the median
            reach = 8.0 * (math.sqrt(self.diff_sq) + self.noise_floor)
            away = value - self.middle
            if abs(away) > reach:
                calm = self.middle + math.copysign(reach, away)
        if self.n >= _SLOW:
            self.total -= self.recent[0][2]
        self.total += calm
        self.recent.append((step, value, calm))
        self.tail.append(value)
        self.last = value
        self.n += 1
        if self.bounded and not 0.0 <= value <= 1.0:
            self.bounded = False
        if value > 0.0:
            self.negative = False
        if self.early_n < EARLY_ROWS:
            self._set_early(value)
        self._set_averages()

    def _set_averages(self) -> None:
        tail, n = self.tail, self.n
        if n >= FAST:
            self.fast = sorted((tail[-1], tail[-2], tail[-3]))[1]
        if n >= _MIDDLE:
            ordered = sorted(tail)
            middle = self.middle = 0.5 * (ordered[4] + ordered[5])
            if middle > self.best_middle:
                self.best_middle = middle
        if n >= _SLOW:
            slow = self.slow = self.total / _SLOW
            if slow > self.best_slow:
                self.best_slow = slow

    def _add_difference(self, diff: float) -> None:
        """Noise from neighbouring rows, each difference winsorised: a crash must not raise the bar that would show it."""
        if self.diff_n:
            most = 3.0 * math.sqrt(self.diff_sq) + self.noise_floor
            if diff > most:
                diff = most
        self.diff_n += 1
        weight = 0.05 if self.diff_n > 20 else 1.0 / self.diff_n
        self.diff_sq += weight * (diff * diff - self.diff_sq)

    def _set_early(self, value: float) -> None:
        if len(self.first) < EARLY_ROWS:
            self.first.append(value)
        self.early_n = max(1, min(EARLY_ROWS, self.n // 2))
        self.early = sum(self.first[: self.early_n]) / self.early_n

    @property
    def noise(self) -> float:
        """Standard deviation of one row around its neighbours, rounded up while it rests on few differences."""
        return math.sqrt(self.diff_sq / 2.0 * (1.0 + 12.0 / max(self.diff_n, 1)))

    def level(self) -> float:
        """Median of the last ten rows (mean of all, while fewer)."""
        return sum(self.tail) / len(self.tail) if self.middle is None else self.middle

    def first_below(self, window: int, limit: float) -> tuple[int, float]:
        """Step and value of the first row of the last `window` rows that is itself below `limit` (else the last row)."""
        rows = list(self.recent)[-window:]
        return next(((s, v) for s, v, _ in rows if v < limit), rows[-1][:2])

    def gained(self, least: float) -> bool:
        """Whether the recent mean is above the early level by `least` and by more than noise."""
        if self.n < MIN_ROWS:
            return False
        gain = self.level() - self.early
        return gain > least and gain > _MARGIN * self.noise * math.sqrt(1.0 / len(self.tail) + 1.0 / self.early_n)

    def rising(self) -> bool:
        """Whether the mean of the last ten rows is above that of the ten before by more than noise."""
        if self.n < 2 * _MIDDLE:
            return False
        values = [value for _, value, _ in list(self.recent)[-2 * _MIDDLE :]]
        gain = (sum(values[_MIDDLE:]) - sum(values[:_MIDDLE])) / _MIDDLE
        return gain > _MARGIN * self.noise * math.sqrt(2.0 / _MIDDLE)

    def near_early(self, limit: float) -> bool:
        """Is any average more than `limit` under the early level, noise left out?"""
        bound = self.early - limit
        return (
            (self.fast is not None and self.fast < bound)
            or (self.middle is not None and self.middle < bound)
            or (self.slow is not None and self.slow < bound)
        )

    def near_best(self, limit: float, measure: Measure) -> bool:
        """Is any average under the best one by `limit` (or under that fraction of it), noise left out?"""
        if self.middle is None:
            return False
        if measure == "fraction_of_best":
            return self.middle < self.best_middle * limit or (self.slow is not None and self.slow < self.best_slow * limit)
        return self.middle < self.best_middle - limit or (self.slow is not None and self.slow < self.best_slow - limit)

    def below_early(self, limit: float) -> tuple[int, float, float] | None:
        """(step, value, bound) of the onset where an average is more than `limit` and the noise under the early level."""
        for window, average in ((FAST, self.fast), (_MIDDLE, self.middle), (_SLOW, self.slow)):
            if average is not None and average < self.early - limit:
                bound = self.early - limit - _MARGIN * self.noise * math.sqrt(1.0 / window + 1.0 / self.early_n)
                if average < bound:
                    return (*self.first_below(window, bound), bound)
        return None

    def below_best(self, limit: float, fraction: bool) -> tuple[int, float, float] | None:
        """The same against the best average of that length, which luck has raised: by `limit`, or under that fraction of it."""
        for window, average, best in ((_MIDDLE, self.middle, self.best_middle), (_SLOW, self.slow, self.best_slow)):
            if average is None or (fraction and best < BEST_AT_LEAST):
                continue
            if average < (best * limit if fraction else best - limit):
                luck = _MARGIN * self.noise / math.sqrt(window)
                bound = (best - luck) * limit if fraction else best - limit - 2.0 * luck
                if average < bound and not (fraction and window == _MIDDLE and self._as_before(bound)):
                    return (*self.first_below(window, bound), bound)
        return None

    def _as_before(self, bound: float) -> bool:
        """May as many of the last ten rows lie below `bound` by chance, going by the rows before (up to ninety)?

        A binomial tail, the chance of one row by Laplace's rule. Where a row rests on one question its share is often 0 or 1, and the median
        of ten such rows jumps from one to the other while nothing has changed.
        """
        below = [value < bound for _, value, _ in self.recent]
        chance = (sum(below[:-_MIDDLE]) + 1) / (len(below) - _MIDDLE + 2)
        found = sum(below[-_MIDDLE:])
        tail = sum(math.comb(_MIDDLE, k) * chance**k * (1 - chance) ** (_MIDDLE - k) for k in range(found, _MIDDLE + 1))
        return tail > _CHANCE

    def state(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in self._PLAIN}
        plain |= {name: None for name in ("best_middle", "best_slow") if plain[name] == -math.inf}  # JSON has no infinity
        return plain | {"first": list(self.first), "recent": [list(row) for row in self.recent]}

    def load(self, state: Mapping[str, Any]) -> None:
        for name in self._PLAIN:
            setattr(self, name, state[name])
        self.best_middle = -math.inf if self.best_middle is None else self.best_middle
        self.best_slow = -math.inf if self.best_slow is None else self.best_slow
        self.first = list(state["first"])
        self.recent = deque(((step, value, calm) for step, value, calm in state["recent"]), maxlen=_SLOW)
        self.tail = deque((value for _, value, _ in list(self.recent)[-_MIDDLE:]), maxlen=_MIDDLE)


class Scale:
    """The early median of a positive quantity (gradient norm), steps without training left out."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.n = 0
        self.level: float | None = None

    def add(self, value: float) -> None:
        if value <= 0.0 or (len(self.first) == EARLY_ROWS and self.n >= 2 * EARLY_ROWS):
            return
        self.n += 1
        if len(self.first) < EARLY_ROWS:
            self.first.append(min(value, CLAMP))
        early = sorted(self.first[: max(1, min(EARLY_ROWS, self.n // 2))])
        self.level = early[len(early) // 2]

    def state(self) -> dict[str, Any]:
        return {"first": list(self.first), "n": self.n, "level": self.level}

    def load(self, state: Mapping[str, Any]) -> None:
        self.first, self.n, self.level = list(state["first"]), state["n"], state["level"]


BEST_AT_LEAST = 0.3
