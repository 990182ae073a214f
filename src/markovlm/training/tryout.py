"""An objective and a reward from outside, called once on made-up numbers before the first evaluation.

A loss of the wrong shape would otherwise be found in the first step, after the base model was evaluated. The objects called here are
made for the purpose and thrown away, so running statistics are not affected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from markovlm.config import RunConfig
from markovlm.objectives import PolicyBatch, build_objective
from markovlm.objectives.base import credit_of, policy_loss_of
from markovlm.plugins import is_plugin
from markovlm.registry import OBJECTIVES, REWARDS
from markovlm.rewards import build_reward
from markovlm.rewards.base import Answers, Read, kept_groups, surrogate_of, value_of, weight_of
from markovlm.tasks.base import Example

_TOKENS = 3  # of a CoT and of an answer


def try_plugins(config: RunConfig, questions: Sequence[Example]) -> None:
    """Raise UserError if a plug-in's objective or reward returns something invalid for two or more CoTs of each question."""
    size = max(2, config.rollouts.group_size)
    if is_plugin(OBJECTIVES, config.objective.name):
        _try_objective(config, len(questions), size)
    if is_plugin(REWARDS, config.objective.reward):
        _try_reward(config, questions, size)


def _try_objective(config: RunConfig, questions: int, size: int) -> None:
    objective = build_objective(config.objective)
    credit = credit_of(objective, -torch.arange(1.0, questions * size + 1).view(questions, size))
    n = questions * size
    mask = torch.ones(n, _TOKENS)
    logp = (-torch.ones(n, _TOKENS)).requires_grad_()
    chosen = None if credit.chosen is None else credit.chosen.reshape(-1)
    advantage = torch.linspace(-1, 1, n)
    policy_loss_of(objective, PolicyBatch(logp, logp.detach() - 0.1, logp.detach() - 0.2, mask, advantage, chosen))


def _try_reward(config: RunConfig, questions: Sequence[Example], size: int) -> None:
    """The CoTs say what the gold answer is, which every reward of texts must bear."""
    reward = build_reward(config.objective)
    asked = [question for question in questions for _ in range(size)]
    text = reward.needs_text or reward.needs_reply
    read = [Read(q, f"It is {q.answer}.", q.answer if reward.needs_reply else None, correct=True) for q in asked if text]
    made = _answers(len(asked), size, read)
    direct = _answers(len(questions), 1) if reward.needs_direct else None
    made = replace(made, direct=direct, others={name: made.logp_mean.detach() for name in config.objective.readers})
    with torch.no_grad():
        value_of(reward, made)
        weight_of(reward, made)
    kept_groups(reward, -torch.arange(1.0, len(asked) + 1).view(-1, size))
    if reward.differentiable and config.objective.actor_reward_weight.maximum > 0:
        surrogate_of(reward, made)


def _answers(n: int, size: int, read: Sequence[Read] = ()) -> Answers:
    """Of `n` CoTs, each with a few answer tokens of different log-probs, with gradient."""
    row = torch.arange(n).repeat_interleave(_TOKENS)
    token_logp = (-(1.0 + torch.arange(n * _TOKENS) / (n * _TOKENS))).requires_grad_()
    total = token_logp.view(n, _TOKENS).sum(1)
    return Answers(total, total / _TOKENS, token_logp, row, size, tuple(read))
