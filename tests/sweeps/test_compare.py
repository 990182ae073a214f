"""Comparisons recomputed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from scipy import stats as scipy_stats

from markovlm.sweeps.compare import Outcome, compare, holm, mean_t

stats: Any = scipy_stats


def outcome(group: str, seed: int, score: float | None, verdict: str = "healthy", **values: Any) -> Outcome:
    return Outcome(
        f"{group}-{seed}", group, values, seed, "failed" if score is None else "done", score, 100, "test", (), None, verdict
    )


def test_a_mean_over_three_seeds_has_students_interval() -> None:
    # sd of .1 .2 .3 is .1; t(.975, 2) = 4.3027; half width = 4.3027 * .1 / sqrt(3) = .2484
    mean, low, high = mean_t([0.1, 0.2, 0.3])
    assert (mean, low, high) == pytest.approx((0.2, 0.2 - 0.24841, 0.2 + 0.24841), abs=1e-4)


@pytest.mark.parametrize("values", [[0.4], [0.4, 0.4]])
def test_without_spread_there_is_no_interval(values: list[float]) -> None:
    mean, low, high = mean_t(values)
    assert mean == 0.4
    assert math.isnan(low)
    assert math.isnan(high)


def test_an_accuracys_interval_ends_at_one_and_that_of_a_likelihood_does_not() -> None:
    runs = [outcome("a", 0, 0.9), outcome("a", 1, 0.99)]
    assert compare(runs).groups[0].score.high == 1.0
    assert compare(runs, metric="logprob").groups[0].score.high > 1.0


def test_differences_are_paired_by_seed_and_a_failed_run_is_counted() -> None:
    runs = [outcome("a", s, x) for s, x in enumerate([0.1, 0.5, 0.9])] + [
        outcome("b", s, x) for s, x in [(0, 0.2), (1, 0.7), (2, None)]
    ]
    found = compare(runs)
    (row,) = found.differences
    assert (row.group, row.reference, row.seeds) == ("b", "a", 2)
    assert row.difference.mean == pytest.approx(0.15)  # (.1 + .2) / 2
    assert row.p == pytest.approx(float(stats.ttest_rel([0.2, 0.7], [0.1, 0.5]).pvalue))
    assert [(g.group, len(g.seeds), g.planned) for g in found.groups] == [("a", 3, 3), ("b", 2, 3)]


def test_another_reference() -> None:
    found = compare([outcome("a", 0, 0.1), outcome("b", 0, 0.4)], reference="b")
    assert [(d.group, d.reference) for d in found.differences] == [("a", "b")]
    assert found.differences[0].difference.mean == pytest.approx(-0.3)


def test_a_reference_that_is_not_there_is_an_error_and_not_the_first() -> None:
    with pytest.raises(ValueError, match="no group is called so"):
        compare([outcome("a", 0, 0.1)], reference="b")


def test_a_factor_is_compared_with_everything_else_equal() -> None:
    # lr 2 against 1: at seed 0 (.3 - .1 with x, .5 - .2 with y) mean .25; at seed 1 only x: .6 - .2 = .4; over seeds .325
    runs = [
        outcome("x1", 0, 0.1, lr=1, kind="x"),
        outcome("x2", 0, 0.3, lr=2, kind="x"),
        outcome("y1", 0, 0.2, lr=1, kind="y"),
        outcome("y2", 0, 0.5, lr=2, kind="y"),
        outcome("x1", 1, 0.2, lr=1, kind="x"),
        outcome("x2", 1, 0.6, lr=2, kind="x"),
        outcome("y2", 1, 0.9, lr=2, kind="y"),
    ]
    lr = next(row for row in compare(runs).factors if row.key == "lr")
    assert (lr.value, lr.reference, lr.pairs, lr.seeds) == (2, 1, 3, 2)
    assert lr.difference.mean == pytest.approx(0.325)


def test_holm_by_hand() -> None:
    # sorted .01 .03 .04: times 3, 2, 1 = .03 .06 .04, made monotone: .03 .06 .06
    assert holm([0.04, 0.01, None, 0.03]) == pytest.approx([0.06, 0.03, None, 0.06])


def test_collapses_are_counted_with_an_interval() -> None:
    runs = [outcome("a", s, 0.5, "collapsed" if s else "healthy") for s in range(4)]
    row = compare(runs).groups[0]
    assert row.verdicts == {"healthy": 1, "collapsed": 3}
    assert row.collapsed == pytest.approx((0.3006, 0.9544), abs=1e-3)  # Wilson, 3 of 4
