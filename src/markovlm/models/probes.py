"""What a model's cache of past tokens supports, found out by trying when the model is loaded.

Families differ: most keep keys and values and take prompts of several lengths side by side, padded on the left. With some
kernels a padded row becomes NaN (Gemma 2, Bloom), recurrent layers (Mamba, Qwen3-Next) keep a state that padding would run
through and that is overwritten in place, so that no gradient can go back through it, and a few keep it where nobody can copy
it (RecurrentGemma, RWKV). Wrong numbers would go unnoticed, so each model is tried once.

Each trial computes a few tokens in the quick way and in the plain one and compares. What was decided, and why a quick way was
turned down, is logged at level INFO of the logger `markovlm.models.probes` (environment variable `MARKOVLM_LOG=info`): an error of
our own in a quick way would otherwise only make a model slower.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from markovlm.errors import UserError
from markovlm.models.caches import keeps_all, select_rows
from markovlm.models.checkpointing import recompute_layers
from markovlm.models.language import Caching, Checkpointing, LanguageModel
from markovlm.models.sequences import batch_of, prefill, span_hidden
from markovlm.models.shared_prefix import groups_of, has_window, share

_EXACT, _ROUNDED = 1e-3, 0.1  # how far logits may be apart, relative to the largest: float32 or better, below
_LONG, _SHORT, _MORE = (1, 2, 3, 4, 5), (1, 3), ((4, 2, 5), (5, 4, 2))  # ids of the trial: two prompts, what follows them
FORGETS = "the cache does not keep every token"
_tried: dict[str, Any] = {}
_log = logging.getLogger(__name__)
T = TypeVar("T")

# --- running and comparing -------------------------------------------------------------------------------------------------


def once_tried(lm: LanguageModel, trial: Callable[[LanguageModel], T]) -> T:
    """The result of `trial`, computed once for all models that are built and computed alike."""
    name = f"{trial.__module__}.{trial.__name__}".removeprefix("markovlm.")
    key = f"{name} {_identity(lm)}"
    if key not in _tried:
        _tried[key] = trial(lm)
        _log.info("%s: %s: %s", lm.name, name, _tried[key])
    return _tried[key]


def _identity(lm: LanguageModel) -> str:
    config = lm.causal_lm.config
    trains = len(lm.adapter_parameters())
    made = f"{type(lm.causal_lm).__name__} {lm.dtype} {lm.quantization} {lm.device.type} {config._attn_implementation} {trains}"
    return f"{made} {config.to_json_string()}"


def works(lm: LanguageModel, what: str, attempt: Callable[[], bool]) -> bool:
    """`attempt()`; False where it raises: an architecture that raises anything is not used this way."""
    try:
        found = attempt()
    except Exception as error:
        reason = " ".join(str(error).split())
        _log.info("%s: %s: no: %s: %.300s", lm.name, what, type(error).__name__, reason)
        _log.debug("%s: %s", lm.name, what, exc_info=True)
        return False
    if not found:
        _log.info("%s: %s: no", lm.name, what)
    return found


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
    gap = max((float((a - b).abs().max()) for a, b in pairs), default=0.0)
    same = all(bool((a - b).abs().max() <= 10 * limit * max(largest, 1e-6)) for a, b in pairs)  # NaN is not
    if not same:
        _log.info("%s: gradients differ by %.2g, the largest is %.2g", lm.name, gap, largest)
    return same


def near(lm: LanguageModel, found: Tensor, expected: Tensor) -> bool:
    """Are logits equal to the rounding of the model's arithmetic?"""
    gap, largest = (found - expected).abs().max().item(), expected.abs().max().item()
    close = gap <= (_EXACT if lm.exact else _ROUNDED) * max(1.0, largest)  # NaN is not
    if not close:
        _log.info("%s: logits or states differ by %.2g, the largest is %.2g", lm.name, gap, largest)
    return close


# --- the cache ---------------------------------------------------------------------------------------------------------------


def caching_of(lm: LanguageModel) -> Caching:
    """The most that `lm`'s cache can be trusted with, against whole sequences one at a time: values, and gradients if it trains.

    Raises UserError if not even a batch padded on the right gives what its sequences give alone.
    """
    return once_tried(lm, _caching)


def _caching(lm: LanguageModel) -> Caching:
    trains = bool(lm.adapter_parameters())
    with torch.set_grad_enabled(trains):
        alone = torch.cat([_whole(lm, [(*prompt, *more)])[:, len(prompt) - 1 :] for prompt, more in _pairs(_LONG, _SHORT)])
        padded = _whole(lm, [(*prompt, *more) for prompt, more in _pairs(_LONG, _SHORT)])
        ends = [slice(len(prompt) - 1, len(prompt) + len(_MORE[0])) for prompt in (_LONG, _SHORT)]
        if not same_with_gradient(lm, torch.stack([row[end] for row, end in zip(padded, ends, strict=True)]), alone):
            raise UserError(
                f"model: {lm.name!r}: a token's log-prob changes with the tokens after it in a batch, so this model can't be scored"
            )
        if _continues(lm, "prompts of several lengths in one cache", (_LONG, _SHORT), alone):
            return "padded"
        if _continues(lm, "prompts of one length in one cache", (_LONG, _LONG), expected := _alone(lm)):
            return "even"
    with torch.no_grad():
        one_by_one = _continues(lm, "a cache without gradient, one token at a time", (_LONG, _LONG), expected.detach(), 1)
        return "states" if one_by_one else "none"


def _pairs(*prompts: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return list(zip(prompts, _MORE, strict=True))


def _alone(lm: LanguageModel) -> Tensor:
    return torch.cat([_whole(lm, [(*prompt, *more)])[:, len(prompt) - 1 :] for prompt, more in _pairs(_LONG, _LONG)])


def _whole(lm: LanguageModel, sequences: Sequence[Sequence[int]]) -> Tensor:
    """[n, L, V] logits without any cache."""
    longest = max(map(len, sequences))
    ids = [[i % lm.vocabulary for i in sequence] + [lm.pad_id] * (longest - len(sequence)) for sequence in sequences]
    return lm.logits(lm.decode(torch.tensor(ids, device=lm.device), use_cache=False).last_hidden_state)


def _continues(lm: LanguageModel, what: str, prompts: tuple[tuple[int, ...], ...], expected: Tensor, at_once: int = 2) -> bool:
    """Do the logits through the cache, its rows copied, agree with `expected` [2, 1 + M, V]? `at_once`: tokens of a pass."""

    def attempt() -> bool:
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

    return works(lm, what, attempt)


# --- tokens that are hidden in the middle of a cache -------------------------------------------------------------------------


def takes_back(lm: LanguageModel) -> bool:
    """Whether tokens in the middle of `lm`'s cache can be hidden. Not if attention counts columns (MPT)."""
    return lm.caching == "padded" and once_tried(lm, _takes_back)


@torch.no_grad()
def _takes_back(lm: LanguageModel) -> bool:
    """Two prompts and three tokens behind each, of which one is kept, and one more; against whole sequences."""

    def attempt() -> bool:
        cached = prefill(lm, [[i % lm.vocabulary for i in prompt] for prompt in (_LONG, _SHORT)])
        if not keeps_all(cached.cache):
            raise ValueError(FORGETS)
        first, last = (torch.tensor(ids, device=lm.device) % lm.vocabulary for ids in (_MORE, ((3,), (6,))))
        cached.go_on(lm, first, cached.mask, cached.lengths)
        seen = torch.cat([cached.mask, cached.mask.new_tensor([[1, 0, 0]] * 2)], dim=1)
        found = lm.logits(cached.go_on(lm, last, seen, cached.lengths + 1)[:, -1])
        whole = [(*prompt, more[0], int(token)) for prompt, more, token in zip((_LONG, _SHORT), _MORE, last[:, 0], strict=True)]
        return near(lm, found, torch.cat([_whole(lm, [sequence])[:, -1] for sequence in whole]))

    return works(lm, "tokens hidden in the middle of a cache", attempt)


# --- prefixes that several rows share ----------------------------------------------------------------------------------------


def can_share(lm: LanguageModel) -> bool:
    """Can rows of `lm` share the keys of a prefix? Found out by trying.

    On a CPU only: its kernel gives the normaliser of a softmax and takes another one for the gradient.
    """
    config = lm.causal_lm.config.get_text_config()
    if lm.device.type != "cpu" or lm.shards is not None or lm.caching != "padded":
        return False
    return config._attn_implementation == "sdpa" and not has_window(config) and once_tried(lm, _shares)


def _shares(lm: LanguageModel) -> bool:
    """Four rows behind two prompts, three tokens and one more, against a cache whose rows are copied; with gradient if `lm` trains.

    Once with a prompt that is padded and once without, because then models give their attention no mask.
    """

    def attempt() -> bool:
        with torch.set_grad_enabled(bool(lm.adapter_parameters())):
            return all(
                same_with_gradient(lm, behind_prompts(lm, n, shared=True), behind_prompts(lm, n, shared=False)) for n in (2, 5)
            )

    return works(lm, "rows that share the keys of a prefix", attempt)


def behind_prompts(lm: LanguageModel, length: int, *, shared: bool) -> Tensor:
    """[4, 4, V] logits behind a prompt of five tokens and one of `length`, whose keys the rows share or have copies of."""
    owner = torch.tensor([0, 1, 0, 0], device=lm.device)
    ids = torch.tensor([[4, 2, 5, 3], [5, 4, 2, 1], [1, 2, 3, 4], [2, 2, 1, 5]], device=lm.device) % lm.vocabulary
    start = prefill(lm, [[i % lm.vocabulary for i in prompt] for prompt in ((1, 2, 3, 4, 5), (1, 3, 2, 4, 1)[:length])])
    if not keeps_all(start.cache):
        raise ValueError(FORGETS)
    if shared:
        share(start.cache, groups_of(start.cache, owner.tolist(), start.mask))
    else:
        select_rows(start.cache, owner)
    mask, position = start.mask[owner], start.lengths[owner]
    states = [start.go_on(lm, ids[:, :3], mask, position)]
    select_rows(start.cache, torch.arange(4, device=lm.device))  # as a sampler drops rows on the way
    states.append(start.go_on(lm, ids[:, 3:], torch.cat([mask, mask.new_ones(4, 3)], dim=1), position + 3))
    return lm.logits(torch.cat(states, dim=1))


# --- layers that are computed again in backward ------------------------------------------------------------------------------


def enable_checkpointing(lm: LanguageModel) -> Checkpointing:
    """Have every layer of `lm` computed again in backward; how far that goes with this model's cache is found out by trying.

    Raises UserError for a model whose layers can't be found.
    """
    expected = _behind_shared_prompts(lm) if lm.shares_prompts else None
    layers, all_layers = recompute_layers(lm), lm.causal_lm.config.get_text_config().num_hidden_layers
    if expected is None or layers != all_layers:
        reason = "its cache serves no group" if expected is None else f"{layers} of {all_layers} layers are recomputed"
        _log.info("%s: gradient checkpointing with shared prompts: no: %s", lm.name, reason)
        return "whole"
    try:
        lm.checkpointing = "prompts"  # for the trial
        same = works(
            lm,
            "gradient checkpointing with shared prompts",
            lambda: same_with_gradient(lm, _behind_shared_prompts(lm), expected),
        )
        return "prompts" if same else "whole"
    finally:
        lm.checkpointing = "off"


def _behind_shared_prompts(lm: LanguageModel) -> Tensor:
    """[M, H] states behind two prompts of one length, shared by three rows."""
    ids = [[i % lm.vocabulary for i in part] for part in ((1, 2, 3, 4), (4, 3, 5, 1), (2, 5, 1), (3, 1), (5, 2, 4))]
    with torch.enable_grad():
        batch = batch_of([(ids[0], ids[2], 0), (ids[1], ids[3], 0), (ids[0], ids[4], 0)])
        return span_hidden(lm, batch, "shared").hidden
