"""Does a noisy course rise or fall, and how sure is that? Theil-Sen slopes and Mann-Kendall tests that know autocorrelation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from markovlm.health.series import Course, Floats, bucketed
from markovlm.statistics import t_p_value

Direction = Literal["rises", "falls", "level", "cannot tell"]
Z95 = 1.959964
_LAGS = 10  # autocorrelation is summed over lags up to a tenth of the series


def autocorrelation_time(values: Floats) -> float:
    """tau = 1 + 2 sum rho_k over the first lags while neighbouring pairs of rho stay positive (Geyer 1992, Statistical Science 7): n
    values say as much as n / tau independent ones. 1 for white noise, constants and short series; never under 1."""
    n = len(values)
    calm = values - values.mean()
    power = float(calm @ calm)
    if n < 8 or power <= 1e-12 * n:
        return 1.0
    tau, lags = 1.0, max(2, n // _LAGS)
    for lag in range(1, lags, 2):
        pair = float(calm[:-lag] @ calm[lag:] + calm[: -lag - 1] @ calm[lag + 1 :]) / power
        if pair <= 0.0:
            break
        tau += 2.0 * pair
    return min(max(tau, 1.0), n / 2)


@dataclass(frozen=True, slots=True)
class Persistence:
    """How long a course remembers: a first-order autoregression of what a smooth level leaves."""

    rho: float  # 0 to 0.99; an upper value, since few rows show too little of their own autocorrelation

    @property
    def time(self) -> float:
        """Rows that say as much as one independent row."""
        return (1.0 + self.rho) / (1.0 - self.rho)

    def mean_error(self, values: Floats) -> float:
        """Standard error of the mean of neighbouring rows of the course, from their own spread: noise changes over a run.

        Of n rows with variance V about the level, the mean varies by f V and the rows about their mean by (1 - f) V.
        """
        n, rho = len(values), self.rho
        f = ((1.0 + rho) / (1.0 - rho) - 2.0 * rho * (1.0 - rho**n) / (n * (1.0 - rho) ** 2)) / n
        own = float(values.var()) / (1.0 - f)
        return math.sqrt(f * own)


def persistence(values: Floats) -> Persistence:
    """Of eight rows or more. The level is a straight line, from forty rows on one with two bends, so that learning is not taken for memory.

    Least squares leave too little autocorrelation (Kendall 1954, Biometrika 41: about (1 + 4 rho) / n of it is lost beside a mean, more beside a
    level with p parameters); it is put back, and a standard error on top. `benchmarks/intervals.py` measures what that comes to.
    """
    n, p = len(values), 4 if len(values) >= 40 else 2
    at, knots = np.linspace(0.0, 1.0, n), np.linspace(0.0, 1.0, p)
    level, _ = np.linalg.qr(np.stack([np.interp(at, knots, np.eye(p)[i]) for i in range(p)], axis=1))
    rest = values - level @ (level.T @ values)
    power = float(rest @ rest)
    if power <= 1e-12 * n * max(1.0, float(np.abs(values).max()) ** 2):
        return Persistence(0.0)
    found = float(rest[:-1] @ rest[1:]) / power
    unbiased = min(max((n * found + p) / max(n - 2.5 * p - 1.0, 1.0), 0.0), 0.99)
    return Persistence(min(unbiased * (1.0 + math.sqrt((1.0 - unbiased**2) / n)), 0.99))


@dataclass(frozen=True, slots=True)
class Trend:
    """The linear change of a course from its first to its last row, with its 95 % interval, in the metric's unit."""

    key: str
    change: float
    low: float
    high: float
    z: float  # of the Mann-Kendall test
    n: int  # rows
    effective: float = 0.0  # independent rows that say as much

    def direction(self, least: float) -> Direction:
        """What can be said where a change under `least` would not matter."""
        if self.low > 0.0:
            return "rises"
        if self.high < 0.0:
            return "falls"
        return "level" if max(-self.low, self.high) < least else "cannot tell"


def trend(c: Course) -> Trend | None:
    """Theil-Sen change over the whole course (Sen 1968, JASA 63), its interval and the Mann-Kendall z.

    The variance is that of Hamed & Rao 1998 (Journal of Hydrology 204): raised by the autocorrelation of what the slope leaves, that of
    `persistence` where it is larger.
    Long courses are first averaged to at most 200 means. None under eight rows.
    """
    if len(c) < 8:
        return None
    steps, means = bucketed(c)
    n = len(means)
    x = np.arange(n, dtype=np.float64)
    first, second = np.triu_indices(n, 1)
    slopes = np.sort((means[second] - means[first]) / (second - first))
    slope = float(np.median(slopes))
    signs = np.sign(means[second] - means[first])
    variance = (n * (n - 1) * (2 * n + 5) - _ties(means)) / 18.0
    residual = np.argsort(np.argsort(means - slope * x, kind="stable"), kind="stable").astype(np.float64)
    time = max(autocorrelation_time(residual), persistence(residual).time)
    variance *= time
    if variance <= 0.0 or steps[-1] == steps[0]:
        return Trend(c.key, 0.0, 0.0, 0.0, 0.0, len(c))
    score = float(signs.sum())
    half = Z95 * math.sqrt(variance)
    pairs = len(slopes)
    low = slopes[max(0, math.floor((pairs - half) / 2))]
    high = slopes[min(pairs - 1, math.ceil((pairs + half) / 2))]
    z = (score - math.copysign(1.0, score)) / math.sqrt(variance) if score else 0.0
    span = n - 1
    return Trend(c.key, slope * span, float(low) * span, float(high) * span, z, len(c), n / time)


LEAST_EFFECTIVE = 6.0  # independent rows under which no trend is claimed
_ALPHA = 0.01  # of a claim; of courses under forty rows, which show least of their autocorrelation, a quarter of it


def claimed(t: Trend) -> bool:
    """Is a rise or fall sure at 99 %? `benchmarks/intervals.py` measures how often a trendless course is called one."""
    if t.effective < LEAST_EFFECTIVE:
        return False
    alpha = _ALPHA if t.n >= 40 else _ALPHA / 4
    return t_p_value(t.z, t.effective - 2.0) < alpha


def _ties(values: Floats) -> float:
    """The correction of the Kendall variance for equal values."""
    _, counts = np.unique(values, return_counts=True)
    return float((counts * (counts - 1) * (2 * counts + 5)).sum())
