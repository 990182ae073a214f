"""What hindsight says: the seed's runs, constructed runs for every rule, and the real logs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from markovlm.health.diagnose import Diagnosis
from markovlm.health.rules import RULES, UNEXPLAINED_TESTS, rules_table
from markovlm.report import diagnose_paths
from report.native import CONFIG, eval_row, sample_row, write_native
from report.seed import write_result, write_run, write_seed


def one(folder: Path, **how: Any) -> Diagnosis:
    return diagnose_paths([write_native(folder / "run", **how)])[0]


def rules_of(d: Diagnosis) -> set[str]:
    return {finding.rule for finding in d.findings}


# --- the seed ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def seed_runs(tmp_path: Path) -> dict[str, Diagnosis]:
    return {d.run.name.split("/")[0]: d for d in diagnose_paths([write_seed(tmp_path / "seed")])}


def test_the_seeds_arc_run_collapsed_by_batch_999(seed_runs: dict[str, Diagnosis]) -> None:
    d = seed_runs["arc"]
    assert (d.verdict, d.onset_step) == ("collapsed", 999)
    values = {(e.name, e.step): e.value for e in d.signals if e.level == "collapsed"}
    assert values[("answer_logprob", 999)] == -41.0
    assert values[("normalized_reward_mean", 999)] == -39.25
    assert values[("ratio", 999)] == 21.75
    assert d.cause is not None
    assert d.cause.name == "ppo_frozen_anchor"
    assert d.cause_confidence == "medium"
    assert d.advice[0].startswith("do not use checkpoints from step 999 on")
    shared = next(f for f in d.findings if f.rule == "only_collapsed_runs_share")
    assert "ppo_frozen_anchor" in shared.evidence
    assert shared.confidence == "low"
    assert any(s.cot.startswith("444") for s in d.run.samples)


def test_the_seeds_gsm8k_run_is_named_by_the_gap_between_likelihood_and_accuracy(seed_runs: dict[str, Diagnosis]) -> None:
    d = seed_runs["gsm8k"]
    assert (d.verdict, d.onset_step, d.signals) == ("unknown", None, ())  # four rows are no course
    assert "4 rows over 8,000 steps: not enough to judge" in d.why
    assert "-3.81 to -0.0894" in d.why
    assert d.cause is not None
    assert d.cause.name == "likelihood_accuracy_gap"
    assert "so answers run on" in d.cause.sentence
    assert d.doubt == "answers run on"
    assert d.advice[0].startswith("train with objective.answer_end: scored")
    found = next(f for f in d.findings if f.rule == "likelihood_accuracy_gap")
    assert "-0.0894 per token" in found.evidence
    assert "5.2 %" in found.evidence
    assert "unexplained_accuracy" not in rules_of(d)  # that is for runs whose replies are known to end
    assert set(UNEXPLAINED_TESTS) <= set(d.advice)
    gap = next(f for f in d.findings if f.rule == "gap_to_reference")
    assert "5.2 %" in gap.evidence
    assert "57.1 %" in gap.evidence
    assert "no_evaluation_during_training" in rules_of(d)
    assert "dead_actor_reward" in rules_of(d)


def test_the_seeds_small_evaluation_and_extractors(seed_runs: dict[str, Diagnosis]) -> None:
    small = next(f for f in seed_runs["svamp"].findings if f.rule == "evaluation_too_small")
    assert "30 questions" in small.evidence
    assert "±15" in small.evidence
    apart = next(f for f in seed_runs["aqua"].findings if f.rule == "extractors_disagree")
    assert "11.4 %" in apart.evidence
    assert "3.5 %" in apart.evidence


def test_the_json_shape(seed_runs: dict[str, Diagnosis]) -> None:
    row = json.loads(json.dumps(seed_runs["arc"].as_json(), allow_nan=False))
    assert list(row)[:6] == ["path", "verdict", "onset_step", "signals", "cause", "advice"]
    assert all(list(signal) == ["name", "step", "value", "threshold"] for signal in row["signals"])
    assert row["cause"].startswith("ppo_frozen_anchor: ")
    assert isinstance(row["advice"][0], str)


# --- the real logs -----------------------------------------------------------------------------------------------------


@pytest.mark.data("runlogs")
def test_no_real_log_is_called_collapsed(real: Path) -> None:
    verdicts = {d.path.name: d.verdict for d in diagnose_paths([real / "runlogs"])}
    assert verdicts.pop("g1c-arithmetic-no-header.jsonl") == "unknown"  # twelve rows
    # This one lost what it had learned around batch 900 (CoTs with the answer: 79 % to 0 %) and looped for 150 batches.
    assert verdicts.pop("g1-arithmetic-mistral-pg.log") == "warn"
    assert verdicts.pop("gsm8k-eval-mistral.json") == "unknown"  # an evaluation, no training
    assert verdicts.pop("g4-header-only.jsonl") == "unknown"
    assert verdicts.pop("g4-arithmetic-gpt2-a.jsonl") == "unknown"
    assert (
        verdicts.pop("g3-gsm8k-llama-ei.jsonl") == "warn"
    )  # KL to the start from .36 to 1.1 nats a token, and no reward gained by it
    assert set(verdicts.values()) == {"healthy"}


# --- rules -------------------------------------------------------------------------------------------------------------


def test_a_healthy_run_is_told_which_checkpoint_to_use(tmp_path: Path) -> None:
    d = one(tmp_path)
    assert (d.verdict, d.cause, d.doubt, d.best_step) == ("healthy", None, None, 300)
    assert d.advice == ("use the checkpoint at step 300, the best evaluated",)


def test_a_best_checkpoint_that_is_not_the_last(tmp_path: Path) -> None:
    evals = [eval_row(0, 0.1, 1000), eval_row(100, 0.7, 1000), eval_row(200, 0.65, 1000), eval_row(300, 0.58, 1000)]
    d = one(tmp_path, evals=evals)
    found = next(f for f in d.findings if f.rule == "decay_after_peak")
    assert found.step == 100
    assert "12.0 points" in found.evidence
    assert found.confidence == "high"
    assert d.verdict == "warn"
    assert d.cause is not None
    assert d.cause.name == "trained_past_its_best"
    assert any("step 100, not the last" in line for line in d.advice)


def test_noise_between_evaluations_is_no_decay(tmp_path: Path) -> None:
    d = one(tmp_path, evals=[eval_row(0, 0.1), eval_row(100, 0.70), eval_row(200, 0.72), eval_row(300, 0.69)])
    assert d.verdict == "healthy"
    assert "decay_after_peak" not in rules_of(d)


def test_a_reward_that_decays_without_evaluations(tmp_path: Path) -> None:
    def change(step: int) -> dict[str, float]:
        level = min(step, 250) / 100 - max(0, step - 250) / 150
        return {"normalized_reward_mean": level + random.Random(step).gauss(0, 0.1)}

    d = one(tmp_path, steps=400, change=change, evals=[])
    found = next(f for f in d.findings if f.rule == "decay_after_peak")
    assert found.step is not None
    assert 220 <= found.step <= 280
    assert "no_evaluation_during_training" in rules_of(d)


def test_a_change_of_level_is_located(tmp_path: Path) -> None:
    d = one(tmp_path, change=lambda s: {"normalized_reward_mean": (0.2 if s < 180 else 1.6) + 0.02 * (s % 3)})
    found = next(f for f in d.findings if f.rule == "change_point" and "normalised" in f.evidence)
    assert found.step is not None
    assert abs(found.step - 180) <= 3


def test_a_ramp_is_no_change_point(tmp_path: Path) -> None:
    d = one(tmp_path, change=lambda s: dict.fromkeys(("reward_mean", "normalized_reward_mean", "answer_logprob"), -3.0 + s / 100))
    assert "change_point" not in rules_of(d)


def test_plateau_and_no_learning(tmp_path: Path) -> None:
    flat = one(
        tmp_path / "flat",
        change=lambda s: {
            "normalized_reward_mean": 0.01 * (s % 7),
            "answer_logprob": -1.0,
            "reward_mean": -1.0,
            "answer_correct_fraction": 0.2,
        },
        evals=[eval_row(0, 0.2), eval_row(300, 0.2)],
    )
    assert "no_learning" in rules_of(flat)
    assert flat.doubt == "nothing learned"
    assert "plateau" in rules_of(one(tmp_path / "plateau"))  # learns for 100 of 300 steps


def test_length_saturation(tmp_path: Path) -> None:
    d = one(tmp_path, change=lambda s: {"cot_length_saturated_fraction": min(1.0, s / 200)})
    assert "cot_length_saturation" in rules_of(d)
    assert any("max_cot_tokens" in line for line in d.advice)
    fixed = CONFIG.replace("max_cot_tokens: 48", "max_cot_tokens: 48, fixed_length: true")
    d = one(tmp_path / "fixed", change=lambda s: {"cot_length_saturated_fraction": min(1.0, s / 200)}, config=fixed)
    assert "cot_length_saturation" not in rules_of(d)


def test_idle_groups_and_term_balance(tmp_path: Path) -> None:
    d = one(tmp_path, change=lambda s: {"groups_without_spread": 0.8, "grad_norm_policy": 0.07, "grad_norm_actor_reward": 0.94})
    assert {"idle_groups", "term_balance"} <= rules_of(d)
    assert "13.4 : 1" in next(f.evidence for f in d.findings if f.rule == "term_balance")


def test_a_reward_that_rises_while_accuracy_does_not(tmp_path: Path) -> None:
    d = one(tmp_path, evals=[eval_row(0, 0.30, 500), eval_row(150, 0.31, 500), eval_row(300, 0.29, 500)])
    assert "reward_without_accuracy" in rules_of(d)
    assert d.doubt == "reward misleads"


def test_a_policy_that_copies_the_answer(tmp_path: Path) -> None:
    copies = [sample_row(s, cot=f"the answer is {21 + s}") for s in range(10, 301, 10)]
    assert "copies_answer" in rules_of(one(tmp_path / "copies", samples=copies))
    assert "copies_answer" not in rules_of(one(tmp_path / "reasons"))


def test_evaluations_under_other_conditions_are_not_compared(tmp_path: Path) -> None:
    greedy = {"decoding": "greedy", "temperature": 0.0, "reader": "actor", "seed": 0}
    d = one(
        tmp_path,
        evals=[
            eval_row(100, 0.5, 1000),
            eval_row(200, 0.5, 1000),
            eval_row(300, 0.5, 1000),
            eval_row(150, 0.9, 1000, how=greedy),
        ],
    )
    assert d.best_step == 100
    assert "decay_after_peak" not in rules_of(d)


# --- causes ------------------------------------------------------------------------------------------------------------

CRASH = {"answer_logprob": -15.0, "reward_mean": -15.0, "normalized_reward_mean": -14.0, "answer_correct_fraction": 0.0}


@pytest.mark.parametrize(
    ("cause", "after", "config"),
    [
        ("numbers_overflowed", dict.fromkeys(("loss", "reward_mean", "normalized_reward_mean", "answer_logprob")), CONFIG),
        ("ppo_frozen_anchor", CRASH | {"ratio_mean": 20.0}, CONFIG.replace("name: grpo", "name: ppo_frozen_anchor")),
        ("near_identical_groups", {"grad_norm": 1e7} | CRASH, CONFIG.replace("std_floor: 0.1", "std_floor: 0.0001")),
        ("entropy_lost", {"entropy": 0.0, "answer_logprob": -1.6, "reward_mean": -1.6, "normalized_reward_mean": 0.0,
                          "answer_correct_fraction": 0.1,
                          "identical_cot_fraction": 1.0}, CONFIG),
        ("learning_rate_too_high", CRASH | {"kl": 20.0}, CONFIG.replace("lr: 0.001", "lr: 0.004")),
        ("completions_collapsed", {"cot_length": 0.0}, CONFIG),
    ],
)  # fmt: skip
def test_named_causes(tmp_path: Path, cause: str, after: dict[str, float | None], config: str) -> None:
    d = one(tmp_path, change=lambda s: dict(after) if s >= 60 else {}, config=config, evals=[])
    assert d.verdict == "collapsed"
    assert d.onset_step is not None
    assert 58 <= d.onset_step <= 66
    assert d.cause is not None
    assert d.cause.name == cause


@pytest.mark.parametrize(("lr", "too_high"), [("0.004", True), ("linear 0.004 -> 0", True), ("linear 0.001 -> 0", False)])
def test_a_rate_above_what_held_up_is_named_whether_held_or_falling(tmp_path: Path, lr: str, too_high: bool) -> None:
    d = one(
        tmp_path,
        change=lambda s: CRASH | {"kl": 20.0} if s >= 60 else {},
        config=CONFIG.replace("lr: 0.001", f"lr: {lr}"),
        evals=[],
    )
    said = [f.evidence for f in d.findings if f.rule == "learning_rate_too_high" and f.confidence == "medium"]
    assert said == ["training.lr is up to 0.004; the highest that worked on this model is 0.002"] * too_high


def test_advice_names_the_last_checkpoint_before_the_onset(tmp_path: Path) -> None:
    d = one(tmp_path, change=lambda s: dict(CRASH) if s >= 250 else {})
    assert d.advice[0] == "do not use checkpoints from step 250 on; the last one before is step 200"


def test_one_setting_shared_by_the_collapsed_runs_only(tmp_path: Path) -> None:
    for name, lr, bad in (("a", "0.004", True), ("b", "0.004", True), ("c", "0.001", False), ("d", "0.0005", False)):
        change = (lambda s: dict(CRASH) if s > 90 else {}) if bad else None
        write_native(tmp_path / name, change=change, config=CONFIG.replace("lr: 0.001", f"lr: {lr}"))
    all_of_them = {d.run.name: d for d in diagnose_paths([tmp_path])}
    for name in ("a", "b"):
        shared = next(f for f in all_of_them[name].findings if f.rule == "only_collapsed_runs_share")
        assert "training.lr = 0.004" in shared.evidence
    assert "only_collapsed_runs_share" not in rules_of(all_of_them["c"])


def test_order_is_that_of_the_arguments(tmp_path: Path) -> None:
    b, a = write_native(tmp_path / "b"), write_native(tmp_path / "a")
    assert [d.path for d in diagnose_paths([b, a])] == [b, a]


def test_empty_runs_are_unknown(tmp_path: Path) -> None:
    d = one(tmp_path, steps=2, samples=[], evals=[])
    assert d.verdict == "unknown"
    assert d.advice[0].startswith("too few rows")


def test_the_tables_are_complete() -> None:
    assert len(rules_table()) == sum(bool(rule.fires) for rule in RULES)
    assert all(row["rule"] and row["looks at"] and row["fires when"] and row["confidence"] for row in rules_table())
    assert len({rule.as_cause for rule in RULES}) == len(RULES)


def test_a_second_evaluation_of_a_foreign_run_counts(tmp_path: Path) -> None:
    folder = tmp_path / "gsm8k" / "r"
    log = write_run(folder, {}, [(b, 0.0, 0.1, -1.0, None) for b in range(0, 4000, 100)])
    for batch, accuracy in ((1000, 0.5), (2000, 0.62), (3000, 0.40)):
        write_result(folder, "gsm8k", accuracy, 1319, batch)
    d = diagnose_paths([log])[0]
    assert d.best_step == 2000
    assert "no_evaluation_during_training" not in rules_of(d)
    assert d.verdict == "warn"
