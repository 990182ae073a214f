"""A fingerprint of the base weights: proof that the frozen policy is still the model one started from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from markovlm.models.language import LanguageModel

_PERIOD = 65521  # of the weights of positions
_CHUNK = _PERIOD << 6  # elements summed at once: bounds what is copied


@torch.no_grad()
def base_fingerprint(lm: LanguageModel) -> str:
    """Hex digest over name, shape and exact bits of every base weight; the adapter does not enter.

    The bits are summed on the device as integers, once plainly and once weighted by position (exact, order-free,
    fast for billions of weights); the sums are hashed with SHA-256. Of sharded weights every process sums its part.
    """
    weights = lm.base_parameters()
    sums = [_checksum(*_part(lm, tensor)) for _, tensor in weights]
    if lm.shards is not None:
        everywhere = lm.shards.gather(sums)
        dealt = [lm.shards.is_dealt(tensor) for _, tensor in weights]
        sums = [_total([one[i] for one in everywhere]) if dealt[i] else sums[i] for i in range(len(sums))]
    digest = hashlib.sha256()
    for (name, tensor), summed in zip(weights, sums, strict=True):
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}:{summed};".encode())
    return digest.hexdigest()[:32]


def _part(lm: LanguageModel, tensor: Tensor) -> tuple[Tensor, int]:
    """What this process has of a weight, and how many elements of it come before."""
    return (tensor, 0) if lm.shards is None else lm.shards.local_part(tensor)


def _total(parts: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return sum(plain for plain, _ in parts) % 2**64, sum(weighted for _, weighted in parts) % 2**64


def _checksum(tensor: Tensor, before: int) -> tuple[int, int]:
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    flat = tensor.detach().contiguous().view(integer).reshape(-1)
    columns = torch.zeros(_PERIOD, dtype=torch.int64, device=flat.device)  # sums of the elements that have one weight in common
    for start in range(0, flat.numel(), _CHUNK):
        bits = flat[start : start + _CHUNK]
        rows = bits.numel() // _PERIOD * _PERIOD
        columns += bits[:rows].view(-1, _PERIOD).sum(0, dtype=torch.int64)
        columns[: bits.numel() - rows] += bits[rows:]
    weights = torch.arange(before + 1, before + 1 + _PERIOD, device=flat.device) % _PERIOD
    return int(columns.sum()) % 2**64, int((columns * weights).sum()) % 2**64
