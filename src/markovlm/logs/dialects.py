"""What each framework calls its metrics: foreign key -> ours. `docs/metrics.md` is written from these tables.

A dialect is told by keys that only it writes. The carrier (JSONL, event file, W&B, …) is another matter: one dialect comes in many.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from markovlm.logs.records import Training
from markovlm.logs.schema import COMPONENT, COMPONENT_STD

MAX_COMPONENTS = 40  # reward functions of one run; a hostile log may name millions


@dataclass(frozen=True)
class Dialect:
    """One framework's names. `keys` is ours -> theirs, the first that a row has; `patterns` have one group, a component's name."""

    name: str
    keys: Mapping[str, tuple[str, ...]]
    told_by: tuple[str, ...]  # regular expressions; a log with keys that match any of them is of this dialect
    patterns: tuple[tuple[str, str], ...] = ()  # (regular expression of their key, our prefix)
    step: tuple[str, ...] = ("step",)
    notes: Mapping[str, str] = field(default_factory=dict)  # ours -> what this framework means by it
    sources: tuple[str, ...] = ()  # where its makers say so

    @cached_property
    def _told(self) -> re.Pattern[str]:
        return re.compile("|".join(f"(?:{pattern})" for pattern in self.told_by))

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], str]]:
        return [(re.compile(pattern), prefix) for pattern, prefix in self.patterns]

    def score(self, keys: Iterable[str]) -> int:
        """How many of a log's keys only this dialect has."""
        return sum(self._told.fullmatch(key) is not None for key in keys)

    def component(self, key: str) -> str | None:
        """Our name of a reward component, or None."""
        for pattern, prefix in self._patterns:
            found = pattern.fullmatch(key)
            if found is not None and 0 < len(found[1]) <= 80:
                return prefix + found[1]
        return None


_SAMPLER = {
    "sampler_gap": ("sampling/sampling_logp_difference/mean",),
    "sampler_gap_max": ("sampling/sampling_logp_difference/max",),
    "sampler_ratio_min": ("sampling/importance_sampling_ratio/min",),
    "sampler_ratio_mean": ("sampling/importance_sampling_ratio/mean",),
    "sampler_ratio_max": ("sampling/importance_sampling_ratio/max",),
}
TRL = Dialect(
    name="TRL",
    told_by=(
        r"reward_std",
        r"completions/.+",
        r"completion_length",
        r"frac_reward_zero_std",
        r"rewards/[^/]+(/mean|/std)?",
        r"sampling/.+",
        r"clip_ratio(/.+)?",
        r"objective/.+",
        r"policy/.+",
        r"rewards/(chosen|rejected|margins|accuracies)",
    ),
    keys={
        "loss": ("loss", "loss/policy_avg"),
        "reward_mean": ("reward", "objective/scores", "env/reward_mean"),
        "reward_std": ("reward_std", "env/reward_std"),
        "groups_without_spread": ("frac_reward_zero_std",),
        "kl": ("kl",),
        "entropy": ("entropy", "policy/entropy_avg"),
        "cot_length": ("completions/mean_length", "completion_length"),
        "cot_length_min": ("completions/min_length",),
        "cot_length_max": ("completions/max_length",),
        "cot_length_terminated": ("completions/mean_terminated_length",),
        "cot_length_saturated_fraction": ("completions/clipped_ratio",),
        "ratio_clipped_fraction": ("clip_ratio/region_mean", "clip_ratio", "policy/clipfrac_avg", "cispo_clip_ratio"),
        "ratio_clipped_low_fraction": ("clip_ratio/low_mean",),
        "ratio_clipped_high_fraction": ("clip_ratio/high_mean",),
        "ratio_mean": ("val/ratio",),
        "behavior_kl": ("policy/approxkl_avg",),
        "loss_value": ("loss/value_avg",),
        "grad_norm": ("grad_norm",),
        "lr": ("learning_rate", "lr"),
        "accuracy": ("rewards/accuracies",),
        "token_accuracy": ("mean_token_accuracy",),
        "eval_loss": ("eval_loss",),
        "eval_reward": ("eval_reward",),
        "eval_accuracy": ("eval_accuracy", "eval_rewards/accuracies"),
        **_SAMPLER,
    },
    patterns=(
        (r"rewards/(.+)/std", COMPONENT_STD),
        (r"rewards/(?!(?:chosen|rejected|margins|accuracies)$)([^/]+(?:/[^/]+)*?)(?:/mean)?", COMPONENT),
    ),
    notes={
        "kl": "mean over completion tokens of the k3 estimate of KL(policy || reference), nats per token; logged where beta is not 0",
        "entropy": "mean over completion tokens of the entropy of the next token at the sampling temperature, nats",
        "reward_mean": "weighted sum of the reward functions, mean over completions, before any KL term",
        "reward_std": "std within groups (scale_rewards: group) or of the whole batch, by version and scale_rewards",
        "groups_without_spread": "share of prompts whose completions all have the same reward",
        "ratio_clipped_fraction": "share of tokens whose ratio is clipped on the side that matters for the sign of the advantage",
        "cot_length_saturated_fraction": "share of completions without an end-of-sequence token",
        "sampler_gap": "mean |ln pi_sampler - ln pi_trainer| of the sampled tokens, nats",
    },
    sources=("https://huggingface.co/docs/trl/v0.22.2/logging", "https://huggingface.co/docs/trl/grpo_trainer"),
)
DIALECTS: tuple[Dialect, ...] = (TRL,)
PREFIXES = ("train/", "global/", "training/")  # of trackers; the Hugging Face Trainer writes `train/reward` for `reward`
_PREFERENCE = ("rewards/chosen", "rewards/margins", "logps/chosen", "rewards/accuracies")
_REWARDED = ("reward_mean", "normalized_reward_mean", "reward_std", "groups_without_spread", "answer_logprob", "accuracy")


def plain_key(key: str) -> str:
    """A tracker's key without the prefix that the tracker, not the framework, has given it."""
    if key.startswith("eval/"):
        return "eval_" + key[5:]
    for prefix in PREFIXES:
        if key.startswith(prefix):
            return key[len(prefix) :]
    return key


class Translator:
    """Rows of one log into our keys. The dialect is settled by the keys of the first rows and may be settled again."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.preference = False
        self._ours: dict[str, tuple[str, int] | None] = {}  # their key -> (ours, rank), None where it says nothing to us
        self._components = 0

    def place(self, key: str) -> tuple[str, int] | None:
        """(our key, rank among the keys that mean the same; the lowest counts)."""
        if key in self._ours:
            return self._ours[key]
        found = self._find(key)
        if len(self._ours) < 10_000:
            self._ours[key] = found
        return found

    def _find(self, key: str) -> tuple[str, int] | None:
        for name in dict.fromkeys((key, plain_key(key))):
            for ours, theirs in self.dialect.keys.items():
                if name in theirs:
                    return ours, theirs.index(name)
            component = self.dialect.component(name)
            if component is not None and self._components < MAX_COMPONENTS:
                self._components += 1
                return component, 0
        return None

    def row(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """One row under our keys; what has no place is left out."""
        out: dict[str, float] = {}
        ranks: dict[str, int] = {}
        for key, value in numbers.items():
            place = self.place(key)
            if place is not None and place[1] <= ranks.get(place[0], 99):
                out[place[0]], ranks[place[0]] = value, place[1]
        return out


def dialect_of(keys: Iterable[str]) -> Dialect:
    """The dialect that most of a log's keys speak; TRL's where nothing tells (it has the Hugging Face Trainer's)."""
    names = {plain_key(key) for key in keys} | set(keys)
    return max(DIALECTS, key=lambda dialect: dialect.score(names))


def training_of(keys: Iterable[str], columns: Iterable[str]) -> Training:
    """What kind of training the keys show."""
    if any(plain_key(key) in _PREFERENCE for key in keys):
        return "preference"
    have = set(columns)
    if have & set(_REWARDED) or any(key.startswith(COMPONENT) for key in have):
        return "reinforcement"
    return "supervised" if have & {"loss", "eval_loss", "token_accuracy"} else "unknown"
