"""What each framework calls its metrics: foreign key -> ours. `docs/metrics.md` is written from these tables.

A dialect is told by keys that only it writes. The carrier (JSONL, event file, W&B, …) is another matter: one dialect comes in many.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from markovlm.logs.records import Training
from markovlm.logs.schema import COMPONENT, COMPONENT_STD, METRICS

MAX_COMPONENTS = 40  # reward functions of one run; a hostile log may name millions


@dataclass(frozen=True)
class Dialect:
    """One framework's names. `keys` is ours -> theirs, the first that a row has; `patterns` have one group, a component's name
    (or none: then the prefix is the whole key)."""

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
            if found is not None and not found.groups():
                return prefix
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
    step=("step", "global_step/max_steps", "global_step", "train/global_step", "current_steps"),
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
VERL = Dialect(
    name="verl",
    told_by=(
        r"actor/.+",
        r"critic/.+",
        r"response_length/.+",
        r"prompt_length/.+",
        r"val-(core|aux)/.+",
        r"val/test_score/.+",
        r"timing_s/.+",
        r"training/(global_step|rollout_.+)",
        r"rollout_corr/.+",
        r"global_seqlen/.+",
        r"perf/.+",
    ),
    step=("step", "training/global_step", "global_step"),
    keys={
        "loss_policy": ("actor/pg_loss",),
        "reward_mean": ("critic/score/mean", "critic/rewards/mean"),
        "reward_min": ("critic/score/min",),
        "reward_max": ("critic/score/max",),
        "kl": ("actor/kl_loss", "actor/reward_kl_penalty"),
        "entropy": ("actor/entropy", "actor/entropy_loss"),
        "cot_length": ("response_length/mean",),
        "cot_length_min": ("response_length/min",),
        "cot_length_max": ("response_length/max",),
        "cot_length_saturated_fraction": ("response_length/clip_ratio",),
        "ratio_clipped_fraction": ("actor/pg_clipfrac",),
        "ratio_clipped_low_fraction": ("actor/pg_clipfrac_lower",),
        "behavior_kl": ("actor/ppo_kl",),
        "loss_value": ("critic/vf_loss",),
        "grad_norm": ("actor/grad_norm",),
        "lr": ("actor/lr",),
        "kl_weight": ("actor/kl_coef", "actor/reward_kl_penalty_coeff"),
        "sampler_prob_gap": ("training/rollout_probs_diff_mean",),
        "sampler_kl": ("rollout_corr/k3_kl", "rollout_corr/kl", "mismatch/mismatch_k3_kl", "mismatch/mismatch_kl"),
    },
    patterns=((r"(?:val-core|val/test_score)/(?:(?!/std@).)+", "eval_accuracy"),),
    notes={
        "kl": "actor/kl_loss: KL to the reference by kl_loss_type (low_var_kl is k3), averaged as loss_agg_mode says, without its "
        "weight; only where use_kl_loss is on, and on the mini-batches of the update, so not 0 in the first step",
        "entropy": "mean over response tokens, nats (older versions log it as actor/entropy_loss)",
        "reward_mean": "critic/score/mean: sum of a response's token scores before the KL penalty (critic/rewards/mean is after it)",
        "behavior_kl": "actor/ppo_kl: mean of ln pi_old - ln pi_new, the k1 estimate of drift since sampling, not the KL to the reference",
        "cot_length_saturated_fraction": "response_length/clip_ratio: responses as long as the longest allowed; nothing to do with PPO's clip",
        "ratio_clipped_fraction": "actor/pg_clipfrac: tokens where the clipped term is the larger loss",
        "sampler_prob_gap": "mean |pi_sampler - pi_trainer| of the sampled tokens: probabilities, not nats; healthy below 0.005 by verl's FAQ",
        "reward_std": "not logged by verl",
    },
    sources=(
        "https://verl.readthedocs.io/en/latest/faq/faq.html",
        "https://github.com/volcengine/verl/blob/main/verl/trainer/ppo/metric_utils.py",
    ),
)
OPENRLHF = Dialect(
    name="OpenRLHF",
    told_by=(
        r"policy_loss",
        r"actor_lr",
        r"critic_lr",
        r"critic_loss",
        r"response_length",
        r"total_length",
        r"(v?llm|ppo)_kl",
        r"return",
        r"(ppo|policy|actor)_clip_ratio",
        r"dynamic_filtering_pass_rate",
        r"truncat(ed|ion)(_rate)?",
        r"generate_length",
    ),
    step=("step", "global_step", "train/global_step", "global_steps"),
    keys={
        "loss_policy": ("policy_loss", "act_loss", "actor_loss"),
        "reward_mean": ("reward", "rewards"),
        "reward_std": ("group_reward_stds", "reward_std"),
        "kl": ("kl",),
        "behavior_kl": ("ppo_kl",),
        "entropy": ("entropy", "entropy_loss"),
        "cot_length": ("response_length", "generate_length"),
        "cot_length_saturated_fraction": ("truncated", "truncated_rate"),
        "ratio_clipped_fraction": ("ppo_clip_ratio", "policy_clip_ratio", "actor_clip_ratio", "clip_ratio"),
        "sampler_kl": ("vllm_kl",),
        "loss_value": ("critic_loss",),
        "grad_norm": ("actor_grad_norm", "grad_norm"),
        "lr": ("actor_lr",),
        "kl_weight": ("kl_coef",),
    },
    notes={
        "kl": "mean per response token of the estimator chosen by kl_estimator (k1 by default: can be below 0), nats",
        "reward_mean": "the reward model's or function's score, mean over samples, before the KL penalty (`return` is after it)",
        "ratio_clipped_fraction": "tokens whose clipped surrogate is the smaller one",
        "sampler_kl": "k1 estimate of the divergence of vLLM's from the trainer's policy, nats per token",
    },
    sources=("https://github.com/OpenRLHF/OpenRLHF/blob/main/openrlhf/trainer/ppo_utils/loggers.py",),
)
TINKER = Dialect(
    name="tinker-cookbook",
    told_by=(r"(test/)?env/.+", r"optim/.+", r"progress/.+", r"kl_policy_base", r"time/.+"),
    step=("step", "progress/batch"),
    keys={
        "loss": ("train_mean_nll", "optim/loss"),
        "reward_mean": ("env/all/reward/total",),
        "accuracy": ("env/all/correct",),
        "kl": ("kl_policy_base",),
        "entropy": ("optim/entropy",),
        "cot_length": ("env/all/ac_tokens_per_turn",),
        "sampler_kl": ("optim/kl_sample_train_v2", "optim/kl_sample_train_v1"),
        "grad_norm": ("optim/grad_norm", "grad_norm:mean"),
        "lr": ("optim/lr",),
        "eval_reward": ("test/env/all/reward/total",),
        "eval_accuracy": ("test/env/all/correct",),
        "groups_solved": ("env/all/by_group/frac_all_good",),
        "groups_hopeless": ("env/all/by_group/frac_all_bad",),
    },
    patterns=((r"env/all/reward/(?!total$)(.+)", COMPONENT), (r"env/all/(format)", COMPONENT)),
    notes={
        "entropy": "-mean ln pi of the *sampled* tokens under the sampler: a one-sample estimate of the entropy, nats",
        "sampler_kl": "v2: half the mean squared difference of log-probs between sampler and trainer, never below 0 "
        "(v1, their signed mean, is taken where v2 is missing: there opposite errors cancel)",
        "kl": "kl_policy_base: only where a KL penalty is on",
        "groups_without_spread": "computed: frac_all_good + frac_all_bad",
    },
    sources=("https://github.com/thinking-machines-lab/tinker-cookbook/blob/main/tinker_cookbook/rl/metrics.py",),
)
LLAMA_FACTORY = Dialect(
    name="LLaMA-Factory",
    told_by=(r"current_steps", r"total_steps"),
    step=("current_steps", "step"),
    keys={
        "loss": ("loss",),
        "reward_mean": ("reward",),
        "accuracy": ("accuracy",),
        "lr": ("lr", "learning_rate"),
        "eval_loss": ("eval_loss",),
    },
    notes={
        "reward_mean": "PPO: mean score of the reward model. In DPO logs `reward` is not written and `accuracy` is that of the preferences",
    },
    sources=("https://github.com/hiyouga/LLaMA-Factory/blob/main/src/llamafactory/train/callbacks.py",),
)
OURS = Dialect(
    name="markovlm",
    told_by=(r"reward_mean", r"answer_logprob", r"normalized_reward_mean", r"cot_length(_.+)?", r"groups_without_spread"),
    keys={metric.key: (metric.key,) for metric in METRICS if metric.key != "step"},
    patterns=((r"reward/(.+)", COMPONENT), (r"reward_std/(.+)", COMPONENT_STD)),
)
DIALECTS: tuple[Dialect, ...] = (TRL, VERL, OPENRLHF, TINKER, LLAMA_FACTORY, OURS)
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
        solved, hopeless = out.pop("groups_solved", None), out.pop("groups_hopeless", None)
        if solved is not None and hopeless is not None:
            out["groups_without_spread"] = solved + hopeless
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
