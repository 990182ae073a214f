"""PPO with the ratio to the policy that sampled (Schulman et al., arXiv 1707.06347).

    rho_t = exp(ln u_theta(z_t) - ln u_behaviour(z_t))
    L_PG  = - sum_t min(rho_t A, clip(rho_t, 1-eps, 1+eps) A)          ratio: token (sum or mean over tokens)
    L_PG  = - min(rho A, clip(rho) A),  rho = exp(sum_t or mean_t ...)  ratio: sequence (with mean: GSPO, arXiv 2507.18071)

Several passes go over one rollout. In the first rho = 1 and the gradient is the policy gradient (up to 1/T for a mean);
in later ones the actor-reward term of a sample is weighted by its detached clipped ratio (of a CoT with token ratios: their
geometric mean), and a pass whose mean KL to the
behaviour policy exceeds `kl_bound` is not applied and ends the step. All rewards equal: A = 0, no policy gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from markovlm.config.objective import ObjectiveBase
from markovlm.objectives.base import Credit, PolicyBatch, PolicyGradient, PolicyLoss, reduce_tokens
from markovlm.objectives.dr_grpo import mean_centred
from markovlm.objectives.grpo import standardised
from markovlm.objectives.rloo import leave_one_out

if TYPE_CHECKING:
    from torch import Tensor


class PpoBase(ObjectiveBase):
    """What both PPO objectives share."""

    clip: float = Field(0.2, gt=0, lt=1, description="epsilon: the ratio is clipped to [1 - epsilon, 1 + epsilon]")


class PpoConfig(PpoBase):
    """Clipped ratio to the behaviour policy, several passes over one rollout; KL and actor-reward terms stay."""

    name: str = "ppo"
    advantage: Literal["grpo", "rloo", "dr_grpo"] = Field("grpo", description="how rewards become advantages")
    std_floor: float = Field(0.1, gt=0, description="floor of the group's standard deviation, for advantage=grpo")
    ratio: Literal["token", "sequence"] = Field(
        "token", description="one ratio per token, or one per CoT (exp of the summed or mean log-ratio)"
    )
    passes: int = Field(2, ge=1, description="optimisation passes over one rollout")
    kl_bound: float = Field(
        0.05,
        gt=0,
        description="end the passes of a step early when the mean KL from the behaviour policy (nats per token) exceeds this",
    )


class Ppo(PolicyGradient[PpoConfig]):
    Config = PpoConfig

    def __init__(self, config: PpoConfig):
        super().__init__(config)
        self.passes = config.passes

    def goes_on(self, behavior_kl: float) -> bool:
        return behavior_kl <= self.config.kl_bound

    def credit(self, reward: Tensor) -> Credit:
        if self.config.advantage == "grpo":
            return standardised(reward, self.config.std_floor)
        return leave_one_out(reward) if self.config.advantage == "rloo" else mean_centred(reward)

    def policy_loss(self, batch: PolicyBatch) -> PolicyLoss:
        log_ratio = (batch.logp - batch.behavior_logp) * batch.mask
        sequence_log_ratio = reduce_tokens(log_ratio, batch.mask, self.config.cot_logprob)
        if self.config.ratio == "token":
            advantage, mask = batch.advantage[:, None], batch.mask
            ratio = log_ratio.exp()
            loss = -reduce_tokens(clipped_surrogate(ratio, advantage, self.config.clip), mask, self.config.cot_logprob)
        else:
            advantage, mask = batch.advantage[:, None], sequence_log_ratio.new_ones(sequence_log_ratio.shape)[:, None]
            ratio = sequence_log_ratio.exp()[:, None]
            loss = -clipped_surrogate(ratio, advantage, self.config.clip)[:, 0]
        whole = sequence_log_ratio if self.config.ratio == "sequence" else reduce_tokens(log_ratio, batch.mask, "mean")
        weight = whole.exp().clamp(1 - self.config.clip, 1 + self.config.clip)
        return PolicyLoss(loss, ratio_metrics(ratio, advantage, mask, self.config.clip), weight.detach())


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """min(rho A, clip(rho) A), elementwise."""
    return (ratio * advantage).minimum(ratio.clamp(1 - clip, 1 + clip) * advantage)


def ratio_metrics(ratio: Tensor, advantage: Tensor, mask: Tensor, clip: float) -> dict[str, Tensor]:
    """Per-sample statistics of ratios [n, T or 1] under a mask: extremes, mean, clipped share, samples without gradient."""
    ratio, inside = ratio.detach(), mask > 0
    count = mask.sum(-1).clamp(min=1)
    outside = ((ratio < 1 - clip) | (ratio > 1 + clip)) & inside
    dead = ((ratio > 1 + clip) & (advantage > 0)) | ((ratio < 1 - clip) & (advantage < 0)) | (advantage == 0)
    return {
        "ratio_min": ratio.masked_fill(~inside, float("inf")).amin(-1),
        "ratio_mean": (ratio * mask).sum(-1) / count,
        "ratio_max": ratio.masked_fill(~inside, float("-inf")).amax(-1),
        "ratio_clipped_fraction": outside.sum(-1) / count,
        "no_gradient_fraction": (dead | ~inside).all(-1).to(ratio.dtype),
    }
