"""tinker-cookbook."""

from __future__ import annotations

from markovlm.logs.frameworks.base import Framework
from markovlm.logs.schema import COMPONENT, EVAL_ACCURACY, SOURCE

TINKER = Framework(
    name="tinker-cookbook",
    told_by=(r"(test/)?env/.+", r"optim/kl_sample_train_.+", r"progress/(batch|done_frac)", r"kl_policy_base", r"time/.+"),
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
        "step_seconds": ("time/total",),
        "eval_reward": ("test/env/all/reward/total",),
        "eval_accuracy": ("test/env/all/correct",),
        "groups_all_right": ("env/all/by_group/frac_all_good",),
        "groups_all_wrong": ("env/all/by_group/frac_all_bad",),
    },
    patterns=(
        (r"env/all/reward/(?!total$)(.+)", COMPONENT),
        (r"env/all/(format)", COMPONENT),
        (r"env/(?!all/)([^/]+)/reward/total", SOURCE),
        (r"test/env/(?!all/)([^/]+)/correct", EVAL_ACCURACY),
    ),
    settings={"training.lr": ("learning_rate",), "rollouts.group_size": ("group_size",), "rollouts.max_cot_tokens": ("max_tokens",),
              "objective.kl_weight": ("kl_penalty_coef",), "training.eval_every": ("eval_every",), "rollouts.temperature": ("temperature",),
              "model": ("model_name",)},
    notes={
        "entropy": "-mean ln pi of the *sampled* tokens under the sampler: a one-sample estimate of the entropy, nats",
        "sampler_kl": "v2: half the mean squared difference of log-probs between sampler and trainer, never below 0 "
        "(v1, their signed mean, is taken where v2 is missing: there opposite errors cancel)",
        "kl": "kl_policy_base: only where a KL penalty is on",
        "groups_without_spread": "computed: frac_all_good + frac_all_bad",
    },
    sources=("https://github.com/thinking-machines-lab/tinker-cookbook/blob/main/tinker_cookbook/rl/metrics.py",),
)  # fmt: skip
