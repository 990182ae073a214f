"""Check that a sampler with weights of its own received the adapter: after every transfer, before anything is trained on its CoTs.

With s the sampler's log-probs of the sampled tokens, n the trainer's under its present adapter, o those under an adapter that the
sampler could still have (the previous step's; none at all), the share of the way from o to n that the sampler has gone is

    b = <s - o, n - o> / <n - o, n - o>          1: it has the present adapter;  0: it has the other one

which tells them apart long before the difference of one step is as large as a tolerance. Rounding of n and o pulls b towards 1/2 from
both sides, so that is the threshold: significantly below it is an error, and so is a mean gap above the tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from markovlm.errors import RunFailed
from markovlm.rollouts.foreign import ForeignSampler
from markovlm.training.importance import ROUNDING
from markovlm.training.records import Learner, Sample
from markovlm.training.scoring import score_cots

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}  # mean |gap|, nats a token
TOLERANCE_INT8 = 1e-1  # activations are rounded to 8 bits by what stands beside them in a batch
_LOOKED_AT = 8  # CoTs
_SIGNIFICANT = 6.0  # standard errors: it is asked in every step


def tolerance_of(learner: Learner) -> float:
    """Largest mean |ln u (sampler) - ln u (trainer)| of a token."""
    by_type = max(TOLERANCE[learner.lm.dtype], TOLERANCE_INT8 if learner.lm.quantization == "int8" else 0.0)
    return learner.config.rollouts.gap_tolerance or by_type


def begin_sampling(learner: Learner, step: int) -> None:
    """Called before the CoTs of step `step` are drawn: what is sent is the adapter after the previous step."""
    if isinstance(learner.sampler, ForeignSampler):
        learner.sampler.step = step - 1


@torch.no_grad()
def check_received(learner: Learner, samples: Sequence[Sample], step: int) -> None:
    """Raise RunFailed if these CoTs were not drawn from the current adapter. Does nothing for the trainer's own sampler."""
    if not learner.config.rollouts.foreign:
        return
    few = samples[:: max(1, len(samples) // _LOOKED_AT)][:_LOOKED_AT]
    scores = score_cots(learner, few, step)
    inside = torch.arange(scores.logp.shape[1])[None, :] < torch.tensor([len(s.cot.tokens) for s in few])[:, None]
    sampled = torch.tensor([logp for s in few for logp in s.cot.behavior_logp], dtype=torch.float64)
    now, base = (_flat(column, inside) for column in (scores.logp, scores.reference_logp))
    others = {"it has no adapter": base}
    if learner.adapter_before is not None:
        others["it still has the adapter of the previous step"] = _flat(_scores_before(learner, few, step), inside)
    floor = ROUNDING[learner.lm.dtype]
    suspects = {words: other for words, other in others.items() if _has_the_other(sampled, now, other, floor)}
    said = min(suspects, key=lambda words: (sampled - suspects[words]).abs().mean().item(), default=None)
    gap = (sampled - now).abs().mean().item()
    if said is None and not gap <= tolerance_of(learner):
        said = "its adapter, temperature or precision differs"
    if said is not None:
        raise RunFailed(
            f"step {step}: the sampler did not sample from the current adapter: {said} (log-probs differ by {gap:.3g} nats per token, "
            f"tolerance {tolerance_of(learner):g}); nothing was trained on it, continue with --resume"
        )
    learner.adapter_before = [parameter.detach().clone() for _, parameter in learner.lm.adapter_parameters()]


def _has_the_other(sampled: Tensor, now: Tensor, other: Tensor, floor: float) -> bool:
    moved, gone = now - other, sampled - other
    if moved.abs().mean() < floor or len(moved) < 2:
        return False  # the two adapters can't be distinguished
    size = moved.square().sum()
    share = (gone * moved).sum() / size
    error = ((gone - share * moved).square().sum() / (len(moved) - 1) / size).sqrt()
    return bool(share + _SIGNIFICANT * error < 0.5)


def _scores_before(learner: Learner, samples: Sequence[Sample], step: int) -> Tensor:
    """ln u under the adapter that the step before sampled from."""
    parameters = [parameter for _, parameter in learner.lm.adapter_parameters()]
    present = [parameter.data for parameter in parameters]
    assert learner.adapter_before is not None
    try:
        for parameter, before in zip(parameters, learner.adapter_before, strict=True):
            parameter.data = before
        return score_cots(learner, samples, step).logp
    finally:
        for parameter, data in zip(parameters, present, strict=True):
            parameter.data = data


def _flat(values: Tensor, inside: Tensor) -> Tensor:
    return values.detach().cpu().double()[inside]
