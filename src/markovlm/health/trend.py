"""Does a noisy course rise or fall, and how sure is that? Theil-Sen slopes and Mann-Kendall tests that know autocorrelation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from markovlm.health.series import Course, Floats, bucketed

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


def mean_error(values: Floats) -> float | None:
    """Standard error of the mean of neighbouring rows, autocorrelation allowed for; None for fewer than three."""
    n = len(values)
    if n < 3:
        return None
    return float(values.std(ddof=1)) * math.sqrt(autocorrelation_time(values) / n)


@dataclass(frozen=True, slots=True)
class Trend:
    """The linear change of a course from its first to its last row, with its 95 % interval, in the metric's unit."""

    key: str
    change: float
    low: float
    high: float
    z: float  # of the Mann-Kendall test
    n: int  # rows

    def direction(self, least: float) -> Direction:
        """What can be said where a change under `least` would not matter."""
        if self.low > 0.0:
            return "rises"
        if self.high < 0.0:
            return "falls"
        return "level" if max(-self.low, self.high) < least else "cannot tell"


def trend(c: Course) -> Trend | None:
    """Theil-Sen change over the whole course (Sen 1968, JASA 63), its interval and the Mann-Kendall z.

    The variance is that of Hamed & Rao 1998 (Journal of Hydrology 204): raised by the autocorrelation of what the slope leaves.
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
    variance *= autocorrelation_time(residual)
    if variance <= 0.0 or steps[-1] == steps[0]:
        return Trend(c.key, 0.0, 0.0, 0.0, 0.0, len(c))
    score = float(signs.sum())
    half = Z95 * math.sqrt(variance)
    pairs = len(slopes)
    low = slopes[max(0, math.floor((pairs - half) / 2))]
    high = slopes[min(pairs - 1, math.ceil((pairs + half) / 2))]
    z = (score - math.copysign(1.0, score)) / math.sqrt(variance) if score else 0.0
    span = n - 1
    return Trend(c.key, slope * span, float(low) * span, float(high) * span, z, len(c))


def _ties(values: Floats) -> float:
    """The correction of the Kendall variance for equal values."""
    _, counts = np.unique(values, return_counts=True)
    return float((counts * (counts - 1) * (2 * counts + 5)).sum())
