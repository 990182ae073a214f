"""From answer log-probs to rewards (METHOD §2, "reward kind")."""

from __future__ import annotations

from torch import Tensor

from markovlm.config import ObjectiveBase


def likelihood_reward(config: ObjectiveBase, logp_sum: Tensor, logp_mean: Tensor) -> Tensor:
    """r of each sample, differentiable.

    `logprob`: ln pi(a|z), mean over answer tokens by default (the paper's code) or their sum (the paper's text).
    `prob`: pi(a|z) itself, from the *summed* log-prob (VeriFree, arXiv 2505.21493).
    """
    if config.reward == "prob":
        return logp_sum.exp()
    if config.reward == "logprob":
        return logp_sum if config.answer_logprob == "sum" else logp_mean
    raise ValueError(f"reward {config.reward} is not a likelihood")
