"""Metric rows of chains: those of every run, with rewards where there are any, and how the notes fare."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import Any

from markovlm.chains.prompter import Turn
from markovlm.config import RunConfig
from markovlm.texts.notes import note_signals
from markovlm.training.answer_metrics import answer_columns, group_columns
from markovlm.training.records import Sample, StepResult

Text = Callable[[tuple[int, ...]], str]
NOTES = ("notes_frozen", "notes_copied", "notes_kept")


def chain_columns(config: RunConfig, result: StepResult, text: Text) -> dict[str, Any]:
    """What replaces or joins the columns of `metric_row`. Means over the states from which something is predicted; spreads of G_t."""
    scored = [s for s in result.samples if s.scored]
    to_go = [s.to_go for s in result.samples]
    size = config.rollouts.group_size
    groups = [to_go[at : at + size] for at in range(0, len(to_go), size)]
    chains = chains_of(result.samples, size)
    baselines = [s.baseline for s in scored if s.baseline is not None]
    logprobs = [s.baseline_logprob for s in scored if s.baseline_logprob is not None]
    rewards = [s.reward for s in scored]
    returns = [math.fsum(s.loss_weight * s.reward for s in chain) for chain in chains]
    row: dict[str, Any] = {
        "reward_mean": fmean(rewards),
        "reward_std": fmean([stdev(group) for group in groups]) if size > 1 else None,
        "reward_min": min(rewards),
        "reward_max": max(rewards),
        "normalized_reward_mean": fmean(rewards) - fmean(baselines) if baselines else None,
        **group_columns(groups, [[s.correct for s in result.samples[at : at + size]] for at in range(0, len(to_go), size)]),
        "answer_logprob": fmean([s.answer_logprob for s in scored]),
        "baseline_answer_logprob": fmean(logprobs) if logprobs else None,
        **answer_columns(config, scored),
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
