"""Credit: from the rewards of all processes to the advantage of each CoT."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from markovlm.errors import RunFailed
from markovlm.objectives import Credit
from markovlm.objectives.base import credit_of
from markovlm.rewards.base import kept_groups
from markovlm.training.records import Learner, Sample


def assign_credit(learner: Learner, groups: Sequence[Sequence[Sample]]) -> Credit:
    """Fill in the advantages, from the rewards of all processes; returns the constants for this process's samples."""
    require_finite_rewards([sample for group in groups for sample in group])
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


def _only(credit: Credit, groups: Tensor | None) -> Credit:
    """The credit of these groups; the others have advantage 0."""
    if groups is None:
        return credit
    kept = groups[:, None].expand_as(credit.centre)
    return replace(credit, chosen=kept if credit.chosen is None else credit.chosen & kept)


def require_finite_rewards(samples: list[Sample]) -> None:
    """Before one bad reward spoils the mean, and so the loss, of its whole group."""
    bad = [s.name for s in samples if not (math.isfinite(s.reward) and math.isfinite(s.baseline or 0.0))]
    if bad:
        raise RunFailed(f"the reward is not finite for samples {some(bad)}")


def some(names: list[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
