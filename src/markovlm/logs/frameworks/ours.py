"""markovlm's own names."""

from __future__ import annotations

from markovlm.logs.frameworks.base import Framework
from markovlm.logs.schema import COMPONENT, COMPONENT_STD, METRICS

OURS = Framework(
    name="markovlm",
    told_by=(r"reward_mean", r"answer_logprob", r"normalized_reward_mean", r"cot_length(_.+)?", r"groups_without_spread"),
    keys={metric.key: (metric.key,) for metric in METRICS if metric.key != "step"},
    patterns=((r"reward/(.+)", COMPONENT), (r"reward_std/(.+)", COMPONENT_STD)),
    settings={
        "training.lr": ("training.lr",), "training.max_grad_norm": ("training.max_grad_norm",), "training.eval_every": ("training.eval_every",),
        "objective.kl_weight": ("objective.kl_weight",), "objective.entropy_weight": ("objective.entropy_weight",),
        "rollouts.group_size": ("rollouts.group_size",), "rollouts.max_cot_tokens": ("rollouts.max_cot_tokens",),
        "rollouts.temperature": ("rollouts.temperature",),
    },
    knobs={
        "exploration": "raise objective.entropy_weight or rollouts.temperature",
        "sampler": "set rollouts.importance, or rollouts.backend: hf (exact)",
        "filter": "use other data, or a finer-grained reward (objective.reward: logprob)",
        "dtype": "set loading.dtype to bfloat16 or float32",
    },
)  # fmt: skip
