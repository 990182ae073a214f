"""Which samples of a run a report shows: some over all of training, the worst, the best, the wrong and the right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Light:
    """What is kept of every sample while choosing: its place, and what it is chosen by."""

    step: int
    offset: int  # bytes
    line: int
    reward: float | None
    correct: bool | None


def _spread(items: Sequence[int], count: int) -> list[int]:
    """`count` of the items at even distances, first and last among them."""
    if count <= 0 or not items:
        return []
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[-1]]
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def choose(rows: Sequence[Light], limit: int) -> list[int]:
    """Indices of at most `limit` rows, in file order."""
    everything = range(len(rows))
    if len(rows) <= limit:
        return list(everything)
    rewarded = sorted((i for i in everything if _finite(rows[i].reward)), key=lambda i: (rows[i].reward or 0.0, i))
    fifth = max(1, limit // 6)
    chosen = set(rewarded[:fifth]) | set(rewarded[-fifth:])
    for outcome in (True, False):
        chosen |= set(_spread([i for i in everything if rows[i].correct is outcome], fifth))
    chosen |= set(_spread(list(everything), max(2, limit - len(chosen))))
    return sorted(chosen)[:limit] if len(chosen) <= limit else sorted(_spread(sorted(chosen), limit))


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
