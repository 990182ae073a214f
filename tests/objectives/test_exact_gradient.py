"""The expectation of the estimator is the gradient of J = E[R] (METHOD §2, "what is exact").

A vocabulary of four tokens and CoTs of two make all CoTs, and all groups of two CoTs, enumerable. For every group the
real `take_step` runs (model, LoRA, prompts, scorer, credit, loss) with a scripted sampler; its gradients, weighted by
the group's probability, are summed. J itself is computed here from the full logits of the whole sequences, with no code
of the package but the model, and differentiated by autograd. All in float64.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from markovlm.training.records import Learner
from markovlm.training.step import take_step
from support import tiny
from support.exact import (
    EOS,
    QUESTION,
    TAU,
    answer_tokens,
    assert_different,
    assert_same,
    exact,
    expected_ascent,
    naive_logprobs,
    nano_learner,
)
from support.fake import FakeSampler

PATHS = {  # how the step computes it; every way is the same estimator
    "shared, live graph": {"training.prompt_sharing": "shared"},
    "padded, live graph": {"training.prompt_sharing": "padded"},
    "shared, recomputed": {"training.prompt_sharing": "shared", "microbatch": 1},
    "padded, recomputed": {"training.prompt_sharing": "padded", "microbatch": 1},
    "early stop": {"rollouts.fixed_length": False},
    "early stop, padded": {"rollouts.fixed_length": False, "training.prompt_sharing": "padded"},
    "probability reward": {"objective.reward": "prob"},
    "open": {"objective.answer_end": "open"},
    "open, recomputed": {"objective.answer_end": "open", "microbatch": 1},
    "probability reward, open": {"objective.reward": "prob", "objective.answer_end": "open"},
    "non-Markovian": {"objective.conditioning": "non_markovian"},
}


@pytest.mark.parametrize("path", PATHS)
def test_rloo_is_exact(nano_model: Path, path: str) -> None:
    learner = nano_learner(nano_model, "rloo", **PATHS[path])
    truth = exact(learner, learner.config.objective.reward)
    ours = expected_ascent(learner, truth)
    assert_same(ours, truth.policy + truth.actor_reward)
    assert_different(ours, truth.policy)  # neither term is an extra that hides in rounding
    assert_different(ours, truth.actor_reward)


def test_rloo_is_exact_for_a_llama(nano_models: dict[str, Path]) -> None:
    learner = nano_learner(nano_models["llama"], "rloo")
    truth = exact(learner)
    # its norms and rotary angles are float32 in transformers: two ways of batching differ by that rounding
    assert_same(expected_ascent(learner, truth), truth.policy + truth.actor_reward, tolerance=2e-6)


@pytest.mark.parametrize("sharing", ["shared", "padded"])
def test_without_the_actor_reward_only_the_policy_gradient_is_left(nano_model: Path, sharing: str) -> None:
    learner = nano_learner(nano_model, "rloo", weight=0.0, **{"training.prompt_sharing": sharing})
    truth = exact(learner)
    ours = expected_ascent(learner, truth)
    assert_same(ours, truth.policy)
    assert_different(ours, truth.policy + truth.actor_reward)


@pytest.mark.parametrize("microbatch", [16384, 1])
def test_the_weight_multiplies_the_actor_reward_term_alone(nano_model: Path, microbatch: int) -> None:
    learner = nano_learner(nano_model, "rloo", weight=2.5, microbatch=microbatch)
    truth = exact(learner)
    assert_same(expected_ascent(learner, truth), truth.policy + 2.5 * truth.actor_reward)


@pytest.mark.parametrize("sharing", ["shared", "padded"])
def test_dr_grpo_shrinks_its_policy_term_by_the_group(nano_model: Path, sharing: str) -> None:
    learner = nano_learner(nano_model, "dr_grpo", **{"training.prompt_sharing": sharing})
    truth = exact(learner)
    ours = expected_ascent(learner, truth)
    assert_same(ours, (2 - 1) / 2 * truth.policy + truth.actor_reward)  # (B - 1) / B with B = 2
    assert_different(ours, truth.policy + truth.actor_reward)


def test_mean_over_cot_tokens_is_not_exact(nano_model: Path) -> None:
    """The research code's reduction: half the policy term here, where every CoT has two tokens."""
    learner = nano_learner(nano_model, "rloo", **{"objective.cot_logprob": "mean"})
    truth = exact(learner)
    assert_same(expected_ascent(learner, truth), truth.policy / 2 + truth.actor_reward)


def test_a_group_of_three_is_exact_too(nano_model: Path) -> None:
    """B = 3 with one-token CoTs: 3^3 groups. dr_grpo's factor is then 2/3."""
    for name, factor in (("rloo", 1.0), ("dr_grpo", 2 / 3)):
        learner = nano_learner(nano_model, name, **{"rollouts.group_size": 3})
        truth = exact(learner)
        first: dict[int, float] = {}
        for cot, probability in truth.probability.items():
            first[cot[0]] = first.get(cot[0], 0.0) + probability
        ours, theirs = torch.zeros_like(truth.policy), one_token_terms(learner, first)
        for drawn in itertools.product(first, repeat=3):
            learner.sampler = FakeSampler(lambda prompt, number, drawn=drawn: (drawn[number],))
            take_step(learner, [QUESTION], 1)
            assert isinstance(learner.optimizer, tiny.RecordingSGD)
            ours -= math.prod(first[token] for token in drawn) * learner.optimizer.flat()
        assert_same(ours, factor * theirs[0] + theirs[1])


def one_token_terms(learner: Learner, probability: dict[int, float]) -> tuple[Tensor, Tensor]:
    """Policy and actor-reward term of J over CoTs of one token."""
    parameters = [p for _, p in learner.lm.adapter_parameters()]
    prompter = learner.prompter
    policy = actor = torch.zeros(())
    for token, u in probability.items():
        logu = naive_logprobs(learner, prompter.cot_prompt(QUESTION), [token], TAU, [EOS]).sum()
        before = [*prompter.reader_prompt(QUESTION, "markovian"), token, *prompter.header_ids]
        r = naive_logprobs(learner, before, answer_tokens(learner), 1.0, []).mean()
        policy, actor = policy + u * r.detach() * logu, actor + u * r
    flat = [torch.cat([g.reshape(-1) for g in torch.autograd.grad(term, parameters)]) for term in (policy, actor)]
    return flat[0], flat[1]
