"""Rules for notes of chains that are not a memory."""

from __future__ import annotations

from collections.abc import Iterable

from markovlm.health.case import Case
from markovlm.health.rule import Finding, Rule
from markovlm.health.thresholds import Threshold

_KINDS = ("frozen_notes", "copied_notes", "overflowing_notes", "forgotten_notes")


def keep_nothing(case: Case) -> Iterable[Finding]:
    found = [e for e in case.verdict.signals if e.kind in _KINDS]
    if found:
        first = min(found, key=lambda e: e.step)
        yield Finding("notes_keep_nothing", "; ".join(e.describe() for e in found[:3]), "medium", "caution", first.step)


def _live(signal: str, comparison: str, warn: float, needed: int, rows: int, reason: str) -> tuple[Threshold]:
    return (Threshold(signal, "value", comparison, warn, None, needed, rows, reason, solved_excuses=True),)  # pyright: ignore[reportArgumentType]


# Warnings: such notes are useless for what comes later, but whoever predicts the next chunk alone may do well with them.
RULES = (
    Rule(
        "frozen_notes",
        "the notes no longer change",
        live=_live("notes_frozen", "above", 0.8, 4, 5,
                   "Four states in five are the same as the one before, although another chunk was read: nothing new "
                   "enters the notes."),
    ),
    Rule(
        "copied_notes",
        "the notes copy their chunk",
        live=_live("notes_copied", "above", 0.8, 4, 5,
                   "Four states in five contain only what their chunk says: the state is a window of one chunk, not a "
                   "memory."),
    ),
    Rule(
        "overflowing_notes",
        "the notes overflow their budget",
        live=_live("notes_overflow", "above", 0.9, 9, 10,
                   "Nine states in ten are cut off by their budget: what comes at their end is lost at every step."),
    ),
    Rule(
        "forgotten_notes",
        "the notes forget what they knew",
        live=_live("notes_kept", "below", 0.05, 4, 5,
                   "Not one word in twenty of a state is in the next one: what was known is forgotten at every step."),
    ),
    Rule(
        "notes_keep_nothing",
        "the notes of the chains are not a memory: they freeze, copy their chunk, overflow, or forget",
        "notes of chains",
        "one of the four live tests",
        "medium: counts",
        check=keep_nothing,
        explains="mechanism",
        advice=(
            "ask about facts further back (a reward of the next chunk alone may not need a memory), or raise chain.gamma",
            "overflowing notes: raise chain.state_tokens",
            "raise rollouts.temperature or objective.entropy_weight at the start, so that different notes are tried",
        ),
    ),
)  # fmt: skip
