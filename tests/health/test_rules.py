"""The table of rules: each record whole, each mechanism on the rows of the run that it is named after and silent on a steady one."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from markovlm.health import judge
from markovlm.health.advice import KNOBS, advice_of, number_text
from markovlm.health.case import Case
from markovlm.health.diagnose import Diagnosis, diagnose_run
from markovlm.health.rules import RULE, RULES
from markovlm.logs.frameworks import NAMED
from markovlm.logs.native import run_of_rows
from markovlm.logs.records import RunData

N, ONSET = 100, 70


def rows(**change: Any) -> list[dict[str, Any]]:
    """A steady run; from ONSET on its values are those given (a callable: of the step)."""
    rng = random.Random(0)
    out = []
    for step in range(1, N + 1):
        row: dict[str, Any] = {
            "step": step, "reward_mean": rng.gauss(0.6, 0.05), "reward_std": 0.3, "loss": rng.gauss(0, 0.1), "kl": 0.05,
            "entropy": 0.3, "grad_norm": rng.uniform(0.2, 0.6), "cot_length": rng.gauss(200, 10), "groups_without_spread": 0.3,
            "cot_length_saturated_fraction": 0.03, "sampler_gap": 0.005 * rng.uniform(0.9, 1.1), "lr": 1e-6,
        }  # fmt: skip
        if step >= ONSET:
            row |= {key: value(step) if callable(value) else value for key, value in change.items()}
        out.append(row)
    return out


def diagnosed(given: list[dict[str, Any]], framework: str = "TRL", **config: Any) -> Diagnosis:
    run = run_of_rows(given)
    run.kind, run.framework, run.config = "jsonl", framework, dict(config)
    return diagnose_run(run)


def found(d: Diagnosis) -> set[str]:
    return {finding.rule for finding in d.found}


def grows(step: int) -> float:
    return 0.3 + (step - ONSET) / 6.0


RUNS: dict[str, list[dict[str, Any]]] = {
    "non_finite": rows(loss=math.nan, grad_norm=math.nan, reward_mean=0.0),
    "truncated_to_zero": rows(reward_mean=0.0, cot_length_saturated_fraction=1.0, cot_length=512.0),
    "entropy_explosion": rows(reward_mean=0.0, entropy=5.0),
    "entropy_growth": [
        row | {"entropy": 0.3 + 0.025 * row["step"], "reward_mean": row["reward_mean"] * (1 if row["step"] < 80 else 0.3)} for row in rows()
    ],
    "garbage_is_paid": rows(distinct_bigram_fraction=0.05, longest_char_run=200.0),
    "sampler_mismatch": rows(sampler_gap=0.3),
    "off_policy": [row | {"behavior_kl": 0.002 if row["step"] < ONSET else -2.0} for row in rows()],
    "kl_runaway": rows(kl=15.0, reward_mean=0.1),
    "loss_explosion": rows(loss=1e6),
    "gradient_blow_up": rows(grad_norm=1e5),
    "clip_fraction": [row | {"ratio_clipped_fraction": 0.02 if row["step"] < ONSET else 0.5} for row in rows()],
    "entropy_death": rows(entropy=0.004, reward_mean=0.02),
    "completions_collapsed": rows(cot_length=3.0, reward_mean=0.0),
    "end_token_lost": rows(cot_length_saturated_fraction=0.98, cot_length=510.0),
    "truncated_from_start": [row | {"cot_length_saturated_fraction": 1.0, "reward_mean": 0.0, "groups_without_spread": 1.0} for row in rows()],
    "truncation": rows(cot_length_saturated_fraction=0.7, cot_length=400.0),
    "reward_hacking": [
        row | {"reward/format": 0.3 + row["step"] / 200, "reward/correct": 0.7 - row["step"] / 200, "reward_mean": 1.0} for row in rows()
    ],
    "length_inflation": rows(cot_length=600.0),
    "rewards_equal": [row | {"groups_without_spread": 1.0, "reward_std": 0.0, "grad_norm": 0.0} for row in rows()],
    "groups_hopeless": rows(reward_mean=0.0, groups_without_spread=1.0, reward_std=0.0),
    "groups_solved": rows(reward_mean=1.0, groups_without_spread=1.0, reward_std=0.0),
    "no_gradient": [row | {"grad_norm": 0.0, "loss": 0.0} for row in rows()],
    "healed_spike": [row | ({"grad_norm": 155.0, "kl": 17.0} if row["step"] == 40 else {}) for row in rows()],
    "held_out_fell": [
        row | ({"eval_accuracy": 0.6 - max(0, row["step"] - 40) * 0.004 + 0.002 * (row["step"] % 3)} if row["step"] % 5 == 0 else {})
        for row in rows()
    ],
    "part_fell": [
        row | {"source/math": 0.6, "source/code": 0.55}
        | ({"source/math": 0.05, "reward_mean": 0.4 * row["reward_mean"]} if row["step"] >= ONSET else {})
        for row in rows()
    ],
    "slower_steps": [row | {"step_seconds": 10.0 if row["step"] < ONSET else 31.0} for row in rows()],
}  # fmt: skip
SILENT = {
    "healed_spike",
    "groups_solved",
    "slower_steps",
    "part_fell",
    "clip_fraction",
    "groups_hopeless",
    "gradient_blow_up",
}  # no cause by themselves


@pytest.mark.parametrize("name", RUNS)
def test_each_rule_fires_on_the_run_that_it_is_named_after(name: str) -> None:
    d = diagnosed(RUNS[name])
    assert name in found(d)
    if name not in SILENT:
        assert d.cause is not None
        assert d.cause.rule == name
        assert d.verdict in ("warn", "collapsed")


def test_a_steady_run_has_no_mechanism() -> None:
    d = diagnosed(rows())
    assert d.verdict == "healthy"
    assert [f.rule for f in d.found if RULE[f.rule].explains == "mechanism"] == []


def test_what_moved_first_is_the_cause_and_the_rest_are_consequences() -> None:
    broken = [
        row
        | ({"entropy": 4.0} if row["step"] >= 60 else {})
        | ({"cot_length_saturated_fraction": 1.0, "cot_length": 512.0} if row["step"] >= 66 else {})
        | ({"reward_mean": 0.0, "groups_without_spread": 1.0} if row["step"] >= 70 else {})
        | ({"entropy": 0.001} if row["step"] >= 90 else {})
        for row in rows()
    ]
    d = diagnosed(broken)
    assert d.cause is not None
    assert d.cause.rule == "entropy_explosion"
    assert [event.rule for event in d.events][:2] == ["entropy_explosion", "truncated_to_zero"]
    assert [event.step for event in d.events] == sorted(event.step for event in d.events)
    assert not any("max_completion_length" in line for line in d.advice)  # truncation is its consequence
    other = [row | ({"entropy": 4.0} if row["step"] >= 85 else {}) for row in RUNS["truncated_to_zero"]]
    cause = diagnosed(other).cause
    assert cause is not None
    assert cause.rule == "truncated_to_zero"


def test_equal_groups_are_told_apart_by_the_reward() -> None:
    assert "groups_solved" not in found(diagnosed(RUNS["groups_hopeless"]))
    assert "groups_hopeless" not in found(diagnosed(RUNS["groups_solved"]))
    assert judge(RUNS["groups_solved"]).verdict == "healthy"


def test_a_healed_spike_is_no_alarm() -> None:
    assert judge(RUNS["healed_spike"]).verdict == "healthy"


def test_nothing_learned_never_hides_what_moved() -> None:
    for name in ("sampler_mismatch", "off_policy", "loss_explosion", "kl_runaway"):
        cause = diagnosed(RUNS[name]).cause
        assert cause is not None
        assert cause.name != "no_learning"


def test_a_plain_fall_after_a_format_was_learned_is_no_hacking() -> None:
    rng = random.Random(3)
    fell = [
        row
        | {
            "reward/format": min(1.0, 0.3 + row["step"] / 12) + rng.gauss(0, 0.02),
            "reward/correct": right,
            "reward_mean": right + 0.5,
        }
        for row in rows()
        for right in [0.6 - max(0, row["step"] - 40) * 0.006 + rng.gauss(0, 0.03)]
    ]
    assert "reward_hacking" not in found(diagnosed(fell))


@pytest.mark.parametrize("noise", [0.01, 0.04])
def test_hacking_is_seen_through_noise(noise: float) -> None:
    rng = random.Random(4)
    hacked = [
        row | {"reward/format_reward": form, "reward/accuracy_reward": right, "reward_mean": form + right}
        for row in rows()
        for form in [min(1.0, 0.48 + 0.012 * row["step"]) + rng.gauss(0, noise)]
        for right in [max(0.0, 0.17 * (1 - row["step"] / 70)) + abs(rng.gauss(0, noise))]
    ]
    d = diagnosed(hacked)
    assert d.cause is not None
    assert d.cause.rule == "reward_hacking"


def test_rows_with_holes_and_nothing_at_all() -> None:
    assert diagnose_run(run_of_rows([])).verdict == "unknown"
    assert diagnosed([{"step": 1, "reward_mean": None}, {"step": 2, "reward_mean": math.inf}]).verdict == "unknown"


# --- the records ---------------------------------------------------------------------------------------------------------


def test_every_record_is_whole() -> None:
    for rule in RULES:
        assert rule.sentence, rule.name
        assert (rule.check is None) or rule.fires, rule.name
        assert not rule.warns or rule.check is not None, rule.name
        assert all(url.startswith("https://github.com/") for url in rule.seen), rule.name
        if rule.explains in ("mechanism", "settings", "fallback"):
            assert rule.advice or rule.name in ("held_out_fell",), rule.name
    used = {line for rule in RULES for line in rule.advice if line in KNOBS}
    assert set(KNOBS) <= used
    for framework in NAMED.values():
        assert set(framework.knobs) <= set(KNOBS), framework.name


def case_of(framework: str, **config: Any) -> Case:
    run = RunData(path=run_of_rows([]).path, kind="jsonl", name="x", framework=framework, config=dict(config))
    run.metrics = run_of_rows(rows()).metrics
    return Case(run, judge([]))


@pytest.mark.parametrize(
    ("framework", "config", "said"),
    [
        ("TRL", {}, ("lower learning_rate from 1e-6 to 5e-7", "double beta")),
        ("OpenRLHF", {"objective.kl_weight": 0.01}, ("lower --actor_learning_rate from 1e-6 to 5e-7", "raise --init_kl_coef from 0.01 to 0.02")),
        ("verl", {"training.lr": 3e-6}, ("lower actor_rollout_ref.actor.optim.lr from 3e-6 to 1.5e-6", "set actor_rollout_ref.actor.use_kl_loss")),
        ("TRL", {"objective.kl_weight": 0.0}, ("lower learning_rate from 1e-6 to 5e-7", "set beta above 0")),
        ("", {}, ("lower the learning rate from 1e-6 to 5e-7", "keep the policy closer to its start")),
        ("NeMo RL", {}, ("lower policy.optimizer.kwargs.lr from 1e-6 to 5e-7", "double loss_fn.reference_policy_kl_penalty")),
    ],
)  # fmt: skip
def test_advice_has_the_numbers_of_the_log_and_the_names_of_the_framework(
    framework: str, config: dict[str, Any], said: tuple[str, str]
) -> None:
    rate, kl = advice_of(("rate", "kl"), case_of(framework, **config))
    assert rate == said[0]
    assert kl.startswith(said[1])


def test_our_keys_in_sentences_become_theirs() -> None:
    line = "evaluate every 500 steps (training.eval_every), or raise rollouts.group_size"
    assert advice_of([line], case_of("TRL")) == ("evaluate every 500 steps (eval_steps), or raise num_generations",)
    assert advice_of([line], case_of("OpenRLHF")) == ("evaluate every 500 steps (--eval_steps), or raise --n_samples_per_prompt",)
    assert advice_of([line], case_of("")) == ("evaluate every 500 steps, or raise group size",)


def test_numbers_are_written_as_people_write_them() -> None:
    assert [number_text(v) for v in (1e-6, 5e-7, 0.002, 512.0, 2048.0, 0.04)] == ["1e-6", "5e-7", "0.002", "512", "2048", "0.04"]
