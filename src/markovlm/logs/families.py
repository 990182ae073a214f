"""Metric names of no framework: home-made loops call the reward `mean_reward`, `reward/mean` or `avg_score`.

A key is cut into words (`train/mean_reward` -> mean, reward), words that say nothing about the quantity are dropped, and what is left
is looked up. Only used if the log's framework has no name of its own for the reward.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from markovlm.logs.schema import COMPONENT, EVAL_ACCURACY, EVAL_REWARD

_WORD = re.compile(r"[a-z]+(?:@\d+)?|\d+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_EMPTY = frozenset({
    "train", "training", "trainer", "rollout", "rollouts", "env", "environment", "all", "metrics", "metric", "stats", "batch", "global",
    "step", "critic", "actor", "policy", "model", "mean", "avg", "average", "per", "token", "tokenwise", "total", "raw", "overall", "agg",
    "aggregate", "value", "rl", "grpo", "ppo",
})  # fmt: skip
_HELD_OUT = frozenset({
    "eval", "evaluation", "test", "val", "valid", "validation", "heldout", "holdout", "dev",
})  # fmt: skip
_SPREAD = {"std": "reward_std", "min": "reward_min", "max": "reward_max"}
_REWARD = frozenset({"reward", "rewards", "score", "scores", "return", "returns"})
_LENGTHS = frozenset({
    "response", "responses", "completion", "completions", "output", "outputs", "gen", "generation", "generated", "cot", "sequence", "seq",
    "sample",
})  # fmt: skip
_NAMES: dict[frozenset[str], str] = {
    frozenset(words.split()): ours
    for ours, names in {
        "kl": ("kl", "kl div", "kl divergence", "kl loss", "ref kl", "kl ref", "reference kl", "kl reference", "kldiv"),
        "behavior_kl": ("approx kl", "approxkl", "old kl", "kl old", "behavior kl", "behaviour kl"),
        "entropy": ("entropy", "mean entropy", "entropies"),
        "grad_norm": ("grad norm", "gradient norm", "gradnorm", "norm grad"),
        "lr": ("lr", "learning rate"),
        "loss": ("loss",),
        "loss_policy": ("pg loss", "policygradient loss", "surrogate loss"),
        "ratio_clipped_fraction": ("clip frac", "clipfrac", "clip fraction", "clip ratio", "pg clipfrac", "clipped fraction"),
        "cot_length_saturated_fraction": ("truncated", "truncation", "truncated ratio", "truncation ratio", "truncated rate", "truncation rate",
                                          "truncated frac", "truncated fraction", "truncation fraction", "length clipped ratio"),
        "groups_without_spread": ("frac zero std", "zero std frac", "zero std fraction", "frac reward zero std", "zero advantage frac"),
        "accuracy": ("accuracy", "acc", "correct", "success", "success rate", "solve rate", "solved", "win rate", "pass rate", "pass",
                     "exact match", "correctness", "fraction correct", "frac correct"),
        "sampler_gap": ("logprob diff", "logp diff", "rollout logprob abs diff", "logprob abs diff"),
        "step_seconds": ("time", "step time", "seconds", "time s"),
    }.items()
    for words in names
}  # fmt: skip


def words(key: str) -> list[str]:
    """`Train/meanReward@1` -> train, mean, reward@1."""
    return _WORD.findall(_CAMEL.sub(" ", key).lower().replace("-", " "))


def family(key: str) -> str | None:
    """Our name for what a key of no known framework seems to mean; None if it seems to mean nothing of ours.

    >>> [family(key) for key in ("mean_reward", "reward/mean", "std_reward", "kl_div", "reward/pass@1", "format_reward", "num_tokens")]
    ['reward_mean', 'reward_mean', 'reward_std', 'kl', 'accuracy', 'reward/format', None]
    """
    found = words(key)
    held_out = bool(found) and any(word in _HELD_OUT for word in found[:2])
    left = [word for word in found if word not in _EMPTY and word not in _HELD_OUT]
    ours = _quantity(left, found)
    if not held_out or ours is None:
        return ours
    if ours.startswith(COMPONENT):
        return EVAL_REWARD + ours.removeprefix(COMPONENT)
    if ours.startswith(EVAL_ACCURACY):
        return ours
    return {"reward_mean": "eval_reward", "accuracy": "eval_accuracy", "loss": "eval_loss"}.get(ours)


def _quantity(left: list[str], found: list[str]) -> str | None:
    rest = frozenset(left)
    if any(word.startswith(("pass@1", "avg@", "mean@")) or word == "acc" for word in left) and not rest & {"std", "min", "max"}:
        return "accuracy"
    spread = next((name for word, name in _SPREAD.items() if word in rest), None)
    if rest & _REWARD:
        others = [word for word in left if word not in _REWARD and word not in _SPREAD]
        if not others:
            return spread or "reward_mean"
        if spread is None and len(others) <= 4 and not any(word.isdigit() for word in others):
            if set(others) <= {"episode", "task", "outcome", "train", "verifier"}:
                return "reward_mean"
            return COMPONENT + "_".join(others)
        return None
    if rest & _LENGTHS and rest - _LENGTHS <= {"length", "lengths", "len", "tokens"} and rest - _LENGTHS and spread is None:
        return "cot_length"
    return _NAMES.get(rest) if spread is None or "std" in rest else None


REWARDING = ("reward", "score", "return", "acc", "correct", "success", "pass", "solve")


def likely_reward(keys: Iterable[str]) -> str | None:
    """The key among those of a log that is most likely its reward, to be named with `--map`; None if none looks like one."""
    hits = [
        key for key in keys if any(word.startswith(REWARDING) for word in words(key)) and not set(words(key)) & _SPREAD.keys()
    ]
    return min(hits, key=lambda key: (any(w in _HELD_OUT for w in words(key)), len(key)), default=None)


def how_to_name(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Of rows of numbers under names that nobody knows: the `--map` options that would read them; None if the rows are something else.

    >>> how_to_name([{"update": n, "solved_frac": 0.1 * n} for n in range(1, 4)])
    'no column is a known metric (columns: solved_frac, update); name them: --map reward=solved_frac --map step=update'
    """
    numbers = [
        {key: value for key, value in row.items() if isinstance(value, (int, float)) and not isinstance(value, bool)}
        for row in rows
    ]
    if len(rows) < 2 or any(len(kept) < 2 or 2 * len(kept) < len(row) for kept, row in zip(numbers, rows, strict=True)):
        return None
    common = sorted(set(numbers[0]).intersection(*numbers))
    counts = [key for key in common if all(isinstance(row[key], int) for row in numbers)]
    steps = [key for key in counts if all(a[key] < b[key] for a, b in pairwise(numbers))]
    here = ", ".join(key[:40] for key in common[:12])
    step = f" --map step={min(steps, key=len)}" if steps else ""
    return f"no column is a known metric (columns: {here}); name them: --map reward={likely_reward(common) or 'COLUMN'}{step}"
