"""J and its gradient by enumeration: a vocabulary of four tokens and CoTs of two, in float64, with no code of the package but the model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from markovlm.tasks.base import Example
from markovlm.training.records import Learner
from markovlm.training.step import take_step
from support import tiny
from support.fake import FakeSampler

TAU = 0.7
EOS = 3  # of the nano model, whose other tokens are 0, 1, 2
QUESTION = Example("q", "1+20", "21")  # gold answer: two tokens
EXACT = {"objective.kl_weight": 0.0, "objective.normalize_reward": False, "objective.cot_logprob": "sum"}


def nano_learner(nano: Path, name: str, *, weight: float = 1.0, microbatch: int = 16384, **overrides: Any) -> Learner:
    keys = {
        "prompt.answer_header": "0",
        "rollouts.max_cot_tokens": 2,
        "rollouts.fixed_length": True,
        "rollouts.questions_per_step": 1,
        "rollouts.temperature": TAU,
        "training.lr": 0.0,
        "training.max_grad_norm": 1e12,
        "objective.name": name,
        "objective.actor_reward_weight": weight,
        **EXACT,
        **overrides,
    }
    run = tiny.config(nano, **{key.replace(".", "__"): value for key, value in keys.items()})
    learner = tiny.learner(run, microbatch_tokens=microbatch)
    tiny.shake(learner.lm, scale=0.5, seed=5)
    return learner


# ------------------------------------------------------------------------------------------- J, computed exactly


def all_cots(learner: Learner) -> list[tuple[int, ...]]:
    """Everything that can be sampled: two tokens, or (where the length is free) an end token at the first or second."""
    if learner.config.rollouts.fixed_length:
        return list(itertools.product((0, 1, 2), repeat=2))
    first = [(EOS,)]
    return first + list(itertools.product((0, 1, 2), (0, 1, 2, EOS)))


def answer_tokens(learner: Learner) -> tuple[int, ...]:
    """What is scored: the gold answer and, unless `objective.answer_end` is open, the end token after it."""
    end = () if learner.config.objective.answer_end == "open" else (EOS,)
    return learner.prompter.answer_ids(QUESTION) + end


def naive_logprobs(learner: Learner, prompt: Sequence[int], tokens: Sequence[int], tau: float, banned: Sequence[int]) -> Tensor:
    """ln p of each token, from the full logits of the whole sequence."""
    ids = torch.tensor([[*prompt, *tokens]])
    logits = learner.lm.causal_lm(input_ids=ids, use_cache=False).logits[0] / tau
    logits[:, list(banned)] = -math.inf
    logp = logits.log_softmax(-1)
    return torch.stack([logp[len(prompt) + t - 1, token] for t, token in enumerate(tokens)])


@dataclass
class Exact:
    """J and its gradient, in the two terms of METHOD §2."""

    policy: Tensor  # sum_z grad u(z) * r(z)
    actor_reward: Tensor  # sum_z u(z) * grad r(z)
    probability: dict[tuple[int, ...], float]


def exact(learner: Learner, reward: str = "logprob") -> Exact:
    parameters = [p for _, p in learner.lm.adapter_parameters()]
    prompter, rollouts = learner.prompter, learner.config.rollouts
    question = prompter.cot_prompt(QUESTION)
    reader = prompter.reader_prompt(QUESTION, learner.config.objective.conditioning)
    banned = [EOS] if rollouts.fixed_length else []
    u, r = [], []
    for cot in all_cots(learner):
        u.append(naive_logprobs(learner, question, cot, TAU, banned).sum().exp())
        kept = [token for token in cot if token != EOS]
        before = [*reader, *kept, *prompter.header_ids]
        answer = naive_logprobs(learner, before, answer_tokens(learner), 1.0, [])
        r.append(answer.mean() if reward == "logprob" else answer.sum().exp())
    u_Z, r_Z = torch.stack(u), torch.stack(r)
    assert u_Z.sum().item() == pytest.approx(1.0, abs=1e-12)  # the enumeration is complete

    def gradient(objective: Tensor) -> Tensor:
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(objective, parameters, retain_graph=True)])

    policy, actor_reward = gradient((u_Z * r_Z.detach()).sum()), gradient((u_Z.detach() * r_Z).sum())
    whole = gradient((u_Z * r_Z).sum())
    assert torch.allclose(policy + actor_reward, whole, atol=1e-12)  # the product rule
    return Exact(policy, actor_reward, dict(zip(all_cots(learner), u_Z.tolist(), strict=True)))


# ------------------------------------------------------------------------------------------- the estimator


def groups(truth: Exact) -> Iterator[tuple[float, tuple[tuple[int, ...], ...]]]:
    """Unordered pairs of CoTs with the probability of drawing them in either order."""
    for one, other in itertools.combinations_with_replacement(truth.probability, 2):
        orders = 1 if one == other else 2
        yield orders * truth.probability[one] * truth.probability[other], (one, other)


def expected_ascent(learner: Learner, truth: Exact) -> Tensor:
    """Minus the expected gradient of the loss, over all groups of two."""
    total = torch.zeros_like(truth.policy)
    for probability, group in groups(truth):
        total -= probability * group_gradient(learner, group)
    return total


def group_gradient(learner: Learner, group: tuple[tuple[int, ...], ...]) -> Tensor:
    """The gradient of the loss where this group was drawn, by a step of training."""
    learner.sampler = FakeSampler(lambda prompt, number: group[number], terminators=(EOS,))
    take_step(learner, [QUESTION], 1)
    assert isinstance(learner.optimizer, tiny.RecordingSGD)
    return learner.optimizer.flat()


def assert_same(ours: Tensor, theirs: Tensor, tolerance: float = 1e-9) -> None:
    assert theirs.norm() > 1e-3  # there is something to compare
    assert (ours - theirs).norm() <= tolerance * theirs.norm()


def assert_different(ours: Tensor, theirs: Tensor, by: float = 0.02) -> None:
    assert (ours - theirs).norm() > by * theirs.norm()
