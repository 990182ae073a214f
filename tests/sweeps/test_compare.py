"""Comparisons recomputed by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from markovlm.config import build_config
from markovlm.statistics import crossed_mean_ci
from markovlm.sweeps.checks import doubts
from markovlm.sweeps.compare import Outcome, compare, holm, mean_t
from markovlm.sweeps.page import evaluated_apart

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
    with pytest.raises(ValueError, match="there is no such group"):
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


def answered(group: str, seed: int, right: str, how: dict[str, Any] | None = None, **values: Any) -> Outcome:
    """`right` as ones and zeros, a question each."""
    answers = {f"q{i}": float(mark) for i, mark in enumerate(right)}
    score = sum(answers.values()) / len(answers)
    return Outcome(f"{group}-{seed}", group, values, seed, "done", score, len(answers), "test", answers=answers, how=how)


def test_intervals_are_over_questions_too_where_the_answers_are_known() -> None:
    runs = [answered("a", 0, "1110"), answered("a", 1, "1100"), answered("a", 2, "1000"),
            answered("b", 0, "1111"), answered("b", 1, "1110"), answered("b", 2, "1010")]  # fmt: skip
    found = compare(runs)
    table = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]])
    assert found.groups[0].over == "seeds and questions"
    assert found.groups[0].score.high == min(crossed_mean_ci(table).high, 1.0)
    (row,) = found.differences
    gaps = np.array([[0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 1, 0]])
    expected = crossed_mean_ci(gaps)
    assert row.over == "seeds and questions"
    assert (row.difference.mean, row.difference.low, row.p) == pytest.approx((0.25, expected.low, expected.p))
    welch = float(stats.ttest_ind([1.0, 0.75, 0.5], [0.75, 0.5, 0.25], equal_var=False).pvalue)
    assert row.p_unpaired == pytest.approx(welch)


def test_runs_on_other_questions_are_not_crossed() -> None:
    one, two = answered("a", 0, "1110"), answered("a", 1, "1100")
    other = replace(two, answers={f"other{i}": 1.0 for i in range(4)})
    assert compare([one, other]).groups[0].over == "seeds"
    assert compare([one, replace(two, answers=None)]).groups[0].over == "seeds"


def test_a_factor_over_two_settings_is_crossed_after_averaging_within_a_seed() -> None:
    runs = [
        answered(f"{lr}{kind}", seed, right, lr=lr, kind=kind)
        for (lr, kind, seed), right in {
            (1, "x", 0): "100", (2, "x", 0): "110", (1, "x", 1): "000", (2, "x", 1): "011",
            (1, "y", 0): "110", (2, "y", 0): "111", (1, "y", 1): "010", (2, "y", 1): "010",
        }.items()
    ]  # fmt: skip
    lr = next(row for row in compare(runs).factors if row.key == "lr")
    # seed 0: x 0 1 0, y 0 0 1, mean 0 .5 .5; seed 1: x 0 1 1, y 0 0 0, mean 0 .5 .5
    expected = crossed_mean_ci(np.array([[0, 0.5, 0.5], [0, 0.5, 0.5]]))
    assert (lr.pairs, lr.seeds, lr.over) == (4, 2, "seeds and questions")
    assert (lr.difference.mean, lr.p) == pytest.approx((1 / 3, expected.p))


def test_cells_that_were_evaluated_differently_are_told_apart() -> None:
    sampled = {"decoding": "sampled", "temperature": 0.7, "seed": 0, "answer_end": "<eos>"}
    runs = [answered("a", 0, "10", sampled), answered("b", 0, "11", {**sampled, "temperature": 1.3})]
    assert "temperature (0.7, 1.3)" in (evaluated_apart(runs) or "")
    assert evaluated_apart([runs[0], answered("b", 1, "11", {**sampled, "seed": 1, "conditioning": "non_markovian"})]) is None


def test_a_sweep_whose_cells_would_be_decoded_differently_is_told_before_it_runs() -> None:
    def cells(**base: Any) -> list[Any]:
        made = [build_config({"rollouts": {"temperature": tau}, **base}) for tau in (0.7, 1.3)]
        return [SimpleNamespace(config=config) for config in made]

    spec: Any = SimpleNamespace(evaluate=object())
    assert doubts(spec, cells()) == []  # evaluations have a temperature of their own
    (line,) = doubts(spec, cells(evaluation={"temperature": "training"}))
    assert "sampled at 0.7, sampled at 1.3" in line
