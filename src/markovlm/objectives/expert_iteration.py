"""Expert iteration: learn only from CoTs whose reward stands out from everything seen so far.

    chosen_i = R_i > mu + k * sigma          mu, sigma (population) of all rewards of earlier batches
    A_i = R_i if chosen_i else 0             L_PG with `advantage: one`: -ln u on the chosen, plain imitation

The KL and entropy terms see every sample. The first `warmup_batches` batches only fill the history and train nothing.
All rewards equal (sigma = 0): nothing is chosen, because R > mu fails. Where the baseline CoT is better than most samples, R can
be negative even above the threshold, and `advantage: reward` then pushes away from the best: use `one` there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from markovlm.config.objective import ObjectiveBase
from markovlm.objectives.base import Credit, PolicyBatch, PolicyGradient, PolicyLoss, in_order, reduce_tokens, unit_scale

if TYPE_CHECKING:
    from torch import Tensor


class ExpertIterationConfig(ObjectiveBase):
    """L_PG and L_AR only where the reward stands out from the running history: R > mu + threshold_std * sigma."""

    chains: ClassVar[bool] = False
    grouped: ClassVar[bool] = False
    needs_baseline: ClassVar[bool] = True
    name: str = "expert_iteration"
    baseline_every: int = Field(1, ge=1, description="compute the baseline b every so many steps; must be 1 here")
    threshold_std: float = Field(
        1.0, description="k, the number of standard deviations above the mean of the reward history (2.2 in older runs)"
    )
    warmup_batches: int = Field(25, ge=1, description="initial batches that only fill the reward history and train nothing")
    advantage: Literal["reward", "one"] = Field(
        "reward",
        description="advantage of the chosen CoTs in L_PG: their reward R, or 1 (plain imitation; safe if R may be negative)",
    )


class ExpertIteration(PolicyGradient[ExpertIterationConfig]):
    Config = ExpertIterationConfig

    def __init__(self, config: ExpertIterationConfig):
        super().__init__(config)
        self.batches = 0
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0  # sum of squared deviations from the mean (Welford 1962)

    @property
    def threshold(self) -> float:
        """mu + k * sigma of the history; infinite before there is one."""
        if not self.count:
            return math.inf
        return self.mean + self.config.threshold_std * math.sqrt(self.squares / self.count)

    def credit(self, reward: Tensor) -> Credit:
        idle = self.batches < self.config.warmup_batches
        chosen = reward > self.threshold
        if idle:
            chosen = chosen.new_zeros(chosen.shape)
        self._remember(reward)
        return Credit(reward.new_zeros(reward.shape), unit_scale(reward), chosen, idle)

    def _remember(self, reward: Tensor) -> None:
        self.batches += 1
        for value in in_order(reward):
            self.count += 1
            delta = value - self.mean
            self.mean += delta / self.count
            self.squares += delta * (value - self.mean)

    def policy_loss(self, batch: PolicyBatch) -> PolicyLoss:
        assert batch.chosen is not None
        chosen = batch.chosen.to(batch.logp.dtype)
        advantage = chosen if self.config.advantage == "one" else batch.advantage
        loss = -reduce_tokens(batch.logp, batch.mask, self.config.cot_logprob) * advantage
        return PolicyLoss(loss, {"no_gradient_fraction": 1.0 - chosen})

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches, "count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches, self.count = int(state["batches"]), int(state["count"])
        self.mean, self.squares = float(state["mean"]), float(state["squares"])
