"""Group standardisation, after DeepSeekMath (arXiv 2402.03300).

    A_i = (R_i - mean R) / max(std R, floor)         std with ddof 1, over the B CoTs of one question

All rewards equal: A = 0, the policy-gradient term vanishes and the actor-reward term is `1/floor` strong. The floor keeps
that strength bounded: without it, near-identical groups give gradients of 1e5 and more and clipping then erases the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from markovlm.config.objective import ObjectiveBase
from markovlm.objectives.base import Credit, PolicyGradient, group_mean

if TYPE_CHECKING:
    from torch import Tensor


class GrpoConfig(ObjectiveBase):
    """Group standardisation: A = (R - mean R) / max(std R, std_floor)."""

    name: str = "grpo"
    std_floor: float = Field(
        0.1, gt=0, description="floor of the group's standard deviation (matters where a group's rewards are nearly equal)"
    )


def standardised(reward: Tensor, std_floor: float) -> Credit:
    """Credit of rewards [Q, B] by group standardisation."""
    std = reward.std(dim=1, correction=1, keepdim=True).clamp(min=std_floor)
    return Credit(group_mean(reward), std.expand_as(reward))


class Grpo(PolicyGradient[GrpoConfig]):
    Config = GrpoConfig

    def credit(self, reward: Tensor) -> Credit:
        return standardised(reward, self.config.std_floor)
