"""Sequences joined from parts of known length, and the hidden states that predict their scored tokens.

A prompt is shared by the CoTs of its group, a redacted prompt by every CoT: such a prompt is a *prefix*, and what
follows it (CoT; CoT + header + answer) is a *continuation*. Nothing is ever searched for, decoded or re-encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from markovlm.models.load import LanguageModel

Sharing = Literal["shared", "padded"]


@dataclass(frozen=True, slots=True)
class Row:
    """`tokens` continue `prefixes[prefix]`; those from index `start` on are scored.

    Prompt [5, 6], CoT [7, 8], header [9], answer [4]: `Row(0, (7, 8, 9, 4), start=3)` over `prefixes=[(5, 6)]`.
    """

    prefix: int
    tokens: tuple[int, ...]
    start: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows over shared prefixes. Every prefix and every continuation is non-empty."""

    prefixes: tuple[tuple[int, ...], ...]
    rows: tuple[Row, ...]

    def tokens(self) -> int:
        """Tokens of the padded continuations and prefixes: the size of a pass."""
        longest = max(len(row.tokens) for row in self.rows)
        return len(self.rows) * longest + len(self.prefixes) * max(map(len, self.prefixes))


def batch_of(parts: Sequence[tuple[Sequence[int], Sequence[int], int]]) -> Batch:
    """From (prefix, continuation, start) triples; equal prefixes are shared."""
    index: dict[tuple[int, ...], int] = {}
    rows = []
    for prefix, tokens, start in parts:
        key = tuple(prefix)
        rows.append(Row(index.setdefault(key, len(index)), tuple(tokens), start))
    return Batch(tuple(index), tuple(rows))


@dataclass(frozen=True, slots=True)
class SpanHidden:
    """The M scored tokens of a batch, row after row."""

    hidden: Tensor  # [M, H] the state that predicts each token
    targets: Tensor  # [M] the token
    row: Tensor  # [M] its row in the batch


def span_hidden(lm: LanguageModel, batch: Batch, sharing: Sharing = "shared") -> SpanHidden:
    """Hidden states that predict the scored tokens, by either of two passes that are equal to rounding."""
    if not batch.rows or any(not row.tokens or row.start >= len(row.tokens) for row in batch.rows) or not all(batch.prefixes):
        raise ValueError("every row needs a prefix and at least one scored token")
    predictors_NTH = _shared_pass(lm, batch) if sharing == "shared" else _padded_pass(lm, batch)
    row_of, position, target = [], [], []
    for number, row in enumerate(batch.rows):
        scored = range(row.start, len(row.tokens))
        row_of += [number] * len(scored)
        position += scored
        target += row.tokens[row.start :]
    index = torch.tensor([row_of, position, target], device=lm.device)
    return SpanHidden(predictors_NTH[index[0], index[1]], index[2], index[0])


def _padded_pass(lm: LanguageModel, batch: Batch) -> Tensor:
    """Every row whole, padded on the right: under a causal mask padding can't reach a scored position."""
    whole = [batch.prefixes[row.prefix] + row.tokens[:-1] for row in batch.rows]
    hidden = lm.decode(_pad_right(whole, lm), use_cache=False).last_hidden_state
    starts = torch.tensor([len(batch.prefixes[row.prefix]) - 1 for row in batch.rows], device=lm.device)
    longest = max(len(row.tokens) for row in batch.rows)
    # the next-token shift: token t of a continuation is predicted at position (prefix length - 1) + t
    position = (starts[:, None] + torch.arange(longest, device=lm.device)).clamp(max=hidden.shape[1] - 1)
    return hidden.gather(1, position[..., None].expand(-1, -1, hidden.shape[-1]))


def _shared_pass(lm: LanguageModel, batch: Batch) -> Tensor:
    """Each prefix once; its KV cache (with gradient, if gradients are on) is repeated over its rows."""
    prefilled = prefill(lm, batch.prefixes)
    owner = torch.tensor([row.prefix for row in batch.rows], device=lm.device)
    first = prefilled.last_hidden[owner][:, None]  # [N, 1, H]
    inputs = [row.tokens[:-1] for row in batch.rows]
    if not any(inputs):
        return first
    ids = _pad_right(inputs, lm)
    prefilled.cache.batch_select_indices(owner)
    mask, lengths = prefilled.mask[owner], prefilled.lengths[owner]
    position = lengths[:, None] + torch.arange(ids.shape[1], device=lm.device)
    mask = torch.cat([mask, mask.new_ones(ids.shape)], dim=1)
    rest = lm.decode(
        ids, attention_mask=mask, position_ids=position, past_key_values=prefilled.cache, use_cache=True
    ).last_hidden_state
    # the next-token shift: the prefix's last state predicts token 0, the state of token t - 1 predicts token t
    return torch.cat([first, rest], dim=1)


@dataclass(slots=True)
class Prefilled:
    """G prefixes after their pass, padded on the left so that all end at the same column."""

    last_hidden: Tensor  # [G, H] the state that predicts the first continuation token
    cache: Any  # transformers DynamicCache of G rows
    mask: Tensor  # [G, P] 1 where a real token is
    lengths: Tensor  # [G] real tokens = the position of the first continuation token


def prefill(lm: LanguageModel, prefixes: Sequence[Sequence[int]]) -> Prefilled:
    """One pass over the prefixes, keeping the KV cache."""
    longest = max(map(len, prefixes))
    ids = torch.tensor([[lm.pad_id] * (longest - len(p)) + list(p) for p in prefixes], device=lm.device)
    lengths = torch.tensor([len(p) for p in prefixes], device=lm.device)
    column = torch.arange(longest, device=lm.device)
    mask = (column >= longest - lengths[:, None]).long()
    position = (column - (longest - lengths)[:, None]).clamp(min=0)
    out = lm.decode(ids, attention_mask=mask, position_ids=position, use_cache=True)
    return Prefilled(out.last_hidden_state[:, -1], out.past_key_values, mask, lengths)


def _pad_right(rows: Sequence[Sequence[int]], lm: LanguageModel) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([list(row) + [lm.pad_id] * (longest - len(row)) for row in rows], device=lm.device)
