"""The guard: constructed collapses of every kind are seen, healthy runs are not, and the live form equals the judge."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from markovlm.health import KINDS
from markovlm.health.course import MIN_ROWS
from markovlm.health.monitor import HealthMonitor, Row, judge
from markovlm.health.rules import THRESHOLDS, WATCHES
from markovlm.health.verdict import Evidence
from markovlm.texts.repetition import text_signals

PROSE = (
    "First I add the price of the three apples, which is 6 dollars, to the price of the bread. "
    "That makes 9 dollars. Then the discount of one third is taken off, so Mary pays 6 dollars in all."
)


def healthy(steps: int = 200, seed: int = 0, noise: float = 0.3, logprob: float = -1.6, correct: float = 0.3) -> list[dict]:
    """A run that goes nowhere in particular, all signals present."""
    rng = random.Random(seed)
    return [
        {
            "step": step,
            "loss": rng.gauss(0.0, 0.1),
            "reward_mean": logprob + rng.gauss(0.0, noise),
            "normalized_reward_mean": rng.gauss(0.2, noise),
            "answer_logprob": logprob + rng.gauss(0.0, noise),
            "answer_correct_fraction": min(1.0, max(0.0, rng.gauss(correct, 0.1))),
            "groups_without_spread": 0.05,
            "kl": abs(rng.gauss(0.1, 0.02)),
            "entropy": abs(rng.gauss(0.8, 0.1)),
            "ratio_mean": rng.gauss(1.0, 0.03),
            "ratio_max": rng.gauss(1.8, 0.2),
            "ratio_clipped_fraction": 0.1,
            "cot_length": 50.0,
            "distinct_bigram_fraction": rng.gauss(0.9, 0.02),
            "longest_char_run": float(rng.choice([2, 2, 3, 4, 30])),
            "compression_ratio": rng.gauss(0.5, 0.03),
            "identical_cot_fraction": 0.0,
            "grad_norm": abs(rng.gauss(1.0, 0.4)) + 0.05,
        }
        for step in range(1, steps + 1)
    ]


def broken(onset: int = 100, steps: int = 140, **after: float) -> list[dict]:
    """A healthy run whose values become `after` from `onset` on."""
    return [row | after if row["step"] >= onset else row for row in healthy(steps)]


CRASHED = {"reward_mean": -9.0, "normalized_reward_mean": -7.0, "answer_logprob": -9.0, "answer_correct_fraction": 0.0}
REPEATED = {k: v for k, v in text_signals(["4" * 150] * 12).items() if k != "identical_cot_fraction"}

COLLAPSES = {
    "repeated_character": broken(**REPEATED),
    "repeated_character_few_tokens": broken(cot_length=44.0, longest_char_run=44.0, distinct_bigram_fraction=0.02),
    "repetition": broken(**{k: v for k, v in text_signals(["I do not know. " * 40] * 4).items() if k[0] in "dc"}),
    "ratio_explosion": broken(ratio_mean=21.75, ratio_max=60.0),
    "ratio_explosion_downwards": broken(ratio_mean=0.01),
    "logprob_crash": broken(answer_logprob=-9.0),
    "reward_crash": broken(reward_mean=-6.0, normalized_reward_mean=-4.5),
    "entropy_death": broken(entropy=0.001),
    "identical_cots": broken(identical_cot_fraction=1.0, groups_without_spread=1.0),
    "gradient_blow_up": broken(grad_norm=1e6),
    "non_finite": broken(loss=math.nan, grad_norm=math.inf),
    "drift": broken(kl=20.0),
    "empty_cot": broken(cot_length=0.2),
    "everything": broken(**CRASHED, **REPEATED),
}


@pytest.mark.parametrize("name", COLLAPSES)
def test_every_kind_of_collapse_is_seen_with_its_onset(name: str) -> None:
    verdict = judge(COLLAPSES[name])
    assert verdict.verdict == "collapsed"
    assert verdict.onset_step is not None
    assert 95 <= verdict.onset_step <= 100
    kind = name.removesuffix("_few_tokens").removesuffix("_downwards")
    if kind != "everything":
        assert kind in {e.kind for e in verdict.signals if e.level == "collapsed"}
    for evidence in verdict.signals:
        assert (evidence.value > evidence.threshold) == rises(evidence), evidence


def rises(evidence: Evidence) -> bool:
    """Is a high value of this signal the bad one?"""
    for watched in WATCHES:
        if (watched.signal, watched.kind) == (evidence.name, evidence.kind):
            return watched.scale in ("rise", "log_rise")
    return next(r.comparison == "above" for r in THRESHOLDS if (r.signal, r.kind) == (evidence.name, evidence.kind))


@pytest.mark.parametrize("name", COLLAPSES)
def test_the_live_guard_needs_few_rows(name: str) -> None:
    monitor = HealthMonitor()
    lead = next(row["step"] for row in COLLAPSES[name] if monitor.update(row).verdict == "collapsed")
    assert lead <= 106


def test_accuracy_that_was_learned_and_lost() -> None:
    """METHOD 7: at a learning rate of 4e-3 the embedded model went .69 -> .01; the log-prob is back where it started."""
    rows = []
    for step in range(1, 101):
        level = min(0.7, 0.1 + 0.02 * step) if step < 60 else 0.01
        rows.append({"step": step, "answer_correct_fraction": level, "answer_logprob": -1.7 + level, "entropy": 0.4})
    verdict = judge(rows)
    assert verdict.verdict == "collapsed"
    assert verdict.onset_step == 60
    assert verdict.kinds[0] == "accuracy_crash"


def test_a_reward_between_0_and_1_that_crashes() -> None:
    rows = [{"step": s, "reward_mean": 0.6 if s < 40 else 0.02} for s in range(1, 80)]
    verdict = judge(rows)
    assert verdict.verdict == "collapsed"
    assert verdict.kinds == ("reward_crash",)


def test_a_summed_reward_is_judged_per_token() -> None:
    """Five answer tokens: 3 nats of reward lost are 0.6 nats a token, no crash."""
    rows = [{"step": s, "answer_logprob": -1.0, "reward_mean": -5.0 if s < 50 else -8.0} for s in range(1, 100)]
    assert judge(rows).verdict == "healthy"
    rows = [{"step": s, "answer_logprob": -1.0, "reward_mean": -5.0 if s < 50 else -25.0} for s in range(1, 100)]
    assert judge(rows).verdict == "collapsed"


def test_values_that_vanish_are_a_way_of_writing_nan() -> None:
    rows = healthy(60)
    for row in rows[40:]:
        row.update(dict.fromkeys(("loss", "reward_mean", "normalized_reward_mean", "answer_logprob", "grad_norm")))
    verdict = judge(rows)
    assert verdict.verdict == "collapsed"
    assert verdict.onset_step == 41
    assert verdict.kinds[0] == "non_finite"


# --- no false alarms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("noise", [0.05, 0.5, 3.0])
def test_noisy_healthy_runs_are_healthy(seed: int, noise: float) -> None:
    rows = healthy(1500, seed=seed, noise=noise, logprob=-5.0)
    assert judge(rows).verdict == "healthy"


def learned(steps: int = 200) -> list[dict]:
    """The embedded model that solves its task: short digit CoTs, in the end all the same, no entropy left, far from the base."""
    rng = random.Random(1)
    rows = []
    for step in range(1, steps + 1):
        done = min(1.0, step / 50)
        texts = ["17+4=21,21+79=100"] * 16 if done == 1.0 else ["17+4=21,21+79=100", "17,4,79", "big,small", "4+17=20"] * 4
        rows.append(
            {
                "step": step, "answer_logprob": -1.6 + 1.55 * done + rng.gauss(0, 0.02), "entropy": 0.6 * (1 - done) + 0.001,
                "answer_correct_fraction": 0.1 + 0.85 * done, "normalized_reward_mean": 1.5 * done, "kl": 5.0 * done,
                "ratio_mean": 1.0 + 8.0 * done, "grad_norm": 1.0, "cot_length": 17.0, **text_signals(texts),
                "groups_without_spread": done,
            }
        )  # fmt: skip
    return rows


def test_a_solved_task_with_identical_cots_and_no_entropy_is_healthy() -> None:
    assert judge(learned()).verdict == "healthy"


def test_the_same_signals_with_wrong_answers_are_a_collapse() -> None:
    rows = [row | {"answer_logprob": -1.7, "answer_correct_fraction": 0.1, "normalized_reward_mean": -0.1} for row in learned()]
    verdict = judge(rows)
    assert verdict.verdict == "collapsed"
    assert {"entropy_death", "identical_cots"} <= {e.kind for e in verdict.signals if e.level == "collapsed"}


def test_a_gain_makes_drift_a_warning() -> None:
    rows = [
        {
            "step": s,
            "answer_logprob": -5.0 + min(3.0, s / 20),
            "ratio_mean": 1.0 + s / 10,
            "answer_correct_fraction": 0.3,
        }
        for s in range(1, 121)
    ]
    assert judge(rows).verdict == "warn"


def test_one_spike_is_no_verdict() -> None:
    rows = healthy(200)
    rows[80] |= {"grad_norm": 1e7, "ratio_mean": 400.0, "answer_logprob": -30.0, "reward_mean": -30.0, "entropy": 0.0}
    assert judge(rows).verdict == "healthy"


def test_a_collapse_that_ends_is_a_warning_in_the_end() -> None:
    rows = broken(onset=100, steps=105, **CRASHED) + [row | {"step": row["step"] + 105} for row in healthy(100, seed=5)]
    verdict = judge(rows)
    assert verdict.verdict == "warn"
    assert all(e.recovered for e in verdict.signals if e.kind == "logprob_crash")


def test_texts_that_collapsed_for_a_while_stay_on_record() -> None:
    """The alarms of the table are off again, and say what they saw."""
    rows = healthy(120)
    for row in rows[60:70]:
        row |= {"longest_char_run": 48.0, "cot_length": 50.0, "distinct_bigram_fraction": 0.1}
    verdict = judge(rows)
    assert verdict.verdict == "warn"
    assert [(e.name, e.level, e.step, e.recovered) for e in verdict.signals] == [
        ("char_run_share", "warn", 61, True),
        ("distinct_bigram_fraction", "warn", 61, True),
    ]


def test_one_sample_with_a_rule_of_dashes_does_not_matter() -> None:
    rows = [row | {"longest_char_run": 48.0, "cot_length": 48.0, "distinct_bigram_fraction": 0.88} for row in healthy(60)]
    assert judge(rows).verdict == "healthy"


# --- too little to say -------------------------------------------------------------------------------------------------


def test_few_rows_or_no_signal_are_unknown() -> None:
    assert judge([]).verdict == "unknown"
    assert judge(healthy(MIN_ROWS - 1)).verdict == "unknown"
    assert judge([{"step": s, "lr": 1e-4, "answer_logprob": None} for s in range(100)]).verdict == "unknown"
    assert judge(healthy(MIN_ROWS)).verdict == "healthy"


def test_the_seeds_arc_milestones_collapse_by_batch_999() -> None:
    columns = ("step", "loss", "normalized_reward_mean", "answer_logprob", "ratio_mean")
    arc = [
        (0, -0.0003, 0.2129, -1.6328, 1.0),
        (99, -0.0247, 0.2002, -1.875, 1.1719),
        (999, 6.6562, -39.25, -41.0, 21.75),
        (2999, 9.75, -33.5, -35.25, 26.25),
        (5999, -0.9688, -33.75, -35.5, 8.125),
    ]
    verdict = judge([dict(zip(columns, row, strict=True)) for row in arc])
    assert verdict.verdict == "collapsed"
    assert verdict.onset_step == 999
    values = {e.name: e.value for e in verdict.signals}
    assert values == {"answer_logprob": -41.0, "normalized_reward_mean": -39.25, "ratio": 21.75}


def test_the_seeds_gsm8k_milestones_are_healthy() -> None:
    rows: list[Row] = [
        {"step": 0, "loss": 0.0457, "normalized_reward_mean": -2.8125, "answer_logprob": -3.8125},
        {"step": 999, "loss": 0.0099, "normalized_reward_mean": -0.3145, "answer_logprob": -3.3594},
        {"step": 3999, "loss": -0.098, "normalized_reward_mean": 0.2314, "answer_logprob": -1.5312},
        {"step": 7999, "loss": -0.153, "normalized_reward_mean": 0.3945, "answer_logprob": -0.0894},
    ]
    assert judge(rows).verdict == "healthy"


# --- the live form -----------------------------------------------------------------------------------------------------

number = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.floats(-10, 10), st.just("NaN"), st.booleans())
some_row = st.dictionaries(
    st.sampled_from(sorted({r.signal for r in THRESHOLDS} | {"ratio_mean", "cot_length", "longest_char_run"})), number
)


@settings(max_examples=60, deadline=None)
@given(st.lists(some_row, max_size=40), st.integers(0, 40))
def test_any_rows_resume_bit_for_bit(rows: list[dict], cut: int) -> None:
    rows = [row | {"step": n} for n, row in enumerate(rows)]
    straight = HealthMonitor()
    for row in rows[:cut]:
        straight.update(row)
    resumed = HealthMonitor()
    resumed.load_state_dict(json.loads(json.dumps(straight.state_dict(), allow_nan=False)))
    for row in rows[cut:]:
        assert resumed.update(row) == straight.update(row)
    assert resumed.state_dict() == straight.state_dict()
    assert straight.verdict() == judge(rows)


@pytest.mark.parametrize("name", ["everything", "ratio_explosion"])
def test_resume_in_the_middle_of_a_collapse(name: str) -> None:
    rows = COLLAPSES[name]
    for cut in (3, 99, 101, 120):
        monitor = HealthMonitor()
        for row in rows[:cut]:
            monitor.update(row)
        other = HealthMonitor()
        other.load_state_dict(json.loads(json.dumps(monitor.state_dict())))
        verdicts = [(monitor.update(row), other.update(row)) for row in rows[cut:]]
        assert all(a == b for a, b in verdicts)
        assert verdicts[-1][0] == judge(rows)


# --- texts -------------------------------------------------------------------------------------------------------------


def test_text_signals_of_prose_digits_and_loops() -> None:
    prose, digits = text_signals([PROSE]), text_signals(["17+4=21,21+79=100"])
    loop, one = text_signals(["I do not know. " * 30]), text_signals(["4" * 150])
    assert prose["distinct_bigram_fraction"] > 0.85
    assert 0.4 < prose["compression_ratio"] < 0.8
    assert digits["distinct_bigram_fraction"] > 0.85
    assert digits["compression_ratio"] == 1.0
    assert digits["longest_char_run"] == 2
    assert loop["distinct_bigram_fraction"] < 0.15
    assert loop["compression_ratio"] < 0.1
    # 150 digits are 64 + 64 + 22 pieces: 63 + 63 + 21 pairs, one distinct pair each
    assert one["distinct_bigram_fraction"] == pytest.approx(3 / 147)
    assert one["longest_char_run"] == 150


def test_text_signals_of_groups() -> None:
    assert text_signals([]) == {}
    assert text_signals([""])["longest_char_run"] == 0
    assert text_signals(["a", "b", "a", "a"])["identical_cot_fraction"] == pytest.approx(2 / 3)
    assert text_signals(["same"])["identical_cot_fraction"] == 0.0
    two = text_signals([PROSE, "4" * 100])
    single = [text_signals([PROSE])["compression_ratio"], text_signals(["4" * 100])["compression_ratio"]]
    assert two["compression_ratio"] == pytest.approx(sum(single) / 2)
    assert two["longest_char_run"] == 100


@given(st.lists(st.text(), max_size=6))
def test_text_signals_of_anything_are_in_range(texts: list[str]) -> None:
    signals = text_signals(texts)
    for name in ("distinct_bigram_fraction", "compression_ratio", "identical_cot_fraction"):
        assert not texts or 0.0 <= signals[name] <= 1.0


def test_the_table_has_a_reason_for_every_row() -> None:
    for row in THRESHOLDS:
        assert row.reason
        assert row.kind in KINDS
        assert row.warn is not None or row.collapse is not None
        if row.warn is not None and row.collapse is not None and row.measure != "below_early":
            assert (row.collapse > row.warn) == (row.comparison == "above")
