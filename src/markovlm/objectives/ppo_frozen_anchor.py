"""The research code's PPO, as it was: only to repeat the seed's runs (METHOD §3.2). Use `ppo` for anything else.

    rho = exp(mean_t ln u_theta(z_t) - mean_t ln u'(z_t))        against the *frozen base*, not the sampling policy
    L   = - min(rho A, clip(rho, 1-eps, 1+eps) A)                and nothing else: KL and actor-reward terms are overwritten

Once the policy has moved away from the base, rho > 1 + eps on many samples: those with A > 0 have no gradient, those with
A < 0 are pushed away with a force that grows with rho. A is the group standardisation with next to no floor.
"""

from __future__ import annotations

from torch import Tensor

from markovlm.config.objective import PpoFrozenAnchor as PpoFrozenAnchorConfig
from markovlm.objectives.base import Credit, PolicyBatch, PolicyGradient, PolicyLoss, reduce_tokens
from markovlm.objectives.grpo import standardised
from markovlm.objectives.ppo import clipped_surrogate, ratio_metrics

NOTICE = (
    "ppo_frozen_anchor repeats an error of the research code on purpose: the ratio is to the frozen base, the loss is overwritten "
    "(no KL term) and the actor reward has no gradient; use objective.name=ppo for real work"
)


class PpoFrozenAnchor(PolicyGradient[PpoFrozenAnchorConfig]):
    def credit(self, reward: Tensor) -> Credit:
        return standardised(reward, self.config.std_floor)

    def policy_loss(self, batch: PolicyBatch) -> PolicyLoss:
        log_ratio = reduce_tokens(batch.logp - batch.reference_logp, batch.mask, self.config.cot_logprob)
        ratio, advantage = log_ratio.exp()[:, None], batch.advantage[:, None]
        loss = -clipped_surrogate(ratio, advantage, self.config.clip)[:, 0]
        metrics = ratio_metrics(ratio, advantage, batch.mask.new_ones(ratio.shape), self.config.clip)
        return PolicyLoss(loss, metrics)
