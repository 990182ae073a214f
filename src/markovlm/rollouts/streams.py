"""Random streams keyed by what they are for, so that batching, splitting and the number of processes change no draw."""

from __future__ import annotations

import hashlib

import numpy as np

Key = tuple[str | int, ...]


def stream(*key: str | int) -> np.random.Generator:
    """An independent generator for a key such as (seed, "cot", step, question id, sample)."""
    digest = hashlib.blake2b("\x1f".join(f"{type(part).__name__}:{part}" for part in key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def torch_seed(*key: str | int) -> int:
    """A seed for torch's own generator, from the same kind of key."""
    return int(stream(*key).integers(2**63))
