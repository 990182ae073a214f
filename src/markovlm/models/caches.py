"""What a model's cache of past tokens can be trusted with, found out by trying; and copying its rows.

Families differ: most keep keys and values and take prompts of several lengths side by side, padded on the left. With some
kernels a padded row becomes NaN (Gemma 2, Bloom), recurrent layers (Mamba, Qwen3-Next) keep a state that padding would run
through and that is overwritten in place, so that no gradient can go back through it, and a few keep it where nobody can copy
it (RecurrentGemma, RWKV). A number that is wrong is silent, so each model is asked once, when it is loaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer

from markovlm.errors import UserError

if TYPE_CHECKING:
    from markovlm.models.language import LanguageModel

# padded: prompts of any lengths side by side. even: only of one length at a time. states: of one length, one token at a time and
# without gradient: scoring then computes every sequence whole. none: sampling does too.
Caching = Literal["padded", "even", "states", "none"]

_EXACT, _ROUNDED = 1e-3, 0.1  # how far logits may be apart, relative to the largest: float32 or better, below
_LONG, _SHORT, _MORE = (1, 2, 3, 4, 5), (1, 3), ((4, 2, 5), (5, 4, 2))  # ids of the trial: two prompts, what follows them
_tried: dict[str, Any] = {}
T = TypeVar("T")


def cache_name(lm: LanguageModel) -> str:
    """The argument, and the field of the output, that holds the cache."""
    parameters = inspect.signature(lm.decoder.forward).parameters
    return "cache_params" if "cache_params" in parameters else "past_key_values"


def select_rows(cache: Any, index: Tensor) -> None:
    """Rows `index` of the cache take the place of all, with their gradient where there is one; recurrent states too."""
    for layer in cache.layers:
        select_layer_rows(layer, index)


def select_layer_rows(layer: Any, index: Tensor) -> None:
    """`select_rows` of one layer."""
    states = [held for held in (getattr(layer, "conv_states", None), getattr(layer, "recurrent_states", None)) if held]
    for held in states:
        for number, state in held.items():
            if state is not None:
                held[number] = state.index_select(0, index.to(state.device))
    if hasattr(layer, "batch_select_indices"):
        layer.batch_select_indices(index)


def keeps_all(cache: Any) -> bool:
    """Does every layer keep every token? A sliding window forgets the first ones, and counts columns, hidden ones too."""
    return all(type(layer) is DynamicLayer for layer in cache.layers)


def join_rows(cache: Any, other: Any, columns: int) -> None:
    """The rows of `other` behind those of `cache`, which `keeps_all`; of both the last `columns`, with zeros in front where there are fewer."""
    for layer, fresh in zip(cache.layers, other.layers, strict=True):
        if layer.is_initialized:  # a few layers use another's keys and values
            layer.keys, layer.values = (
                torch.cat([pad(held, (0, 0, columns - held.shape[-2], 0)) for held in pair])
                for pair in ((layer.keys, fresh.keys), (layer.values, fresh.values))
            )


def trim(cache: Any, columns: int) -> None:
    """The last `columns` of a cache that `keeps_all`."""
    for layer in cache.layers:
        if layer.is_initialized:
            layer.keys, layer.values = layer.keys[:, :, -columns:], layer.values[:, :, -columns:]


def takes_back(lm: LanguageModel) -> bool:
    """Can tokens in the middle of `lm`'s cache be hidden? Not where attention counts columns (MPT)."""
    if lm.takes_back is None:
        lm.takes_back = lm.caching == "padded" and once_tried(lm, _agrees_with_a_hole)
    return lm.takes_back


@torch.no_grad()
def _agrees_with_a_hole(lm: LanguageModel) -> bool:
    """Two prompts and three tokens behind each, of which one is kept, and one more; against whole sequences."""
    from markovlm.models.sequences import prefill

    try:
        cached = prefill(lm, [[i % lm.vocabulary for i in prompt] for prompt in (_LONG, _SHORT)])
        if not keeps_all(cached.cache):
            return False
        first, last = (torch.tensor(ids, device=lm.device) % lm.vocabulary for ids in (_MORE, ((3,), (6,))))
        cached.go_on(lm, first, cached.mask, cached.lengths)
        seen = torch.cat([cached.mask, cached.mask.new_tensor([[1, 0, 0]] * 2)], dim=1)
        found = lm.logits(cached.go_on(lm, last, seen, cached.lengths + 1)[:, -1])
        whole = [(*prompt, more[0], int(token)) for prompt, more, token in zip((_LONG, _SHORT), _MORE, last[:, 0], strict=True)]
        return near(lm, found, torch.cat([_whole(lm, [sequence])[:, -1] for sequence in whole]))
    except Exception:  # as `_agrees`
        return False


def caching_of(lm: LanguageModel) -> Caching:
    """The most that `lm`'s cache can be trusted with, against whole sequences one at a time: values, and gradients if it trains.

    Raises UserError where not even a batch padded on the right gives what its sequences give alone.
    """
    return once_tried(lm, _try)


def once_tried(lm: LanguageModel, trial: Callable[[LanguageModel], T]) -> T:
    """What `trial` finds, once for all models that are made and computed alike."""
    key = f"{trial.__module__}.{trial.__name__} {_identity(lm)}"
    if key not in _tried:
        _tried[key] = trial(lm)
    return _tried[key]


def _identity(lm: LanguageModel) -> str:
    config = lm.causal_lm.config
    trains = len(lm.adapter_parameters())
    made = f"{type(lm.causal_lm).__name__} {lm.dtype} {lm.quantization} {lm.device.type} {config._attn_implementation} {trains}"
    return f"{made} {config.to_json_string()}"


def _try(lm: LanguageModel) -> Caching:
    trains = bool(lm.adapter_parameters())
    with torch.set_grad_enabled(trains):
        alone = torch.cat([_whole(lm, [(*prompt, *more)])[:, len(prompt) - 1 :] for prompt, more in _pairs(_LONG, _SHORT)])
        padded = _whole(lm, [(*prompt, *more) for prompt, more in _pairs(_LONG, _SHORT)])
        ends = [slice(len(prompt) - 1, len(prompt) + len(_MORE[0])) for prompt in (_LONG, _SHORT)]
        if not same_with_gradient(lm, torch.stack([row[end] for row, end in zip(padded, ends, strict=True)]), alone):
            raise UserError(f"model: {lm.name!r}: a sequence changes with what stands behind it in a batch; it can't be scored")
        if _agrees(lm, (_LONG, _SHORT), alone):
            return "padded"
        if _agrees(lm, (_LONG, _LONG), expected := _alone(lm)):
            return "even"
    with torch.no_grad():
        return "states" if _agrees(lm, (_LONG, _LONG), expected.detach(), 1) else "none"


def _pairs(*prompts: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return list(zip(prompts, _MORE, strict=True))


def _alone(lm: LanguageModel) -> Tensor:
    return torch.cat([_whole(lm, [(*prompt, *more)])[:, len(prompt) - 1 :] for prompt, more in _pairs(_LONG, _LONG)])


def _whole(lm: LanguageModel, sequences: Sequence[Sequence[int]]) -> Tensor:
    """[n, L, V] logits without any cache."""
    longest = max(map(len, sequences))
    ids = [[i % lm.vocabulary for i in sequence] + [lm.pad_id] * (longest - len(sequence)) for sequence in sequences]
    return lm.logits(lm.decode(torch.tensor(ids, device=lm.device), use_cache=False).last_hidden_state)


def _agrees(lm: LanguageModel, prompts: tuple[tuple[int, ...], ...], expected: Tensor, at_once: int = 2) -> bool:
    """Do the logits through the cache, its rows copied, agree with `expected` [2, 1 + M, V]? `at_once`: tokens of a pass."""
    from markovlm.models.sequences import prefill

    try:
        distinct = list(dict.fromkeys(prompts))
        start = prefill(lm, [[i % lm.vocabulary for i in prompt] for prompt in distinct])
        owner = torch.tensor([distinct.index(prompt) for prompt in prompts], device=lm.device)
        select_rows(start.cache, owner)
        ids = torch.tensor(_MORE, device=lm.device) % lm.vocabulary
        found, mask, position = [start.last_hidden[owner][:, None]], start.mask[owner], start.lengths[owner]
        for part in (ids[:, :1], *ids[:, 1:].split(at_once, dim=1)):
            found.append(start.go_on(lm, part, mask, position))
            select_rows(start.cache, torch.arange(2, device=lm.device))  # as a sampler drops rows on the way
            mask, position = torch.cat([mask, mask.new_ones(part.shape)], dim=1), position + part.shape[1]
        return same_with_gradient(lm, lm.logits(torch.cat(found, dim=1)), expected)
    except Exception:  # whatever an architecture raises when its cache is used so: it is not to be used so
        return False


def same_with_gradient(lm: LanguageModel, found: Tensor, expected: Tensor) -> bool:
    """Equal to rounding; and their gradients, where there are any."""
    limit = _EXACT if lm.exact else _ROUNDED
    if not near(lm, found, expected):
        return False
    if not found.requires_grad:
        return True
    parameters = [parameter for _, parameter in lm.adapter_parameters()]
    weights = torch.linspace(0.5, 1.5, found.numel(), device=found.device, dtype=found.dtype).reshape(found.shape).sin()
    ours, theirs = (
        torch.autograd.grad((logits * weights).sum(), parameters, allow_unused=True, retain_graph=True)
        for logits in (found, expected)
    )
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    largest = max((float(b.abs().max()) for _, b in pairs), default=0.0)
    return all(bool((a - b).abs().max() <= 10 * limit * max(largest, 1e-6)) for a, b in pairs)


def near(lm: LanguageModel, found: Tensor, expected: Tensor) -> bool:
    """Are logits equal to the rounding of the model's arithmetic?"""
    gap = (found - expected).abs().max().item()
    return gap <= (_EXACT if lm.exact else _ROUNDED) * max(1.0, expected.abs().max().item())  # NaN is not
