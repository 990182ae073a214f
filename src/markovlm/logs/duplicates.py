"""One training run logged twice (console log and `trainer_state.json`, an older checkpoint's state): the fullest log counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from markovlm.logs.records import RunData

_COMPARED = ("reward_mean", "loss", "kl", "entropy", "grad_norm", "cot_length", "loss_policy", "accuracy", "answer_logprob")
_LEAST_ROWS = 5  # in common; fewer agree by chance (rewards of 0 at the start)
_TOLERANCE = 2e-3  # printed logs have four significant digits
_SURE = 2  # columns that agree everywhere and are not constant
# Kinds of other people's logs, the most exact first; only they tell one training twice.
_ORDER = ("trainer_state", "jsonl", "parquet", "tensorboard", "wandb", "trackio", "mlflow", "csv", "console")


_Values = tuple[dict[int, int], dict[str, list[float | None]]]


def without_duplicates(runs: Sequence[RunData]) -> list[RunData]:
    """The runs, each once, in their order. What was left out is a line in the problems of the one that stays."""
    kept: list[RunData] = []
    first = {id(run): _first_values(run) for run in runs}
    for run in runs:
        twin = next((o for o in kept if _may_agree(first[id(run)], first[id(o)]) and same_training(run, o)), None)
        if twin is None:
            kept.append(run)
            continue
        better, worse = (run, twin) if _rank(run) > _rank(twin) else (twin, run)
        better.problems.append(f"the same training is also in {worse.path}, which is left out")
        better.problems += [line for line in worse.problems if line.startswith("the same training is also in")]
        if not better.samples and worse.samples:
            better.samples, better.sample_rows = worse.samples, worse.sample_rows
        for name, value in worse.config.items():
            better.config.setdefault(name, value)
        kept[kept.index(twin)] = better
    return kept


def _first_values(run: RunData) -> _Values:
    """(step -> row, values) of a run's compared columns, as plain lists: hundreds of runs are compared in pairs."""
    if run.kind not in _ORDER:
        return {}, {}
    steps = {step: row for row, step in enumerate(run.metrics["step"].to_list())}
    return steps, {key: run.metrics[key].to_list() for key in _COMPARED if key in run.metrics.columns}


def _may_agree(first: _Values, other: _Values) -> bool:
    """A cheap look at one step that both may have: a disagreement there settles it."""
    if not first[0] or not other[0]:
        return False
    step = max(next(iter(first[0])), next(iter(other[0])))
    left, right = first[0].get(step), other[0].get(step)
    if left is None or right is None:
        return True
    pairs = ((first[1][key][left], other[1][key][right]) for key in first[1] if key in other[1])
    return all(x is None or y is None or x != x or y != y or abs(x - y) <= _close(x, y) for x, y in pairs)


def _close(x: float, y: float) -> float:
    return _TOLERANCE * max(abs(x), abs(y)) + 1e-6


def _rank(run: RunData) -> tuple[int, int, int]:
    """How much a telling says: last step, columns, exactness of its kind."""
    return (run.last_step or 0, len(run.metrics.columns), -_ORDER.index(run.kind) if run.kind in _ORDER else 0)


def same_training(a: RunData, b: RunData) -> bool:
    """Whether two logs of others agree on every step that both have."""
    if a.kind not in _ORDER or b.kind not in _ORDER or min(a.steps, b.steps) < _LEAST_ROWS:
        return False
    if a.path.parent == b.path.parent and a.launch[1] == b.launch[1] > 1:  # launches of one log: from one seed they begin alike
        return False
    keys = [key for key in _COMPARED if key in a.metrics.columns and key in b.metrics.columns]
    if len(keys) < _SURE:
        return False
    if a.metrics["step"][-1] < b.metrics["step"][0] or b.metrics["step"][-1] < a.metrics["step"][0]:
        return False
    both = a.metrics.select("step", *keys).join(b.metrics.select("step", *keys), on="step", suffix="_b")
    if both.height < max(_LEAST_ROWS, 0.8 * min(a.steps, b.steps)):
        return False
    return _agreeing(both, keys) >= _SURE


def _agreeing(both: pl.DataFrame, keys: Sequence[str]) -> int:
    """How many columns say the same in every row and more than one thing; 0 where one disagrees."""
    sure = 0
    for key in keys:
        left, right = (both[name].to_numpy().astype(np.float64) for name in (key, f"{key}_b"))
        there = np.isfinite(left) & np.isfinite(right)
        if there.sum() < _LEAST_ROWS:
            continue
        left, right = left[there], right[there]
        if not (np.abs(left - right) <= _TOLERANCE * np.maximum(np.abs(left), np.abs(right)) + 1e-6).all():
            return 0
        sure += len(np.unique(left)) > 2
    return sure
