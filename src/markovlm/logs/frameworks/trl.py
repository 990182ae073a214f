"""TRL, and what is built on the Hugging Face Trainer."""

from __future__ import annotations

from dataclasses import replace

from markovlm.logs.frameworks.base import Framework
from markovlm.logs.schema import COMPONENT, COMPONENT_STD, EVAL_ACCURACY, EVAL_REWARD

_SAMPLER = {
    "sampler_gap": ("sampling/sampling_logp_difference/mean",),
    "sampler_gap_max": ("sampling/sampling_logp_difference/max",),
    "sampler_ratio_min": ("sampling/importance_sampling_ratio/min",),
    "sampler_ratio_mean": ("sampling/importance_sampling_ratio/mean",),
    "sampler_ratio_max": ("sampling/importance_sampling_ratio/max",),
}
_NOT_PARTS = "(?:chosen|rejected|margins|accuracies)"
_RIGHT = r"[^/]*(?:accura|correct|exact_match|pass)[^/]*"
TRL = Framework(
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
        "kl": ("kl", "objective/kl"),
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
        "step_seconds": ("step_time",),
        "eval_loss": ("eval_loss",),
        "eval_reward": ("eval_reward",),
        "eval_accuracy": ("eval_accuracy", "eval_rewards/accuracies"),
        **_SAMPLER,
    },
    patterns=(
        (r"rewards/(.+)/std", COMPONENT_STD),
        (rf"rewards/(?!{_NOT_PARTS}$)([^/]+(?:/[^/]+)*?)(?:/mean)?", COMPONENT),
        (rf"eval_rewards/(?!{_NOT_PARTS}$)({_RIGHT})(?:/mean)?", EVAL_ACCURACY),
        (rf"eval_rewards/(?!{_NOT_PARTS}$)(?!.+/std$)([^/]+(?:/[^/]+)*?)(?:/mean)?", EVAL_REWARD),
    ),
    settings={
        "training.lr": ("learning_rate",),
        "training.steps": ("max_steps",),
        "training.max_grad_norm": ("max_grad_norm",),
        "training.eval_every": ("eval_steps",),
        "objective.kl_weight": ("beta",),
        "objective.entropy_weight": ("entropy_coef",),
        "rollouts.group_size": ("num_generations",),
        "rollouts.max_cot_tokens": ("max_completion_length",),
        "rollouts.temperature": ("temperature",),
        "seed": ("seed",),
        "model": ("model_name_or_path", "_name_or_path"),
        "loss_type": ("loss_type",),
        "scale_rewards": ("scale_rewards",),
        "num_iterations": ("num_iterations",),
        "clip_high": ("epsilon_high",),
    },
    knobs={
        "truncated": "set mask_truncated_completions=True (with beta 0), or penalise length before the limit",
        "exploration": "raise temperature, or epsilon_high (0.28)",
        "entropy": "lower temperature and epsilon_high (entropy_coef, where it is set)",
        "sampler": "set vllm_importance_sampling_correction=True with vllm_importance_sampling_cap, and the same temperature, top_p and dtype on "
        "both sides",
        "filter": "use other data, or a reward with more levels between wrong and right",
        "dtype": "set bf16=True, and keep float32 weights",
        "stop": "check that the training data ends in the tokenizer's eos_token, and that eos_token_id in the generation settings includes it",
        "passes": "lower num_iterations or steps_per_generation, so that fewer updates are made of one batch",
    },
    notes={
        "kl": "mean over completion tokens of the k3 estimate of KL(policy || reference), nats per token; logged where beta is not 0",
        "entropy": "mean over completion tokens of the entropy of the next token at the sampling temperature, nats",
        "reward_mean": "weighted sum of the reward functions, mean over completions, before any KL term",
        "reward_std": "std within groups (scale_rewards: group) or of the whole batch, by version and scale_rewards",
        "groups_without_spread": "share of prompts whose completions all have the same reward",
        "ratio_clipped_fraction": "share of tokens whose ratio is clipped on the side that matters for the sign of the advantage",
        "cot_length_saturated_fraction": "share of completions without an end-of-sequence token",
        "sampler_gap": "mean |ln pi_sampler - ln pi_trainer| of the sampled tokens, nats",
        "sampler_ratio_mean": "of tokens, or of whole completions (vllm_importance_sampling_mode), which spread far more",
    },
    sources=("https://huggingface.co/docs/trl/v0.22.2/logging", "https://huggingface.co/docs/trl/grpo_trainer"),
)
# Recognised by their step column; their rows are TRL's.
TRANSFORMERS = replace(TRL, name="transformers", told_by=(r"(?!)",), notes={}, sources=())
MS_SWIFT = replace(
    TRL, name="ms-swift", told_by=(r"(?!)",), notes={}, sources=(), flag="--",
    knobs={
        "truncated": "set --overlong_filter true, or penalise length before the limit",
        "exploration": "raise --temperature, or --epsilon_high (0.28)",
        "sampler": "set --rollout_importance_sampling_mode, and the same temperature, top_p and dtype on both sides",
        "filter": "set --dynamic_sample true",
        "dtype": "set --torch_dtype bfloat16",
        "passes": "lower --num_iterations, so that fewer updates are made of one batch",
    },
)  # fmt: skip
