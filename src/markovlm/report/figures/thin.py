"""Fewer points: means of stretches, the highest and lowest row of each, and the running mean that is drawn.

The page smooths in the browser with the same arithmetic (`templates/curves.js`); a test compares the two.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from markovlm.health.series import Course, Floats, smooth
from markovlm.report.figures.base import Line, Scale, short

SMOOTHING = 0.03  # share of a run that one drawn point is the mean of
_LEAST_ROWS = 5  # of a mean, where a run has enough rows for it
_ENOUGH_ROWS = 15


def decimate(steps: Floats, values: Floats, buckets: int) -> tuple[Floats, Floats]:
    """At most two points a bucket, its lowest and its highest row in step order: no spike is lost."""
    n = len(values)
    if n <= 2 * buckets:
        return steps, values
    edges = np.linspace(0, n, buckets + 1).astype(int)
    kept: list[int] = []
    for start, end in itertools.pairwise(edges):
        part = values[start:end]
        kept += sorted({start + int(part.argmin()), start + int(part.argmax())})
    index = np.array(kept)
    return steps[index], values[index]


def line(run: str, series: str, c: Course, buckets: int) -> Line:
    """A course as means of at most `buckets` stretches, each at its middle step, and its thinned rows."""
    n = len(c)
    if n <= buckets:
        return Line(run, series, _steps(c.steps), _values(c.values))
    edges = np.linspace(0, n, buckets + 1).astype(int)
    means = np.add.reduceat(c.values, edges[:-1]) / np.diff(edges)
    middle = c.steps[(edges[:-1] + edges[1:] - 1) // 2]
    steps, values = decimate(c.steps, c.values, buckets)
    return Line(run, series, _steps(middle), _values(means), (_steps(steps), _values(values)))


def _steps(steps: Floats) -> tuple[int, ...]:
    return tuple(int(x) for x in steps)


def _values(values: Floats) -> tuple[float, ...]:
    return tuple(short(float(y)) for y in values)


def calm(found: Line, share: float = SMOOTHING) -> Floats:
    """The running mean over a share of the run; of single rows over at least five."""
    n = len(found.means)
    least = _LEAST_ROWS if share > 0 and found.raw is None and n >= _ENOUGH_ROWS else 1
    return smooth(np.array(found.means), max(least, round(share * n)))


def scale_of(lines: Iterable[Line]) -> Scale:
    """Logarithmic where the values span more than a factor of 50."""
    values = [value for found in lines for value in found.means]
    magnitudes = [abs(v) for v in values if v != 0]
    if not magnitudes or max(magnitudes) < 50 * float(np.median(magnitudes)):
        return "linear"
    return "log" if min(values) > 0 else "symlog"


def domain(
    values: Floats, raw: Sequence[float], levels: Sequence[float], scale: Scale, bounds: tuple[float, float] | None
) -> tuple[float, float]:
    """The axis: from the means, a little wider for rows where they are drawn, and around a constant instead of from 0."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(high), abs(low)):  # rounding of a running mean is no spread
        low = high = (low + high) / 2
    span = high - low
    if len(raw) and span > 0:
        few, most = np.quantile(np.array(raw), [0.02, 0.98])
        low, high = min(low, max(float(few), low - 0.6 * span)), max(high, min(float(most), high + 0.6 * span))
    near = [level for level in levels if high < level <= high + 0.6 * span]
    high = max([high, *near])
    if scale == "log":
        return (float(values[values > 0].min()) / 1.25, high * 1.25) if (values > 0).any() else (0.1, 1.0)
    pad = 0.06 * (high - low) if high > low else 0.1 * abs(high) or 0.1
    low, high = low - pad, high + pad
    if bounds is not None:
        low, high = max(low, bounds[0] - 0.02), min(high, bounds[1] + 0.02)
    return low, high
