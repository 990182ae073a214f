"""Gradient checkpointing that knows the cache of a prompt: layers are computed again in backward instead of being kept.

transformers' own drops the cache, because a layer that runs twice would write into it twice; a shared prompt would silently be
no prompt. Here each run of a layer gets a copy of the cache as it was before the first one, and the rows of a group are repeated
inside the layer. What stays alive, of a layer: its input, and the prompt's keys and values, once for the whole group. Gradients
flow through them into the prompt's own pass.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from markovlm.errors import UserError
from markovlm.models.caches import select_layer_rows
from markovlm.models.language import LanguageModel
from markovlm.models.shared_prefix import attending

_ROWS = "_markovlm_rows"  # attribute of a cache: its rows as the layers are to see them


def recompute_layers(lm: LanguageModel) -> int:
    """Have every layer of `lm` computed again in backward; how many layers that are.

    Raises UserError for a model whose layers can't be found.
    """
    layers = _layers(lm)
    if not layers:
        raise UserError(f"loading.gradient_checkpointing: {lm.name!r} has no layers that can be recomputed; leave this key out")
    for layer in layers:
        layer.forward = _recomputed(lm, layer)
    return len(layers)


def leave(cache: Any, rows: Tensor | None = None) -> None:
    """The cache is not written to any more; the layers see rows `rows` of it, each making them for itself (None: all of it)."""
    setattr(cache, _ROWS, rows)


def _layers(lm: LanguageModel) -> list[Any]:
    found = [(name, module) for name, module in lm.decoder.named_modules() if isinstance(module, GradientCheckpointingLayer)]
    names = [f"{name}." for name, _ in found]
    return [module for name, module in found if not any(name.startswith(outer) for outer in names)]


def _recomputed(lm: LanguageModel, layer: Any) -> Callable[..., Any]:
    """`layer.forward` under a checkpoint wherever gradients are on."""
    forward = layer.forward

    @functools.wraps(forward)
    def checkpointed(*arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*arguments, **named)
        cache = next((value for value in (*arguments, *named.values()) if isinstance(value, Cache)), None)
        before = None if cache is None else tuple(cache.layers)
        training, adapter_on = layer.training, lm.adapter_on
        first: list[Any] = []  # the copy of the cache that the first run has written to

        def run(*arguments: Any) -> Any:
            if lm.adapter_on is not adapter_on:
                raise RuntimeError("backward with the adapter switched otherwise than in forward")
            now = None if cache is None else _copy(cache, before)
            first.append(now)
            given = [now if value is cache and now is not None else value for value in arguments]
            also = {name: now if value is cache and now is not None else value for name, value in named.items()}
            with _mode(layer, training), attending(lm, now):
                return forward(*given, **also)

        out = checkpoint(run, *arguments, use_reentrant=False)
        if cache is not None and not hasattr(cache, _ROWS):
            cache.layers = list(first[0].layers)
        first.clear()
        return out

    return checkpointed


class _Copied(list[Any]):
    """Layers of a cache, each copied, and its rows chosen, when it is first used."""

    def __init__(self, layers: Any, rows: Tensor | None):
        super().__init__(layers)
        self.rows = rows
        self.fresh: set[int] = set()

    def __getitem__(self, index: Any) -> Any:
        number = range(len(self))[index]
        if number not in self.fresh:
            self.fresh.add(number)
            one = copy.copy(super().__getitem__(number))
            if self.rows is not None:
                select_layer_rows(one, self.rows)
            self[number] = one
        return super().__getitem__(number)


def _copy(cache: Any, layers: Any) -> Any:
    """A cache of its own with `layers`, which a run may write to; tensors are shared until then."""
    made = copy.copy(cache)
    made.layers = _Copied(layers, getattr(cache, _ROWS, None))
    return made


@contextlib.contextmanager
def _mode(layer: nn.Module, training: bool) -> Iterator[None]:
    """Backward may come after the model went back to eval mode: dropout must be what it was."""
    now = layer.training
    if now is not training:
        layer.train(training)
    try:
        yield
    finally:
        if now is not training:
            layer.train(now)
