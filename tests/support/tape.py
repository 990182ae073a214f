"""A CUDA graph without CUDA: the operations of a step, recorded once and played again without its Python.

What a CUDA graph can't hold fails here too: a step that reads a number from the device, or whose operations would depend on one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

from markovlm.rollouts.static import NoReads


class Tape(NoReads):
    """Records while it is entered; `play` runs the same operations on the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        self.operations.append((func, args, kwargs or {}, out))
        return out

    def play(self) -> None:
        """What an operation made stands for what it makes now; all other tensors are where they were."""
        made: dict[int, torch.Tensor] = {}

        def now(value: Any) -> Any:
            return made.get(id(value), value) if isinstance(value, torch.Tensor) else value

        for func, args, kwargs, out in self.operations:
            fresh = func(*tree_map(now, args), **tree_map(now, kwargs))
            for before, after in zip(tree_flatten(out)[0], tree_flatten(fresh)[0], strict=True):
                if isinstance(before, torch.Tensor):
                    made[id(before)] = after

    def made(self) -> set[int]:
        """Ids of the tensors that the operations return."""
        return {id(value) for *_, out in self.operations for value in tree_flatten(out)[0] if isinstance(value, torch.Tensor)}

    def read(self) -> list[torch.Tensor]:
        """The tensors that the operations are given."""
        given = [tree_flatten((args, kwargs))[0] for _, args, kwargs, _ in self.operations]
        return [value for values in given for value in values if isinstance(value, torch.Tensor)]


def taped(tapes: list[Tape]) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """As `as_cuda_graph`: a warm-up, one recording, and the recording is what runs from then on."""

    def record(step: Callable[[], None]) -> Callable[[], None]:
        step()
        with (tape := Tape()):
            step()
        tapes.append(tape)
        return tape.play

    return record
