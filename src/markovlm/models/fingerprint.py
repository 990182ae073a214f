"""A fingerprint of the base weights: proof that the frozen policy is still the model one started from."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from markovlm.models.language import LanguageModel

_CHUNK = 1 << 22  # elements hashed at once: bounds the int64 copies to 64 MB


@torch.no_grad()
def base_fingerprint(lm: LanguageModel) -> str:
    """Hex digest over name, shape and exact bits of every base weight; the adapter does not enter.

    The bits are summed on the device as integers, once plainly and once weighted by position (exact, order-free,
    fast for billions of weights); the sums are hashed with SHA-256.
    """
    digest = hashlib.sha256()
    for name, tensor in lm.base_parameters():
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}:{_checksum(tensor)};".encode())
    return digest.hexdigest()[:32]


def _checksum(tensor: Tensor) -> tuple[int, int]:
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    flat = tensor.detach().contiguous().view(integer).reshape(-1)
    plain = weighted = 0
    for start in range(0, flat.numel(), _CHUNK):
        bits = flat[start : start + _CHUNK].to(torch.int64)
        position = torch.arange(start + 1, start + 1 + bits.numel(), device=bits.device)
        plain += int(bits.sum())
        weighted += int((bits * (position % 65521)).sum())
    return plain % 2**64, weighted % 2**64
