"""Intervals and tests for rates and paired differences. Pure functions of numbers; randomness comes from a seed.

Rates are in 0..1, `confidence` is the coverage of a two-sided interval. If there is nothing to compute (n = 0), an interval is the
whole range of the quantity, and a test does not reject.

SciPy takes a second to import and 140 MB of disk: it is imported by the functions that need it, none of which judges a log.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
_CHUNK = 2_000_000  # resampled cluster indices held at once, 16 MB


class Interval(NamedTuple):
    """A two-sided interval: `Interval(0.41, 0.59)`."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A mean with its interval."""

    mean: float
    low: float
    high: float


def wilson(k: float, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for k successes in n trials (a rate of n counts as n times the rate).

    Wilson 1927; Brown, Cai & DasGupta 2001, Statistical Science 16, recommend it for small n. n = 0 gives (0, 1).
    """
    _check_confidence(confidence)
    if not 0 <= k <= n:
        raise ValueError(f"k={k} must be between 0 and n={n}")
    if n == 0:
        return Interval(0.0, 1.0)
    z = _normal_quantile(0.5 + confidence / 2)
    centre, half = (k + z * z / 2) / (n + z * z), z * math.sqrt(k * (n - k) / n + z * z / 4) / (n + z * z)
    return Interval(0.0 if k == 0 else centre - half, 1.0 if k == n else centre + half)


def two_rates_z(p: float, n: int, q: float, m: int) -> float:
    """z of p - q, rates of n and of m questions, treated as different questions (on the same ones it is at least as large)."""
    pooled = (p * n + q * m) / (n + m)
    return (p - q) / math.sqrt(max(pooled * (1 - pooled), 1e-9) * (1 / n + 1 / m))


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided p of McNemar's exact test: b questions only the first got right, c only the second.

    Under no difference b is binomial(b + c, 1/2) (McNemar 1947). b + c = 0 gives 1.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts must not be negative, got b={b}, c={c}")
    return float(_scipy_stats().binomtest(b, b + c, 0.5).pvalue) if b + c else 1.0


def cluster_mean_ci(
    values: Sequence[float] | NDArray[np.float64],
    clusters: Sequence[Hashable] | None,
    seed: int,
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    within: tuple[float, float] | None = None,
) -> Estimate:
    """Mean of `values`, such as paired differences, with a percentile interval from resampling clusters; `clusters=None`: each value is
    its own.

    Efron & Tibshirani 1993, chapter 13; Davison & Hinkley 1997, section 3.8. Whole clusters are drawn (all samples of a question
    together) and the mean is over samples, so that clusters are weighted by size. A single cluster has no spread: the bounds are nan;
    no values: all nan. Values must be finite. If all values are equal, the bootstrap interval is the mean alone. With `within`, the
    range of possible values, it covers what n clusters can't exclude: a share of clusters up to Wilson's upper bound for 0 of n could
    be at either end of the range. 0 of 5 right, within (0, 1): [0, .43]; 5 differences of 0, within (-1, 1): [-.43, .43].
    """
    _check_confidence(confidence)
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not np.isfinite(data).all():
        raise ValueError("values must be a flat sequence of finite numbers")
    if data.size == 0:
        return Estimate(math.nan, math.nan, math.nan)
    sums, sizes = _cluster_totals(data, clusters)
    mean = float(data.mean())
    if within is not None and np.ptp(data) == 0.0:
        unseen = wilson(0, len(sums), confidence).high
        return Estimate(mean, mean - unseen * (mean - within[0]), mean + unseen * (within[1] - mean))
    if len(sums) == 1:
        return Estimate(mean, math.nan, math.nan)
    if np.ptp(data) == 0.0:
        return Estimate(mean, mean, mean)
    means = _resampled_means(sums, sizes, np.random.default_rng(seed), resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(mean, float(low), float(high))


class Crossed(NamedTuple):
    """A mean over seeds and questions: `Crossed(0.03, 0.01, 0.05, p=0.004)`."""

    mean: float
    low: float
    high: float
    p: float  # two-sided, of a mean of 0

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.mean, self.low, self.high)


def crossed_mean_ci(table: Sequence[Sequence[float]] | NDArray[np.float64], *, confidence: float = 0.95) -> Crossed:
    """Mean of a table [S, Q] of S seeds (runs) by Q questions that all of them answered, with an interval for other seeds *and* other questions.

    Two-way random effects without replication: with the mean squares of seeds, of questions and of the rest, the variance of the mean is
    estimated by (MS_seed + MS_question - MS_rest) / (S Q), never by less than the larger of the first two alone; Student's t with
    Satterthwaite's degrees of freedom (Scheffe 1959, chapter 7; Satterthwaite 1946, Biometrics Bulletin 2). `benchmarks/intervals.py`
    measures its coverage beside that of intervals over seeds alone and of the crossed percentile bootstrap (Owen 2007), which is too
    narrow for few seeds. One seed, or no spread at all: bounds and p are nan.
    """
    _check_confidence(confidence)
    data = np.asarray(table, dtype=np.float64)
    if data.ndim != 2 or not np.isfinite(data).all():
        raise ValueError("values must be a table of finite numbers, a row per seed and a column per question")
    if data.size == 0:
        return Crossed(math.nan, math.nan, math.nan, math.nan)
    seeds, questions = data.shape
    mean = float(data.mean())
    if seeds < 2 or questions < 2 or np.ptp(data) == 0.0:
        return Crossed(mean, math.nan, math.nan, math.nan)
    rows, columns = data.mean(axis=1), data.mean(axis=0)
    rest = data - rows[:, None] - columns[None, :] + mean
    ms_seed = questions * float(((rows - mean) ** 2).sum()) / (seeds - 1)
    ms_question = seeds * float(((columns - mean) ** 2).sum()) / (questions - 1)
    ms_rest = float((rest**2).sum()) / ((seeds - 1) * (questions - 1))
    total = max(ms_seed + ms_question - ms_rest, ms_seed, ms_question)
    if total <= 0.0:
        return Crossed(mean, math.nan, math.nan, math.nan)
    weights = (ms_seed**2 / (seeds - 1), ms_question**2 / (questions - 1), ms_rest**2 / ((seeds - 1) * (questions - 1)))
    freedom = max(total**2 / sum(weights), seeds - 1.0)
    error = math.sqrt(total / data.size)
    half = float(_scipy_stats().t.ppf(0.5 + confidence / 2, freedom)) * error
    return Crossed(mean, mean - half, mean + half, t_p_value(mean / error, freedom))


def log_rank_p(
    ours: Sequence[tuple[float, bool]], theirs: Sequence[tuple[float, bool]], seed: int, *, resamples: int = RESAMPLES
) -> float:
    """Two-sided p of the log-rank test of two groups of (time, did it end then? else censored), over permutations of the groups.

    Mantel 1966; Peto & Peto 1972. The statistic is observed minus expected ends of the first group. All ways to divide the runs are
    tried if there are at most `resamples`, otherwise that many are drawn; never 0. Without ends, or with an empty group, p is 1.
    """
    both = [*ours, *theirs]
    times = np.array([time for time, _ in both], dtype=np.float64)
    ended = np.array([end for _, end in both], dtype=bool)
    if not len(ours) or not len(theirs) or not ended.any():
        return 1.0
    at_risk = times[:, None] >= np.unique(times[ended])[None, :]  # [runs, distinct times of ends]
    ends = np.array([((times == time) & ended).sum() for time in np.unique(times[ended])], dtype=np.float64)
    score = ended - at_risk @ (ends / at_risk.sum(axis=0))  # of each run: observed less expected
    seen = abs(float(score[: len(ours)].sum()))
    ways = math.comb(len(both), len(ours))
    if ways <= resamples:
        chosen = [list(some) for some in itertools.combinations(range(len(both)), len(ours))]
        return sum(abs(float(score[some].sum())) >= seen - 1e-12 for some in chosen) / ways
    rng = np.random.default_rng(seed)
    drawn = np.argsort(rng.random((resamples, len(both))), axis=1)[:, : len(ours)]
    return (1 + int(np.sum(np.abs(score[drawn].sum(axis=1)) >= seen - 1e-12))) / (1 + resamples)


def sign_flip_p(
    differences: Sequence[float], clusters: Sequence[Hashable] | None, seed: int, *, resamples: int = RESAMPLES
) -> float:
    """Two-sided p of a mean of paired differences: under no difference each cluster's sign is a coin's (Fisher 1935, ch. 3).

    Exact for at most 12 clusters, otherwise from `resamples` draws; never 0. Without clusters p is 1.
    """
    data = np.asarray(differences, dtype=np.float64)
    if data.size == 0:
        return 1.0
    sums, _ = _cluster_totals(data, clusters)
    n = len(sums)
    if n <= 12:
        signs = np.array([[1 if number >> bit & 1 else -1 for bit in range(n)] for number in range(2**n)], dtype=np.float64)
        return float(np.mean(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12))
    rng = np.random.default_rng(seed)
    hits = sum(
        int(np.sum(np.abs((rng.integers(0, 2, size=(rows, n)) * 2.0 - 1.0) @ sums) >= abs(sums.sum()) - 1e-12))
        for rows in _rows_of_chunks(n, resamples)
    )
    return (1 + hits) / (1 + resamples)


def permutation_p(
    ours: Sequence[float],
    theirs: Sequence[float],
    our_clusters: Sequence[Hashable] | None,
    their_clusters: Sequence[Hashable] | None,
    seed: int,
    *,
    resamples: int = RESAMPLES,
) -> float:
    """Two-sided p of a difference of two means: under no difference the cluster means are exchangeable. Never 0; 1 if a side is empty."""
    if not len(ours) or not len(theirs):
        return 1.0
    parts = [_cluster_totals(np.asarray(v, dtype=np.float64), c) for v, c in ((ours, our_clusters), (theirs, their_clusters))]
    means = [sums / sizes for sums, sizes in parts]
    pooled, n = np.concatenate(means), len(means[0])
    seen = abs(float(means[0].mean() - means[1].mean()))
    rng = np.random.default_rng(seed)
    hits = 0
    for rows in _rows_of_chunks(len(pooled), resamples):
        mixed = pooled[np.argsort(rng.random((rows, len(pooled))), axis=1)]
        hits += int(np.sum(np.abs(mixed[:, :n].mean(axis=1) - mixed[:, n:].mean(axis=1)) >= seen - 1e-12))
    return (1 + hits) / (1 + resamples)


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """Adjusted p of each test: below q, it is among those found at a false discovery rate of q (Benjamini & Hochberg 1995)."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted, lowest = [1.0] * len(ps), 1.0
    for rank in range(len(ps), 0, -1):
        i = order[rank - 1]
        lowest = min(lowest, ps[i] * len(ps) / rank)
        adjusted[i] = lowest
    return adjusted


def sample_size_for_difference(
    p1: float,
    p2: float,
    power: float = 0.8,
    *,
    paired: bool = False,
    discordant: float | None = None,
    alpha: float = 0.05,
) -> int:
    """Questions (per group, if not paired) to find the difference between two accuracies with the given power.

    Unpaired: two independent proportions, Fleiss, Levin & Paik 2003, eq. 4.14 without continuity correction. Paired: McNemar's test,
    Connor 1987 (Biometrics 43), with `discordant` the share of questions that the two answer differently; by default as if their
    successes were independent, which overstates n when they agree more. Equal accuracies have no such n: ValueError.
    """
    for rate in (p1, p2):
        _check_rate(rate)
    for level in (power, alpha):
        _check_confidence(level)
    gap = abs(p1 - p2)
    if gap == 0:
        raise ValueError("no number of questions shows a difference of zero")
    z_alpha, z_power = _normal_quantile(1 - alpha / 2), _normal_quantile(power)
    if paired:
        share = p1 * (1 - p2) + p2 * (1 - p1) if discordant is None else discordant
        if not gap <= share <= 1:
            raise ValueError(f"discordant share {share} must be between the difference {gap} and 1")
        n = (z_alpha * math.sqrt(share) + z_power * math.sqrt(share - gap**2)) ** 2 / gap**2
    else:
        pooled = (p1 + p2) / 2
        spread = z_power * math.sqrt(p1 * (1 - p1) + p2 * (1 - p2))
        n = (z_alpha * math.sqrt(2 * pooled * (1 - pooled)) + spread) ** 2 / gap**2
    return max(1, math.ceil(n - 1e-9))


def minimum_detectable_difference(n: int, p: float, power: float = 0.8, *, paired: bool = False, alpha: float = 0.05) -> float:
    """The smallest difference from accuracy `p` that n questions show with the given power, up or down.

    Solved from `sample_size_for_difference`. 1.0 where even the largest possible difference needs more questions.
    """
    _check_rate(p)
    if n < 1:
        return 1.0
    direction, reach = (1, 1 - p) if p <= 0.5 else (-1, p)

    def enough(gap: float) -> bool:
        return sample_size_for_difference(p, p + direction * gap, power, paired=paired, alpha=alpha) <= n

    if not enough(reach):
        return 1.0
    low, high = 0.0, reach
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _cluster_totals(
    data: NDArray[np.float64], clusters: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and size of each cluster, in order of first appearance."""
    if clusters is None:
        return data, np.ones_like(data)
    if len(clusters) != data.size:
        raise ValueError(f"{len(clusters)} cluster labels for {data.size} values")
    order: dict[Hashable, int] = {}
    index = np.array([order.setdefault(label, len(order)) for label in clusters])
    sums = np.bincount(index, weights=data).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def _resampled_means(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], rng: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    rows = max(1, _CHUNK // len(sums))
    means: list[NDArray[np.float64]] = []
    for start in range(0, resamples, rows):
        drawn = rng.integers(len(sums), size=(min(rows, resamples - start), len(sums)))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return np.concatenate(means)


def _rows_of_chunks(width: int, resamples: int) -> list[int]:
    """How many draws of `width` numbers are held at once, until all are made."""
    rows = max(1, _CHUNK // width)
    return [min(rows, resamples - start) for start in range(0, resamples, rows)]


def _normal_quantile(p: float) -> float:
    return NormalDist().inv_cdf(p)


def t_p_value(t: float, freedom: float) -> float:
    """Two-sided p of Student's t: I_x(freedom / 2, 1 / 2) at x = freedom / (freedom + t^2), the regularised incomplete beta function.

    Its continued fraction by Lentz's method (Press et al., Numerical Recipes, 6.4); relative error under 1e-5 for freedom up to 1e6.
    """
    a, b, x = freedom / 2, 0.5, freedom / (freedom + t * t)
    if x >= 1.0:
        return 1.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    if x < (a + 1) / (a + b + 2):
        return math.exp(log_front) * _beta_fraction(a, b, x) / a
    return 1.0 - math.exp(log_front) * _beta_fraction(b, a, 1.0 - x) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            c, d = 1.0 + term / c, 1.0 / (1.0 + term * d)
            value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return value


def _scipy_stats() -> Any:
    """SciPy is untyped; results are converted at once."""
    from scipy import stats

    return stats


def _check_rate(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"a rate must be between 0 and 1, got {p}")


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence, power and alpha must lie strictly between 0 and 1, got {confidence}")
