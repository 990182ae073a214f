"""Named collapses: each signature on the rows of the run that it is named after, and silent on the others."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from markovlm.health.causes import SIGNATURES, named, portrait
from markovlm.health.monitor import judge
from markovlm.health.remedies import KNOBS, REMEDIES, SEEN, remedy

N, ONSET = 100, 70


def run(**change: Any) -> list[dict[str, Any]]:
    """A steady run; from ONSET on its values are those given (a callable: of the step)."""
    rng = random.Random(0)
    rows = []
    for step in range(1, N + 1):
        row: dict[str, Any] = {
            "step": step, "reward_mean": rng.gauss(0.6, 0.05), "reward_std": 0.3, "loss": rng.gauss(0, 0.1), "kl": 0.05,
            "entropy": 0.3, "grad_norm": rng.uniform(0.2, 0.6), "cot_length": rng.gauss(200, 10), "groups_without_spread": 0.3,
            "cot_length_saturated_fraction": 0.03, "sampler_gap": 0.005 * rng.uniform(0.9, 1.1),
        }  # fmt: skip
        if step >= ONSET:
            row |= {key: value(step) if callable(value) else value for key, value in change.items()}
        rows.append(row)
    return rows


def names(rows: list[dict[str, Any]]) -> list[str]:
    keys = {key for row in rows for key in row}
    columns = {key: [row.get(key) for row in rows] for key in keys}
    return [n.name for n in named(portrait(columns, judge(rows)))]


RUNS = {
    "not_finite": run(loss=math.nan, grad_norm=math.nan, reward_mean=0.0),
    "truncated_to_zero": run(reward_mean=0.0, cot_length_saturated_fraction=1.0, cot_length=512.0),
    "entropy_explosion": run(reward_mean=0.0, entropy=5.0),
    "garbage_is_paid": run(distinct_bigram_fraction=0.05, longest_char_run=200.0),
    "sampler_mismatch": run(sampler_gap=0.3),
    "kl_runaway": run(kl=15.0, reward_mean=0.1),
    "entropy_death": run(entropy=0.004, reward_mean=0.02),
    "truncation_spiral": run(cot_length_saturated_fraction=0.9, cot_length=480.0),
    "reward_hacking": [
        row | {"reward/format": 0.3 + row["step"] / 200, "reward/correct": 0.7 - row["step"] / 200, "reward_mean": 1.0}
        for row in run()
    ],
    "length_inflation": run(cot_length=600.0, cot_length_saturated_fraction=0.35),
    "groups_hopeless": run(reward_mean=0.0, groups_without_spread=1.0, reward_std=0.0),
    "groups_solved": run(reward_mean=1.0, groups_without_spread=1.0, reward_std=0.0),
    "nothing_moves": [row | {"grad_norm": 0.0, "loss": 0.0} for row in run()],
    "healed_spike": [row | ({"grad_norm": 155.0, "kl": 17.0} if row["step"] == 40 else {}) for row in run()],
}


@pytest.mark.parametrize("name", RUNS)
def test_each_named_collapse_is_named(name: str) -> None:
    found = names(RUNS[name])
    assert name in found
    assert found[0] == name or name not in ("truncated_to_zero", "not_finite", "garbage_is_paid")


def test_a_steady_run_has_no_name() -> None:
    assert names(run()) == []


def test_equal_groups_are_told_apart_by_the_reward() -> None:
    assert "groups_solved" not in names(RUNS["groups_hopeless"])
    assert "groups_hopeless" not in names(RUNS["groups_solved"])
    assert judge(RUNS["groups_solved"]).verdict == "healthy"


def test_a_healed_spike_is_no_alarm() -> None:
    assert judge(RUNS["healed_spike"]).verdict == "healthy"


def test_rows_with_holes_and_nothing_at_all() -> None:
    assert named(portrait({}, judge([]))) == ()
    assert named(portrait({"step": [1, 2], "reward_mean": [None, math.inf]}, judge([]))) == ()


def test_every_signature_has_remedies_and_places_where_it_was_seen() -> None:
    assert [s.name for s in SIGNATURES] == list(RUNS) == list(REMEDIES) == list(SEEN)
    for lines in REMEDIES.values():
        assert lines
    assert all(url.startswith("https://github.com/") for urls in SEEN.values() for url in urls)
    assert set(KNOBS) <= {line for lines in REMEDIES.values() for line in lines}


def test_advice_is_in_the_terms_of_the_framework() -> None:
    def said(framework: str) -> str:
        return " | ".join(remedy("kl_runaway", framework))

    assert "actor_rollout_ref.actor.kl_loss_coef" in said("verl")
    assert "hold the policy nearer to its start: beta" in said("TRL")
    assert "--init_kl_coef" in said("OpenRLHF")
    assert "objective.kl_weight" in said("")
    assert "hold the policy nearer to its start |" in said("somebody's own") + " |"
