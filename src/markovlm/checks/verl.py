"""verl: what is known of settings of `main_ppo`. Defaults are those of verl 0.7 (`_generated_ppo_trainer.yaml`)."""

from __future__ import annotations

from collections.abc import Iterator

from markovlm.checks.finding import CheckFinding
from markovlm.checks.plan import TrainingPlan

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
LIMIT = "data.max_response_length"
DEFAULTS = {
    "algorithm.adv_estimator": "gae", "algorithm.use_kl_in_reward": False, "algorithm.kl_ctrl.kl_coef": 0.001,
    "data.train_batch_size": 1024, "data.max_prompt_length": 512, LIMIT: 512, "data.filter_overlong_prompts": False,
    "data.truncation": "error", "trainer.test_freq": -1, "trainer.save_freq": -1, "trainer.n_gpus_per_node": 8, "trainer.nnodes": 1,
    f"{ACTOR}.optim.lr": 1e-6, f"{ACTOR}.ppo_mini_batch_size": 256, f"{ACTOR}.ppo_epochs": 1, f"{ACTOR}.use_kl_loss": False,
    f"{ACTOR}.kl_loss_coef": 0.001, f"{ACTOR}.entropy_coeff": 0, f"{ACTOR}.use_dynamic_bsz": False, f"{ACTOR}.strategy": "fsdp",
    f"{ACTOR}.ppo_max_token_len_per_gpu": 16384, f"{ACTOR}.ulysses_sequence_parallel_size": 1,
    f"{ROLLOUT}.n": 1, f"{ROLLOUT}.temperature": 1.0, f"{ROLLOUT}.top_p": 1.0, f"{ROLLOUT}.top_k": -1, f"{ROLLOUT}.do_sample": True,
    f"{ROLLOUT}.calculate_log_probs": False,
}  # fmt: skip
_GROUPED = frozenset({
    "grpo", "grpo_vectorized", "grpo_passk", "rloo", "rloo_vectorized", "opo", "gpg", "reinforce_plus_plus_baseline",
})  # fmt: skip
_VALIDATION = "https://github.com/verl-project/verl/blob/main/verl/utils/config.py"
_GRPO = "https://verl.readthedocs.io/en/latest/algo/grpo.html"
_FULL_RATE, _LORA_RATE = 1e-5, 5e-5


def findings(plan: TrainingPlan) -> Iterator[CheckFinding]:
    """All rules, in the order in which one would look."""
    yield from _groups(plan)
    yield from _batches(plan)
    yield from _lengths(plan)
    yield from _sampling(plan)
    yield from _updates(plan)
    yield from _looking(plan)


def _groups(plan: TrainingPlan) -> Iterator[CheckFinding]:
    group = plan.number(f"{ROLLOUT}.n")
    if str(plan.value("algorithm.adv_estimator")).lower() in _GROUPED and group is not None and group < 2:
        yield CheckFinding(
            "one_cot_a_group", "fails",
            f"{plan.says('algorithm.adv_estimator', f'{ROLLOUT}.n')}: a group of one has nothing to be compared with, so the advantage "
            "is the reward itself", f"{ROLLOUT}.n=8", _GRPO,
        )  # fmt: skip


def _batches(plan: TrainingPlan) -> Iterator[CheckFinding]:
    train, mini = plan.number("data.train_batch_size"), plan.number(f"{ACTOR}.ppo_mini_batch_size")
    both = ("data.train_batch_size", f"{ACTOR}.ppo_mini_batch_size")
    if train and mini and mini > train:
        yield CheckFinding(
            "mini_batch_over_batch", "fails", f"{plan.says(*both)}: verl refuses a mini-batch that is larger than the batch",
            f"{ACTOR}.ppo_mini_batch_size={train:g}", "https://github.com/verl-project/verl/pull/1265",
        )  # fmt: skip
    elif train and mini and train % mini:
        yield CheckFinding(
            "batch_not_whole_mini_batches", "warn", f"{plan.says(*both)}: the last mini-batch of a step is smaller, and its gradient wrongly scaled",
            f"a {ACTOR}.ppo_mini_batch_size that divides {train:g}", "https://github.com/verl-project/verl/pull/559",
        )  # fmt: skip
    micro, gpu = f"{ACTOR}.ppo_micro_batch_size", f"{ACTOR}.ppo_micro_batch_size_per_gpu"
    if plan.number(micro) is not None and plan.number(gpu) is not None:
        yield CheckFinding(
            "two_micro_batch_sizes",
            "fails",
            f"{plan.says(micro, gpu)}: verl refuses both together",
            f"leave out {micro}",
            _VALIDATION,
        )
    if plan.on(f"{ACTOR}.use_dynamic_bsz"):
        return
    group, gpus = plan.number(f"{ROLLOUT}.n"), _gpus(plan)
    if train and group and gpus and (train * group) % gpus and not _megatron(plan):
        yield CheckFinding(
            "batch_not_over_gpus", "fails",
            f"{plan.says('data.train_batch_size', f'{ROLLOUT}.n')}: {train * group:g} responses don't divide by {gpus:g} GPUs, so verl refuses it",
            f"a data.train_batch_size that is a multiple of {gpus:g}", _VALIDATION,
        )  # fmt: skip


def _megatron(plan: TrainingPlan) -> bool:
    """There a batch is split over fewer ranks than there are GPUs."""
    return "megatron" in f"{plan.value('config_name')} {plan.value(f'{ACTOR}.strategy')}" or any(
        ".megatron." in name for name in plan.given
    )


def _gpus(plan: TrainingPlan) -> float | None:
    if plan.processes:
        return plan.processes
    each, nodes = plan.number("trainer.n_gpus_per_node"), plan.number("trainer.nnodes")
    return each * nodes if each and nodes else None


def _lengths(plan: TrainingPlan) -> Iterator[CheckFinding]:
    prompt, response = plan.number("data.max_prompt_length"), plan.number(LIMIT)
    if not prompt or not response:
        return
    both = ("data.max_prompt_length", LIMIT)
    window = plan.number(f"{ROLLOUT}.max_model_len")
    if window and window < prompt + response:
        yield CheckFinding(
            "window_too_small", "fails", f"{plan.says(*both, f'{ROLLOUT}.max_model_len')}: prompt and response do not fit into the window",
            f"{ROLLOUT}.max_model_len={prompt + response:g}", "https://github.com/verl-project/verl/issues/673",
        )  # fmt: skip
    tokens, parts = plan.number(f"{ACTOR}.ppo_max_token_len_per_gpu"), plan.number(f"{ACTOR}.ulysses_sequence_parallel_size")
    if plan.on(f"{ACTOR}.use_dynamic_bsz") and tokens and parts and tokens * parts < prompt + response:
        yield CheckFinding(
            "tokens_a_gpu_too_few", "fails",
            f"{plan.says(*both, f'{ACTOR}.ppo_max_token_len_per_gpu')}: the first longer sequence ends the run",
            f"{ACTOR}.ppo_max_token_len_per_gpu={prompt + response:g} or more", "https://github.com/Weiyun1025/verl-internvl/issues/15",
        )  # fmt: skip
    if plan.value("data.truncation") == "error" and plan.off("data.filter_overlong_prompts"):
        yield CheckFinding(
            "long_prompt_ends_run", "warn",
            f"{plan.says('data.truncation', 'data.filter_overlong_prompts', 'data.max_prompt_length')}: the first longer prompt ends the run",
            "data.filter_overlong_prompts=True", "https://verl.readthedocs.io/en/latest/examples/config.html",
        )  # fmt: skip


def _sampling(plan: TrainingPlan) -> Iterator[CheckFinding]:
    temperature, sampled = plan.number(f"{ROLLOUT}.temperature"), f"{ROLLOUT}.do_sample"
    if temperature == 0 or plan.off(sampled):
        says = plan.says(f"{ROLLOUT}.temperature" if temperature == 0 else sampled)
        yield CheckFinding(
            "greedy_sampling", "fails", f"{says}: all responses to a prompt are the same, so every advantage is 0",
            f"{ROLLOUT}.temperature=1.0 with {sampled}=True", "https://github.com/THUDM/slime/pull/2197",
        )  # fmt: skip
    top_p, top_k = plan.number(f"{ROLLOUT}.top_p"), plan.number(f"{ROLLOUT}.top_k")
    cut = [f"{ROLLOUT}.top_p"] if top_p is not None and top_p < 1 else []
    cut += [f"{ROLLOUT}.top_k"] if top_k is not None and top_k > 0 else []
    if cut:
        yield CheckFinding(
            "sampling_truncated", "warn",
            f"{plan.says(*cut)}: responses come from a truncated distribution, the actor's log-probs from the full one: ratios are biased",
            f"{ROLLOUT}.top_p=1.0, {ROLLOUT}.top_k=-1", "https://github.com/huggingface/trl/issues/6789",
        )  # fmt: skip
    correction = "algorithm.rollout_correction.rollout_is"
    if plan.value(correction) not in (None, False, "none") and plan.off(f"{ROLLOUT}.calculate_log_probs"):
        yield CheckFinding(
            "correction_without_log_probs", "fails",
            f"{plan.says(correction, f'{ROLLOUT}.calculate_log_probs')}: the sampler's probabilities are needed but not kept",
            f"{ROLLOUT}.calculate_log_probs=True", "https://verl.readthedocs.io/en/latest/algo/rollout_corr.html",
        )  # fmt: skip
    quantized = f"{ROLLOUT}.quantization"
    if plan.value(quantized) not in (None, False, "none") and plan.value(correction) in (None, False, "none"):
        yield CheckFinding(
            "sampler_uncorrected", "warn", f"{plan.says(quantized)}: the sampler's probabilities differ from the actor's, and nothing corrects it",
            f"{correction}=token with {ROLLOUT}.calculate_log_probs=True", "https://verl.readthedocs.io/en/latest/algo/rollout_corr.html",
        )  # fmt: skip


def _updates(plan: TrainingPlan) -> Iterator[CheckFinding]:
    coefficient, in_reward = plan.number(f"{ACTOR}.kl_loss_coef"), plan.number("algorithm.kl_ctrl.kl_coef")
    in_loss_on, in_reward_on = plan.on(f"{ACTOR}.use_kl_loss"), plan.on("algorithm.use_kl_in_reward")
    held = (in_loss_on and coefficient != 0) or (in_reward_on and in_reward != 0)
    epochs = plan.number(f"{ACTOR}.ppo_epochs")
    if epochs is not None and epochs > 1 and not held and f"{ACTOR}.use_kl_loss" not in plan.unread:
        yield CheckFinding(
            "passes_without_kl", "warn",
            f"{plan.says(f'{ACTOR}.ppo_epochs', f'{ACTOR}.use_kl_loss')}: {epochs:g} passes over one batch, and only the clip range limits "
            "the policy; training without KL was shown to suffice for one pass", f"{ACTOR}.ppo_epochs=1, or {ACTOR}.use_kl_loss=True",
            "https://github.com/huggingface/trl/pull/2806",
        )  # fmt: skip
    if in_loss_on and coefficient == 0:
        yield CheckFinding(
            "kl_without_weight", "warn", f"{plan.says(f'{ACTOR}.use_kl_loss', f'{ACTOR}.kl_loss_coef')}: the KL term is computed but has weight 0",
            f"{ACTOR}.kl_loss_coef=0.001", _GRPO,
        )  # fmt: skip
    if in_loss_on and in_reward_on:
        yield CheckFinding(
            "kl_twice", "warn", f"{plan.says(f'{ACTOR}.use_kl_loss', 'algorithm.use_kl_in_reward')}: the KL penalty is in the loss and in the reward",
            "algorithm.use_kl_in_reward=False", _VALIDATION,
        )  # fmt: skip
    entropy = plan.number(f"{ACTOR}.entropy_coeff")
    if entropy is not None and entropy > 0:
        yield CheckFinding(
            "entropy_is_paid", "warn", f"{plan.says(f'{ACTOR}.entropy_coeff')}: 0.001, the former default, was seen to let entropy explode",
            f"{ACTOR}.entropy_coeff=0", "https://github.com/verl-project/verl/pull/781",
        )  # fmt: skip
    rate = plan.number(f"{ACTOR}.optim.lr")
    rank = plan.number("actor_rollout_ref.model.lora_rank") or plan.number("actor_rollout_ref.model.lora.rank") or 0
    if rate is not None and rate >= (_LORA_RATE if rank > 0 else _FULL_RATE):
        yield CheckFinding(
            "rate_too_high", "warn",
            f"{plan.says(f'{ACTOR}.optim.lr')}, {'LoRA' if rank > 0 else 'all weights'}: 5e-5 with LoRA took a policy from 57 % to 2 %, "
            "1e-6 held", f"{ACTOR}.optim.lr={'1e-5' if rank > 0 else '1e-6'}", "https://github.com/datawhalechina/hello-agents/issues/770",
        )  # fmt: skip


def _looking(plan: TrainingPlan) -> Iterator[CheckFinding]:
    tests, saves = plan.number("trainer.test_freq"), plan.number("trainer.save_freq")
    if tests is not None and tests <= 0:
        yield CheckFinding(
            "never_evaluated", "warn", f"{plan.says('trainer.test_freq')}: where the reward was hacked, the checkpoint of the highest reward "
            "was the worst", "trainer.test_freq=10", "https://github.com/huggingface/trl/pull/5790",
        )  # fmt: skip
    if saves is not None and saves <= 0:
        yield CheckFinding(
            "no_checkpoint", "warn", f"{plan.says('trainer.save_freq')}: there is nothing to go back to when the run collapses",
            "trainer.save_freq=20", "docs/detection.md",
        )  # fmt: skip
