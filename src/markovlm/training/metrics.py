"""From the samples of a step to its metric row (docs/run-directory.md lists the keys)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import Any

import torch

from markovlm.chains.prompter import Turn
from markovlm.config import RunConfig
from markovlm.objectives.base import RATIO_METRICS
from markovlm.texts.question import question_signals
from markovlm.texts.repetition import text_signals
from markovlm.training.answer_metrics import answer_columns, group_columns
from markovlm.training.chain_metrics import chain_columns
from markovlm.training.records import OWN_METRIC, Sample, StepResult
from markovlm.training.update import learning_rate

Text = Callable[[tuple[int, ...]], str]  # decodes ids

_LOSSES = ("loss_policy", "loss_actor_reward", "loss_kl", "loss_entropy")
_MEANS = (*_LOSSES, "kl", "entropy", "behavior_gap", "behavior_kl")
_EXTREMES = {"ratio_min": min, "ratio_max": max, "sampler_gap_max": max, "sampler_ratio_min": min, "sampler_ratio_max": max}
_SAMPLER = ("sampler_gap", "sampler_gap_max", "sampler_kl", "sampler_ratio_min", "sampler_ratio_mean", "sampler_ratio_max")


def metric_row(config: RunConfig, result: StepResult, text: Text, step: int, seconds: float, lr_scale: float) -> dict[str, Any]:
    """One flat row of numbers and null. All except the time and memory keys repeat exactly on the same machine.

    Of chains, rewards are those of the states from which something is predicted; spreads are of the rewards to go.
    """
    samples, steps = result.samples, config.training.steps
    scored = [s for s in samples if s.scored]
    rewards = [s.reward for s in scored]
    groups = [[s.to_go if config.chain.on else s.reward for s in group] for group in _groups(config, samples)]
    baselines = [s.baseline for s in scored if s.baseline is not None]
    baseline_logprobs = [s.baseline_logprob for s in scored if s.baseline_logprob is not None]
    spreads = [stdev(group) for group in groups if len(group) > 1]
    lengths = [len(s.cot.tokens) for s in samples]
    row: dict[str, Any] = {"step": step}
    row |= {name: fmean([s.stats[name] for s in samples]) for name in _MEANS}
    row["loss"] = math.fsum(row[name] for name in _LOSSES)
    own = sorted({name for s in samples for name in s.stats if name.startswith(OWN_METRIC)})
    for name in (*_SAMPLER, "importance_truncated", *RATIO_METRICS, *own):
        values = [s.stats[name] for s in samples if name in s.stats]
        row[name] = _EXTREMES.get(name, fmean)(values) if values else None
    row |= {
        "kl_max": max(s.stats["kl_max"] for s in samples),
        "frozen_ratio_max": max(s.stats["frozen_ratio"] for s in samples),
        "reward_mean": fmean(rewards),
        "reward_std": fmean(spreads) if spreads else None,
        "reward_min": min(rewards),
        "reward_max": max(rewards),
        "normalized_reward_mean": fmean(rewards) - fmean(baselines) if baselines else None,
        **group_columns(groups, [[s.correct for s in group] for group in _groups(config, samples)]),
        "advantage_abs_mean": fmean([abs(s.advantage) for s in samples]),
        "answer_logprob": fmean([s.answer_logprob for s in scored]),
        "baseline_answer_logprob": fmean(baseline_logprobs) if baseline_logprobs else None,
        **answer_columns(config, scored),
        "cot_length": fmean(lengths),
        "cot_length_saturated_fraction": fmean([not s.cot.ended for s in samples]),
        **_text_signals(config, samples, text),
        **_question_signals(samples, text),
        "grad_norm": result.grad_norm,
        **{f"grad_norm_{term}": result.term_norms.get(term) for term in ("policy", "actor_reward", "kl", "entropy")},
        "passes": len(result.passes),
        **{f"pass{number}_{name}": value for number, stats in enumerate(result.passes, 1) for name, value in stats.items()},
        "lr": lr_scale * learning_rate(config, step),
        "temperature": config.rollouts.temperature.at(step, steps),
        "actor_reward_weight": config.objective.actor_reward_weight.at(step, steps),
        "kl_weight": config.objective.kl_weight.at(step, steps),
        "questions": len(groups),
        "samples": len(samples),
        "cot_tokens": sum(lengths),
        "memory_splits": result.splits,
        "step_seconds": seconds,
        **{f"{phase}_seconds": value for phase, value in result.seconds.items()},
        "tokens_per_second": sum(lengths) / seconds,
        "peak_memory": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    }
    return row | chain_columns(config, result, text) if config.chain.on else row


def _groups(config: RunConfig, samples: Sequence[Sample]) -> list[Sequence[Sample]]:
    """The B samples of each question."""
    size = config.rollouts.group_size
    return [samples[at : at + size] for at in range(0, len(samples), size)]


def _text_signals(config: RunConfig, samples: Sequence[Sample], text: Text) -> dict[str, float]:
    """Repetition within CoTs and between the CoTs of a group: the worst run of a character, means of the rest."""
    groups = [text_signals([text(s.cot.ids) for s in group]) for group in _groups(config, samples)]
    return {
        name: max(signals[name] for signals in groups)
        if name == "longest_char_run"
        else fmean([signals[name] for signals in groups])
        for name in groups[0]
    }


_OF_QUESTIONS = ("cot_contains_answer", "copies_question_fraction", "question_specificity")


def _question_signals(samples: Sequence[Sample], text: Text) -> dict[str, float | None]:
    """What the CoTs have to do with their questions; None if the questions say too little to tell."""
    cots = [text(s.cot.ids) for s in samples]
    found = question_signals([s.example.question for s in samples], cots, [s.example.answer for s in samples])
    return {name: found.get(name) for name in _OF_QUESTIONS}


def sample_rows(result: StepResult, text: Text, step: int) -> list[dict[str, Any]]:
    """One row for every group member of a step."""
    return [
        {
            "step": step,
            "question_id": s.example.id,
            "sample": s.number,
            "question": s.example.question,
            "cot": text(s.cot.ids),
            "baseline_cot": s.baseline_cot,
            "answer": s.example.answer,
            "answered": None if s.answered is None else text(s.answered) + ("" if s.answered_whole else "…"),
            "reward": s.reward,
            "normalized_reward": None if s.baseline is None else s.reward - s.baseline,
            "advantage": s.advantage,
            "answer_logprob": s.answer_logprob,
            "baseline_answer_logprob": s.baseline_logprob,
            "correct": s.correct,
            "exact": s.exact,
            "cot_tokens": len(s.cot.tokens),
            **_of_chain(s),
        }
        for s in result.samples
    ]


def _of_chain(sample: Sample) -> dict[str, Any]:
    """Which text and step a state belongs to, and its reward to go."""
    if not isinstance(sample.example, Turn):
        return {}
    source = sample.example.source
    scored = {} if sample.scored else {"reward": None, "normalized_reward": None, "answer_logprob": None, "correct": None}
    return {"text_id": source.id if source else "", "t": sample.example.t, "reward_to_go": sample.to_go, **scored}
