"""Statistics against published values, against each other and at their edges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from markovlm.statistics import (
    cluster_mean_ci,
    crossed_mean_ci,
    log_rank_p,
    mcnemar_exact,
    minimum_detectable_difference,
    sample_size_for_difference,
    t_p_value,
    wilson,
)

stats: Any = scipy_stats
COUNTS = st.integers(0, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_wilson_by_hand():
    # k = 8, n = 10, z = 1.959964: centre (0.8 + z²/20) / (1 + z²/10) = 0.716740,
    # half width z sqrt(0.8*0.2/10 + z²/400) / (1 + z²/10) = 0.226578
    low, high = wilson(8, 10)
    assert low == pytest.approx(0.490162, abs=1e-5)
    assert high == pytest.approx(0.943318, abs=1e-5)


@given(COUNTS.filter(lambda counts: counts[1] > 0), st.sampled_from([0.5, 0.95, 0.99]))
def test_wilson_is_scipys(counts, confidence):
    theirs = stats.binomtest(*counts).proportion_ci(confidence, method="wilson")
    assert wilson(*counts, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@given(st.floats(-30, 30), st.floats(0.3, 1e5))
def test_p_of_students_t_is_scipys(t, freedom):
    assert t_p_value(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-5, abs=1e-300)


@given(COUNTS, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_intervals_hold_the_rate_and_stay_in_range(counts, confidence):
    k, n = counts
    interval = wilson(k, n, confidence)
    assert 0 <= interval.low <= interval.high <= 1
    if n:
        assert interval.low <= k / n <= interval.high
    assert wilson(k, n, confidence).low == pytest.approx(1 - wilson(n - k, n, confidence).high, abs=1e-9)


@given(COUNTS)
def test_more_confidence_is_wider(counts):
    k, n = counts
    assert wilson(k, n, 0.99).low <= wilson(k, n, 0.9).low <= wilson(k, n, 0.9).high <= wilson(k, n, 0.99).high


def test_nothing_counted_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (0, -1)])
def test_impossible_counts(k, n):
    with pytest.raises(ValueError, match="must be between 0 and n"):
        wilson(k, n)


def test_exact_mcnemar_by_hand():
    # b = 2, c = 8 of 10: 2 * (C(10,0) + C(10,1) + C(10,2)) / 2^10 = 2 * 56 / 1024
    assert mcnemar_exact(2, 8) == pytest.approx(112 / 1024)
    assert mcnemar_exact(8, 2) == mcnemar_exact(2, 8)
    assert mcnemar_exact(0, 0) == mcnemar_exact(5, 5) == 1.0
    with pytest.raises(ValueError, match="must not be negative"):
        mcnemar_exact(-1, 2)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=40), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_bootstrap_holds_its_mean_and_repeats(values, seed):
    estimate = cluster_mean_ci(values, None, seed=seed, resamples=400)
    assert estimate == cluster_mean_ci(values, None, seed=seed, resamples=400)
    assert estimate.mean == pytest.approx(float(np.mean(values)), abs=1e-12)
    assert min(values) - 1e-9 <= estimate.low <= estimate.high <= max(values) + 1e-9


def test_bootstrap_agrees_with_the_normal_interval_where_that_holds():
    values = np.random.default_rng(0).normal(0.3, 1.0, size=400)
    half = 1.959964 * values.std(ddof=1) / math.sqrt(400)
    mean, low, high = cluster_mean_ci(values, None, seed=1)
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.01)


def test_samples_of_one_question_are_no_new_evidence():
    answers = np.random.default_rng(0).integers(0, 2, size=50).astype(float)
    copies, labels = np.repeat(answers, 8), [f"q{i}" for i in range(50) for _ in range(8)]
    once, clustered, naive = (
        cluster_mean_ci(answers, None, 0),
        cluster_mean_ci(copies, labels, 0),
        cluster_mean_ci(copies, None, 0),
    )
    assert clustered == pytest.approx(once)
    assert naive.high - naive.low < 0.5 * (clustered.high - clustered.low)


def test_clusters_of_unequal_size_weigh_by_their_samples():
    # Means are sums / sizes: clusters a (1, 1, 1) and b (0): 3/3, 0/1 or 3/4
    estimate = cluster_mean_ci([1, 1, 1, 0], ["a", "a", "a", "b"], 0, resamples=2000)
    assert estimate == (0.75, 0.0, 1.0)


def test_large_bootstraps_are_cut_into_pieces():
    values = np.random.default_rng(0).random(14_042)
    found = cluster_mean_ci(values, None, seed=0, resamples=300)
    assert found.low < 0.5 < found.high + 0.01


def test_degenerate_samples():
    assert all(map(math.isnan, cluster_mean_ci([], None, seed=0)))
    assert cluster_mean_ci([0.5, 0.5, 0.5], None, seed=0) == (0.5, 0.5, 0.5)
    alone = cluster_mean_ci([1.0, 0.0], ["q", "q"], seed=0)
    assert alone.mean == 0.5
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)
    with pytest.raises(ValueError, match="finite"):
        cluster_mean_ci([1.0, math.nan], None, seed=0)
    with pytest.raises(ValueError, match="1 cluster labels for 2 values"):
        cluster_mean_ci([1.0, 0.0], ["q"], seed=0)
    with pytest.raises(ValueError, match="strictly between"):
        cluster_mean_ci([1.0, 0.0], None, seed=0, confidence=1.0)


def test_sample_sizes_against_tables():
    # Fleiss, Levin & Paik: 0.5 against 0.6, power 0.8, alpha 0.05 without correction needs 388 in each group
    assert sample_size_for_difference(0.5, 0.6) == 388
    assert sample_size_for_difference(0.6, 0.5) == 388
    # Connor 1987, discordant 0.3, difference 0.1: (1.95996 sqrt 0.3 + 0.84162 sqrt 0.29)² / 0.01 = 233.09
    assert sample_size_for_difference(0.5, 0.6, paired=True, discordant=0.3) == 234
    assert sample_size_for_difference(0.5, 0.6, paired=True, discordant=0.1) < 100
    with pytest.raises(ValueError, match="difference of zero"):
        sample_size_for_difference(0.5, 0.5)
    with pytest.raises(ValueError, match="discordant share"):
        sample_size_for_difference(0.5, 0.7, paired=True, discordant=0.1)


def test_the_computed_size_has_the_power_it_promises():
    n, rng = sample_size_for_difference(0.5, 0.65, paired=True, discordant=0.3), np.random.default_rng(0)
    draws = rng.multinomial(n, [0.225, 0.075, 0.7], size=1000)
    found = sum((c - b) ** 2 / max(b + c, 1) > 3.841 for b, c, _ in draws)
    assert 0.75 < found / 1000 < 0.88


@given(st.integers(20, 5000), st.floats(0.02, 0.98), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_detectable_difference_inverts_the_sample_size(n, p, paired):
    gap = minimum_detectable_difference(n, p, paired=paired)
    if gap == 1.0:
        return
    other = p + gap if p <= 0.5 else p - gap
    assert sample_size_for_difference(p, other, paired=paired) <= n
    closer = p + 0.99 * gap if p <= 0.5 else p - 0.99 * gap
    assert sample_size_for_difference(p, closer, paired=paired) >= n * 0.9


def test_thirty_questions_show_little():
    assert minimum_detectable_difference(30, 0.2) > 0.3
    assert minimum_detectable_difference(1319, 0.5) < 0.06
    assert minimum_detectable_difference(0, 0.5) == minimum_detectable_difference(1, 0.5) == 1.0


def test_equal_values_within_a_range_leave_room_for_what_was_not_seen() -> None:
    """0 of 5 right: Wilson's upper bound z^2 / (n + z^2) = 3.8415 / 8.8415 = .4345; of differences in -1 to 1 as much on both sides."""
    assert cluster_mean_ci([0.0] * 5, None, 0, within=(0, 1)) == pytest.approx((0, 0, 0.4345), abs=1e-4)
    assert cluster_mean_ci([1.0] * 5, None, 0, within=(0, 1)) == pytest.approx((1, 1 - 0.4345, 1), abs=1e-4)
    assert cluster_mean_ci([0.0] * 5, None, 0, within=(-1, 1)) == pytest.approx((0, -0.4345, 0.4345), abs=1e-4)
    assert cluster_mean_ci([1.0] * 5, ["a"] * 5, 0, within=(0, 1)) == pytest.approx((1, 1 - 3.8415 / 4.8415, 1), abs=1e-4)
    assert cluster_mean_ci([0.0] * 5, None, 0) == (0, 0, 0)
    assert cluster_mean_ci([0.0, 1.0] * 5, None, 0, within=(0, 1)) == cluster_mean_ci([0.0, 1.0] * 5, None, 0)


# --------------------------------------------------------------------------------------------------- seeds and questions


def test_a_crossed_interval_is_that_of_the_two_way_analysis_of_variance() -> None:
    """3 seeds, 4 questions, by hand: means .75 .5 .25 of seeds and 1 2/3 1/3 0 of questions."""
    table = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]
    # MS of seeds: 4 (.25^2 + 0 + .25^2) / 2 = .25; of questions: 3 (.5^2 + (1/6)^2 + (1/6)^2 + .5^2) / 3 = 5/9
    # all squares about .5: 12 * .25 = 3; rest: 3 - .5 - 5/3 = 5/6, over 6 degrees of freedom 5/36
    # variance of the mean: (.25 + 5/9 - 5/36) / 12 = (2/3) / 12 = 1/18
    # Satterthwaite: (2/3)^2 / (.25^2/2 + (5/9)^2/3 + (5/36)^2/6)
    freedom = (2 / 3) ** 2 / (0.25**2 / 2 + (5 / 9) ** 2 / 3 + (5 / 36) ** 2 / 6)
    half = float(stats.t.ppf(0.975, freedom)) * (1 / 18) ** 0.5
    found = crossed_mean_ci(table)
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    assert found.p == pytest.approx(2 * float(stats.t.sf(0.5 / (1 / 18) ** 0.5, freedom)))


def test_where_questions_say_nothing_a_crossed_interval_is_students_over_seeds() -> None:
    table = np.repeat([[0.1], [0.2], [0.3]], 50, axis=1)
    found = crossed_mean_ci(table)
    assert (found.low, found.high) == pytest.approx((0.2 - 0.24841, 0.2 + 0.24841), abs=1e-4)  # as mean_t of .1 .2 .3


@pytest.mark.parametrize("table", [[[1.0, 0.0]], [[1.0], [0.0]], [[1.0, 1.0], [1.0, 1.0]], np.zeros((0, 3))])
def test_without_two_seeds_two_questions_and_spread_there_is_no_crossed_interval(table: Any) -> None:
    found = crossed_mean_ci(table)
    assert math.isnan(found.low)
    assert math.isnan(found.p)


def test_the_crossed_interval_covers_where_the_percentile_bootstrap_does_not() -> None:
    """Three seeds that differ much: 200 draws, coverage of at least .85 (the bootstrap's is .84 in benchmarks/intervals.py)."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        effects = 0.6 * rng.standard_normal((3, 1)) + 2.0 * rng.standard_normal((1, 200))
        found = crossed_mean_ci(rng.random((3, 200)) < 1 / (1 + np.exp(-effects)))
        hits += found.low <= 0.5 <= found.high
    assert hits >= 170


def test_the_log_rank_test_against_all_divisions_by_hand() -> None:
    """Two against two: all of one group end before the other. Of 6 divisions the two extreme ones are as far apart: p = 1/3."""
    early, late = [(1.0, True), (2.0, True)], [(3.0, True), (4.0, False)]
    assert log_rank_p(early, late, 0) == pytest.approx(2 / 6)
    assert log_rank_p(early, early, 0) == 1.0
    assert log_rank_p([(5.0, False)], [(5.0, False)], 0) == 1.0
    assert log_rank_p([], late, 0) == 1.0


def test_the_log_rank_statistic_is_observed_less_expected() -> None:
    """Five against five, all of one group before the other: the most extreme of C(10, 5) = 252 divisions, and its mirror image."""
    ours, theirs = [(float(i), True) for i in range(1, 6)], [(float(i), True) for i in range(11, 16)]
    assert log_rank_p(ours, theirs, 0) == pytest.approx(2 / 252)
    sampled = log_rank_p(ours, theirs, 0, resamples=200)
    assert 0 < sampled < 0.05
