"""Whether the base model is whole on every process or sharded over them: what `distributed.strategy` means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from markovlm.config import RunConfig
from markovlm.errors import UserError
from markovlm.models.load import pick_device
from markovlm.training.distributed import World
from markovlm.training.estimate import base_bytes

if TYPE_CHECKING:
    from markovlm.models.sharding import Shards

_ROOM = 0.7  # of a GPU's memory for the base's weights; the rest is for the adapter, caches and what autograd keeps


def check_share(config: RunConfig, processes: int) -> None:
    """Raises UserError if a process would have no question."""
    questions = config.rollouts.questions_per_step
    if questions < processes:
        raise UserError(f"rollouts.questions_per_step ({questions}) must be at least the number of processes ({processes})")


def deal_weights(config: RunConfig, world: World, local_device: str | None) -> Shards | None:
    """Where weights are to be sharded over the processes, which then join; None if each is to load them all. Raises UserError for fsdp2
    in one process.
    """
    device = pick_device(local_device or config.loading.device)
    if not _is_dealt(config, world, device):
        return None
    world.start(device.type)
    return world.deal_weights(device)


def _is_dealt(config: RunConfig, world: World, device: torch.device) -> bool:
    strategy = config.distributed.strategy
    if strategy == "fsdp2" and world.size == 1:
        raise UserError(
            "distributed.strategy=fsdp2 shards the weights over several processes, but this is a single one: start it with "
            "torchrun --nproc-per-node N -m markovlm train …, or set distributed.strategy=ddp (also with --resume)"
        )
    if strategy != "auto" or world.size == 1 or device.type != "cuda" or config.loading.quantization != "none":
        return strategy == "fsdp2"
    return base_bytes(config) > _ROOM * torch.cuda.get_device_properties(device).total_memory
