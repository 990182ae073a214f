"""OpenRLHF."""

from __future__ import annotations

from markovlm.logs.frameworks.base import Framework
from markovlm.logs.schema import EVAL_ACCURACY

OPENRLHF = Framework(
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
        "reward_std": ("group_reward_stds", "group_reward_std", "reward_std"),
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
        "step_seconds": ("timing/step",),
    },
    patterns=((r"eval_(.+)_pass1", EVAL_ACCURACY),),
    settings={
        "training.lr": ("actor_learning_rate",),
        "training.max_grad_norm": ("max_norm",),
        "training.eval_every": ("eval_steps",),
        "objective.kl_weight": ("init_kl_coef",),
        "objective.entropy_weight": ("entropy_loss_coef",),
        "rollouts.group_size": ("n_samples_per_prompt",),
        "rollouts.max_cot_tokens": ("generate_max_len",),
        "rollouts.temperature": ("temperature",),
        "model": ("pretrain",),
        "clip_high": ("eps_clip_low_high",),
    },
    flag="--",
    knobs={
        "truncated": "charge for length before the limit in the reward function",
        "exploration": "set --eps_clip_low_high 0.2 0.3",
        "sampler": "set --enable_vllm_is_correction, and the same temperature, top_p and dtype on both sides",
        "filter": "set --dynamic_filtering",
        "dtype": "set --bf16",
        "passes": "lower --max_epochs, or raise --train_batch_size, so that fewer updates are made of one batch",
    },
    notes={
        "kl": "mean per response token of the estimator chosen by kl_estimator (k1 by default: can be below 0), nats",
        "reward_mean": "the reward model's or function's score, mean over samples, before the KL penalty (`return` is after it)",
        "ratio_clipped_fraction": "tokens whose clipped surrogate is the smaller one",
        "sampler_kl": "k1 estimate of the divergence of vLLM's from the trainer's policy, nats per token",
    },
    sources=("https://github.com/OpenRLHF/OpenRLHF/blob/main/openrlhf/trainer/ppo_utils/loggers.py",),
)
