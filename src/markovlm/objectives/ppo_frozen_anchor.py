"""The research code's PPO, as it was: only to repeat the seed's runs (docs/method.md). Use `ppo` for anything else.

    rho = exp(mean_t ln u_theta(z_t) - mean_t ln u'(z_t))        against the *frozen base*, not the sampling policy
    L   = - min(rho A, clip(rho, 1-eps, 1+eps) A)                and nothing else: KL and actor-reward terms are overwritten

Once the policy has moved away from the base, rho > 1 + eps on many samples: those with A > 0 have no gradient, those with
A < 0 are pushed away with a force that grows with rho. A is the group standardisation with next to no floor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from markovlm.config.schedule import Schedule
from markovlm.objectives.base import Credit, PolicyBatch, PolicyGradient, PolicyLoss, reduce_tokens
from markovlm.objectives.grpo import standardised
from markovlm.objectives.ppo import PpoBase, clipped_surrogate, ratio_metrics

if TYPE_CHECKING:
    from torch import Tensor


NOTICE = (
    "ppo_frozen_anchor repeats an error of the research code on purpose: the ratio is to the frozen base, the loss is overwritten "
    "(no KL term) and the actor reward has no gradient; use objective.name=ppo for real work"
)


class PpoFrozenAnchorConfig(PpoBase):
    """The research code's PPO, to reproduce the seed's runs: ratio to the frozen base, loss overwritten."""

    chains: ClassVar[bool] = False
    name: str = "ppo_frozen_anchor"
    cot_logprob: Literal["sum", "mean"] = Field(
        "mean", description="reduction of the log-ratio over CoT tokens; the research code: mean"
    )
    actor_reward_weight: Schedule = Field(
        Schedule.constant(0.0), description="must be 0, since this objective overwrites the term"
    )
    kl_weight: Schedule = Field(Schedule.constant(0.0), description="must be 0, since this objective overwrites the KL term")
    std_floor: float = Field(
        1e-4, gt=0, description="floor of the group's standard deviation (the research code has almost none)"
    )

    @model_validator(mode="after")
    def _dead_terms(self) -> Self:
        for name in ("actor_reward_weight", "kl_weight", "entropy_weight"):
            if getattr(self, name).maximum > 0:
                raise ValueError(
                    f"{name} must be 0: ppo_frozen_anchor overwrites the loss, as the research code did; use ppo to keep the term"
                )
        return self


class PpoFrozenAnchor(PolicyGradient[PpoFrozenAnchorConfig]):
    Config = PpoFrozenAnchorConfig

    def credit(self, reward: Tensor) -> Credit:
        return standardised(reward, self.config.std_floor)

    def policy_loss(self, batch: PolicyBatch) -> PolicyLoss:
        log_ratio = reduce_tokens(batch.logp - batch.reference_logp, batch.mask, self.config.cot_logprob)
        ratio, advantage = log_ratio.exp()[:, None], batch.advantage[:, None]
        loss = -clipped_surrogate(ratio, advantage, self.config.clip)[:, 0]
        metrics = ratio_metrics(ratio, advantage, batch.mask.new_ones(ratio.shape), self.config.clip)
        return PolicyLoss(loss, metrics)
