"""How the notes of chains develop: frozen, copied, carried on. Pure functions of texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
_COPIED = 0.8  # share of a state's neighbouring pairs of words that stand in the chunk: more is a copy


def note_signals(states: Sequence[str], chunks: Sequence[str]) -> dict[str, float | None]:
    """Of one chain: the states written after each of `chunks`, in order. None if a chain is too short to tell.

    `notes_frozen`: share of states equal to the previous one although another chunk was read; `notes_copied`: share of states that
    say little but what their chunk says; `notes_kept`: mean share of the words of a state that are in the next one too (0: all is
    forgotten at every step).

    >>> note_signals(["ann=3", "ann=3 bob=5"], ["ann+3", "bob+5"])
    {'notes_frozen': 0.0, 'notes_copied': 0.0, 'notes_kept': 1.0}
    """
    pairs = list(pairwise(states))
    moved = [old == new for (old, new), (before, now) in zip(pairs, pairwise(chunks), strict=False) if before != now]
    copied = [is_copy(state, chunk) for state, chunk in zip(states, chunks, strict=False) if state.strip()]
    kept = [share for old, new in pairs if (share := carried(old, new)) is not None]
    return {"notes_frozen": _mean(moved), "notes_copied": _mean(copied), "notes_kept": _mean(kept)}


def is_copy(state: str, chunk: str) -> bool:
    """Whether (nearly) all neighbouring pairs of words of the state are in the chunk."""
    words, there = _WORD.findall(state), _WORD.findall(chunk)
    if len(words) < 2:
        return bool(words) and words[0] in there
    known = set(pairwise(there))
    return sum(pair in known for pair in pairwise(words)) >= _COPIED * (len(words) - 1)


def carried(old: str, new: str) -> float | None:
    """Share of the different words (letters) of `old` that are in `new`; None if it has none."""
    words = {word for word in _WORD.findall(old) if word.isalpha()}
    return len(words & set(_WORD.findall(new))) / len(words) if words else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
