"""A model's cache of past tokens: its rows selected, joined and trimmed. What it can be trusted with is found out in `probes`."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer


def cache_name(decoder: Any) -> str:
    """The argument of a transformers decoder, and the field of its output, that holds the cache."""
    parameters = inspect.signature(decoder.forward).parameters
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
    """Whether every layer keeps every token. A sliding window drops the first ones, and counts columns, hidden ones too."""
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
