"""Metrics of how a step's gold answers were read: whether their tokens are the most likely ones, and whether the reply would then end."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from markovlm.config import RunConfig
from markovlm.training.records import Sample


def answer_columns(config: RunConfig, samples: Sequence[Sample]) -> dict[str, float | None]:
    """Shares of CoTs after which all gold tokens are the most likely, after which the reply consists of them and ends, and the
    difference: it runs on.

    The latter two are None if no answer has an end of its own. `reader_calibration`: mean of pi(a|z) minus the share after which all
    scored tokens are the most likely.
    """
    asked = [s for s in samples if s.exact is not None]
    with_end = config.objective.answer_end == "scored"
    return {
        "answer_correct_fraction": fmean([s.correct for s in samples]),
        "answer_exact_fraction": fmean([bool(s.exact) for s in asked]) if asked else None,
        "answer_run_on_fraction": fmean([s.correct and not s.exact for s in asked]) if asked else None,
        "reader_calibration": fmean(
            [s.answer_probability - (s.exact if with_end and s.exact is not None else s.correct) for s in samples]
        ),
    }


_SPREAD = 1e-6  # rewards of a group closer than this count as equal


def group_columns(rewards: Sequence[Sequence[float]], correct: Sequence[Sequence[bool]]) -> dict[str, float]:
    """Shares of the groups whose rewards are all equal, and of those among them whose answers are all right, and all wrong."""
    idle = [max(group) - min(group) < _SPREAD for group in rewards]
    return {
        "groups_without_spread": fmean(idle),
        "groups_all_right": fmean([equal and all(group) for equal, group in zip(idle, correct, strict=True)]),
        "groups_all_wrong": fmean([equal and not any(group) for equal, group in zip(idle, correct, strict=True)]),
    }
