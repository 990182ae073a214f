"""verl."""

from __future__ import annotations

from markovlm.logs.frameworks.base import Framework
from markovlm.logs.schema import COMPONENT, EVAL_ACCURACY, EVAL_REWARD, SOURCE

VERL = Framework(
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
        "step_seconds": ("timing_s/step", "perf/time_per_step"),
    },
    patterns=(
        (r"val-core/(.+)/acc/mean@\d+", EVAL_ACCURACY),
        (r"val-core/(.+)/(?:reward|score)/mean@\d+", EVAL_REWARD),
        (r"val-core/([^@]+)/mean@\d+", EVAL_REWARD),
        (r"val/test_score/(.+)", EVAL_ACCURACY),
        (r"critic/reward/(.+)/mean", COMPONENT),
        (r"critic/score/(?!mean$|max$|min$)(.+?)(?:/mean)?", SOURCE),
    ),
    settings={
        "training.lr": ("actor_rollout_ref.actor.optim.lr",),
        "training.max_grad_norm": ("actor_rollout_ref.actor.grad_clip",),
        "training.eval_every": ("trainer.test_freq",),
        "objective.name": ("algorithm.adv_estimator",),
        "objective.kl_weight": ("actor_rollout_ref.actor.kl_loss_coef",),
        "objective.entropy_weight": ("actor_rollout_ref.actor.entropy_coeff",),
        "rollouts.group_size": ("actor_rollout_ref.rollout.n",),
        "rollouts.max_cot_tokens": ("data.max_response_length",),
        "rollouts.temperature": ("actor_rollout_ref.rollout.temperature",),
        "model": ("actor_rollout_ref.model.path",),
        "clip_high": ("actor_rollout_ref.actor.clip_ratio_high",),
    },
    knobs={
        "kl": "set actor_rollout_ref.actor.use_kl_loss=True and double actor_rollout_ref.actor.kl_loss_coef{now}",
        "truncated": "charge for length before the limit: reward_model.overlong_buffer (DAPO)",
        "exploration": "raise actor_rollout_ref.actor.clip_ratio_high (0.28) or actor_rollout_ref.actor.entropy_coeff",
        "sampler": "set algorithm.rollout_correction (older: actor_rollout_ref.actor.tis_imp_ratio_cap) with "
        "actor_rollout_ref.rollout.calculate_log_probs=True, and the same temperature, top_p and dtype on both sides",
        "filter": "set algorithm.filter_groups.enable=True (DAPO recipe)",
        "dtype": "set actor_rollout_ref.actor.fsdp_config.model_dtype to bfloat16 or fp32, not fp16",
        "stop": "check eos_token_id in the model's generation_config.json, and that the chat template ends an answer with it",
        "passes": "lower actor_rollout_ref.actor.ppo_epochs, or raise ppo_mini_batch_size, so that fewer updates are made of one batch",
    },
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
