"""Level, noise and autocorrelation of one signal, from the run's own rows, one row at a time.

The level is an exponential mean of about `SPAN` rows. Noise comes from the differences of neighbouring rows, each cut at three
standard deviations: a crash makes one large difference, so it does not raise the bar that would show it, while noise that grows is followed at
once (the larger of a quick and a slow estimate). Neighbouring rows may be alike (questions of one epoch, smoothed logs): sums of rows
then spread as `sd * sqrt((1 + phi) / (1 - phi))`, phi their lag-1 correlation, the long-run deviation of a first-order autoregression, and that is
what tests use. Rows that are means over several steps need nothing else: noise is per row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

SPAN = 24  # rows of the level
NEAR = 10  # rows of the level that the correlation is measured against
SLOW, QUICK = 60, 16  # rows of the two estimates of noise
LONG = 150  # rows of the correlation
TREND = 30  # rows of the climb taken out of it
FORGET = 150  # rows in which the best level moves towards the present one: the luck of few early rows must not last
EARLY = 8  # rows of the run's early level
MOST_PHI = 0.7


class Noise:
    """What a run's own rows say of one signal: `level`, `early`, `best`, `sd` (one row), `long_sd` (for sums of rows)."""

    __slots__ = (
        "_cov", "_last", "_near", "_previous", "_quick", "_slow", "_trend", "_var", "best", "early", "floor", "level", "long_sd",
        "n", "phi", "rows", "sd",
    )  # fmt: skip

    def __init__(self, floor: float) -> None:
        self.floor = floor  # least standard deviation of a row believed, in the signal's unit
        self.rows = 0
        self.n = 0  # of the rows, those that belong to the ordinary course
        self.level = 0.0
        self.early = 0.0
        self.best = -math.inf  # highest level, less what luck may have given
        self.phi = 0.0  # correlation of neighbouring rows, 0 to 0.7
        self.long_sd = floor  # a mean of m rows spreads as this over sqrt(m); rounded up while few rows stand behind it
        self.sd = floor  # of one row
        self._previous = 0.0
        self._quick = self._slow = 0.0  # mean squared difference of neighbours / 2
        self._near = self._last = self._var = self._cov = self._trend = 0.0

    def add(self, value: float, ordinary: bool = True) -> None:
        """Take a row; a row that is not `ordinary` (a fall is suspected) leaves level and correlation as they were."""
        rows = self.rows = self.rows + 1
        larger = self._quick if self._quick > self._slow else self._slow
        if rows > 1:
            away = value - self._previous
            if rows > 4 and away * away > 18.0 * larger:
                away = min(abs(away), 3.0 * math.sqrt(2.0 * larger) + self.floor)
            half = 0.5 * away * away
            self._slow += (half - self._slow) / (rows - 1 if rows <= SLOW else SLOW)
            self._quick += (half - self._quick) / (rows - 1 if rows <= QUICK else QUICK)
            larger = self._quick if self._quick > self._slow else self._slow
        self._previous = value
        if ordinary:
            self._follow(value, 4.0 * math.sqrt(larger) + self.floor)
        phi = self.phi
        row = math.sqrt(larger * (1.0 + 8.0 / rows) / (1.0 - phi))
        self.sd = row if row > self.floor else self.floor
        self.long_sd = self.sd * math.sqrt((1.0 + phi) / (1.0 - phi))
        if ordinary and self.n >= EARLY // 2:
            reliable = self.level - (1.5 + 6.0 / self.n) * self.long_sd / math.sqrt(self.n if self.n < SPAN else SPAN)
            self.best = reliable if reliable > self.best else self.best - (self.best - reliable) / FORGET

    def _follow(self, value: float, most: float) -> None:
        n = self.n = self.n + 1
        if n == 1:
            self.level = self._near = self.early = value
            return
        away, off = value - self._near, value - self.level
        if n > 3:
            away = most if away > most else -most if away < -most else away
            off = 2.0 * most if off > 2.0 * most else -2.0 * most if off < -2.0 * most else off
        near = away
        away -= self._trend  # a reward that climbs is ahead of its mean, which is no correlation
        self._trend += away / (n if n < TREND else TREND)
        gain = 1.0 / (n - 1 if n <= LONG else LONG)
        self._var += gain * (away * away - self._var)
        if n > 2:
            self._cov += gain * (away * self._last - self._cov)
        self._last = away
        self._near += near / (n if n < NEAR else NEAR)
        self.level += off / (n if n < SPAN else SPAN)
        if n <= EARLY:
            self.early = self.level
        elif self._var > 0.0:  # against a mean that follows it comes out low by about 1 / NEAR
            phi = self._cov / self._var + 1.0 / NEAR
            self.phi = 0.0 if phi < 0.0 else phi if phi < MOST_PHI else MOST_PHI

    def state(self) -> dict[str, Any]:
        """Plain JSON values."""
        kept = {name: getattr(self, name) for name in self.__slots__}
        return kept | {"best": None if self.best == -math.inf else self.best}

    def load(self, state: Mapping[str, Any]) -> None:
        for name in self.__slots__:
            setattr(self, name, state[name])
        self.best = -math.inf if state["best"] is None else state["best"]
