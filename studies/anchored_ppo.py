"""PPO with the anchor of its ratio as an option, so that one thing at a time can differ between `ppo` and `ppo_frozen_anchor`.

One ratio a CoT, rho = exp(mean or sum over tokens of ln u_theta - ln u_anchor). `anchor=behavior` is PPO's own (`objective.ratio=sequence`);
`anchor=frozen` is the research code's (METHOD §3.2), here with the KL and actor-reward terms kept wherever they are asked for.
"""

from typing import Literal

from pydantic import Field

from markovlm import Credit, PolicyBatch, PolicyGradient, PolicyLoss, register
from markovlm.config.objective import ObjectiveBase
from markovlm.objectives.base import reduce_tokens
from markovlm.objectives.grpo import standardised
from markovlm.objectives.ppo import clipped_surrogate, ratio_metrics


class AnchoredPpoConfig(ObjectiveBase):
    """PPO, one clipped ratio a CoT, to the policy that sampled or to the frozen base."""

    name: str = "anchored_ppo"
    anchor: Literal["behavior", "frozen"] = Field("behavior", description="what the ratio is taken against")
    clip: float = Field(0.2, gt=0, lt=1, description="epsilon: the ratio is clipped to [1 - epsilon, 1 + epsilon]")
    std_floor: float = Field(0.1, gt=0, description="floor of the group's standard deviation")
    passes: int = Field(1, ge=1, description="optimisation passes over one rollout; none is left out")


@register.objective
class AnchoredPpo(PolicyGradient[AnchoredPpoConfig]):
    Config = AnchoredPpoConfig

    def __init__(self, config: AnchoredPpoConfig):
        super().__init__(config)
        self.passes = config.passes

    def credit(self, reward) -> Credit:
        return standardised(reward, self.config.std_floor)

    def policy_loss(self, batch: PolicyBatch) -> PolicyLoss:
        anchor = batch.behavior_logp if self.config.anchor == "behavior" else batch.reference_logp
        log_ratio = reduce_tokens((batch.logp - anchor) * batch.mask, batch.mask, self.config.cot_logprob)
        ratio, advantage = log_ratio.exp()[:, None], batch.advantage[:, None]
        loss = -clipped_surrogate(ratio, advantage, self.config.clip)[:, 0]
        ones = batch.mask.new_ones(ratio.shape)
        return PolicyLoss(loss, ratio_metrics(ratio, advantage, ones, self.config.clip))
