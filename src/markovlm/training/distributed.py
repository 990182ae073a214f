"""One process or several: what the training loop needs of them.

Gradients of the adapter are summed once a step with one all-reduce of a flat tensor, instead of DistributedDataParallel's hooks: a step
makes several forwards of uneven number (micro-batches, frozen and answer passes), the adapter is small, and a missed hook (a loss
through the unwrapped model) would go unnoticed. With `distributed.strategy=fsdp2` the frozen weights are sharded over the processes too
(`models/sharding.py`); the adapter is whole on each, and nothing here changes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from markovlm.errors import PeerLost, RunFailed, UserError

if TYPE_CHECKING:
    from markovlm.models.sharding import Shards

T = TypeVar("T")
_TIMEOUT_VARIABLE = "MARKOVLM_TIMEOUT_SECONDS"
_TIMEOUT_SECONDS = 600.0  # a process that died is noticed at once; this is for one that hangs, and must outlast sampling


class World:
    """The processes of this run. In one process every method is the identity."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.lost = False  # another process is gone: no word can be had from the rest
        self.shards: Shards | None = None  # weights that are sharded over the processes

    def start(self, device_type: str) -> None:
        """Join the process group that torchrun announces."""
        if self.size > 1 and not dist.is_initialized():
            if device_type == "cuda":
                torch.cuda.set_device(self.local_rank)  # NCCL gathers objects through the current device
            with self._together():
                dist.init_process_group("nccl" if device_type == "cuda" else "gloo", timeout=_timeout())
            if dist.get_world_size() != self.size:
                raise RunFailed(f"{dist.get_world_size()} processes joined, but torchrun announced {self.size}")

    def deal_weights(self, device: torch.device) -> Shards:
        """From now on a model's weights may be sharded over the processes, which have joined (`start`)."""
        from markovlm.models.sharding import Shards

        self.shards = Shards(self.rank, self.size, device, self._together, _timeout())
        return self.shards

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This rank's items: every size-th."""
        return list(items[self.rank :: self.size])

    def sum_gradients(self, gradients: list[Tensor]) -> None:
        """In place, over all ranks."""
        if self.size == 1:
            return
        self._meet()
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        with self._together():
            dist.all_reduce(flat)
        at = 0
        for gradient in gradients:
            gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
            at += gradient.numel()

    def gather(self, mine: list[Any]) -> list[Any]:
        """All ranks' items, in the order in which `share` distributed them. Every rank gets the whole list."""
        if self.size == 1:
            return mine
        self._meet()
        shares: list[Any] = [None] * self.size
        with self._together():
            dist.all_gather_object(shares, mine)
        return [shares[i % self.size][i // self.size] for i in range(sum(map(len, shares)))]

    def broadcast(self, value: T) -> T:
        """Rank 0's value."""
        if self.size == 1:
            return value
        self._meet()
        box = [value]
        with self._together():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def stop(self) -> None:
        """Leave the process group, unless another process is gone: NCCL would wait for it."""
        if self.size > 1 and not self.lost and dist.is_initialized():
            dist.destroy_process_group()

    def _meet(self) -> None:
        """Before a collective: others may need weights from here until they have come as far."""
        if self.shards is not None:
            self.shards.finish()

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        """Around a collective: gloo and NCCL report a peer that died or hangs as a RuntimeError."""
        try:
            yield
        except RuntimeError as error:
            self.lost = True
            reason = " ".join(str(error).split())
            raise PeerLost(
                f"another of the {self.size} processes of this run has ended or hangs ({reason:.160}); continue with --resume"
            ) from error


def _timeout() -> timedelta:
    text = os.environ.get(_TIMEOUT_VARIABLE, "")
    try:
        seconds = float(text) if text else _TIMEOUT_SECONDS
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise UserError(f"{_TIMEOUT_VARIABLE}={text}: must be a number of seconds above 0")
    return timedelta(seconds=seconds)
