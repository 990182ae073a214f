"""A check before the first step that sampler and scorer use the same distribution.

A sampler that forgets the adapter, uses another temperature or wrong positions trains on noise without an error.
A fresh adapter is zero and would hide the first of these, so it is made nonzero for the check and put back bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from markovlm.errors import RunFailed
from markovlm.rollouts.streams import torch_seed
from markovlm.rollouts.types import SampleRequest
from markovlm.tasks.base import Example
from markovlm.training.agreement import tolerance_of
from markovlm.training.records import Learner, Sample
from markovlm.training.sampling import cot_decoding, drawn_groups
from markovlm.training.scoring import score_cots

_SAMPLES = 4
_NOISE = 0.02  # first scale of the adapter's noise
_VISIBLE = 3.0  # the adapter must move log-probs by so many tolerances, or it could be forgotten unseen
_DOUBLINGS = 6


@torch.no_grad()
def check_sampler(learner: Learner, questions: Sequence[Example], step: int) -> float:
    """Mean |ln u (sampler) - ln u (scorer)| per token on a few CoTs. Raises RunFailed above the tolerance of the dtype."""
    dtype = learner.lm.dtype
    tolerance = tolerance_of(learner)
    saved = [(parameter, parameter.detach().clone()) for _, parameter in learner.lm.adapter_parameters()]
    gap = effect = 0.0
    try:
        for doubling in range(_DOUBLINGS + 1):
            _shake_adapter(saved, learner.config.seed, _NOISE * 2**doubling)
            gap, effect = _gaps(learner, questions, step)
            if not gap <= tolerance or effect >= _VISIBLE * tolerance:
                break
    finally:
        for parameter, value in saved:
            parameter.copy_(value)
    if not gap <= tolerance:
        raise RunFailed(
            f"the sampler's log-probs differ from the scorer's by {gap:.3g} nats per token (tolerance {tolerance:g} for "
            f"{str(dtype).removeprefix('torch.')}): the adapter is not applied, the temperature differs, or positions are wrong; "
            f"{_hint(learner)}nothing was trained"
        )
    return gap


def _hint(learner: Learner) -> str:
    """The flag with which a vLLM server returns the log-probs of the distribution that it draws from."""
    return "a vLLM server needs --logprobs-mode processed_logprobs; " if learner.config.rollouts.backend == "server" else ""


def _shake_adapter(saved: Sequence[tuple[Tensor, Tensor]], seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(torch_seed(seed, "sampler check") % 2**63)
    for parameter, value in saved:
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
        parameter.copy_(value + scale * noise.to(parameter.device, parameter.dtype))


def _gaps(learner: Learner, questions: Sequence[Example], step: int) -> tuple[float, float]:
    """Mean per token of |sampler - scorer|, and of |actor - frozen policy| as the scorer sees them."""
    requests = [
        SampleRequest(learner.prompter.cot_prompt(q), tuple((learner.config.seed, "check", q.id, i) for i in range(_SAMPLES)))
        for q in questions
    ]
    groups = drawn_groups(learner, requests, cot_decoding(learner.config, step))
    samples = [Sample(q, i, cot) for q, group in zip(questions, groups, strict=True) for i, cot in enumerate(group)]
    scores = score_cots(learner, samples, step)
    gaps = [
        abs(scores.logp[row, t].item() - behavior)
        for row, sample in enumerate(samples)
        for t, behavior in enumerate(sample.cot.behavior_logp)
    ]
    moved = (scores.logp - scores.reference_logp).abs().sum().item()  # 0 past the end of a CoT
    return sum(gaps) / len(gaps), moved / len(gaps)
