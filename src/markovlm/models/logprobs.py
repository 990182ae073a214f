"""Per-token log-probabilities, exact KL and entropy of the distribution that is sampled from.

That distribution is softmax(logits / temperature) with banned tokens (end tokens under a fixed CoT length) taken out:
the sampler and the scorer both get it from `sampled_log_distribution`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from markovlm.models.language import LanguageModel

CHUNK_ELEMENTS = 1 << 25  # logits in one chunk: 128 MB in float32


@dataclass(frozen=True, slots=True)
class TokenStats:
    """Of M scored tokens; nats."""

    logp: Tensor  # [M] ln of the token's probability
    kl: Tensor | None  # [M] KL(policy || reference) over the whole vocabulary at this position
    entropy: Tensor | None  # [M]
    greedy: Tensor  # [M] bool: the token is the most likely one
    reference_logp: Tensor | None = None  # [M] ln of the token's probability under the reference


def sampled_log_distribution(logits: Tensor, temperature: float = 1.0, banned: Tensor | None = None) -> Tensor:
    """[..., V] logits -> ln of the distribution that is sampled from (banned tokens: -inf)."""
    if temperature != 1.0:
        logits = logits / temperature
    if banned is not None and banned.numel():
        logits = logits.index_fill(-1, banned, float("-inf"))
    return torch.log_softmax(logits, dim=-1)


def token_stats(
    lm: LanguageModel,
    hidden: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    banned: Tensor | None = None,
    reference_hidden: Tensor | None = None,
    entropy: bool = False,
    chunk: int | None = None,
) -> TokenStats:
    """Statistics of `targets` [M] under the states `hidden` [M, H] that predict them.

    The projection to the vocabulary runs in chunks of tokens and is recomputed in backward, so that no [M, V] tensor is
    ever kept. With `reference_hidden` [M, H] (the frozen model's states at the same positions) the KL to it is exact.
    """
    size = chunk or max(1, CHUNK_ELEMENTS // lm.vocabulary)

    def statistics(hidden: Tensor, targets: Tensor, reference: Tensor | None) -> tuple[Tensor, ...]:
        log_p = sampled_log_distribution(lm.logits(hidden), temperature, banned)
        logp = log_p.gather(-1, targets[:, None])[:, 0]
        greedy = log_p.detach().argmax(-1) == targets
        p = log_p.exp() if reference is not None or entropy else None
        none = logp.new_zeros(0)
        kl = ent = reference_logp = none
        if reference is not None and p is not None:
            log_q = sampled_log_distribution(lm.logits(reference), temperature, banned)
            reference_logp = log_q.gather(-1, targets[:, None])[:, 0]
            # banned tokens have p = 0 and add nothing, but -inf minus -inf would be NaN
            kl = (p * (log_p - log_q).masked_fill(p == 0, 0.0)).sum(-1)
        if entropy and p is not None:
            ent = -(p * log_p.masked_fill(p == 0, 0.0)).sum(-1)
        return logp, kl, ent, greedy, reference_logp

    parts = []
    recompute = torch.is_grad_enabled() and hidden.requires_grad and len(targets) > size
    for at in range(0, len(targets), size):
        piece = slice(at, at + size)
        reference = None if reference_hidden is None else reference_hidden[piece]
        if recompute:
            parts.append(checkpoint(statistics, hidden[piece], targets[piece], reference, use_reentrant=False))
        else:
            parts.append(statistics(hidden[piece], targets[piece], reference))
    logp, kl, ent, greedy, reference_logp = (torch.cat(column) for column in zip(*parts, strict=True))
    known = reference_hidden is not None
    return TokenStats(logp, kl if known else None, ent if entropy else None, greedy, reference_logp if known else None)


def by_row(values: Tensor, row: Tensor, rows: int, reduction: str = "sum") -> Tensor:
    """[M] token values -> [N] sums or means over the tokens of each row."""
    total = values.new_zeros(rows).index_add(0, row, values)
    if reduction == "sum":
        return total
    return total / torch.bincount(row, minlength=rows).clamp(min=1)
