"""Evaluations inside a log (`eval_reward`, `val-core/…`, `test/…`): courses of their own, with their own noise and their own best checkpoint.

How many questions such a number rests on is seldom logged, so its noise is taken from neighbouring evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from markovlm.health.series import Course, noise, window_means
from markovlm.logs.schema import EVAL_ACCURACY, EVAL_REWARD

LEAST = 4  # evaluations


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One course of evaluations: where it was best, and how it ended. Levels are means over `window` neighbouring evaluations."""

    key: str
    course: Course
    window: int
    best_step: int  # the evaluation in the middle of the best window
    best: float
    last: float
    z: float  # of the loss since the best, in standard errors
    fell_from: int  # first step at which it had surely left its best level

    @property
    def name(self) -> str:
        """`accuracy`, `accuracy (gsm8k)`, `reward (format)`"""
        kind = "accuracy" if self.is_accuracy else "reward"
        return f"{kind} ({self.key.partition('/')[2]})" if "/" in self.key else kind

    @property
    def is_accuracy(self) -> bool:
        return self.key == "eval_accuracy" or self.key.startswith(EVAL_ACCURACY)

    @property
    def lost(self) -> float:
        return self.best - self.last


def held_out_of(key: str, c: Course) -> HeldOut | None:
    """None for fewer than two evaluations."""
    n = len(c)
    if n < 2:
        return None
    window = max(1, min(5, n // 4))
    means = window_means(c.values, window)
    at = int(np.argmax(means))
    best, last = float(means[at]), float(means[-1])
    sd = max(noise(c.values), float(np.std(np.diff(c.values))) / math.sqrt(2.0) / 2.0, 1e-4 * max(abs(best), 1e-9))
    error = sd * math.sqrt(2.0 / window)
    under = np.flatnonzero(c.values[at:] < best - 2.0 * sd)
    left = at + int(under[0]) if len(under) else n - 1
    return HeldOut(key, c, window, int(c.steps[at + window // 2]), best, last, (best - last) / error, int(c.steps[left]))


def main_key(keys: Sequence[str]) -> str | None:
    """The course to choose a checkpoint by: accuracy before reward, all sets together before one."""
    for key in ("eval_accuracy", "eval_reward"):
        if key in keys:
            return key
    return next((key for key in keys if key.startswith((EVAL_ACCURACY, EVAL_REWARD))), None)
