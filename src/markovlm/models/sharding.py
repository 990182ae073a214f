"""A base model whose weights are sharded over several processes (FSDP2), and the protocol by which they are gathered.

torch's `fully_shard` keeps a part of every decoder layer on each process and gathers a layer when a pass comes to it, and again when
its gradient does. All processes must then ask for the same layers in the same order, or wait for each other forever. Ours do not: one
draws longer CoTs than another, has a micro-batch more, or runs out of memory and repeats one half. So every gathering is announced
first: each process says which layer it needs next, or that it is through, and all send their parts of one of those that were named.
Nobody computes anything for another, and no pass has to know that the weights are elsewhere.

Of the layers named, the one that a forward pass meets first is taken (in backward: the last), so that whoever is behind catches up and
the passes run side by side.

Only frozen weights are sharded: the adapter is whole on every process, so its gradients, its optimizer and its checkpoints are what
they are without this (`World.sum_gradients`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from markovlm.errors import RunFailed, UserError

_THROUGH = -1  # what a process announces that needs nothing more


class Shards:
    """The sharded weights of one model, as this process has them."""

    def __init__(
        self, rank: int, size: int, device: torch.device, together: Callable[[], AbstractContextManager[None]], timeout: timedelta
    ):
        """`together` surrounds every collective. The process group must be there. Raises UserError if torch is too old."""
        from torch.distributed.fsdp import FSDPModule

        if not hasattr(FSDPModule, "set_custom_all_gather") or not hasattr(FSDPModule, "reset_iter_state"):
            raise UserError(f"distributed.strategy=fsdp2 needs a torch newer than {torch.__version__} (2.13 is tested)")
        self.rank, self.size, self.device = rank, size, device
        self._together = together
        self._groups: list[_Group] = []
        self._roots: list[Any] = []
        with together():
            self.mesh = init_device_mesh(device.type, (size,))
            # what is announced travels between hosts' processors: a GPU would have to be waited for
            self._talk = dist.new_group(backend="gloo", timeout=timeout)

    # ---------------------------------------------------------------------------------------------------- turns

    def request(self, index: int, backward: bool) -> None:
        """Returns when all processes are about to gather group `index`; until then, sends what others need."""
        wish = index + len(self._groups) * backward
        while (chosen := self._agree(wish)) != index:
            self._groups[chosen].send()

    def finish(self) -> None:
        """Send what others need until nobody needs anything. Before any other collective."""
        while (chosen := self._agree(_THROUGH)) != _THROUGH:
            self._groups[chosen].send()

    def _agree(self, wish: int) -> int:
        wishes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with self._together():
            dist.all_gather(wishes, torch.tensor([wish]), group=self._talk)
        return next_group([int(one) for one in wishes], len(self._groups))

    def gather(self, value: Any) -> list[Any]:
        """Every process's value."""
        self.finish()
        found: list[Any] = [None] * self.size
        with self._together():
            dist.all_gather_object(found, value, group=self._talk)
        return found

    def recover(self) -> None:
        """After a pass that broke off: torch's notes of it are thrown away, gathered layers let go of."""
        for root in self._roots:
            root.reset_iter_state()

    # ---------------------------------------------------------------------------------------------------- dealing

    def deal(self, name: str, model: Any, whole: Any) -> None:
        """Deal out `model` (on the meta device, adapter and all), with the values of `whole`, which rank 0 alone has, on its CPU.

        `model`: what PEFT made of a transformers model. Raises UserError for an architecture whose layers are not in `model.layers`.
        """
        from torch.distributed.fsdp import fully_shard

        if self._groups:
            raise ValueError("one model is sharded already")
        embedding, layers, head, decoder = parts_to_deal(name, model)
        self._agree_on_types(name, model, whole)
        ours = {parameter for parameter in model.parameters() if parameter.requires_grad or parameter.dim() == 0}
        tied = embedding.weight is head.weight
        modules = [*layers] if tied else [embedding, *layers, head]
        dealt = [module for module in modules if any(p not in ours for p in module.parameters())]
        with self._together():
            for module in dealt:
                fully_shard(module, mesh=self.mesh, reshard_after_forward=True, ignored_params=ours)
            inside = {p for module in dealt for p in module.parameters() if isinstance(p, DTensor)}
            rest = {p for p in model.parameters() if p not in inside}
            fully_shard(decoder, mesh=self.mesh, reshard_after_forward=True, ignored_params=rest)
        model.to_empty(device=self.device)
        if tied:  # two tensors by now
            head.weight = embedding.weight
        self._groups = [_Group(self, number, module) for number, module in enumerate(dealt)]
        self._roots = [decoder] if tied else [decoder, head]
        with self._together():
            self._receive(model, whole)
        self._check(model)

    def _agree_on_types(self, name: str, model: Any, whole: Any) -> None:
        """The empty model gets the types of the real one. Raises UserError if it is another one than rank 0's."""
        mine = {key: (tuple(tensor.shape), tensor.dtype) for key, tensor in _tensors(whole or model)}
        theirs: dict[str, tuple[tuple[int, ...], torch.dtype]] = self.gather(mine)[0]
        own = dict(_tensors(model))
        wrong = [
            key
            for key in own.keys() | theirs.keys()
            if key not in own or key not in theirs or tuple(own[key].shape) != theirs[key][0]
        ]
        if wrong:
            raise UserError(f"model: {name!r} can't be sharded: {sorted(wrong)[0]} differs when built without weights")
        for key, tensor in own.items():
            tensor.data = tensor.data.to(theirs[key][1])

    @torch.no_grad()
    def _receive(self, model: Any, whole: Any) -> None:
        """Values from rank 0, tensor after tensor: no process but that one ever holds more than its parts and one tensor."""
        source = dict(_tensors(whole)) if whole is not None else {}
        for key, target in _tensors(model):
            value = source[key].to(self.device) if source else torch.empty(target.shape, dtype=target.dtype, device=self.device)
            if isinstance(target, DTensor):
                target.to_local().copy_(distribute_tensor(value.contiguous(), self.mesh, [Shard(0)]).to_local())
                continue
            value = value.contiguous()
            dist.broadcast(value, src=0)
            target.copy_(value)

    def _check(self, model: Any) -> None:
        """Raises RunFailed unless the frozen weights are sharded over all processes and the adapter is the same on each."""
        for group in self._groups:
            for parameter in group.parameters:
                if tuple(parameter.placements) != (Shard(0),) or parameter.device_mesh.size() != self.size:
                    raise RunFailed(
                        f"fsdp2: {parameter.placements} over {parameter.device_mesh.size()}, not a part on each of {self.size}"
                    )
        adapter = [p for p in model.parameters() if p.requires_grad]
        if any(isinstance(p, DTensor) for p in adapter):
            raise RunFailed("fsdp2: the adapter is sharded, and should be whole on every process")
        sums = self.gather([float(p.detach().double().sum()) for p in adapter])
        if any(other != sums[0] for other in sums):
            raise RunFailed("fsdp2: the processes start from different adapters")

    @staticmethod
    def is_dealt(tensor: Tensor) -> bool:
        return isinstance(tensor, DTensor)

    def local_part(self, tensor: Tensor) -> tuple[Tensor, int]:
        """What this process has of a weight (all, of one that is not sharded), and how many of its elements come before."""
        if not isinstance(tensor, DTensor):
            return tensor, 0
        rows = -(-tensor.shape[0] // self.size)
        return tensor.to_local(), min(self.rank * rows, tensor.shape[0]) * tensor.shape[1:].numel()

    def describe(self) -> str:
        here = sum(p.to_local().numel() for group in self._groups for p in group.parameters)
        whole = sum(p.numel() for group in self._groups for p in group.parameters)
        return f"{whole:,} frozen weights sharded over {self.size} processes, {here:,} on this one"


class _Group:
    """One module whose weights are gathered together: what `fully_shard` calls to gather them."""

    def __init__(self, shards: Shards, index: int, module: Any):
        self.shards, self.index = shards, index
        self.parameters: list[Any] = [p for p in module.parameters() if isinstance(p, DTensor)]
        self._tried = False
        module.set_custom_all_gather(self)

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, group: Any, async_op: bool = False) -> None:
        self.shards.request(self.index, _in_backward())
        if not self._tried and not torch.equal(self._part(), input_tensor):
            raise RunFailed(f"fsdp2: torch {torch.__version__} lays weights out in a way markovlm does not know")
        self._tried = True
        self._gather(output_tensor, input_tensor)

    def send(self) -> None:
        """Take part in a gathering that others need."""
        part = self._part()
        self._gather(part.new_empty(part.numel() * self.shards.size), part)

    def _gather(self, output: Tensor, part: Tensor) -> None:
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
        with self.shards._together():
            gather(output, part, group=self.shards.mesh.get_group())

    @torch.no_grad()
    def _part(self) -> Tensor:
        """This process's weights in a row, as `fully_shard` sends them: those of each parameter filled up to equal parts."""
        parts = []
        for parameter in self.parameters:
            rows, local = -(-parameter.shape[0] // self.shards.size), parameter.to_local()
            whole = local.new_zeros(rows, *parameter.shape[1:])
            whole[: len(local)] = local
            parts.append(whole.reshape(-1))
        if len({part.dtype for part in parts}) > 1:
            parts = [part.view(torch.uint8) for part in parts]
        return torch.cat(parts)


def next_group(wishes: Sequence[int], groups: int) -> int:
    """The group to gather next, of what the processes wish for: g in forward, g + `groups` in backward, or nothing more."""
    wanted = [wish for wish in wishes if wish != _THROUGH]
    if not wanted:
        return _THROUGH
    forward = [wish for wish in wanted if wish < groups]
    return min(forward) if forward else max(wanted) - groups


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


def parts_to_deal(name: str, model: Any) -> tuple[Any, Any, Any, Any]:
    """Embedding, layers, head, and decoder of a transformers model. Raises UserError if they are not in the usual places."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder = getattr(base, "model", None)
    layers, embedding = getattr(decoder, "layers", None), getattr(decoder, "embed_tokens", None)
    head = base.get_output_embeddings()
    if not isinstance(layers, nn.ModuleList) or not isinstance(embedding, nn.Embedding) or not isinstance(head, nn.Linear):
        raise UserError(
            f"model: {name!r} ({type(base).__name__}): distributed.strategy=fsdp2 needs a model with model.layers, model.embed_tokens and a "
            "linear head; use distributed.strategy=ddp, or a model of another family"
        )
    return embedding, layers, head, decoder


def _tensors(model: Any) -> list[tuple[str, Any]]:
    return [*model.named_parameters(), *model.named_buffers()]
