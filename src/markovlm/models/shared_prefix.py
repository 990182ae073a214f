"""Attention behind prefixes that several rows share: their keys and values lie in memory once and are read once for all their rows.

The softmax over [prefix; own tokens] is two softmaxes weighted by their sums (Hydragen, Juravsky et al. 2024,
https://arxiv.org/abs/2402.05099). The one over a prefix has all rows of a group as its queries: one product of matrices instead of one
of a matrix and a vector for each row, and a decoding step no longer copies the prompt's keys to make room for a token. Gradients go
through both parts with the joint normaliser, as in ring attention (Liu et al. 2023, https://arxiv.org/abs/2310.01889).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from markovlm.models.language import LanguageModel

LEAST_SAVED = 200_000  # numbers of a layer's keys that sharing must save: with fewer, two products cost more than one
_EVEN, _MOSTLY = 2, 4  # places for each row: up to which groups are begun, and kept, as they are
_NAME = "markovlm_shared_prefix"
_PREFIX = "_markovlm_prefix"  # attribute of the keys that a layer gives: the `Prefix` before them
_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


class Groups:
    """Which of P prefixes each of N rows continues, and rows laid out by prefix: [P, G] places, some of them empty.

    `hidden` [P, 1, 1, L]: what is added to the scores of the prefixes' columns, -inf where they are padded; None: nothing is.
    """

    def __init__(self, owners: Sequence[int], prefixes: int, device: torch.device, hidden: Tensor | None = None):
        self.prefixes, self.hidden = prefixes, hidden
        self.owner = torch.tensor(owners, device=device)
        self.kept: Tensor | None = None  # of the prefixes before a selection, those that still have rows; None: all
        seen = [0] * prefixes
        places: list[int] = []  # of each row: its number among those of its prefix
        for one in owners:
            places.append(seen[one])
            seen[one] += 1
        self.size = max(seen)  # G
        slots = [one * self.size + place for one, place in zip(owners, places, strict=True)]
        self.slots = None if slots == [*range(prefixes * self.size)] else torch.tensor(slots, device=device)
        self._selected: tuple[Tensor, Groups] | None = None
        self._added: tuple[Tensor, Tensor | None] | None = None

    def emptier_than(self, factor: int) -> bool:
        """Are there more than `factor` places for each row?"""
        return self.prefixes * self.size > factor * len(self.owner)

    def select(self, index: Tensor) -> Groups:
        """Of rows `index`, and the prefixes that they continue; made once for all layers, which ask with the same tensor."""
        if self._selected is None or self._selected[0] is not index:
            owners: list[int] = self.owner[index].tolist()
            left = sorted(set(owners))
            kept = torch.tensor(left, device=index.device) if len(left) < self.prefixes else None
            hidden = self.hidden if self.hidden is None or kept is None else self.hidden[kept]
            groups = Groups([left.index(one) for one in owners], len(left), index.device, hidden)
            groups.kept = kept
            self._selected = index, groups
        return self._selected[1]

    def added(self, mask: Tensor, columns: int, alike: int, dtype: torch.dtype) -> Tensor | None:
        """What is seen of the rows' own `columns`, the last of mask [N, 1, q, ...]: [N or 1, 1, alike q, columns] to be added to scores.

        None where of a prefix anything else is seen than its padding leaves. Made once for all layers, which get the same mask.
        """
        if self._added is None or self._added[0] is not mask:
            before = mask[..., :-columns]
            own = mask[..., -columns:]
            expected = before.new_ones(()) if self.hidden is None else (self.hidden == 0)[self.owner]
            added = None
            if bool((before == expected).all()):
                if bool((own == own[:1]).all()):  # behind continuations padded on the right
                    own = own[:1]
                added = torch.zeros(own.shape, dtype=dtype, device=own.device).masked_fill(~own, float("-inf"))
                added = added.repeat(1, 1, alike, 1) if own.shape[2] > 1 else added
            self._added = mask, added
        return self._added[1]

    def together(self, rows: Tensor) -> Tensor:
        """[N, h, q, ...] -> [P, h, G q, ...], zeros in empty places."""
        if self.slots is not None:
            rows = rows.new_zeros(self.prefixes * self.size, *rows.shape[1:]).index_copy_(0, self.slots, rows)
        return rows.unflatten(0, (self.prefixes, self.size)).transpose(1, 2).flatten(2, 3).contiguous()

    def apart(self, groups: Tensor) -> Tensor:
        """[P, h, G q, ...] -> [N, h, q, ...]."""
        rows = groups.unflatten(2, (self.size, -1)).transpose(1, 2).flatten(0, 1)
        return rows if self.slots is None else rows.index_select(0, self.slots)


@dataclass(frozen=True, slots=True)
class Prefix:
    """The prefixes of one layer."""

    keys: Tensor  # [P, h, L, D]
    values: Tensor
    groups: Groups

    def select(self, index: Tensor) -> Prefix:
        """Of rows `index`."""
        groups = self.groups.select(index)
        if groups.kept is None:
            return replace(self, groups=groups)
        return Prefix(self.keys[groups.kept], self.values[groups.kept], groups)

    def before(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Each row's own copy of its prefix, and behind it `keys` and `values` [N, h, s, D]."""
        owner = self.groups.owner
        return torch.cat([self.keys[owner], keys], dim=-2), torch.cat([self.values[owner], values], dim=-2)


class SharedLayer(DynamicLayer):
    """Keys and values of N rows behind P prefixes: each prefix once, and the rows' own tokens.

    Where rows come to be spread so unevenly that most places of their groups are empty, each gets its copy after all.
    """

    keys: Tensor  # [N, h, columns so far, D], those of the prefix only once there are copies
    values: Tensor

    def __init__(self, prefix: Prefix):
        super().__init__()
        self.prefix: Prefix | None = prefix
        self.lazy_initialization(prefix.keys, prefix.values)
        self.keys, self.values = (
            held.new_empty(len(prefix.groups.owner), held.shape[1], 0, held.shape[3]) for held in (prefix.keys, prefix.values)
        )

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The rows' own keys and values; where they are looked at, their prefix is found with the keys."""
        first = self.keys.shape[-2] == 0
        self.keys = key_states if first else torch.cat([self.keys, key_states], dim=-2)
        self.values = value_states if first else torch.cat([self.values, value_states], dim=-2)
        if self.prefix is not None:
            setattr(self.keys, _PREFIX, self.prefix)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.keys.shape[-2] + (0 if self.prefix is None else self.prefix.keys.shape[-2])

    def batch_select_indices(self, indices: Tensor) -> None:
        self.keys, self.values = self.keys[indices], self.values[indices]
        if self.prefix is not None:
            self.prefix = self.prefix.select(indices)
            if self.prefix.groups.emptier_than(_MOSTLY):
                self.keys, self.values = self.prefix.before(self.keys, self.values)
                self.prefix = None


def pays(cache: Any, rows: int) -> bool:
    """Do so many rows behind the P prefixes of `cache` save more than two products instead of one cost?"""
    prefixes, heads, columns, width = cache.layers[0].keys.shape
    return saves_enough(rows, prefixes, columns, heads * width)


def saves_enough(rows: int, prefixes: int, columns: int, width: int) -> bool:
    """Of keys with `width` numbers a column, in a layer (the limit: `benchmarks/prefixes.py`)."""
    return (rows - prefixes) * columns * width >= LEAST_SAVED


def share(cache: Any, groups: Groups) -> None:
    """The P rows of `cache` become the prefixes of N rows."""
    for number, layer in enumerate(cache.layers):
        cache.layers[number] = SharedLayer(Prefix(layer.keys, layer.values, groups))


def groups_of(cache: Any, owners: Sequence[int], mask: Tensor) -> Groups:
    """Rows behind the P of `cache`, which are padded on the left as `mask` [P, L] says; `owners` says behind which each of the N is."""
    like, hidden = cache.layers[0].keys, None
    if not bool(mask.all()):
        hidden = like.new_zeros(mask.shape).masked_fill(mask == 0, float("-inf"))[:, None, None]
    return Groups(owners, len(mask), mask.device, hidden)


def share_if_it_pays(lm: LanguageModel, cache: Any, owners: Sequence[int], mask: Tensor, becoming: int = 0) -> bool:
    """`share`, where this model can, enough is saved for the rows there are or are to become, and they are spread evenly enough."""
    if not (lm.shares_keys and pays(cache, max(becoming, len(owners)))):
        return False
    groups = groups_of(cache, owners, mask)
    if groups.emptier_than(_EVEN):
        return False
    share(cache, groups)
    return True


@contextlib.contextmanager
def attending(lm: LanguageModel, cache: Any) -> Iterator[None]:
    """Within, layers look at the prefixes of `cache` too, if it is a shared one."""
    if not isinstance(next(iter(getattr(cache, "layers", ())), None), SharedLayer):
        yield
        return
    # the one that attention modules hold; the setter of an outer one would reach further
    config = lm.causal_lm.config.get_text_config()
    before, config._attn_implementation = config._attn_implementation, _NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def has_window(config: Any) -> bool:
    """Out of which columns may fall, of which a trial with a few tokens knows nothing."""
    if kinds := getattr(config, "layer_types", None):
        return bool(set(kinds) - {"full_attention"})
    return any(getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **named: Any
) -> tuple[Tensor, None]:
    """As transformers calls attention: [N, H, q, D] queries -> [N, q, H, D]."""
    prefix: Prefix | None = getattr(key, _PREFIX, None)
    if prefix is None:
        if key.shape[2] < (0 if attention_mask is None else attention_mask.shape[-1]):
            raise ValueError("the keys were changed on their way")
        return sdpa_attention_forward(module, query, key, value, attention_mask, **named)
    rows, heads, columns, _ = query.shape
    alike = heads // key.shape[1]  # heads that share a key are more queries of it
    if any(named.get(name) is not None for name in ("softcap", "s_aux", "position_bias")):
        raise ValueError("attention that is more than scores and a mask")
    if attention_mask is None:
        own, plain = None, columns == 1 and prefix.groups.hidden is None
    else:
        if attention_mask.dtype != torch.bool or attention_mask.shape[1] != 1:
            raise ValueError("a mask that says more than what is seen")
        own = prefix.groups.added(attention_mask, key.shape[2], alike, query.dtype)
        plain = own is not None
    # the kernel takes no dropout, and wrong numbers from keys that don't lie in a row
    if not plain or named.get("dropout") or any(states.stride(-1) != 1 for states in (query, key, value)):
        return sdpa_attention_forward(module, query, *prefix.before(key, value), attention_mask, **named)
    queries = query.reshape(rows, key.shape[1], alike * columns, query.shape[-1])
    out = _TwoParts.apply(queries, prefix.keys, prefix.values, key, value, prefix.groups, own, named.get("scaling"))
    return out.reshape(rows, heads, columns, -1).transpose(1, 2).contiguous(), None


class _TwoParts(torch.autograd.Function):
    """[N, h, r, D] queries over a prefix's keys [P, h, L, D] and their own [N, h, s, D]."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        prefix_keys: Tensor,
        prefix_values: Tensor,
        keys: Tensor,
        values: Tensor,
        groups: Groups,
        own: Tensor | None,
        scale: float | None,
    ) -> Tensor:
        first, first_sum = _forward(groups.together(query), prefix_keys, prefix_values, attn_mask=groups.hidden, scale=scale)
        second, second_sum = _forward(query, keys, values, attn_mask=own, scale=scale)
        first, first_sum = groups.apart(first), groups.apart(first_sum)
        total = torch.logaddexp(first_sum, second_sum)
        weight = (second_sum - total).exp()[..., None].to(query.dtype)
        out = torch.lerp(first, second, weight)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(query, prefix_keys, prefix_values, keys, values, own, out, total)
            ctx.groups, ctx.scale = groups, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, prefix_keys, prefix_values, keys, values, own, out, total = ctx.saved_tensors
        groups, of_out = ctx.groups, grad.contiguous()
        of_first, asked, found, normaliser = (groups.together(states) for states in (of_out, query, out, total))
        first = _backward(
            of_first, asked, prefix_keys, prefix_values, found, normaliser, 0.0, False, attn_mask=groups.hidden, scale=ctx.scale
        )
        second = _backward(of_out, query, keys, values, out, total, 0.0, False, attn_mask=own, scale=ctx.scale)
        return second[0] + groups.apart(first[0]), first[1], first[2], second[1], second[2], None, None, None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
