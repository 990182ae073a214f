"""Run against run: in which order their metrics part, and what differs in their settings.

Both runs are brought to common steps (the mean of each run's rows within the coarser logging interval). A metric has parted from the step on from
which the means of the two runs over a window differ by five standard errors and by a stated least, with one sign, in nearly all later windows.
Standard errors allow for the memory of neighbouring rows (`trend.persistence`). So has one whose rows, to the end, lie further apart than half of
what both had swung before. Two runs of one setting part too, in time: chance grows. What is claimed is that they differ, not why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from markovlm.errors import UserError
from markovlm.health.advice import framework_of
from markovlm.health.case import Case
from markovlm.health.diagnose import Diagnosis
from markovlm.health.levels import window_error
from markovlm.health.series import Course, Floats, window_means
from markovlm.logs.schema import METRIC, components, held_out, label

Z = 5.0  # standard errors in a window
STAYS = 0.8  # of the later windows that must differ with the same sign
LEAST_ROWS = 12  # common rows
# compared as factors
_LOG = ("entropy", "kl", "grad_norm", "cot_length", "sampler_gap", "sampler_kl", "sampler_prob_gap", "behavior_kl")
OF_SPREAD = 0.5
_FACTOR = math.log(1.3)  # least difference of those
_SHARE = 0.05  # of a fraction
_OF_RANGE = 0.1  # of any other, as a share of its range
_METRICS = (
    "reward_mean", "normalized_reward_mean", "answer_logprob", "accuracy", "answer_correct_fraction", "cot_contains_answer", "eval_accuracy",
    "eval_reward", *_LOG, "loss", "reward_std", "groups_without_spread", "cot_length_saturated_fraction", "ratio_clipped_fraction",
)  # fmt: skip
_SETTINGS = ("training.lr", "objective.kl_weight", "rollouts.max_cot_tokens")  # that rows show where settings are not logged
_NAMES_A_RUN = ("logging.", "data.cache", "resume", "run", "output_dir", "logging_dir", "hub_model_id", "run_name")


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that differs; None if a log does not say. `seen`: taken from the rows, not from a configuration."""

    name: str
    a: Any
    b: Any
    seen: bool = False


@dataclass(frozen=True, slots=True)
class Parting:
    """A metric of two runs that differs from a step on: levels over the first window that shows it, and over the last."""

    key: str
    step: int
    a: float
    b: float
    z: float
    last_a: float
    last_b: float

    @property
    def what(self) -> str:
        """`reward 0.61 against 0.35 at step 70, 0.62 against 0.01 at the end`"""
        at_end = f"{self.last_a:.3g} against {self.last_b:.3g} at the end"
        return f"{label(self.key)} {self.a:.3g} against {self.b:.3g} from step {self.step:,} on, {at_end}"


@dataclass(frozen=True, slots=True)
class RunComparison:
    """Two runs. `partings` in the order of their steps."""

    a: Diagnosis
    b: Diagnosis
    settings: tuple[Setting, ...]
    same: int  # settings that both logs name and that are equal
    partings: tuple[Parting, ...]
    compared: tuple[str, ...]  # metrics that both have with enough common rows

    def as_json(self) -> dict[str, Any]:
        return {
            "a": {"path": str(self.a.path), "run": self.a.run.name, "verdict": self.a.verdict, "onset_step": self.a.onset_step},
            "b": {"path": str(self.b.path), "run": self.b.run.name, "verdict": self.b.verdict, "onset_step": self.b.onset_step},
            "settings": [{"name": s.name, "a": s.a, "b": s.b, "seen_in_rows": s.seen} for s in self.settings],
            "settings_alike": self.same,
            "partings": [
                {"metric": p.key, "step": p.step, "a": p.a, "b": p.b, "z": p.z, "last_a": p.last_a, "last_b": p.last_b} for p in self.partings
            ],
            "compared": list(self.compared),
        }  # fmt: skip


def compare_all(found: Sequence[Diagnosis]) -> list[RunComparison]:
    """The first run against each other one. Raises UserError for fewer than two."""
    if len(found) < 2:
        raise UserError(f"--compare: give two runs or more; there {'is 1' if found else 'are none'}")
    return [compare(found[0], other) for other in found[1:]]


def compare(a: Diagnosis, b: Diagnosis) -> RunComparison:
    """Where the courses of two runs part, and which settings differ."""
    settings, same = _settings(a.case, b.case)
    parts = components(a.run.metrics.columns)
    several = parts if len(parts) > 1 else ()  # one part alone is the reward itself
    keys = [*_METRICS, *several, *held_out(a.run.metrics.columns)]
    partings, compared = [], []
    for key in dict.fromkeys(keys):
        together = _common(a.case.course(key), b.case.course(key))
        if together is None:
            continue
        compared.append(key)
        found = parting(*together)
        if found is not None:
            partings.append(found)
    partings.sort(key=lambda p: p.step)
    return RunComparison(a, b, settings, same, tuple(partings), tuple(compared))


def _settings(a: Case, b: Case) -> tuple[tuple[Setting, ...], int]:
    """(what differs, how many are alike). Settings that only name a run are left out."""
    names = [name for name in {**a.run.config, **b.run.config} if not name.startswith(_NAMES_A_RUN)]
    different: list[Setting] = []
    same = 0
    for name in names:
        here, there = a.run.config.get(name), b.run.config.get(name)
        if here == there:
            same += 1
        elif (name in a.run.config and name in b.run.config) or (a.run.config and b.run.config):
            different.append(Setting(_named(name, a, b), here, there))
    for name in _SETTINGS:
        here, there = a.value_of(name), b.value_of(name)
        logged = name in a.run.config or name in b.run.config
        if not logged and here is not None and there is not None and not math.isclose(here, there, rel_tol=0.01):
            different.append(Setting(_named(name, a, b), here, there, seen=True))
    return tuple(different), same


def _named(name: str, a: Case, b: Case) -> str:
    """As the framework calls it, where both runs are of one."""
    of_a, of_b = framework_of(a), framework_of(b)
    theirs = of_a.setting(name) if of_a is not None and of_a is of_b else None
    return theirs or name


def _common(a: Course | None, b: Course | None) -> tuple[Course, Course] | None:
    """Two courses at common steps; None if there are too few of them."""
    if a is None or b is None or len(a) < LEAST_ROWS or len(b) < LEAST_ROWS:
        return None
    every = max(float(np.median(np.diff(a.steps))), float(np.median(np.diff(b.steps))), 1.0)
    bins_a, means_a = _binned(a, every)
    bins_b, means_b = _binned(b, every)
    bins, in_a, in_b = np.intersect1d(bins_a, bins_b, return_indices=True)
    if len(bins) < LEAST_ROWS:
        return None
    steps = bins * every
    return Course(a.key, steps, means_a[in_a]), Course(b.key, steps, means_b[in_b])


def _binned(c: Course, every: float) -> tuple[Floats, Floats]:
    """(number of the logging interval, mean of its rows); a row at step s is of the interval that ends at s."""
    bins = np.ceil(c.steps / every - 1e-9)
    found, at = np.unique(bins, return_inverse=True)
    return found, np.bincount(at, weights=c.values) / np.bincount(at)


def parting(a: Course, b: Course) -> Parting | None:
    """Where one metric of two runs, at common steps, parts; None if it does not."""
    logarithmic = a.key in _LOG and a.values.min() > 0.0 and b.values.min() > 0.0
    inner_a, inner_b = (np.log(a.values), np.log(b.values)) if logarithmic else (a.values, b.values)
    n = len(inner_a)
    window = max(4, min(20, n // 8))
    error = math.hypot(
        window_error(Course(a.key, a.steps, inner_a), window), window_error(Course(b.key, b.steps, inner_b), window)
    )
    span = float(max(inner_a.max(), inner_b.max()) - min(inner_a.min(), inner_b.min()))
    fraction = a.key in METRIC and METRIC[a.key].unit == "fraction"
    shares = fraction or (
        a.key.startswith("reward") and min(a.values.min(), b.values.min()) >= 0.0 and max(a.values.max(), b.values.max()) <= 1.0
    )
    least = _FACTOR if logarithmic else _SHARE if shares else _OF_RANGE * span
    differences = window_means(inner_a, window) - window_means(inner_b, window)
    for at in np.flatnonzero(np.abs(differences) > max(Z * error, least)):
        sign = math.copysign(1.0, differences[at])
        later = sign * differences[at:]
        if float((later > max(0.5 * Z * error, 0.5 * least)).mean()) >= STAYS and later[-1] >= 0.5 * least:
            return _parted(a, b, sign * (inner_a - inner_b), int(at), window, float(abs(differences[at])), error)
    at = _apart_to_the_end(inner_a, inner_b, max(least, 2.0 * error / Z))
    if at is None:
        return None
    sign = math.copysign(1.0, inner_a[-1] - inner_b[-1])
    return _parted(a, b, sign * (inner_a - inner_b), at, window, float(np.mean(np.abs(inner_a[at:] - inner_b[at:]))), error)


def _parted(a: Course, b: Course, apart: Floats, at: int, window: int, difference: float, error: float) -> Parting:
    """The step within a window from which every row shows half of the difference, and the levels of both runs."""
    near = apart[at : at + window]
    first = next((k for k in range(len(near)) if near[k:].min() > 0.0 and near[k] > 0.5 * difference), 0)
    (mean_a, mean_b), (last_a, last_b) = (
        (float(a.values[rows].mean()), float(b.values[rows].mean())) for rows in (slice(at, at + window), slice(-window, None))
    )
    return Parting(a.key, int(a.steps[at + first]), mean_a, mean_b, min(difference / error, 999.0), last_a, last_b)


def _apart_to_the_end(a: Floats, b: Floats, least: float) -> int | None:
    """The first row from which on every row to the end, a fifth of all and ten at least, differs with one sign by over `OF_SPREAD` of the range that
    both had before: a run that swings by itself shows no small difference, but one that ends elsewhere."""
    n, differences = len(a), a - b
    needed = max(10, n // 5)
    for at in range(needed // 2, n - needed + 1):
        spread = max(float(np.ptp(a[:at])), float(np.ptp(b[:at])), least)
        rest = differences[at:]
        if (rest > OF_SPREAD * spread).all() or (rest < -OF_SPREAD * spread).all():
            return at
    return None
