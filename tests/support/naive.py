"""The plain way to the same numbers: one row at a time, no cache, no padding, full logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from markovlm.models.load import LanguageModel

# Norms and rotary angles of the RMSNorm architectures are float32 in transformers even in a float64 model, so that other
# batch shapes round differently there; GPT-2 is float64 throughout. A leak of padding or a shift by one is of order 0.1.
TOLERANCE = {"gpt2": 1e-10, "llama": 2e-5, "qwen3": 2e-5, "gemma3": 2e-5, "float32": 1e-4}


def row_logits(lm: LanguageModel, prefix: Sequence[int], tokens: Sequence[int]) -> Tensor:
    """[len(tokens), V] logits that predict each of `tokens`."""
    ids = torch.tensor([[*prefix, *tokens]], device=lm.device)
    return lm.causal_lm(input_ids=ids, use_cache=False).logits[0, len(prefix) - 1 : -1]


def distribution(logits: Tensor, temperature: float = 1.0, banned: Sequence[int] = ()) -> Tensor:
    """ln of the sampled distribution by its definition: exp(l / tau) over its sum, over the tokens that are allowed."""
    scaled = logits.double() / temperature
    allowed = torch.tensor([token not in banned for token in range(logits.shape[-1])], device=logits.device)
    total = scaled[..., allowed].exp().sum(-1, keepdim=True)
    return torch.where(allowed, scaled - total.log(), -math.inf)


def kl(log_p: Tensor, log_q: Tensor) -> list[Tensor]:
    """KL(p || q) of each position, summed token by token over the vocabulary."""
    out = []
    for p_row, q_row in zip(log_p, log_q, strict=True):
        terms = [p.exp() * (p - q) for p, q in zip(p_row, q_row, strict=True) if p.item() > -math.inf]
        out.append(torch.stack(terms).sum())
    return out


def gradient(lm: LanguageModel, make: Callable[[], Tensor]) -> Tensor:
    """Flat gradient of a scalar over the adapter."""
    parameters = [p for _, p in lm.adapter_parameters()]
    grads = torch.autograd.grad(make(), parameters, allow_unused=True)
    return torch.cat(
        [torch.zeros_like(p).reshape(-1) if g is None else g.reshape(-1) for p, g in zip(parameters, grads, strict=True)]
    )


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Largest gap, relative to the largest value."""
    assert ours.shape == theirs.shape
    gap = (ours - theirs).abs().max().item()
    assert gap <= tolerance * max(1.0, theirs.abs().max().item()), f"gap {gap:.3g}"
