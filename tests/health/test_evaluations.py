"""Dev evaluations: falls with their interval, runs that rise, and what the guard makes of them."""

from __future__ import annotations

import pytest

from markovlm.config.health import HealthConfig
from markovlm.health.evaluations import Evaluations, Measured, independent
from markovlm.health.monitor import HealthMonitor, judge
from markovlm.training.guard import Guard


def measured(*accuracies: float, n: int = 100, every: int = 4) -> Evaluations:
    evaluations = Evaluations()
    for number, accuracy in enumerate(accuracies, 1):
        evaluations.add(every * number, accuracy, n)
    return evaluations


def level(evaluations: Evaluations) -> str | None:
    found = evaluations.evidence()
    return None if found is None else found.level


def test_a_halved_accuracy_is_a_collapse_at_once() -> None:
    """The run of issue 15: .83 at step 8, .57 at 16, .16 at 24; said at 38 by the rows alone."""
    assert level(measured(0.4, 0.83)) is None
    assert level(measured(0.4, 0.83, 0.75, 0.57)) == "warn"
    found = measured(0.4, 0.83, 0.75, 0.57, 0.35, 0.16).evidence()
    assert found is not None
    assert found.level == "collapsed"
    assert found.onset == (13, 16)  # after the evaluation at 12, not after that at 16


@pytest.mark.parametrize(
    ("accuracies", "n"),
    [((0.83, 0.80, 0.77, 0.81), 100), ((0.5, 0.0), 2), ((0.6, 0.3, 0.4), 20), ((0.11, 0.08, 0.05), 100), ((0.9, 0.9), 100)],
)
def test_noise_is_no_fall(accuracies: tuple[float, ...], n: int) -> None:
    assert level(measured(*accuracies, n=n)) is None


def test_half_of_a_small_accuracy_needs_several_evaluations() -> None:
    assert level(measured(0.5, 0.5, 0.06, n=60)) != "collapsed"
    assert level(measured(0.5, 0.5, 0.06, 0.05, 0.07, n=60)) == "collapsed"


def test_questions_of_one_text_are_no_independent_ones() -> None:
    """A chain of 10 texts with 8 questions each: all of a text right, or none."""
    assert independent(80, 10) == 10
    assert independent(4, 10) == 4  # texts without a question say nothing
    assert independent(80, None) == 80
    assert level(measured(0.8, 0.15, n=80)) == "collapsed"
    assert level(measured(0.8, 0.15, n=independent(80, 10))) is None


def test_rising() -> None:
    assert not measured(0.1).rising
    assert measured(0.1, 0.3, 0.6).rising
    assert not measured(0.1, 0.7, 0.5).rising  # turned down
    assert measured(0.1, 0.8, 0.2, 0.44, 0.70).rising  # after a fall
    assert not measured(0.8, 0.2, 0.44, 0.40).rising
    assert not measured(0.10, 0.12).rising  # noise


def test_a_resumed_evaluation_replaces_the_old_one() -> None:
    evaluations = measured(0.1, 0.5, 0.6)
    evaluations.add(8, 0.4, 100)
    assert [(row.step, row.accuracy) for row in evaluations.rows] == [(4, 0.1), (8, 0.4)]


def dead_entropy(step: int) -> dict[str, float]:
    return {"step": step, "entropy": 0.001, "answer_correct_fraction": 0.5, "answer_logprob": -1.0}


def test_no_run_is_called_collapsed_while_accuracy_rises() -> None:
    rows = [dead_entropy(step) for step in range(1, 30)]
    assert judge(rows).verdict == "collapsed"
    verdict = judge(rows, [Measured(4, 0.44, 100), Measured(8, 0.55, 100), Measured(12, 0.70, 100)])
    assert verdict.verdict == "warn"
    assert "accuracy is rising" in verdict.describe()


def test_rows_that_collapse_now_outweigh_an_older_evaluation() -> None:
    rows = [{"step": s, "answer_correct_fraction": 0.8 if s < 50 else 0.0} for s in range(1, 60)]
    verdict = judge(rows, [Measured(16, 0.3, 100), Measured(48, 0.8, 100)])
    assert verdict.verdict == "collapsed"


def test_the_live_form_is_the_judge() -> None:
    monitor = HealthMonitor()
    rows = [dead_entropy(step) for step in range(1, 30)]
    evaluations = [Measured(8, 0.83, 100), Measured(16, 0.57, 100), Measured(24, 0.16, 100)]
    for row in rows:
        monitor.absorb(row)
        for e in evaluations:
            if e.step == row["step"]:
                monitor.evaluated(e.step, e.accuracy, e.n)
    assert monitor.verdict() == judge(rows, evaluations)


def test_alike_cots_are_no_warning_while_accuracy_rises() -> None:
    """All healthy runs of docs/detection.md come there before their answers are right."""
    rising, flat = HealthMonitor(), HealthMonitor()
    for step in range(1, 41):
        row = {"step": step, "loss": 0.1, "identical_cot_fraction": 0.9, "entropy": 0.04}
        for monitor, accuracy in ((rising, 0.2 + 0.01 * step), (flat, 0.2)):
            monitor.update(row)
            if step % 4 == 0:
                monitor.evaluated(step, accuracy, 100)
    assert rising.verdict().verdict == "healthy"
    assert flat.verdict().verdict in ("warn", "collapsed")
    rising.evaluated(44, 0.3, 100)  # turned down
    assert rising.verdict().verdict == "warn"


# --- the guard ---------------------------------------------------------------------------------------------------------


def guard_of(accuracies: dict[int, float], saved: tuple[int, ...], n: int = 100) -> Guard:
    guard = Guard(HealthConfig.model_validate({"policy": "rollback"}))
    for step in range(1, max(accuracies) + 1):
        guard.see({"step": step, "loss": 0.1})
        if step in accuracies:
            guard.evaluated(step, accuracies[step], n)
        if step in saved:
            guard.saved(step)
    return guard


ISSUE = {4: 0.43, 8: 0.83, 12: 0.75, 16: 0.57, 20: 0.44, 24: 0.16}


def test_back_to_the_best_evaluated_checkpoint_before_the_fall() -> None:
    guard = guard_of(ISSUE, (5, 10, 15, 20))
    assert guard.collapsed
    assert guard.way_back([0, 5, 10, 15, 20]) == 10  # between .83 at 8 and .75 at 12; not 15, not 20


def test_without_evaluations_it_is_the_last_healthy_one() -> None:
    guard = Guard(HealthConfig.model_validate({"policy": "rollback"}))
    for step in range(1, 60):
        guard.see({"step": step, "reward_mean": 0.8 + 0.01 * (step % 3) if step < 40 else 0.0})
        if step % 10 == 0:
            guard.saved(step)
    assert guard.collapsed
    assert guard.way_back([0, 10, 20, 30, 40, 50]) == 30


def test_after_a_rollback_the_guard_begins_anew() -> None:
    guard = guard_of(ISSUE, (5, 10, 15, 20))
    rows = list(guard.monitor.evaluations.rows)
    guard.begin_anew(10, rows)
    assert guard.verdict is None
    assert guard.monitor.n == 0
    assert [row.step for row in guard.monitor.evaluations.rows] == [4, 8]
    assert guard.healthy == [5, 10]
    for step in range(11, 40):  # low entropy at an accuracy that was surely gained is no collapse
        guard.see(dead_entropy(step))
    assert not guard.collapsed
