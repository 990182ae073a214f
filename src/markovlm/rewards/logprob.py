"""ln pi(a|z), the method's own reward (arXiv 2404.18988; with the question visible LaTRO, arXiv 2411.04282).

    r = ln pi(a|z)         mean over answer tokens (the paper's code) or their sum (the paper's text): `objective.answer_logprob`

Range (-inf, 0]. Live gradient: grad ln pi(a|z) of every CoT, good or bad.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from markovlm.rewards.base import Answers, NoOptions, Reward

if TYPE_CHECKING:
    from torch import Tensor


class LogProb(Reward[NoOptions]):
    summary = "ln pi(a|z), per answer token or summed (objective.answer_logprob)"

    def value(self, answers: Answers) -> Tensor:
        return answers.logp if self.config.answer_logprob == "sum" else answers.logp_mean
