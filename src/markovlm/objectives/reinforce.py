"""The plain policy gradient (Williams 1992): the reward is the advantage.

    A_i = R_i                         the baseline is b alone, where `normalize_reward` subtracts it

For rewards that carry their own baseline (`bound`), and as the textbook control: unbiased with w = 1, summed ln u and no KL, but
noisy. All rewards equal: A = R, the same push for every CoT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from markovlm.config.objective import ObjectiveBase
from markovlm.objectives.base import Credit, PolicyGradient, unit_scale

if TYPE_CHECKING:
    from torch import Tensor


class ReinforceConfig(ObjectiveBase):
    """The reward is the advantage; no group baseline."""

    grouped: ClassVar[bool] = False
    needs_baseline: ClassVar[bool] = True
    name: str = "reinforce"
    baseline_every: int = Field(1, ge=1, description="compute the baseline b every so many steps; must be 1 here")


class Reinforce(PolicyGradient[ReinforceConfig]):
    Config = ReinforceConfig

    def credit(self, reward: Tensor) -> Credit:
        return Credit(reward.new_zeros(reward.shape), unit_scale(reward))
