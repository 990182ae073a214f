"""Credit: from the rewards of all processes to the advantage of each CoT.

Of chains, each state of which is a sample of its own:

    G_t = sum_{k>=t} gamma^(k-t) R_k                                   reward to go of the state written at t;  R_t = r_t - b_t
    L   = mean_i sum_t gamma^(t-1) ( L_PG + L_AR + beta KL - alpha H )  of chain i's state at t
    L_PG = - ln u(s_{t+1} | o_t, s_t) A_t     A_t: the objective's advantage of G_t among the chains of the same text at the same t
    L_AR = - w (r_t live) / scale_t           the reader's share of the gradient: only r_t is read from s_{t+1}

With rloo, w = 1, no KL: exactly the gradient of J = E sum_t gamma^(t-1) R_t (tests/chains/test_exact_chains.py). Given the text the
other chains' G_t do not depend on this chain's state, so the leave-one-out baseline is unbiased at every t. KL and entropy terms are
discounted like the reward, so that their ratio is the same at every t. Gradient flows through no state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from markovlm.errors import RunFailed
from markovlm.models.memory import chunks
from markovlm.objectives import Credit
from markovlm.objectives.base import credit_of
from markovlm.rewards.base import kept_groups
from markovlm.training.records import Learner, Sample


def assign_credit(learner: Learner, groups: Sequence[Sequence[Sample]]) -> Credit:
    """Fill in the advantages, from the rewards of all processes; returns the constants for this process's samples."""
    require_finite_rewards([sample for group in groups for sample in group])
    if learner.config.chain.on:
        return _credit_to_go(learner, groups)
    rewards = [[sample.reward - (sample.baseline or 0.0) for sample in group] for group in groups]
    everyone = learner.world.gather(rewards)
    dtype = torch.promote_types(learner.lm.dtype, torch.float32)
    reward = torch.tensor(everyone, dtype=dtype, device=learner.lm.device)
    credit = _only(credit_of(learner.objective, reward), kept_groups(learner.reward, reward))
    if learner.reward.whole_groups:  # the loss is a mean over CoTs, the reward belongs to their group
        credit = replace(credit, scale=credit.scale / reward.shape[1])
    advantage = credit.advantage(reward)
    ours = range(learner.world.rank, len(everyone), learner.world.size)
    for group, q in zip(groups, ours, strict=True):
        for i, sample in enumerate(group):
            sample.advantage = advantage[q, i].item()
    width = reward.shape[1]
    index = torch.tensor([q * width + i for q in ours for i in range(width)], dtype=torch.long, device=reward.device)
    return credit.select(index)


def _credit_to_go(learner: Learner, groups: Sequence[Sequence[Sample]]) -> Credit:
    """Of chains: the advantage of a state is that of its reward to go, among the chains of its text at the same t."""
    gamma = learner.config.chain.gamma
    dtype = torch.promote_types(learner.lm.dtype, torch.float32)
    credits: list[Credit] = []
    for group in groups:
        steps = list(chunks(group, learner.config.rollouts.group_size))
        for t in reversed(range(len(steps) - 1)):
            for sample, following in zip(steps[t], steps[t + 1], strict=True):
                sample.future = gamma * following.to_go
        for t, samples in enumerate(steps):
            reward = torch.tensor([[sample.to_go for sample in samples]], dtype=dtype, device=learner.lm.device)
            credits.append(credit_of(learner.objective, reward))
            for sample, advantage in zip(samples, credits[-1].advantage(reward)[0].tolist(), strict=True):
                sample.advantage, sample.loss_weight = advantage, gamma**t
    chosen = [credit.chosen.reshape(-1) for credit in credits if credit.chosen is not None]
    return Credit(
        torch.cat([credit.centre.reshape(-1) for credit in credits]),
        torch.cat([credit.scale.reshape(-1) for credit in credits]),
        torch.cat(chosen) if len(chosen) == len(credits) else None,
    )


def _only(credit: Credit, groups: Tensor | None) -> Credit:
    """The credit of these groups; the others have advantage 0."""
    if groups is None:
        return credit
    kept = groups[:, None].expand_as(credit.centre)
    return replace(credit, chosen=kept if credit.chosen is None else credit.chosen & kept)


def require_finite_rewards(samples: list[Sample]) -> None:
    """Raise RunFailed before one bad reward spoils the mean, and so the loss, of its whole group."""
    bad = [s.name for s in samples if not (math.isfinite(s.reward) and math.isfinite(s.baseline or 0.0))]
    if bad:
        raise RunFailed(f"the reward is not finite for samples {some(bad)}")


def some(names: list[str]) -> str:
    """The first of many names, as text."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
