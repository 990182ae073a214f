"""Sequences joined from parts of known length, and the hidden states that predict their scored tokens.

A prompt is shared by the CoTs of its group, a redacted prompt by every CoT: such a prompt is a *prefix*, and what
follows it (CoT; CoT + header + answer) is a *continuation*. Nothing is ever searched for, decoded or re-encoded.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from markovlm.models.caches import cache_name, select_rows
from markovlm.models.checkpointing import leave
from markovlm.models.language import LanguageModel
from markovlm.models.shared_prefix import attending, share_if_it_pays

Sharing = Literal["shared", "padded"]


@dataclass(frozen=True, slots=True)
class Row:
    """`tokens` continue `prefixes[prefix]`; those from index `start` on are scored.

    Prompt [5, 6], CoT [7, 8], header [9], answer [4]: `Row(0, (7, 8, 9, 4), start=3)` over `prefixes=[(5, 6)]`. The same
    with the CoT [7, 1] over the longer prefix [5, 6, 7, 8]: `Row(0, (1, 9, 4), start=2, keep=3)`.
    """

    prefix: int
    tokens: tuple[int, ...]
    start: int = 0
    keep: int | None = None  # tokens of the prefix, from its front, that `tokens` continue; None: all
    end: int = 0  # scored tokens at the back that end the reply and are no part of its answer


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows over shared prefixes. Every prefix and every continuation is non-empty."""

    prefixes: tuple[tuple[int, ...], ...]
    rows: tuple[Row, ...]

    def without_idle_prefixes(self) -> Batch:
        """The same rows over those prefixes alone that a row continues."""
        used = sorted({row.prefix for row in self.rows})
        rows = tuple(replace(row, prefix=used.index(row.prefix)) for row in self.rows)
        return Batch(tuple(self.prefixes[number] for number in used), rows)

    def tokens(self) -> int:
        """Tokens of the padded continuations and prefixes: the size of a pass."""
        longest = max(len(row.tokens) for row in self.rows)
        return len(self.rows) * longest + len(self.prefixes) * max(map(len, self.prefixes))


def batch_of(parts: Sequence[tuple[Sequence[int], Sequence[int], int]], ends: Sequence[int] = ()) -> Batch:
    """From (prefix, continuation, start) triples; equal prefixes are shared. `ends`: `Row.end` of each, default 0."""
    index: dict[tuple[int, ...], int] = {}
    rows = []
    for number, (prefix, tokens, start) in enumerate(parts):
        key = tuple(prefix)
        end = ends[number] if ends else 0
        rows.append(Row(index.setdefault(key, len(index)), tuple(tokens), start, end=end))
    return Batch(tuple(index), tuple(rows))


def each_once(lm: LanguageModel, batch: Batch) -> tuple[Batch, list[int]]:
    """(Equal rows once, which of them each row is): with a nearly deterministic policy most CoTs are the same.

    All rows where each has a dropout of its own.
    """
    if not lm.repeatable:
        return batch, list(range(len(batch.rows)))
    index: dict[Row, int] = {}
    places = [index.setdefault(row, len(index)) for row in batch.rows]
    return Batch(batch.prefixes, tuple(index)), places


def forked_batch(parts: Sequence[tuple[Sequence[int], Sequence[int], Sequence[int]]]) -> Batch:
    """Sequences that fork off a common trunk: from (trunk, whole sequence without its scored end, scored end) triples.

    A row computes only what comes after the part that it shares with its trunk: for a CoT with one token left out, only what
    follows that token. `prefixes` are the trunks, as far as any of their rows goes along.
    """
    index: dict[tuple[int, ...], int] = {}
    used: dict[int, int] = {}  # trunk -> tokens of it that a row goes along with
    rows = []
    for trunk, before, scored in parts:
        key = tuple(trunk)
        keep = common_length(key, before)
        if keep == 0:
            raise ValueError("a sequence must begin as its trunk does")
        number = index.setdefault(key, len(index))
        used[number] = max(keep, used.get(number, 0))
        rows.append(Row(number, (*before[keep:], *scored), len(before) - keep, keep))
    return Batch(tuple(trunk[: used[number]] for trunk, number in index.items()), tuple(rows))


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens at the front that two sequences share."""
    shorter = min(len(one), len(other))
    return next((i for i in range(shorter) if one[i] != other[i]), shorter)


@dataclass(frozen=True, slots=True)
class SpanHidden:
    """The M scored tokens of a batch, row after row."""

    hidden: Tensor  # [M, H] the state that predicts each token
    targets: Tensor  # [M] the token
    row: Tensor  # [M] its row in the batch


def span_hidden(lm: LanguageModel, batch: Batch, sharing: Sharing = "shared") -> SpanHidden:
    """Hidden states that predict the scored tokens, by either of two passes that are equal to rounding."""
    rows = batch.rows
    if not rows or any(row.start >= len(row.tokens) or row.keep == 0 for row in rows) or not all(batch.prefixes):
        raise ValueError("every row needs a prefix and at least one scored token")
    shared = sharing == "shared" and lm.shares_prompts
    predictors_NTH = _shared_pass(lm, batch) if shared else _padded_pass(lm, batch)
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
    kept = [batch.prefixes[row.prefix][: row.keep] for row in batch.rows]
    whole = [prefix + row.tokens[:-1] for prefix, row in zip(kept, batch.rows, strict=True)]
    hidden = lm.decode(_pad_right(whole, lm), use_cache=False).last_hidden_state
    starts = torch.tensor([len(prefix) - 1 for prefix in kept], device=lm.device)
    longest = max(len(row.tokens) for row in batch.rows)
    # the next-token shift: token t of a continuation is predicted at position (prefix length - 1) + t
    position = (starts[:, None] + torch.arange(longest, device=lm.device)).clamp(max=hidden.shape[1] - 1)
    return hidden.gather(1, position[..., None].expand(-1, -1, hidden.shape[-1]))


def _shared_pass(lm: LanguageModel, batch: Batch) -> Tensor:
    """Each prefix once; its KV cache (with gradient, if gradients are on) is repeated over its rows."""
    if lm.caching == "even" and len(set(map(len, batch.prefixes))) > 1:
        return _by_prefix_length(lm, batch)
    if any(row.keep is not None for row in batch.rows) and not lm.takes_back:
        return _padded_pass(lm, batch)
    return _behind(lm, batch, [row.tokens[:-1] for row in batch.rows]).hidden


@dataclass(frozen=True, slots=True)
class Continued:
    """Rows behind their prefixes after one pass, all their tokens computed and in the cache."""

    prefilled: Prefilled  # N rows: mask and lengths of the prefixes, a cache of the continuations too
    hidden: Tensor  # [N, 1 + T, H] the states that predict each token of a continuation, and the one that follows it

    def after(self, tokens: Sequence[int]) -> Prefilled:
        """Each row as it was after so many tokens of its continuation: those behind are hidden. Uses up the cache."""
        mask, count = self.prefilled.mask, torch.tensor(tokens, device=self.hidden.device)
        columns = torch.arange(self.hidden.shape[1] - 1, device=mask.device)
        seen = torch.cat([mask, (columns < count[:, None]).to(mask.dtype)], dim=1)
        at = self.hidden[torch.arange(len(count), device=count.device), count][:, None]
        return replace(self.prefilled, hidden=at, mask=seen, lengths=self.prefilled.lengths + count)


def continued(lm: LanguageModel, batch: Batch, prefilled: Prefilled | None = None) -> Continued | None:
    """A pass to go on from, from anywhere in its continuations; None if this cache can't take a token back.

    `prefilled`: the pass over the batch's prefixes, where there was one; it can be given again.
    """
    return _behind(lm, batch, [row.tokens for row in batch.rows], prefilled) if lm.takes_back else None


def _behind(lm: LanguageModel, batch: Batch, inputs: Sequence[tuple[int, ...]], before: Prefilled | None = None) -> Continued:
    """Each prefix once, and behind it the `inputs` of its rows: the front of each continuation, or all of it."""
    owners = [row.prefix for row in batch.rows]
    if before is None:
        prefilled = prefill(lm, batch.prefixes)
    else:
        prefilled, owners = before.rows(owners), list(range(len(owners)))
    owner = torch.tensor(owners, device=lm.device)
    mask, lengths, last = _visible(prefilled, owner, batch.rows)
    hidden = prefilled.hidden[owner, last][:, None]  # [N, 1, H]
    if any(inputs):
        whole = all(row.keep is None for row in batch.rows)
        shared = whole and share_if_it_pays(lm, prefilled.cache, owners, prefilled.mask)
        if lm.checkpointing == "prompts" and torch.is_grad_enabled():
            leave(prefilled.cache, None if shared else owner)
        elif not shared and before is None:
            select_rows(prefilled.cache, owner)
        rest = prefilled.go_on(lm, _pad_right(inputs, lm), mask, lengths)
        # the next-token shift: the prefix's last state predicts token 0, the state of token t - 1 predicts token t
        hidden = torch.cat([hidden, rest], dim=1)
    return Continued(replace(prefilled, mask=mask, lengths=lengths), hidden)


def _by_prefix_length(lm: LanguageModel, batch: Batch) -> Tensor:
    """The shared pass for each length of prefix apart: this model's cache takes no padding."""
    longest = max(len(row.tokens) for row in batch.rows)
    found: dict[int, Tensor] = {}  # row -> [T, H]
    for length in sorted(set(map(len, batch.prefixes))):
        numbers = [n for n, row in enumerate(batch.rows) if len(batch.prefixes[row.prefix]) == length]
        part = Batch(batch.prefixes, tuple(batch.rows[n] for n in numbers)).without_idle_prefixes()
        if numbers:
            hidden = _shared_pass(lm, part)
            found |= zip(numbers, torch.nn.functional.pad(hidden, (0, 0, 0, longest - hidden.shape[1])), strict=True)
    return torch.stack([found[n] for n in range(len(batch.rows))])


def _visible(prefilled: Prefilled, owner: Tensor, rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row: the mask [N, P] of the prefix tokens it continues, their number [N], and the column of the last [N]."""
    mask, lengths = prefilled.mask[owner], prefilled.lengths[owner]
    columns = mask.shape[1]
    if all(row.keep is None for row in rows):
        return mask, lengths, torch.full_like(lengths, columns - 1)
    wanted = [-1 if row.keep is None else row.keep for row in rows]
    kept = torch.tensor(wanted, device=lengths.device)
    kept = torch.where(kept < 0, lengths, kept)
    last = columns - lengths + kept - 1
    return mask * (torch.arange(columns, device=mask.device) <= last[:, None]), kept, last


@dataclass(slots=True)
class Prefilled:
    """G prefixes after their pass, padded on the left so that all end at the same column."""

    hidden: Tensor  # [G, P, H] the states that predict the tokens after each
    cache: Any  # transformers DynamicCache of G rows
    mask: Tensor  # [G, P] 1 where a real token is
    lengths: Tensor  # [G] real tokens = the position of the first continuation token
    name: str = "past_key_values"  # of the argument that takes the cache
    plain: bool = False  # without mask and positions: a model of recurrent layers alone knows neither

    @property
    def last_hidden(self) -> Tensor:
        """[G, H] the state that predicts the first continuation token."""
        return self.hidden[:, -1]

    def rows(self, owners: Sequence[int]) -> Prefilled:
        """A row behind prefix `owners[n]` for each n, in a cache of its own, which keeps all tokens: this one stays as it is."""
        cache, index = copy.copy(self.cache), torch.tensor(owners, device=self.lengths.device)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        select_rows(cache, index)
        return replace(self, hidden=self.hidden[index], cache=cache, mask=self.mask[index], lengths=self.lengths[index])

    def go_on(self, lm: LanguageModel, ids: Tensor, mask: Tensor, position: Tensor) -> Tensor:
        """[N, T, H] states of the tokens `ids` [N, T] behind the N rows of the cache, which grows by them.

        `mask` [N, P] and `position` [N]: which columns of the cache are seen, and the position of the first token.
        """
        if self.plain:
            return lm.decode(ids, **{self.name: self.cache}, use_cache=True).last_hidden_state
        seen = torch.cat([mask, mask.new_ones(ids.shape)], dim=1)
        positions = position[:, None] + torch.arange(ids.shape[1], device=ids.device)
        arguments = {"attention_mask": seen, "position_ids": positions, self.name: self.cache}
        with attending(lm, self.cache):
            return lm.decode(ids, **arguments, use_cache=True).last_hidden_state


def prefill(lm: LanguageModel, prefixes: Sequence[Sequence[int]]) -> Prefilled:
    """One pass over the prefixes, keeping the KV cache."""
    longest = max(map(len, prefixes))
    ids = torch.tensor([[lm.pad_id] * (longest - len(p)) + list(p) for p in prefixes], device=lm.device)
    lengths = torch.tensor([len(p) for p in prefixes], device=lm.device)
    column = torch.arange(longest, device=lm.device)
    mask = (column >= longest - lengths[:, None]).long()
    position = (column - (longest - lengths)[:, None]).clamp(min=0)
    name = cache_name(lm.decoder)
    if plain := name != "past_key_values":
        if len(set(map(len, prefixes))) > 1:
            raise ValueError("a recurrent model takes prefixes of one length")
        out = lm.decode(ids, use_cache=True)
    else:
        out = lm.decode(ids, attention_mask=mask, position_ids=position, use_cache=True)
    return Prefilled(out.last_hidden_state, getattr(out, name), mask, lengths, name, plain)


def _pad_right(rows: Sequence[Sequence[int]], lm: LanguageModel) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([list(row) + [lm.pad_id] * (longest - len(row)) for row in rows], device=lm.device)
