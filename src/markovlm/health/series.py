"""Courses of a metric: smoothing, change points, peaks, and the series of evaluations that can be compared."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from markovlm.logs.records import LoggedEvaluation, RunData
from markovlm.statistics import two_rates_z

Floats = NDArray[np.float64]
REWARD_KEYS = ("normalized_reward_mean", "reward_mean", "answer_logprob")
BUCKETS = 200


@dataclass(frozen=True, slots=True)
class Course:
    """The finite values of one metric with their steps."""

    key: str
    steps: Floats
    values: Floats

    def __len__(self) -> int:
        return len(self.values)

    @property
    def is_share(self) -> bool:
        """Do all values lie between 0 and 1?"""
        return bool(self.values.min() >= 0.0 and self.values.max() <= 1.0)


def course(run: RunData, key: str) -> Course | None:
    """A metric of a run; None if it has no finite value."""
    if key not in run.metrics.columns:
        return None
    steps = run.metrics["step"].to_numpy().astype(np.float64)
    values = run.metrics[key].to_numpy().astype(np.float64)
    finite = np.isfinite(values)
    return Course(key, steps[finite], values[finite]) if finite.any() else None


def reward_course(run: RunData) -> Course | None:
    """The reward in its most comparable form: normalised, else raw, else the answer's log-prob."""
    found = [c for key in REWARD_KEYS if (c := course(run, key)) is not None]
    return max(found, key=len) if found else None


def smooth(values: Floats, window: int) -> Floats:
    """Centred mean over `window` values, shorter at both ends."""
    n = len(values)
    window = max(1, min(window, n))
    sums = np.concatenate(([0.0], np.cumsum(values)))
    centre = np.arange(n)
    low = np.maximum(0, centre - window // 2)
    high = np.minimum(n, centre + window - window // 2)
    return (sums[high] - sums[low]) / (high - low)


def window_means(values: Floats, window: int) -> Floats:
    """The mean of every `window` neighbouring values."""
    sums = np.concatenate(([0.0], np.cumsum(values)))
    return (sums[window:] - sums[:-window]) / window


def bucketed(c: Course) -> tuple[Floats, Floats]:
    """(step of the bucket's first row, mean) of at most `BUCKETS` buckets of equal numbers of rows."""
    edges = np.unique(np.linspace(0, len(c), min(BUCKETS, len(c)) + 1).astype(int))
    means = np.add.reduceat(c.values, edges[:-1]) / np.diff(edges)
    return c.steps[edges[:-1]], means


def noise(values: Floats) -> float:
    """Standard deviation of one value around its neighbours, robust to jumps."""
    if len(values) < 3:
        return 0.0
    return float(np.median(np.abs(np.diff(values)))) / (0.6745 * math.sqrt(2.0))


@dataclass(frozen=True, slots=True)
class Jump:
    """A change of level: `before` and `after` are means over the neighbouring tenth of the run."""

    key: str
    step: int
    before: float
    after: float
    z: float


def largest_jump(c: Course, least: float) -> Jump | None:
    """The sharpest change of level of at least `least`, or None. A slow ramp is not a jump."""
    steps, means = bucketed(c)
    n = len(means)
    side = max(3, n // 10)
    if n < 2 * side + 2:
        return None
    sums = np.concatenate(([0.0], np.cumsum(means)))
    at = np.arange(side, n - side + 1)
    before = (sums[at] - sums[at - side]) / side
    after = (sums[at + side] - sums[at]) / side
    best = int(np.argmax(np.abs(after - before)))
    jump = float(after[best] - before[best])
    near = max(1, side // 3)  # half of the change must happen close to the point
    position = int(at[best])
    close = float(means[position : position + near].mean() - means[position - near : position].mean())
    z = abs(jump) / max(noise(means) * math.sqrt(2.0 / side), 1e-9)
    if abs(jump) < least or z < 8.0 or close * jump < 0.5 * jump * jump:
        return None
    return Jump(c.key, int(steps[position]), float(before[best]), float(after[best]), min(z, 999.0))


def halves_gain(c: Course) -> tuple[float, float, float]:
    """(level of the first tenth, of the middle tenth, of the last tenth)."""
    tenth = max(1, len(c) // 10)
    middle = len(c) // 2
    return (
        float(c.values[:tenth].mean()),
        float(c.values[middle - tenth // 2 : middle + tenth - tenth // 2].mean()),
        float(c.values[-tenth:].mean()),
    )


# --- evaluations -------------------------------------------------------------------------------------------------------


def comparable(e: LoggedEvaluation) -> tuple[str, ...]:
    """What must be the same for two evaluations to be compared (temperature follows training and may differ)."""
    how = {k: v for k, v in {"answer_end": "open", **e.how}.items() if k not in ("temperature", "seed")}
    return (e.split, *(f"{k}={how[k]}" for k in sorted(how)))


def evaluation_groups(run: RunData) -> list[list[LoggedEvaluation]]:
    """Series of comparable evaluations, each in step order with one per step (the last written); the longest first."""
    groups: dict[tuple[str, ...], dict[int, LoggedEvaluation]] = {}
    for e in run.evals:
        if e.scores:
            groups.setdefault(comparable(e), {})[e.step] = e
    ordered = sorted(groups.values(), key=lambda group: (-len(group), -max(group)))
    return [[group[step] for step in sorted(group)] for group in ordered]


def evaluation_series(run: RunData) -> list[LoggedEvaluation]:
    """The longest series of comparable evaluations: the one that shows the course of the run."""
    return next(iter(evaluation_groups(run)), [])


def base_evaluation(series: list[LoggedEvaluation]) -> LoggedEvaluation | None:
    """The untrained model's evaluation of a series: checkpoint "base", or step 0."""
    return next((e for e in series if not e.of_actor or (e.step == 0 and e.placed)), None)


def best_evaluation(series: list[LoggedEvaluation]) -> LoggedEvaluation | None:
    """The best trained checkpoint (the earliest of equals)."""
    trained = [e for e in series if e.of_actor and e.step > 0]
    return max(trained, key=lambda e: (e.score.accuracy, -e.step), default=None)


def last_evaluation(series: list[LoggedEvaluation]) -> LoggedEvaluation | None:
    """The last trained checkpoint."""
    trained = [e for e in series if e.of_actor and (e.step > 0 or not e.placed)]
    return trained[-1] if trained else None


def difference_z(a: LoggedEvaluation, b: LoggedEvaluation) -> float:
    """z of the difference of two accuracies, as `two_rates_z`; 0 where it is not known on how many questions they are."""
    return two_rates_z(a.score.accuracy, a.n, b.score.accuracy, b.n) if a.n > 0 and b.n > 0 else 0.0
