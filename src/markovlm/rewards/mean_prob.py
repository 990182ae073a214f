"""The mean probability of the answer's tokens, less what they have without a CoT (RLPR, arXiv 2506.18254).

    f(z) = mean_k pi(a_k | z, a_<k)          a mean of probabilities: one unlikely token does not sink the rest
    r    = clip( f(z) - f(no CoT), 0, 1 )    debiased: an answer that is likely anyway earns nothing

The same reader sees the same prompt with an empty CoT for the second term (question hidden: how likely the answer is without any CoT).
Groups whose rewards hardly differ are left out: those whose standard deviation is below `std_filter` times its moving average. No gradient
through the reader. Range [0, 1].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from markovlm.config.base import Section
from markovlm.rewards.base import Answers, Reward

if TYPE_CHECKING:
    from torch import Tensor


class MeanProbOptions(Section):
    """RLPR's."""

    debias: bool = Field(True, description="subtract the mean probability without a CoT, and clip to [0, 1]")
    std_filter: float = Field(
        0.5,
        ge=0,
        description="groups whose standard deviation is below this share of its moving average train nothing; 0: all "
        "groups train",
    )
    filter_decay: float = Field(0.9, ge=0, lt=1, description="decay of the moving average of the groups' standard deviation")


class MeanProb(Reward[MeanProbOptions]):
    Options = MeanProbOptions
    summary = "mean probability of the answer's tokens, minus that without a CoT (RLPR)"
    differentiable = False

    def __init__(self, options: MeanProbOptions, config: Any):
        super().__init__(options, config)
        self.average: float | None = None  # moving average of the groups' mean standard deviation

    @property
    def needs_direct(self) -> bool:
        return self.options.debias

    def value(self, answers: Answers) -> Tensor:
        found = answers.mean_over_tokens(answers.token_logp.exp())
        if answers.direct is None:
            return found
        direct = answers.direct.mean_over_tokens(answers.direct.token_logp.exp())  # [Q]
        return (found - direct.repeat_interleave(answers.group_size)).clamp(0.0, 1.0)

    def keep(self, reward: Tensor) -> Tensor | None:
        if not self.options.std_filter or reward.shape[1] < 2:
            return None
        spread = reward.std(dim=1, correction=1)
        mean = float(spread.mean())
        threshold = self.options.std_filter * (mean if self.average is None else self.average)
        decay = self.options.filter_decay
        self.average = mean if self.average is None else decay * self.average + (1 - decay) * mean
        return spread >= threshold

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average = None if state["average"] is None else float(state["average"])
