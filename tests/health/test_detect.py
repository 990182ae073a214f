"""The sequential test: quick where a run breaks, silent where it does not, and right about when and how surely."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable

import pytest

from markovlm.health.detect import CAP, Fall, nats_for, place, rows_between
from markovlm.health.monitor import HealthMonitor, judge
from markovlm.health.noise import Noise
from markovlm.health.verdict import Verdict

Rows = list[dict[str, float]]


def rewards(values: list[float], **more: float) -> Rows:
    return [{"step": step, "reward_mean": value, **more} for step, value in enumerate(values, 1)]


def spoken(rows: Rows) -> tuple[int | None, Verdict]:
    """Step at which `collapsed` was first said, live, and the last verdict."""
    monitor, at = HealthMonitor(), None
    for row in rows:
        if monitor.update(row).verdict == "collapsed" and at is None:
            at = int(row["step"])
    return at, monitor.verdict()


def autoregressive(rng: random.Random, n: int, phi: float) -> list[float]:
    rows, last = [], rng.gauss(0, 1) / math.sqrt(1 - phi * phi)
    for _ in range(n):
        last = phi * last + rng.gauss(0, 1)
        rows.append(last)
    return rows


# --- noise -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("phi", "low", "high"), [(0.0, 0.8, 1.5), (0.5, 1.4, 2.9)])
def test_the_long_run_deviation_is_that_of_an_autoregression(phi: float, low: float, high: float) -> None:
    """sd 1 of the innovations: a mean of m rows spreads as 1 / (1 - phi) / sqrt(m)."""
    found = []
    for seed in range(20):
        noise = Noise(1e-6)
        for value in autoregressive(random.Random(seed), 300, phi):
            noise.add(value)
        found.append(noise.long_sd)
    assert low < sorted(found)[10] < high


def test_a_crash_does_not_raise_the_noise_that_would_show_it() -> None:
    rng, noise = random.Random(0), Noise(1e-6)
    for _ in range(60):
        noise.add(rng.gauss(5, 0.1))
    before = noise.long_sd
    for _ in range(4):
        noise.add(rng.gauss(0, 0.1), ordinary=False)
    assert noise.long_sd < 2.0 * before


# --- the test ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0.25, 0.6, 1.0, 2.0, 5.0])
def test_levels_and_mean_times_are_inverse(k: float) -> None:
    for rows in (1e3, 5e4, 4e5):
        assert rows_between(nats_for(rows, k), k) == pytest.approx(rows)
    assert nats_for(4e5, k) > 2 * CAP or k < 1.0 or nats_for(4e5, k) > CAP, "no single row may be enough"


def test_one_row_is_worth_five_nats_however_far_it_lies() -> None:
    fall = Fall(0.1)
    for step in range(50):
        fall.add(step, 1.0 + 0.1 * (step % 2), 0.5)
    fall.add(50, -1e9, 0.5)
    assert fall.nats == [CAP, CAP]


def test_a_collapse_is_said_within_three_rows_with_its_onset() -> None:
    rng = random.Random(1)
    values = [rng.gauss(0.8, 0.06) for _ in range(120)] + [rng.gauss(0.05, 0.03) for _ in range(20)]
    at, verdict = spoken(rewards(values))
    assert at is not None
    assert 121 < at <= 124  # not on the first row: that might be a spike
    assert verdict.onset_step == 121
    assert verdict.signals[0].onset == (121, 121)
    assert (verdict.signals[0].chance_rows or 0) > 1e5
    assert "by chance less than once in 1,000,000 rows" in verdict.describe()


def test_the_onset_lies_between_logged_steps_where_rows_are_means() -> None:
    rng = random.Random(2)
    rows = [{"step": 5 * n, "reward_mean": rng.gauss(0.8 if n <= 30 else 0.1, 0.05)} for n in range(1, 41)]
    low, high = judge(rows).signals[0].onset or (0, 0)
    assert (low, high) == (151, 155)  # the row of step 155 stands for the steps 151 to 155


def test_place_finds_a_change_of_level_in_noise() -> None:
    rng, inside = random.Random(3), 0
    for _ in range(60):
        rows = [(step, rng.gauss(1.0 if step < 40 else -0.5, 1.0)) for step in range(1, 61)]
        onset = place(rows, 1.0, 1.0)
        assert onset.low <= onset.step <= onset.high
        inside += onset.low <= 40 <= onset.high
    assert inside >= 51  # 95 % nominal


@pytest.mark.parametrize(
    ("before", "after"),
    [(0.9, 0.2), (3.6, 1.0), (25.0, 4.0), (0.004, 0.0005)],
    ids=["share", "sum of parts", "points", "tiny"],
)
def test_any_scale_of_reward(before: float, after: float) -> None:
    rng = random.Random(4)
    values = [before * rng.gauss(1, 0.08) for _ in range(80)] + [after * rng.gauss(1, 0.08) for _ in range(12)]
    at, _ = spoken(rewards(values))
    assert at is not None
    assert at <= 85


def test_a_reward_of_either_sign() -> None:
    rng = random.Random(5)
    values = [rng.gauss(min(1.5, -0.5 + s / 20), 0.3) for s in range(100)] + [rng.gauss(-0.9, 0.3) for _ in range(12)]
    at, _ = spoken(rewards(values))
    assert at is not None
    assert 101 < at <= 106


# --- silence -----------------------------------------------------------------------------------------------------------

HEALTHY: dict[str, Callable[[random.Random, int], list[float]]] = {
    "one sample a row": lambda rng, n: [float(rng.random() < 0.6) for _ in range(n)],
    "four samples a row": lambda rng, n: [sum(rng.random() < 0.45 for _ in range(4)) / 4 for _ in range(n)],
    "autocorrelated": lambda rng, n: [0.6 + 0.05 * x for x in autoregressive(rng, n, 0.6)],
    "heavy tails": lambda rng, n: [0.5 + 0.05 * rng.gauss(0, 1) / math.sqrt(rng.gammavariate(1.5, 2) / 3) for _ in range(n)],
    "rising": lambda rng, n: [0.8 / (1 + math.exp(-(i - n / 3) / (n / 12))) + rng.gauss(0, 0.05) for i in range(n)],
    "noise that doubles": lambda rng, n: [0.7 + rng.gauss(0, 0.05) * (2 if i % 300 > 200 else 1) for i in range(n)],
    "a quarter lost, slowly": lambda rng, n: [0.8 - 0.2 * i / n + rng.gauss(0, 0.06) for i in range(n)],
    "log-prob": lambda rng, n: [-4 + 3 * min(1, 3 * i / n) + rng.gauss(0, 0.8) for i in range(n)],
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_rows_are_never_called_collapsed(name: str) -> None:
    rng = random.Random(7)
    for n in (60, 60, 60, 300, 300, 1200):
        at, _ = spoken(rewards(HEALTHY[name](rng, n)))
        assert at is None, (n, at)


@pytest.mark.long
@pytest.mark.parametrize("name", HEALTHY)
def test_twenty_thousand_healthy_rows(name: str) -> None:
    """At most one false `collapsed` in 20,000 rows."""
    rng, false = random.Random(11), 0
    for n in [200] * 30 + [1000] * 4 + [10_000]:
        false += spoken(rewards(HEALTHY[name](rng, n)))[0] is not None
    assert false <= 1


def test_spikes_and_short_dips_are_no_collapse() -> None:
    rng = random.Random(8)
    values = [rng.gauss(0.8, 0.05) for _ in range(200)]
    for at in (40, 90, 91, 150):
        values[at] = 0.0
    assert spoken(rewards(values))[0] is None


# Right answers of 16 CoTs to one question a step: a language model that learned word problems (dev accuracy .02, .23, .22 at steps 0, 30, 60).
ONE_QUESTION = (
    0, 1, 1, 0, 1, 4, 8, 4, 4, 6, 5, 3, 9, 6, 4, 11, 0, 5, 8, 3, 5, 9, 9, 0, 10, 4, 14, 15, 14, 12,
    13, 14, 0, 0, 16, 3, 15, 16, 15, 0, 0, 2, 0, 16, 15, 13, 16, 16, 16, 0, 0, 15, 0, 15, 16, 0, 4, 0, 0, 0,
)  # fmt: skip


def test_shares_of_one_question_jump_and_nothing_collapsed() -> None:
    """The median of ten rows falls from .875 to 0: six of the last ten questions were too hard, as 13 of the 50 before."""
    rows = [{"step": step, "answer_correct_fraction": right / 16} for step, right in enumerate(ONE_QUESTION, 1)]
    assert judge(rows).verdict == "healthy"
    assert judge(rows + [{"step": 61 + i, "answer_correct_fraction": 0.0} for i in range(100)]).verdict == "collapsed"


def test_a_run_that_learns_and_breaks_within_its_first_rows() -> None:
    """Four questions a row, no noise known yet: ten rows up to .6, then nothing."""
    rng = random.Random(0)
    shares = [min(step, 10) * 0.06 + rng.uniform(-0.1, 0.1) if step < 18 else 0.0 for step in range(1, 26)]
    verdict = judge(
        {"step": step, "answer_correct_fraction": round(64 * max(share, 0)) / 64} for step, share in enumerate(shares, 1)
    )
    assert (verdict.verdict, verdict.onset_step) == ("collapsed", 18)


def test_a_run_that_recovers_is_a_warning_and_then_forgiven_nothing() -> None:
    rng = random.Random(9)
    values = [rng.gauss(0.8 if s < 60 or s >= 70 else 0.05, 0.05) for s in range(140)]
    at, verdict = spoken(rewards(values))
    assert at is not None
    assert verdict.verdict == "warn"
    assert verdict.signals[0].recovered


# --- symptoms ----------------------------------------------------------------------------------------------------------


def symptom(key: str, before: float, after: float) -> Verdict:
    rng = random.Random(10)
    return judge(
        [
            {"step": s, "reward_mean": rng.gauss(0.5, 0.05), key: (before if s < 80 else after) * rng.uniform(0.9, 1.1)}
            for s in range(1, 100)
        ]
    )


@pytest.mark.parametrize(
    ("key", "before", "after", "kind"),
    [
        ("cot_length_saturated_fraction", 0.05, 0.9, "truncation"),
        ("entropy", 0.2, 3.0, "entropy_explosion"),
        ("kl", 0.05, 2.0, "kl_runaway"),
        ("sampler_gap", 0.01, 0.2, "sampler_mismatch"),
        ("sampler_kl", 0.002, 0.3, "sampler_mismatch"),
    ],
)
def test_a_symptom_warns(key: str, before: float, after: float, kind: str) -> None:
    verdict = symptom(key, before, after)
    assert verdict.verdict == "warn"
    assert kind in verdict.kinds
    assert verdict.onset_step is not None
    assert 79 <= verdict.onset_step <= 81


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [("cot_length_saturated_fraction", 0.05, 0.2), ("entropy", 0.2, 0.7), ("kl", 0.001, 0.5), ("sampler_gap", 0.004, 0.015)],
)
def test_a_small_symptom_is_silent(key: str, before: float, after: float) -> None:
    assert symptom(key, before, after).verdict == "healthy"


def test_the_state_is_plain_json_and_continues() -> None:
    rng = random.Random(12)
    values = [rng.gauss(0.8, 0.06) for _ in range(50)] + [0.1] * 8
    for cut in (0, 3, 20, 52, 55):
        one, other = HealthMonitor(), HealthMonitor()
        for row in rewards(values[:cut]):
            one.absorb(row)
        other.load_state_dict(json.loads(json.dumps(one.state_dict(), allow_nan=False)))
        for row in rewards(values)[cut:]:
            assert one.update(row) == other.update(row)
