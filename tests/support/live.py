"""Bytes of all tensors that are alive, counted operation by operation: what a CPU run shows of the memory that a GPU would need."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class LiveBytes(TorchDispatchMode):
    """Inside: `now` and `peak` bytes of storages made since it was entered, each counted once until nobody holds it.

    Storages that existed before (`known`: weights) do not count, nor what a kernel uses inside itself.
    """

    def __init__(self, known: Any = ()):
        super().__init__()
        self.now = self.peak = 0
        self.seen: Any = WeakIdKeyDictionary()
        for tensor in known:
            self.seen[tensor.untyped_storage()] = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf.untyped_storage())
        return out

    def _see(self, storage: Any) -> None:
        if storage in self.seen:
            return
        size = storage.nbytes()
        self.seen[storage] = size
        weakref.finalize(storage, self._gone, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _gone(self, size: int) -> None:
        self.now -= size
