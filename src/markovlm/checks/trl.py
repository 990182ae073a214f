"""TRL's GRPO and RLOO: what is known of settings of `GRPOConfig`. Defaults are those of TRL 1.x."""

from __future__ import annotations

import math
from collections.abc import Iterator

from markovlm.checks.finding import CheckFinding
from markovlm.checks.plan import TrainingPlan

DEFAULTS = {
    "num_generations": 8, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_completion_length": 256,
    "temperature": 1.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0, "beta": 0.0, "num_iterations": 1, "learning_rate": 1e-6,
    "remove_unused_columns": False, "use_vllm": False, "vllm_importance_sampling_correction": True, "eval_strategy": "no",
    "save_strategy": "steps", "per_device_eval_batch_size": 8, "auto_find_batch_size": False, "sync_ref_model": False,
}  # fmt: skip
OWN = frozenset({  # names that only a configuration of GRPO or RLOO has
    "num_generations", "max_completion_length", "num_iterations", "steps_per_generation", "generation_batch_size", "reward_funcs",
    "reward_weights", "epsilon_high", "scale_rewards", "mask_truncated_completions", "use_vllm", "vllm_mode",
    "vllm_importance_sampling_correction", "num_generations_eval", "log_completions",
})  # fmt: skip
LIMIT = "max_completion_length"
_LORA = ("use_peft", "peft_config", "lora_r", "lora_alpha", "train_type", "tuner_type")
_CONFIG = "https://huggingface.co/docs/trl/grpo_trainer"
_FULL_RATE, _LORA_RATE = 1e-5, 5e-5
_FEW = 4


def findings(plan: TrainingPlan) -> Iterator[CheckFinding]:
    """All findings, in the order in which one would look."""
    yield from _groups(plan)
    yield from _batches(plan)
    yield from _sampling(plan)
    yield from _updates(plan)
    yield from _looking(plan)


def _groups(plan: TrainingPlan) -> Iterator[CheckFinding]:
    group = plan.number("num_generations")
    if group is not None and group < 2:
        yield CheckFinding(
            "one_cot_a_group", "fails", f"{plan.says('num_generations')}: a group of one has no spread, so TRL refuses it",
            "num_generations=8", "https://github.com/huggingface/trl/pull/3199",
        )  # fmt: skip
    elif group is not None and group < _FEW:
        yield CheckFinding(
            "few_cots_a_group", "warn",
            f"{plan.says('num_generations')}: with rewards of 0 and 1, most groups are all right or all wrong and train nothing "
            "(of 2, at 18 % right, 70 %)", "num_generations=8", "https://github.com/jsboige/CoursIA/issues/10603",
        )  # fmt: skip


def _batches(plan: TrainingPlan) -> Iterator[CheckFinding]:
    if plan.on("auto_find_batch_size"):
        yield CheckFinding(
            "auto_batch_size", "fails", f"{plan.says('auto_find_batch_size')}: TRL refuses it, because a smaller batch would split groups",
            "auto_find_batch_size=False and a smaller per_device_train_batch_size", _CONFIG,
        )  # fmt: skip
    both = ("generation_batch_size", "steps_per_generation")
    if all(plan.value(name) is not None for name in both):
        yield CheckFinding(
            "two_batch_sizes", "fails", f"{plan.says(*both)}: TRL refuses both together", f"leave out {both[0]}", _CONFIG
        )
        return
    group, device = plan.number("num_generations"), plan.number("per_device_train_batch_size")
    steps = plan.number("steps_per_generation") or plan.number("gradient_accumulation_steps")
    whole = plan.number("generation_batch_size")
    if not group or not device or not steps or group < 2 or plan.unread & {*both, "gradient_accumulation_steps"}:
        return
    processes = plan.processes
    batch = whole or device * steps * (processes or 1)
    if batch % group == 0:
        return
    names = ("generation_batch_size",) if whole else ("per_device_train_batch_size",)
    if not whole:
        names += ("steps_per_generation",) if plan.number("steps_per_generation") else ("gradient_accumulation_steps",)
    needed = int(group) // math.gcd(int(batch), int(group))
    more = f", {processes} processes" if processes and not whole else ""
    what = (
        f"{plan.says(*names, 'num_generations')}{more}: {int(batch)} completions are not a whole number of groups of {int(group)}"
    )
    if whole or processes:
        yield CheckFinding(
            "batch_not_whole_groups", "fails", f"{what}; TRL refuses it", f"a batch that is a multiple of {int(group)}",
            "https://github.com/huggingface/trl/issues/2858",
        )  # fmt: skip
    else:
        yield CheckFinding(
            "batch_not_whole_groups", "warn", f"{what} on one process; TRL refuses it there",
            f"a number of processes that is a multiple of {needed}, or gradient_accumulation_steps={int(steps) * needed} "
            "(--processes N says how many there are)", "https://github.com/huggingface/trl/issues/2858",
        )  # fmt: skip


def _sampling(plan: TrainingPlan) -> Iterator[CheckFinding]:
    temperature = plan.number("temperature")
    if temperature == 0:
        yield CheckFinding(
            "greedy_sampling", "fails", f"{plan.says('temperature')}: all completions of a prompt are the same, so every advantage is 0",
            "temperature=1.0", "https://github.com/THUDM/slime/pull/2197",
        )  # fmt: skip
    theirs = plan.number("generation_kwargs.temperature")
    if theirs is not None and temperature is not None and theirs != temperature:
        yield CheckFinding(
            "temperature_apart", "fails",
            f"{plan.says('generation_kwargs.temperature', 'temperature')}: completions are sampled at the first, log-probs computed at the second",
            f"temperature={theirs:g}, and none in generation_kwargs", "https://github.com/huggingface/trl/issues/4159",
        )  # fmt: skip
    cut = list(_truncating(plan))
    if cut:
        yield CheckFinding(
            "sampling_truncated", "warn",
            f"{plan.says(*cut)}: completions come from a truncated distribution, the trainer's log-probs from the full one: ratios are biased",
            f"leave out {', '.join(cut)}", "https://github.com/huggingface/trl/issues/6789",
        )  # fmt: skip
    if plan.on("use_vllm") and plan.off("vllm_importance_sampling_correction"):
        yield CheckFinding(
            "sampler_uncorrected", "warn",
            f"{plan.says('use_vllm', 'vllm_importance_sampling_correction')}: vLLM's probabilities differ from the trainer's, so "
            "training is off-policy and nothing corrects it", "vllm_importance_sampling_correction=True",
            "https://github.com/huggingface/trl/pull/3867",
        )  # fmt: skip
    if plan.value(LIMIT) == DEFAULTS[LIMIT] and plan.given.get(LIMIT) is None:
        yield CheckFinding(
            "default_limit", "warn",
            f"{plan.says(LIMIT)}: cut 97 to 99 % of the completions of TRL's own example, and with them every reward",
            "max_completion_length=1024, or what the answers need (--answers FILE compares)",
            "https://github.com/huggingface/trl/issues/5697",
        )  # fmt: skip


def _truncating(plan: TrainingPlan) -> Iterator[str]:
    for prefix in ("", "generation_kwargs."):
        for name, inert in (("top_p", 1.0), ("top_k", 0), ("min_p", 0.0), ("repetition_penalty", 1.0)):
            value = plan.number(prefix + name)
            if value is not None and value != inert and not (name == "top_k" and value < 0):
                yield prefix + name


def _updates(plan: TrainingPlan) -> Iterator[CheckFinding]:
    passes, beta, rate = plan.number("num_iterations"), plan.number("beta"), plan.number("learning_rate")
    if passes is not None and passes > 1 and beta == 0:
        yield CheckFinding(
            "passes_without_kl", "warn",
            f"{plan.says('num_iterations', 'beta')}: {passes:g} passes over one batch, and only the clip range limits the policy; "
            "beta 0 was shown to suffice for one", "num_iterations=1, or beta=0.001 to 0.04", "https://github.com/huggingface/trl/pull/2806",
        )  # fmt: skip
    if beta == 0 and plan.on("sync_ref_model"):
        yield CheckFinding(
            "reference_unused", "fails", f"{plan.says('sync_ref_model', 'beta')}: there is no reference model to synchronise, so TRL refuses it",
            "sync_ref_model=False, or beta above 0", _CONFIG,
        )  # fmt: skip
    lora = any(plan.on(name) and plan.value(name) != "full" for name in _LORA)
    highest = _LORA_RATE if lora else _FULL_RATE
    if rate is not None and rate >= highest:
        yield CheckFinding(
            "rate_too_high", "warn",
            f"{plan.says('learning_rate')}, {'LoRA' if lora else 'all weights'}: 5e-5 with LoRA took a policy from 57 % to 2 %, "
            "1e-6 held", f"learning_rate={'1e-5' if lora else '1e-6'}", "https://github.com/datawhalechina/hello-agents/issues/770",
        )  # fmt: skip
    if plan.on("remove_unused_columns"):
        yield CheckFinding(
            "columns_removed", "warn", f"{plan.says('remove_unused_columns')}: reward functions see only the prompt column, so no answers",
            "remove_unused_columns=False", _CONFIG,
        )  # fmt: skip


def _looking(plan: TrainingPlan) -> Iterator[CheckFinding]:
    evaluated = plan.value("eval_strategy") or plan.value("evaluation_strategy")
    if plan.given.get("eval_strategy") is None and plan.given.get("evaluation_strategy") is not None:
        evaluated = plan.value("evaluation_strategy")
    if evaluated in ("no", False):
        yield CheckFinding(
            "never_evaluated", "warn",
            f"{plan.says('eval_strategy')}: where the reward was hacked, the checkpoint of the highest reward was the worst",
            "eval_strategy=steps with held-out prompts", "https://github.com/huggingface/trl/pull/5790",
        )  # fmt: skip
    else:
        group, device = (
            plan.number("num_generations_eval") or plan.number("num_generations"),
            plan.number("per_device_eval_batch_size"),
        )
        batch = (device or 0) * (plan.processes or 0)
        if group and batch and batch % group:
            yield CheckFinding(
                "evaluation_not_whole_groups", "fails",
                f"{plan.says('per_device_eval_batch_size')}, {plan.processes} processes: not a multiple of the group {group:g}, so TRL refuses it",
                f"num_generations_eval={math.gcd(int(batch), int(group))}", _CONFIG,
            )  # fmt: skip
    if plan.value("save_strategy") in ("no", False):
        yield CheckFinding(
            "no_checkpoint", "warn", f"{plan.says('save_strategy')}: there is nothing to go back to when the run collapses",
            "save_strategy=steps", "docs/detection.md",
        )  # fmt: skip
