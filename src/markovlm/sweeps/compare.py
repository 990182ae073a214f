"""Cells side by side: means over seeds with intervals, differences paired by seed, one factor at a time.

Pure: outcomes of runs in, rows out. The unit is the run (a seed), not the question: intervals are Student's t over seeds, which hold
for few of them and are wide then, as they should be. A difference is taken seed by seed, since a seed gives both cells the
same questions and the same evaluation. p values of one family are adjusted by Holm's method (Scandinavian Journal of Statistics 6, 1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from markovlm.statistics import Estimate, wilson
from markovlm.sweeps.spec import Values

stats: Any = scipy_stats


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to."""

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


def mean_t(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean with Student's t interval; one value, or all the same (no spread to judge by): bounds are nan; none: all nan."""
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


@dataclass(frozen=True, slots=True)
class Difference:
    """`group` minus `reference` over the seeds that both have."""

    group: str
    reference: str
    seeds: int
    difference: Estimate
    p: float | None  # paired t test; None with fewer than two seeds or no spread
    p_adjusted: float | None  # Holm, over the comparisons of the same table


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


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of a sweep."""

    groups: list[GroupRow]
    differences: list[Difference]
    factors: list[FactorRow]
    reference: str | None


def compare(outcomes: Sequence[Outcome], reference: str | None = None, metric: str = "accuracy") -> Comparison:
    """`reference`: the group that others are compared with; default the first. Groups keep their order. ValueError where it is none of them.

    Intervals of an accuracy end where accuracies end, at 0 and 1.
    """
    order = list(dict.fromkeys(outcome.group for outcome in outcomes))
    by_group = {group: [o for o in outcomes if o.group == group] for group in order}
    if reference is None:
        reference = order[0] if order else None
    elif reference not in by_group:
        raise ValueError(f"reference {reference!r}: no group is called so")
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
        _within(mean_t(scores), range_),
        float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        min(scores, default=None),
        max(scores, default=None),
        _within(mean_t([o.best for o in members if o.best is not None]), range_),
        verdicts,
        wilson(verdicts.get("collapsed", 0), judged),
        float(np.median(times)) if times else None,
    )


def paired_t(differences: Sequence[float]) -> float | None:
    """Two-sided p of the paired t test; None where there is no spread to judge by."""
    if len(differences) < 2 or max(differences) == min(differences):
        return None
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _difference(group: str, ours: Sequence[Outcome], reference: str, theirs: Sequence[Outcome]) -> Difference:
    other = {o.seed: o.score for o in theirs if o.score is not None}
    gaps = [o.score - other[o.seed] for o in ours if o.score is not None and o.seed in other]
    return Difference(group, reference, len(gaps), mean_t(gaps), paired_t(gaps), None)


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
    return [
        Difference(row.group, row.reference, row.seeds, row.difference, row.p, p)
        for row, p in zip(rows, holm([row.p for row in rows]), strict=True)
    ]


def _factors(outcomes: Sequence[Outcome]) -> list[FactorRow]:
    """Keys that vary while everything else stays: each value against the first that occurs."""
    keys = list(dict.fromkeys(key for o in outcomes for key in o.values))
    rows = [row for key in keys for row in _factor(key, outcomes)]
    adjusted = holm([row.p for row in rows])
    return [
        FactorRow(row.key, row.value, row.reference, row.pairs, row.seeds, row.difference, row.p, p)
        for row, p in zip(rows, adjusted, strict=True)
    ]


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
        by_seed: dict[int, list[float]] = {}
        for o in scored:
            twin = matched.get(_rest(o, key)) if o.values[key] == value else None
            if twin is not None and o.score is not None and twin.score is not None:
                by_seed.setdefault(o.seed, []).append(o.score - twin.score)
        means = [math.fsum(gaps) / len(gaps) for gaps in by_seed.values()]
        pairs = sum(map(len, by_seed.values()))
        if pairs:
            rows.append(FactorRow(key, value, found[0], pairs, len(means), mean_t(means), paired_t(means), None))
    return rows


def _rest(outcome: Outcome, key: str) -> tuple[Any, ...]:
    """Everything but one key: what two runs must share to be compared in it."""
    others = sorted((name, repr(value)) for name, value in outcome.values.items() if name != key)
    return (outcome.seed, *others)
