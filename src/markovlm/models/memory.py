"""When memory runs out, the work is split and repeated: no question is ever skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar
from weakref import WeakSet

import torch

from markovlm.errors import RunFailed

T = TypeVar("T")
R = TypeVar("R")


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA's error, Python's, and the CPU allocator's RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`items` in pieces of `size`."""
    return (items[at : at + size] for at in range(0, len(items), size))


def map_splitting(
    work: Callable[[Sequence[T]], list[R]], items: Sequence[T], on_split: Callable[[int], None] | None = None
) -> list[R]:
    """`work(items)`, one result an item; where memory runs out, the same items in two halves, and so on down to one."""
    try:
        return work(items)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(items) < 2:
            raise RunFailed(
                f"out of memory with a single sequence ({' '.join(str(error).split()):.120}); lower rollouts.max_cot_tokens"
            ) from error
    release_memory()
    half = len(items) // 2
    if on_split is not None:
        on_split(half)
    return map_splitting(work, items[:half], on_split) + map_splitting(work, items[half:], on_split)


class Holder(Protocol):
    """An object that holds memory which it can allocate again."""

    def release(self) -> None: ...


_holders: WeakSet[Holder] = WeakSet()


def on_release(holder: Holder) -> None:
    """Register `holder` to be asked to free memory whenever memory has run out, for as long as it lives."""
    _holders.add(holder)


def release_memory() -> None:
    """Free cached blocks before a retry."""
    for holder in [*_holders]:
        holder.release()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
