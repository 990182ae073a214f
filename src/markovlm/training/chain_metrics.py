"""Metric rows of chains: what they have beside those of every run: returns, lengths, and what becomes of the notes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from markovlm.chains.prompter import Turn
from markovlm.config import RunConfig
from markovlm.texts.notes import note_signals
from markovlm.training.records import Sample, StepResult

Text = Callable[[tuple[int, ...]], str]
NOTES = ("notes_frozen", "notes_copied", "notes_kept")


def chain_columns(config: RunConfig, result: StepResult, text: Text) -> dict[str, Any]:
    """Columns added to `metric_row`; `questions` are texts here."""
    size = config.rollouts.group_size
    chains = chains_of(result.samples, size)
    returns = [math.fsum(s.loss_weight * s.reward for s in chain) for chain in chains]
    row: dict[str, Any] = {
        "questions": len(chains) // size,
        "chain_return": fmean(returns),
        "chain_states": fmean([len(chain) for chain in chains]),
        "notes_overflow": None if config.rollouts.fixed_length else fmean([not s.cot.ended for s in result.samples]),
    }
    signals = [note_signals([text(s.cot.ids) for s in chain], [s.example.question for s in chain]) for chain in chains]
    for name in NOTES:
        values = [value for of_one in signals if (value := of_one[name]) is not None]
        row[name] = fmean(values) if values and config.chain.kind != "thinking" else None
    return row


def chains_of(samples: Sequence[Sample], size: int) -> list[list[Sample]]:
    """Samples in the order of a `StepResult` (text by text, step by step, chain by chain) -> one list a chain, its steps in order."""
    found: list[list[Sample]] = []
    for at in range(0, len(samples), size):
        group = samples[at : at + size]
        example = group[0].example
        assert isinstance(example, Turn)
        if example.t == 1:
            found += [[sample] for sample in group]
            continue
        for chain, sample in zip(found[-size:], group, strict=True):
            chain.append(sample)
    return found
