"""NeMo RL, prime-rl, slime, SkyRL, LLaMA-Factory: names read in their code, no log of each at hand."""

from __future__ import annotations

from markovlm.logs.frameworks.base import Framework
from markovlm.logs.schema import COMPONENT, EVAL_ACCURACY, EVAL_REWARD, SOURCE

NEMO_RL = Framework(
    name="NeMo RL",
    told_by=(
        r"token_mult_prob_error", r"gen_kl_error", r"probs_ratio(_clamped)?(_m..)?", r"approx_entropy", r"sampling_importance_ratio",
        r"(mean|max|min)_gen_tokens_per_sample", r"natural_termination_rate", r"validation/.+", r"baseline_reward/.+",
    ),
    keys={
        "loss": ("loss",),
        "reward_mean": ("reward", "mean_total_reward"),
        "kl": ("kl_penalty",),
        "entropy": ("approx_entropy",),
        "cot_length": ("mean_gen_tokens_per_sample",),
        "cot_length_saturated_fraction": ("truncation_rate",),
        "ratio_mean": ("probs_ratio",),
        "ratio_max": ("probs_ratio_max",),
        "sampler_kl": ("gen_kl_error",),
        "sampler_ratio_mean": ("sampling_importance_ratio",),
        "grad_norm": ("grad_norm",),
        "lr": ("lr",),
        "step_seconds": ("timing/train/total_step_time",),
        "eval_accuracy": ("validation/accuracy",),
        "eval_reward": ("validation/reward",),
    },
    patterns=(
        (r"validation/([^/]+)/accuracy", EVAL_ACCURACY),
        (r"validation-([^/]+)/accuracy", EVAL_ACCURACY),
        (r"(?!timing|validation|baseline)([^/]+)/reward(?:/mean)?", SOURCE),
        (r"(?!timing|validation|baseline|advantages)([^/]+/[^/]+)/mean", COMPONENT),
    ),
    settings={
        "training.lr": ("policy.optimizer.kwargs.lr",),
        "training.max_grad_norm": ("policy.max_grad_norm",),
        "training.eval_every": ("grpo.val_period",),
        "objective.kl_weight": ("loss_fn.reference_policy_kl_penalty",),
        "rollouts.group_size": ("grpo.num_generations_per_prompt",),
        "rollouts.max_cot_tokens": ("policy.generation.max_new_tokens",),
        "rollouts.temperature": ("policy.generation.temperature",),
        "clip_high": ("loss_fn.ratio_clip_max",),
        "model": ("policy.model_name",),
        "seed": ("grpo.seed",),
    },
    knobs={
        "truncated": "set grpo.overlong_filtering=true, or penalise length before the limit (grpo.reward_shaping)",
        "exploration": "raise loss_fn.ratio_clip_max (0.28)",
        "sampler": "set loss_fn.use_importance_sampling_correction=true, and the same temperature, top_p and precision on both sides",
        "filter": "set grpo.use_dynamic_sampling=true",
        "dtype": "set policy.precision to bfloat16",
    },
    notes={
        "kl": "kl_penalty: the KL term before its weight, k3 by default",
        "sampler_kl": "gen_kl_error: KL of the generation engine to the trainer, k3",
    },
    sources=("https://github.com/NVIDIA-NeMo/RL/blob/main/nemo_rl/algorithms/loss/loss_functions.py",),
)  # fmt: skip
PRIME_RL = Framework(
    name="prime-rl",
    told_by=(r"(mismatch_kl|entropy|masked_mismatch_kl|is_truncated)/.+/(mean|std|max)", r"kl_ent_ratio/mean",
        r"optim/(lr|grad_norm)", r"dispatcher/.+"),
    step=("step", "progress/step"),
    keys={
        "loss": ("loss/mean",),
        "reward_mean": ("reward/all/mean", "reward/mean"),
        "entropy": ("entropy/all/mean", "entropy/mean"),
        "cot_length": ("seq_len/all/mean", "completion_len/all/mean"),
        "cot_length_saturated_fraction": ("is_truncated/all/mean", "is_truncated/mean"),
        "sampler_kl": ("mismatch_kl/all/mean", "mismatch_kl/mean"),
        "grad_norm": ("optim/grad_norm",),
        "lr": ("optim/lr",),
        "step_seconds": ("time/step",),
        "groups_all_right": ("solve_all/all", "generation/solve_all/rate", "batch/solve_all"),
        "groups_all_wrong": ("solve_none/all", "generation/solve_none/rate", "batch/solve_none"),
    },
    patterns=((r"reward/(?!all/)([^/]+)/mean", SOURCE), (r"eval_(.+?)/avg@\d+", EVAL_REWARD), (r"eval/(.+?)/avg@\d+", EVAL_REWARD)),
    settings={
        "training.lr": ("trainer.optim.lr",), "training.max_grad_norm": ("trainer.optim.max_norm",),
        "training.eval_every": ("orchestrator.eval.interval",),
        "rollouts.group_size": ("orchestrator.rollouts_per_example",), "rollouts.max_cot_tokens": ("orchestrator.sampling.max_tokens",),
        "rollouts.temperature": ("orchestrator.sampling.temperature",),
    },
    sources=("https://github.com/PrimeIntellect-ai/prime-rl/blob/main/src/prime_rl/trainer/rl/train.py",),
)  # fmt: skip
SLIME = Framework(
    name="slime",
    told_by=(r"rollout/.+", r"(train/)?train_rollout_logprob_abs_diff", r"(train/)?lr-pg_\d+", r"raw_reward", r"response_lengths"),
    step=("rollout/step", "train/step", "eval/step", "step"),
    keys={
        "loss": ("train/loss",),
        "loss_policy": ("train/pg_loss", "pg_loss"),
        "reward_mean": ("rollout/raw_reward", "raw_reward"),
        "kl": ("train/kl_loss", "kl_loss"),
        "behavior_kl": ("train/ppo_kl", "ppo_kl"),
        "entropy": ("train/entropy_loss", "rollout/entropy", "entropy_loss"),
        "cot_length": ("rollout/response_lengths", "rollout/response_len/mean", "response_lengths"),
        "cot_length_saturated_fraction": ("rollout/truncated_ratio", "rollout/truncated"),
        "ratio_clipped_fraction": ("train/pg_clipfrac", "pg_clipfrac"),
        "sampler_gap": ("train/train_rollout_logprob_abs_diff", "train_rollout_logprob_abs_diff"),
        "grad_norm": ("train/grad_norm", "grad_norm"),
        "lr": ("train/lr-pg_0", "lr-pg_0"),
        "step_seconds": ("perf/step_time",),
    },
    patterns=((r"eval(?:/|_)([^/]+)", EVAL_REWARD),),
    settings={
        "training.lr": ("lr",), "training.max_grad_norm": ("clip-grad",), "training.eval_every": ("eval-interval",),
        "objective.kl_weight": ("kl-loss-coef",), "objective.entropy_weight": ("entropy-coef",), "rollouts.group_size": ("n-samples-per-prompt",),
        "rollouts.max_cot_tokens": ("rollout-max-response-len",), "rollouts.temperature": ("rollout-temperature",), "clip_high": ("eps-clip-high",),
    },
    flag="--",
    knobs={
        "exploration": "raise --eps-clip-high (0.28)",
        "sampler": "set --use-tis, and the same temperature, top_p and dtype on both sides",
        "filter": "set --dynamic-sampling-filter-path to a filter of groups without spread",
    },
    sources=("https://github.com/THUDM/slime/blob/main/slime/observability/rollout_metrics.py",),
)  # fmt: skip
SKYRL = Framework(
    name="SkyRL",
    told_by=(r"reward/avg_raw_reward", r"reward/avg_pass_at_\d+", r"reward/mean_positive_reward", r"policy_(kl|entropy|lr)",
        r"generate/.+", r"eval_[^/]+/avg_score"),
    step=("step", "trainer/global_step", "global_step"),
    keys={
        "loss_policy": ("policy_loss", "policy/policy_loss"),
        "reward_mean": ("reward/avg_raw_reward",),
        "accuracy": ("reward/avg_pass_at_1",),
        "kl": ("policy_kl", "policy/policy_kl"),
        "entropy": ("policy_entropy", "policy/policy_entropy"),
        "cot_length": ("generate/avg_num_tokens", "response_length"),
        "ratio_clipped_fraction": ("ppo_clip_ratio", "policy/ppo_clip_ratio"),
        "grad_norm": ("grad_norm", "policy/grad_norm", "raw_grad_norm", "policy/raw_grad_norm"),
        "lr": ("policy_lr", "policy/policy_lr"),
        "step_seconds": ("timing/step",),
    },
    patterns=((r"eval_(.+)/avg_score", EVAL_REWARD), (r"eval/(.+)/avg_score", EVAL_REWARD)),
    settings={
        "training.lr": ("trainer.policy.optimizer_config.lr",), "training.max_grad_norm": ("trainer.policy.optimizer_config.max_grad_norm",),
        "training.eval_every": ("trainer.eval_interval",), "objective.kl_weight": ("trainer.algorithm.kl_loss_coef",),
        "rollouts.group_size": ("generator.n_samples_per_prompt",), "rollouts.max_cot_tokens": ("generator.sampling_params.max_generate_length",),
        "rollouts.temperature": ("generator.sampling_params.temperature",), "clip_high": ("trainer.algorithm.eps_clip_high",),
    },
    sources=("https://github.com/NovaSky-AI/SkyRL/blob/main/skyrl/train/trainer.py",),
)  # fmt: skip
LLAMA_FACTORY = Framework(
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
    settings={
        "training.lr": ("learning_rate",), "training.max_grad_norm": ("max_grad_norm",), "training.eval_every": ("eval_steps",),
         "rollouts.max_cot_tokens": ("max_new_tokens",),
    },
    notes={
        "reward_mean": "PPO: mean score of the reward model. In DPO logs `reward` is not written and `accuracy` is that of the preferences",
    },
    sources=("https://github.com/hiyouga/LLaMA-Factory/blob/main/src/llamafactory/train/callbacks.py",),
)  # fmt: skip
