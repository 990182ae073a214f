"""pi(a|z) itself, from the summed log-prob (VeriFree, arXiv 2505.21493).

    r = pi(a|z) = exp(sum_k ln pi(a_k | z, a_<k))

Range [0, 1]. Live gradient: pi(a|z) grad ln pi(a|z), so that hopeless CoTs teach the reader nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from markovlm.rewards.base import Answers, NoOptions, Reward

if TYPE_CHECKING:
    from torch import Tensor


class Prob(Reward[NoOptions]):
    summary = "pi(a|z) from the summed log-prob"

    def value(self, answers: Answers) -> Tensor:
        return answers.logp.exp()
