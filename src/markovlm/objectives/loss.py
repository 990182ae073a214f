"""The loss of docs/method.md, put together.

L = mean_i ( L_PG,i + L_AR,i + beta * mean_t KL_i,t - alpha * mean_t H_i,t ),     L_AR,i = -w * A_i with live reward
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markovlm.objectives.base import Credit, Objective, PolicyBatch, policy_loss_of, reduce_tokens

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the terms at this step."""

    actor_reward: float
    kl: float
    entropy: float


@dataclass(frozen=True, slots=True)
class LossTerms:
    """Per-sample terms [n], already weighted; their sum is the sample's loss."""

    policy: Tensor
    actor_reward: Tensor | None
    kl: Tensor | None
    entropy: Tensor | None
    metrics: dict[str, Tensor]

    def parts(self) -> dict[str, Tensor]:
        """The terms that exist, by name, each [n]."""
        named = {"policy": self.policy, "actor_reward": self.actor_reward, "kl": self.kl, "entropy": self.entropy}
        return {name: term for name, term in named.items() if term is not None}

    def total(self) -> Tensor:
        """[n]"""
        first, *others = self.parts().values()
        for term in others:
            first = first + term
        return first

    def weighted(self, weight: Tensor) -> LossTerms:
        """Every term times `weight` [n]."""
        scaled = {name: term * weight for name, term in self.parts().items()}
        return LossTerms(scaled["policy"], scaled.get("actor_reward"), scaled.get("kl"), scaled.get("entropy"), self.metrics)


def loss_terms(
    objective: Objective,
    batch: PolicyBatch,
    credit: Credit,
    live_reward: Tensor | None,
    kl: Tensor | None,
    entropy: Tensor | None,
    weights: Weights,
) -> LossTerms:
    """Terms of n samples. `live_reward` [n] carries gradient; `kl` and `entropy` are [n, T]."""
    policy = policy_loss_of(objective, batch)
    actor = None if live_reward is None else -weights.actor_reward * credit.advantage(live_reward)
    if actor is not None and policy.reward_weight is not None:
        actor = actor * policy.reward_weight
    return LossTerms(
        policy=policy.loss,
        actor_reward=actor,
        kl=None if kl is None else weights.kl * reduce_tokens(kl, batch.mask, "mean"),
        entropy=None if entropy is None else -weights.entropy * reduce_tokens(entropy, batch.mask, "mean"),
        metrics=policy.metrics,
    )
