"""Comparison of cells: means over seeds with intervals, differences paired by seed, one factor at a time. Pure: outcomes of runs in,
rows out. If it is known which questions each run answered correctly, intervals are for other seeds *and* other questions
(`statistics.crossed_mean_ci`); else Student's t over seeds, which leaves the questions out. A difference is taken seed by seed and
question by question; where training is chaotic, two runs with the same seed have no more in common than any other two, so an unpaired
test (Welch's t over seeds) is given too. p values of one family are adjusted by Holm's method (Scandinavian Journal of Statistics 6,
1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from markovlm.statistics import Estimate, crossed_mean_ci, wilson
from markovlm.sweeps.spec import Values

stats: Any = scipy_stats
Floats = NDArray[np.float64]
SEEDS, CROSSED = "seeds", "seeds and questions"  # what an interval is over


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one run."""

    name: str
    group: str
    values: Values
    seed: int
    status: str
    score: float | None = None  # the metric cells are compared by: accuracy in 0..1, or nats per answer token
    n: int = 0  # questions behind `score`
    where: str = ""  # "test, last checkpoint" or "dev, step 50"
    curve: tuple[tuple[int, float], ...] = ()  # (step, score) on dev questions
    best: float | None = None  # of the curve
    verdict: str = "unknown"
    seconds: float | None = None  # of training steps, all together
    steps: int = 0
    answers: Mapping[str, float] | None = None  # question -> what `score` is the mean of; None: not known
    how: Mapping[str, Any] | None = None  # how `score` was evaluated


def mean_t(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean with Student's t interval. For one value, or equal values (no spread), the bounds are nan; without values all are."""
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan)
    mean = math.fsum(values) / n
    if max(values) == min(values):
        return Estimate(mean, math.nan, math.nan)
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half)


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A combination of values over its seeds."""

    group: str
    values: Values
    seeds: tuple[int, ...]  # with a score
    planned: int  # runs, the failed and unfinished included
    score: Estimate
    spread: float | None  # standard deviation over seeds, ddof 1
    lowest: float | None
    highest: float | None
    best: Estimate  # of the dev curves: what early stopping on dev could have had
    verdicts: Mapping[str, int] = field(default_factory=dict)
    collapsed: tuple[float, float] = (0.0, 1.0)  # Wilson interval of the share of runs that collapsed
    seconds: float | None = None  # median of the runs
    over: str = SEEDS  # what the interval of `score` is over


@dataclass(frozen=True, slots=True)
class Difference:
    """`group` minus `reference` over the seeds that both have."""

    group: str
    reference: str
    seeds: int
    difference: Estimate
    p: float | None  # of a difference of 0, paired; None with fewer than two seeds or no spread
    p_adjusted: float | None  # Holm, over the comparisons of the same table
    p_unpaired: float | None = None  # Welch's t test over the seeds of either, as if a seed meant nothing
    over: str = SEEDS  # what the interval of `difference` is over


@dataclass(frozen=True, slots=True)
class FactorRow:
    """One value of one key against the key's first value, everything else and the seed equal."""

    key: str
    value: Any
    reference: Any
    pairs: int
    seeds: int
    difference: Estimate  # mean over settings within a seed first, then over seeds
    p: float | None
    p_adjusted: float | None
    over: str = SEEDS


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of a sweep."""

    groups: list[GroupRow]
    differences: list[Difference]
    factors: list[FactorRow]
    reference: str | None


def compare(outcomes: Sequence[Outcome], reference: str | None = None, metric: str = "accuracy") -> Comparison:
    """`reference`: the group that others are compared with; default the first. Groups keep their order. Raises ValueError if it is none
    of them.

    Intervals of an accuracy end where accuracies end, at 0 and 1.
    """
    order = list(dict.fromkeys(outcome.group for outcome in outcomes))
    by_group = {group: [o for o in outcomes if o.group == group] for group in order}
    if reference is None:
        reference = order[0] if order else None
    elif reference not in by_group:
        raise ValueError(f"reference {reference!r}: there is no such group")
    groups = [
        _group_row(group, members, (0.0, 1.0) if metric == "accuracy" else (-math.inf, math.inf))
        for group, members in by_group.items()
    ]
    differences = [
        _difference(group, by_group[group], reference, by_group[reference]) for group in order if reference and group != reference
    ]
    return Comparison(groups, _adjusted(differences), _factors(outcomes), reference)


def _within(estimate: Estimate, range_: tuple[float, float]) -> Estimate:
    low, high = range_
    return Estimate(estimate.mean, max(estimate.low, low), min(estimate.high, high)) if estimate.low == estimate.low else estimate


def _group_row(group: str, members: Sequence[Outcome], range_: tuple[float, float]) -> GroupRow:
    scored = [o for o in members if o.score is not None]
    scores = [o.score for o in scored if o.score is not None]
    crossed = _table(scored)
    score = mean_t(scores) if crossed is None else crossed_mean_ci(crossed).estimate
    verdicts: dict[str, int] = {}
    for o in members:
        verdicts[o.verdict] = verdicts.get(o.verdict, 0) + 1
    judged = sum(count for verdict, count in verdicts.items() if verdict != "unknown")
    times = sorted(o.seconds for o in members if o.seconds is not None)
    return GroupRow(
        group,
        members[0].values,
        tuple(o.seed for o in scored),
        len(members),
        _within(score, range_),
        float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        min(scores, default=None),
        max(scores, default=None),
        _within(mean_t([o.best for o in members if o.best is not None]), range_),
        verdicts,
        wilson(verdicts.get("collapsed", 0), judged),
        float(np.median(times)) if times else None,
        SEEDS if crossed is None else CROSSED,
    )


def _table(runs: Sequence[Outcome], others: Sequence[Outcome] | None = None) -> Floats | None:
    """[S, Q] answers of runs of one setting to the questions that all of them had; less those of `others`, run by run.

    None if they are not known, or are too few to be crossed.
    """
    known = [o.answers for o in (*runs, *(others or ())) if o.answers]
    if len(runs) < 2 or len(known) < len(runs) + len(others or ()):
        return None
    shared = [question for question in known[0] if all(question in answers for answers in known)]
    if len(shared) < 2 or any(len(shared) < len(answers) for answers in known):
        return None  # cells on other questions are not compared question by question
    table = np.array([[answers[question] for question in shared] for answers in known])
    return table[: len(runs)] - table[len(runs) :] if others is not None else table


def welch_t(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Two-sided p of Welch's t test; None without spread."""
    if min(len(ours), len(theirs)) < 2 or (max(ours) == min(ours) and max(theirs) == min(theirs)):
        return None
    return float(stats.ttest_ind(ours, theirs, equal_var=False).pvalue)


def paired_t(differences: Sequence[float]) -> float | None:
    """Two-sided p of the paired t test; None without spread."""
    if len(differences) < 2 or max(differences) == min(differences):
        return None
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _difference(group: str, ours: Sequence[Outcome], reference: str, theirs: Sequence[Outcome]) -> Difference:
    other = {o.seed: o for o in theirs if o.score is not None}
    pairs = [(o, other[o.seed]) for o in ours if o.score is not None and o.seed in other]
    mean, p, over = _of_pairs([pairs])
    alone = [[o.score for o in side if o.score is not None] for side in (ours, theirs)]
    return Difference(group, reference, len(pairs), mean, p, None, welch_t(*alone), over)


def _of_pairs(settings: Sequence[Sequence[tuple[Outcome, Outcome]]]) -> tuple[Estimate, float | None, str]:
    """(mean, p, what it is over) of the differences of paired runs, averaged over settings within a seed first."""
    by_seed: dict[int, list[tuple[Outcome, Outcome]]] = {}
    for pairs in settings:
        for one, other in pairs:
            by_seed.setdefault(one.seed, []).append((one, other))
    tables = [_table([a for a, _ in pairs], [b for _, b in pairs]) for pairs in settings if len(pairs) == len(by_seed)]
    if settings and len(tables) == len(settings) and all(table is not None for table in tables):
        shapes = {table.shape for table in tables if table is not None}
        if len(shapes) == 1:
            found = crossed_mean_ci(np.mean([table for table in tables if table is not None], axis=0))
            return found.estimate, None if math.isnan(found.p) else found.p, CROSSED
    means = [math.fsum((a.score or 0.0) - (b.score or 0.0) for a, b in pairs) / len(pairs) for pairs in by_seed.values()]
    return mean_t(means), paired_t(means), SEEDS


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment; None stays None and does not count."""
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    out: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        out[index] = highest
    return out


def _adjusted(rows: Sequence[Difference]) -> list[Difference]:
    return [replace(row, p_adjusted=p) for row, p in zip(rows, holm([row.p for row in rows]), strict=True)]


def _factors(outcomes: Sequence[Outcome]) -> list[FactorRow]:
    """Keys that vary while everything else stays: each value against the first that occurs."""
    keys = list(dict.fromkeys(key for o in outcomes for key in o.values))
    rows = [row for key in keys for row in _factor(key, outcomes)]
    adjusted = holm([row.p for row in rows])
    return [replace(row, p_adjusted=p) for row, p in zip(rows, adjusted, strict=True)]


def _factor(key: str, outcomes: Sequence[Outcome]) -> list[FactorRow]:
    scored = [o for o in outcomes if o.score is not None and key in o.values]
    found: list[Any] = []
    for o in scored:
        if o.values[key] not in found:
            found.append(o.values[key])
    if len(found) < 2:
        return []
    matched = {_rest(o, key): o for o in scored if o.values[key] == found[0]}
    rows: list[FactorRow] = []
    for value in found[1:]:
        by_setting: dict[tuple[Any, ...], list[tuple[Outcome, Outcome]]] = {}
        for o in scored:
            twin = matched.get(_rest(o, key)) if o.values[key] == value else None
            if twin is not None:
                by_setting.setdefault(_rest(o, key)[1:], []).append((o, twin))
        if by_setting:
            mean, p, over = _of_pairs(list(by_setting.values()))
            seeds = {one.seed for pairs in by_setting.values() for one, _ in pairs}
            count = sum(map(len, by_setting.values()))
            rows.append(FactorRow(key, value, found[0], count, len(seeds), mean, p, None, over))
    return rows


def _rest(outcome: Outcome, key: str) -> tuple[Any, ...]:
    """Everything but one key: what two runs must share to be compared in it."""
    others = sorted((name, repr(value)) for name, value in outcome.values.items() if name != key)
    return (outcome.seed, *others)
