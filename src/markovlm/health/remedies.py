"""What to do about a named collapse, in the terms of the framework whose log it is, and where people met it."""

from __future__ import annotations

from collections.abc import Mapping

# What is turned -> how each framework calls it. "" is markovlm; TRL's names also serve what is built on it (ms-swift: with --).
KNOBS: Mapping[str, Mapping[str, str]] = {
    "lower the learning rate": {
        "": "training.lr", "TRL": "learning_rate", "verl": "actor_rollout_ref.actor.optim.lr", "OpenRLHF": "--actor_learning_rate",
        "ms-swift": "--learning_rate", "LLaMA-Factory": "learning_rate",
    },
    "hold the policy nearer to its start": {
        "": "objective.kl_weight", "TRL": "beta", "OpenRLHF": "--init_kl_coef", "ms-swift": "--beta",
        "verl": "actor_rollout_ref.actor.use_kl_loss=True, actor_rollout_ref.actor.kl_loss_coef",
    },
    "clip gradients harder": {
        "": "training.max_grad_norm", "TRL": "max_grad_norm", "verl": "actor_rollout_ref.actor.grad_clip", "OpenRLHF": "--max_norm",
        "ms-swift": "--max_grad_norm", "LLaMA-Factory": "max_grad_norm",
    },
    "allow longer completions": {
        "": "rollouts.max_cot_tokens", "TRL": "max_completion_length", "verl": "data.max_response_length", "OpenRLHF": "--generate_max_len",
        "ms-swift": "--max_completion_length",
    },
    "leave truncated completions out of the loss, or charge for length before the limit": {
        "TRL": "mask_truncated_completions=True (with beta 0)", "ms-swift": "--overlong_filter true", "verl": "reward_model.overlong_buffer (DAPO)",
        "OpenRLHF": "a length penalty in the reward function",
    },
    "keep exploration": {
        "": "objective.entropy_weight, rollouts.temperature", "TRL": "temperature, epsilon_high (0.28)", "ms-swift": "--temperature, --epsilon_high",
        "verl": "actor_rollout_ref.actor.clip_ratio_high (0.28), actor_rollout_ref.actor.entropy_coeff", "OpenRLHF": "--eps_clip_low_high 0.2 0.3",
    },
    "pay less for entropy": {
        "": "objective.entropy_weight", "verl": "actor_rollout_ref.actor.entropy_coeff", "TRL": "temperature, epsilon_high",
        "OpenRLHF": "--entropy_loss_coef", "ms-swift": "--temperature",
    },
    "correct for the sampler's probabilities": {
        "": "rollouts.importance, or rollouts.backend: hf (exact)",
        "TRL": "vllm_importance_sampling_correction=True, vllm_importance_sampling_cap", "ms-swift":
        "--rollout_importance_sampling_mode", "verl": "algorithm.rollout_correction (older: actor_rollout_ref.actor.tis_imp_ratio_cap) "
        "with actor_rollout_ref.rollout.calculate_log_probs=True", "OpenRLHF": "--enable_vllm_is_correction",
    },
    "take larger groups": {
        "": "rollouts.group_size", "TRL": "num_generations", "verl": "actor_rollout_ref.rollout.n", "OpenRLHF": "--n_samples_per_prompt",
        "ms-swift": "--num_generations",
    },
    "leave out questions whose answers are all equal": {
        "verl": "algorithm.filter_groups.enable=True (DAPO recipe)", "OpenRLHF": "--dynamic_filtering", "ms-swift": "--dynamic_sample true",
        "": "other data, or rewards with more steps (objective.reward: logprob)", "TRL": "other data, or a reward with more steps",
    },
    "use bfloat16 with a float32 master copy, not float16": {
        "": "loading.dtype", "TRL": "bf16=True", "verl": "actor_rollout_ref.actor.fsdp_config.model_dtype", "OpenRLHF": "--bf16",
        "ms-swift": "--torch_dtype bfloat16", "LLaMA-Factory": "bf16: true",
    },
}  # fmt: skip

BEFORE = "restart from the last good checkpoint before the onset"
# Named collapse -> what to do: knobs by name, or plain sentences.
REMEDIES: Mapping[str, tuple[str, ...]] = {
    "not_finite": ("use bfloat16 with a float32 master copy, not float16", "lower the learning rate", BEFORE),
    "truncated_to_zero": (
        BEFORE, "lower the learning rate", "hold the policy nearer to its start", "allow longer completions",
        "leave truncated completions out of the loss, or charge for length before the limit",
    ),
    "entropy_explosion": (BEFORE, "lower the learning rate", "hold the policy nearer to its start", "pay less for entropy"),
    "garbage_is_paid": (
        "read completions beside their rewards: does the reward see the question, or the answer in the prompt?",
        "evaluate with a reader that was not trained", "hold the policy nearer to its start",
    ),
    "sampler_mismatch": ("correct for the sampler's probabilities", "run sampler and trainer in the same precision", "lower the learning rate"),
    "kl_runaway": (BEFORE, "lower the learning rate", "hold the policy nearer to its start", "clip gradients harder"),
    "entropy_death": ("keep exploration", "take larger groups", BEFORE),
    "truncation_spiral": (
        "leave truncated completions out of the loss, or charge for length before the limit", "allow longer completions",
        "hold the policy nearer to its start",
    ),
    "reward_hacking": (
        "read the completions with the highest rewards", "evaluate on held-out questions with another reward",
        "hold the policy nearer to its start",
    ),
    "length_inflation": ("leave truncated completions out of the loss, or charge for length before the limit", "hold the policy nearer to its start"),
    "groups_hopeless": (
        "check the reward function on answers that are surely right", "allow longer completions", "leave out questions whose answers are all equal",
        "take larger groups",
    ),
    "groups_solved": ("stop here, or bring harder questions", "leave out questions whose answers are all equal"),
    "nothing_moves": (
        "check that rewards differ within a group, that the learning rate is not 0 and that trainable weights get the gradient",
        "take larger groups",
    ),
    "healed_spike": ("nothing to do; if it comes back:", "clip gradients harder"),
}  # fmt: skip

# Where people met it: issue threads of the frameworks, read for the signature and for what helped.
SEEN: Mapping[str, tuple[str, ...]] = {
    "not_finite": (
        "https://github.com/modelscope/ms-swift/issues/3136", "https://github.com/verl-project/verl/issues/3025",
        "https://github.com/vllm-project/vllm/issues/22881",
    ),
    "truncated_to_zero": (
        "https://github.com/greyhaven-ai/autocontext/pull/1067", "https://github.com/modelscope/ms-swift/issues/4950",
        "https://github.com/huggingface/open-r1/issues/257",
    ),
    "entropy_explosion": (
        "https://github.com/verl-project/verl/issues/2738", "https://github.com/verl-project/verl/issues/1066",
        "https://github.com/verl-project/verl/pull/781",
    ),
    "garbage_is_paid": ("https://github.com/verl-project/verl/issues/628", "https://github.com/modelscope/ms-swift/issues/3372"),
    "sampler_mismatch": (
        "https://github.com/huggingface/trl/pull/3867", "https://github.com/verl-project/verl/pull/3694",
        "https://github.com/huggingface/trl/issues/4772",
    ),
    "kl_runaway": ("https://github.com/huggingface/open-r1/issues/257", "https://github.com/huggingface/trl/issues/41"),
    "entropy_death": ("https://github.com/huggingface/trl/pull/3118", "https://github.com/verl-project/verl/issues/5953"),
    "truncation_spiral": (
        "https://github.com/verl-project/verl/issues/2736", "https://github.com/huggingface/trl/pull/3248",
        "https://github.com/huggingface/trl/pull/3138",
    ),
    "reward_hacking": ("https://github.com/OpenRLHF/OpenRLHF/issues/1263",),
    "length_inflation": ("https://github.com/OpenRLHF/OpenRLHF/issues/236", "https://github.com/huggingface/trl/pull/3138"),
    "groups_hopeless": ("https://github.com/huggingface/trl/issues/3452", "https://github.com/modelscope/ms-swift/issues/4570"),
    "groups_solved": ("https://github.com/modelscope/ms-swift/issues/4570",),
    "nothing_moves": ("https://github.com/modelscope/ms-swift/issues/4570", "https://github.com/unslothai/unsloth/issues/2291"),
    "healed_spike": ("https://github.com/huggingface/trl/issues/2980", "https://github.com/XueZeyue/DanceGRPO/issues/55"),
}  # fmt: skip


def remedy(name: str, framework: str = "") -> tuple[str, ...]:
    """What to do about a named collapse: `lower the learning rate (actor_rollout_ref.actor.optim.lr)`.

    An unknown framework gets the plain words; a knob that a framework does not have is left out.
    """
    lines: list[str] = []
    known = framework in {name for words in KNOBS.values() for name in words}
    for line in REMEDIES[name]:
        words = KNOBS.get(line)
        if words is None or not known:
            lines.append(line)
        elif framework in words:
            lines.append(f"{line}: {words[framework]}")
    return tuple(lines)


# Our keys elsewhere in advice -> theirs.
_EVALUATION = {
    "TRL": "eval_steps",
    "verl": "trainer.test_freq",
    "OpenRLHF": "--eval_steps",
    "ms-swift": "--eval_steps",
    "LLaMA-Factory": "eval_steps",
}


def in_framework_words(line: str, framework: str) -> str:
    """Advice with a framework's names in place of ours, where it has them; unchanged for our own runs ("")."""
    if not framework:
        return line
    theirs = "TRL" if framework == "transformers" else framework
    pairs = [(names.get("", ""), names.get(theirs, "")) for names in KNOBS.values()]
    words = {ours: name for ours, name in pairs if ours.count(".") == 1 and name and not {" ", "="} & set(ours + name)}
    words["training.eval_every"] = _EVALUATION.get(theirs, "")
    words["train with health.policy: stop, so that the guard ends a run like this one"] = (
        "stop a run like this one: HealthCallback in a Trainer, or `markovlm watch LOG`"
    )
    for ours, name in words.items():
        line = line.replace(ours, name) if name else line.replace(f" ({ours})", "")
    return line
