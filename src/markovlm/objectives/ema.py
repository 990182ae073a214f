"""Moving-average baseline over the stream of samples (the paper's first runs).

    A_t = R_t - V_t,    V_t = sum_{i<t} w_i R_i,    w_i = r^(t-1-i) / sum_{j<t} r^(t-1-j)

t counts samples in order (question by question), across batches, so V looks back about 1/(1-r) samples, those of the same
batch included: they were drawn independently, so the baseline stays unbiased. The very first sample has V = 0.
All rewards equal: A = 0 from the second sample on. A group of one is allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from markovlm.config.objective import ObjectiveBase
from markovlm.objectives.base import Credit, PolicyGradient, in_order, unit_scale

if TYPE_CHECKING:
    from torch import Tensor


class EmaConfig(ObjectiveBase):
    """Different questions in a batch; baseline: exponential moving average of earlier samples' rewards."""

    chains: ClassVar[bool] = False
    grouped: ClassVar[bool] = False
    needs_baseline: ClassVar[bool] = True
    name: str = "ema"
    baseline_every: int = Field(1, ge=1, description="compute the baseline b every so many steps; must be 1 here")
    decay: float = Field(0.9, gt=0, lt=1, description="r of the moving average: V_t = sum w_i R_i, w_i ~ r^(t-1-i)")


class Ema(PolicyGradient[EmaConfig]):
    Config = EmaConfig

    def __init__(self, config: EmaConfig):
        super().__init__(config)
        self.weighted = 0.0  # sum_i r^(t-1-i) R_i
        self.weights = 0.0  # sum_i r^(t-1-i)

    def credit(self, reward: Tensor) -> Credit:
        baselines: list[float] = []
        for value in in_order(reward):
            baselines.append(self.weighted / self.weights if self.weights else 0.0)
            self.weighted = self.config.decay * self.weighted + value
            self.weights = self.config.decay * self.weights + 1.0
        centre = reward.new_tensor(baselines).view_as(reward)
        return Credit(centre, unit_scale(reward))

    def state_dict(self) -> dict[str, Any]:
        return {"weighted": self.weighted, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weighted, self.weights = float(state["weighted"]), float(state["weights"])
