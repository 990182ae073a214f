"""Sampler and trainer compared token by token, and the truncated importance ratio that corrects what differs.

CoTs come from u_s, what the sampler computes; the loss differentiates u, what the trainer computes, and its log-probs are the truth.

    rho_t = exp(ln u(z_t) - ln u_s(z_t))      token     w_t = min(rho_t, cap)                             (as TRL and verl do)
                                              sequence  w   = min(prod_t rho_t, cap), one for all its tokens

The gradient of the policy term through ln u(z_t) is multiplied by w_t, which is constant to autograd; so is that of L_AR, by w (token
weights: their geometric mean). The values of the losses stay as they are, and KL and entropy are not touched. `sequence` without a cap is
unbiased (tests/training/test_exact_importance.py); a token's own ratio leaves out those of the tokens before it, which is a bias of second
order in the gap and far less variance. If the mean gap of a CoT is below rounding, its weights are 1.

Objectives with several passes then measure how far the policy moved from u, not from u_s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from markovlm.training.records import Learner, Sample
from markovlm.training.scoring import CotScores, score_cots

ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-3}  # mean |gap| of a CoT, nats


@dataclass(frozen=True, slots=True)
class Correction:
    """The correction for n CoTs."""

    behavior: Tensor  # [n, T] log-probs that an objective's ratio is taken to
    token: Tensor | None  # [n, T] weight of each token's gradient; None: 1
    cot: Tensor | None  # [n] weight of each CoT's L_AR; None: 1
    stats: dict[str, Tensor]  # name -> [n]; of the pass that compares, else empty


@torch.no_grad()
def correct(learner: Learner, samples: Sequence[Sample], scores: CotScores, mask: Tensor, step: int) -> Correction:
    """Compare (in the first pass over these samples) and weigh. The trainer's log-probs are remembered for later passes."""
    mode = learner.config.rollouts.correction
    sampled = _padded([s.cot.behavior_logp for s in samples], scores.logp)
    first = not samples[0].stats
    if mode == "off" and not first:
        return Correction(sampled, None, None, {})
    own = _own(learner, samples, scores, step)
    if own is None:
        return Correction(sampled, None, None, {})
    log_ratio = (own - sampled) * mask
    stats = _gap(log_ratio, mask) if first else {}
    if mode == "off":
        return Correction(sampled, None, None, stats)
    cap = learner.config.rollouts.importance_cap
    weight, cot, found = importance(log_ratio, mask, mode, math.inf if cap is None else cap, ROUNDING[learner.lm.dtype])
    return Correction(own, weight, cot, stats | found if first else {})


def importance(
    log_ratio: Tensor, mask: Tensor, mode: str, cap: float, rounding: float
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Log-ratios [n, T] (0 where masked) -> weights of tokens [n, T] and of CoTs [n], and what to log of each CoT [n]."""
    count = mask.sum(-1)
    above_rounding = (log_ratio.abs().sum(-1) / count >= rounding)[:, None]
    log_ratio = log_ratio.where(above_rounding, 0.0)
    ratio = log_ratio.exp() if mode == "token" else log_ratio.sum(-1, keepdim=True).exp().expand_as(log_ratio)
    weight = ratio.clamp(max=cap)
    cot = ((weight.log() * mask).sum(-1) / count).exp() if mode == "token" else weight[:, 0]
    inside = mask > 0
    stats = {
        "sampler_ratio_min": ratio.masked_fill(~inside, float("inf")).amin(-1),
        "sampler_ratio_mean": (ratio * mask).sum(-1) / count,
        "sampler_ratio_max": ratio.masked_fill(~inside, float("-inf")).amax(-1),
        "importance_truncated": ((ratio > cap) * mask).sum(-1) / count,
    }
    return weight, cot, stats


def weighted(value: Tensor, weight: Tensor | None) -> Tensor:
    """The same value, its gradient times `weight`."""
    if weight is None:
        return value
    constant = value.detach()
    return constant + weight * (value - constant)


def _gap(log_ratio: Tensor, mask: Tensor) -> dict[str, Tensor]:
    count = mask.sum(-1)
    return {
        "sampler_gap": log_ratio.abs().sum(-1) / count,
        "sampler_gap_max": log_ratio.abs().amax(-1),
        # Schulman's nonnegative estimate of KL(sampler || trainer)
        "sampler_kl": ((log_ratio.expm1() - log_ratio).clamp(min=0) * mask).sum(-1) / count,
    }


def _own(learner: Learner, samples: Sequence[Sample], scores: CotScores, step: int) -> Tensor | None:
    """[n, T] ln u of the policy that was to be sampled from, without LoRA dropout; None if nobody asks for a pass of its own."""
    rollouts = learner.config.rollouts
    if samples[0].trainer_logp is not None:
        return _padded([s.trainer_logp or () for s in samples], scores.logp)
    own = scores.logp.detach()
    if learner.config.lora.dropout > 0:
        if rollouts.correction == "off" and not rollouts.foreign:
            return None
        training = learner.lm.model.training
        learner.lm.model.eval()
        own = score_cots(learner, samples, step).logp
        learner.lm.model.train(training)
    if rollouts.correction != "off":
        for sample, row in zip(samples, own.tolist(), strict=True):
            sample.trainer_logp = tuple(row[: len(sample.cot.tokens)])
    return own


def _padded(rows: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    width = like.shape[1]
    return torch.tensor([list(row) + [0.0] * (width - len(row)) for row in rows], dtype=like.dtype, device=like.device)
