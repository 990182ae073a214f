"""Leave-one-out baseline, after RLOO (arXiv 2402.14740).

    A_i = R_i - mean_{j != i} R_j

With w = 1, beta = 0, summed ln u and raw rewards its expected gradient is exactly grad E[R] (docs/method.md, "what is exact").
All rewards equal: A = 0, the policy-gradient term vanishes; the actor-reward term keeps strength 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from markovlm.config.objective import ObjectiveBase
from markovlm.objectives.base import Credit, PolicyGradient, unit_scale

if TYPE_CHECKING:
    from torch import Tensor


class RlooConfig(ObjectiveBase):
    """Leave-one-out mean as baseline, no division: with w=1, kl 0, raw rewards this is the exact gradient."""

    name: str = "rloo"


def leave_one_out(reward: Tensor) -> Credit:
    """Credit of rewards [Q, B], B >= 2, against the mean of the others."""
    others = (reward.sum(dim=1, keepdim=True) - reward) / (reward.shape[1] - 1)
    return Credit(others, unit_scale(reward))


class Rloo(PolicyGradient[RlooConfig]):
    Config = RlooConfig

    def credit(self, reward: Tensor) -> Credit:
        return leave_one_out(reward)
