"""The multi-sample lower bound on ln p(a|q), each CoT credited with what it adds (JEPO, arXiv 2503.19618).

    bound of the group     L = ln( 1/B sum_j p_j ),            p_j = pi(a|z_j)
    reward of a CoT        r_i = L - ln( 1/(B-1) sum_{j != i} p_j )
    through the reader     sum_j (p_j / sum_k p_k) grad ln p_j

L is at most ln p(a|q) in expectation and rises with B: one good CoT in the group is enough. r_i is already measured against the other
CoTs, so it wants `objective.name: reinforce` (another group baseline would depend on the CoT itself, and bias the gradient). With
w = 1, summed ln u and no KL the expected gradient over groups is exactly that of E[L]; the loss is a mean over CoTs while L belongs to the
group, so the credit multiplies by B. Range (-inf, ln B]. Where all p_j are equal r = 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from markovlm.rewards.base import Answers, NoOptions, Reward

if TYPE_CHECKING:
    from torch import Tensor

    from markovlm.config.objective import ObjectiveBase


class Bound(Reward[NoOptions]):
    summary = "what a CoT adds to the multi-sample bound ln(mean of pi(a|z)) of its group"
    whole_groups = True

    @classmethod
    def check(cls, config: ObjectiveBase) -> None:
        if config.name != "reinforce":
            raise ValueError(f"reward=bound is its own baseline: use objective.name=reinforce, not {config.name}")
        if config.normalize_reward:
            raise ValueError("normalize_reward must be false with reward=bound: the reward is measured against the group already")

    def value(self, answers: Answers) -> Tensor:
        logp = answers.grouped(answers.logp)  # [Q, B]
        size = logp.shape[1]
        whole = logp.logsumexp(1, keepdim=True) - math.log(size)
        alone = logp.new_full((size, size), 0.0)
        alone.fill_diagonal_(-math.inf)
        others = (logp[:, None, :] + alone).logsumexp(2) - math.log(size - 1)  # [Q, B] of the others
        return (whole - others).reshape(-1)

    def surrogate(self, answers: Answers) -> Tensor:
        return answers.logp

    def weight(self, answers: Answers) -> Tensor:
        return answers.grouped(answers.logp).softmax(1).reshape(-1)
