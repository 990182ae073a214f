"""Group mean without the standard deviation, after Dr. GRPO (arXiv 2503.20783).

    A_i = R_i - mean R

The sample is part of its own baseline, so the expected policy-gradient term carries a factor (B - 1) / B; the actor-reward
term does not. All rewards equal: A = 0, as for `rloo`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from markovlm.config.objective import ObjectiveBase
from markovlm.objectives.base import Credit, PolicyGradient, group_mean, unit_scale

if TYPE_CHECKING:
    from torch import Tensor


class DrGrpoConfig(ObjectiveBase):
    """Group mean as baseline, no division by the standard deviation."""

    name: str = "dr_grpo"


def mean_centred(reward: Tensor) -> Credit:
    """Credit of rewards [Q, B] against the group's mean."""
    return Credit(group_mean(reward), unit_scale(reward))


class DrGrpo(PolicyGradient[DrGrpoConfig]):
    Config = DrGrpoConfig

    def credit(self, reward: Tensor) -> Credit:
        return mean_centred(reward)
