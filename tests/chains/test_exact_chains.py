"""The expectation of the estimator is the gradient of J = E sum_t gamma^(t-1) r_t, for chains of three observations.

As in tests/objectives/test_exact_gradient.py: states of one token over a vocabulary of four make all chains, and all groups of two
chains, enumerable; for every group the real `take_step` runs; J is computed in tests/support/chains.py from full logits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from markovlm.tasks.base import Example
from markovlm.training import crediting
from markovlm.training.records import Learner
from support.chains import ASKED, SUM, TEXT, chain_learner, exact_chain, expected_chain_ascent, nano_for_chains
from support.exact import assert_different, assert_same

KINDS: dict[str, tuple[Example, int, dict[str, Any]]] = {  # example, states that are written, keys
    "notes": (TEXT, 2, {}),
    "notes_then_questions": (ASKED, 2, {}),
    "thinking": (SUM, 2, {"task": "arithmetic", "chain.steps": 2, "prompt.answer_header": ""}),
}
QUICK = {("notes", 0.7, "markovian"), ("notes_then_questions", 0.7, "non_markovian"), ("thinking", 1.0, "markovian")}


@pytest.fixture(scope="module")
def nano(nano_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nano_for_chains(nano_model, tmp_path_factory.mktemp("chains") / "nano")


def learner_of(nano: Path, kind: str, **overrides: Any) -> tuple[Learner, Example, int]:
    example, states, keys = KINDS[kind]
    return chain_learner(nano, kind, **{**keys, **overrides}), example, states


@pytest.mark.parametrize(
    ("kind", "gamma", "conditioning"),
    [
        pytest.param(kind, gamma, conditioning, marks=() if (kind, gamma, conditioning) in QUICK else pytest.mark.long)
        for kind in KINDS
        for gamma in (1.0, 0.7)
        for conditioning in ("markovian", "non_markovian")
    ],
)
def test_rloo_is_exact(nano: Path, kind: str, gamma: float, conditioning: str) -> None:
    learner, example, states = learner_of(nano, kind, **{"chain.gamma": gamma, "objective.conditioning": conditioning})
    truth = exact_chain(learner, example, states)
    ours = expected_chain_ascent(learner, example, truth)
    assert_same(ours, truth.policy + truth.actor_reward)
    assert_different(ours, truth.policy, by=1e-3)  # neither term hides in rounding
    assert_different(ours, truth.actor_reward, by=1e-3)


@pytest.mark.parametrize(
    "keys",
    [
        {"chain.reward": "both", "microbatch": 64, "training.prompt_sharing": "padded"},
        pytest.param({"chain.reward": "both"}, marks=pytest.mark.long),
        pytest.param({"rollouts.fixed_length": False}, marks=pytest.mark.long),  # a state may be empty
    ],
    ids=str,
)
def test_so_are_both_rewards_padded_passes_and_empty_states(nano: Path, keys: dict[str, Any]) -> None:
    learner, example, states = learner_of(nano, "notes_then_questions", **{"chain.gamma": 0.7, **keys})
    truth = exact_chain(learner, example, states)
    assert_same(expected_chain_ascent(learner, example, truth), truth.policy + truth.actor_reward)


def test_without_the_actor_reward_only_the_policy_gradient_is_left(nano: Path) -> None:
    learner, example, states = learner_of(nano, "notes", weight=0.0)
    truth = exact_chain(learner, example, states)
    assert_same(expected_chain_ascent(learner, example, truth), truth.policy)


@pytest.mark.parametrize("broken", ["future", "discount"])
def test_a_removed_part_of_the_estimator_breaks_it(nano: Path, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewards after the next step left out of G_t; gamma^(t-1) left out in front of it."""
    learner, example, states = learner_of(nano, "notes", **{"chain.gamma": 0.7})
    truth = exact_chain(learner, example, states)
    credit = crediting._credit_to_go

    def spoiled(learner: Learner, groups: Any) -> Any:
        found = credit(learner, groups)
        for one, other in (group[at : at + 2] for group in groups for at in range(0, len(group), 2)):
            if broken == "discount":
                one.loss_weight = other.loss_weight = 1.0
            else:
                one.advantage, other.advantage = one.reward - other.reward, other.reward - one.reward
        return found

    monkeypatch.setattr(crediting, "_credit_to_go", spoiled)
    assert_different(expected_chain_ascent(learner, example, truth), truth.policy + truth.actor_reward, by=1e-3)
