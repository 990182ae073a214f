"""The generations of the research code's records: which one a record belongs to, and its keys under our names (docs/metrics.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markovlm.logs.records import Kind

FLAT = ("g1", "g1b", "g1c", "g1d")
GENERATIONS: Mapping[Kind, str] = {
    "g1": "flat records: Aggregate loss, Prev Observation, Action, Observation, Avg Log Prob, Normalized Reward",
    "g1b": "g1 with PPO Ratio",
    "g1c": "g1b with sample counts (Fraction Active Samples)",
    "g1d": "g1c with Loss in place of Aggregate loss",
    "g2": "reduced and nested: Example, Training Metrics with Normalized Reward and Avg Log Prob only",
    "g3": "nested: Example, Training Metrics, EI Metrics, Hyperparameters",
    "g4": "g3 with raw and first-sample losses, separate KLs, actor-reward metrics",
}

# Our key <- the first of these keys that a record has. A dot goes one level down.
_FLAT_KEYS: Mapping[str, tuple[str, ...]] = {
    "loss": ("Aggregate loss", "Loss", "Total Loss"),
    "loss_policy": ("Policy Loss",),
    "answer_logprob": ("Avg Log Prob",),
    "baseline_answer_logprob": ("Baseline Avg Log Prob",),
    "normalized_reward_mean": ("Normalized Reward",),
    "ratio_mean": ("PPO Ratio",),
    "grad_norm": ("Grad Norm",),
    "samples": ("Batch Size",),
    "active": ("Fraction Active Samples",),  # becomes no_gradient_fraction = 1 - active
    "cot_contains_answer": ("Reasoning Contains Answer",),
}
_NESTED_KEYS: Mapping[str, tuple[str, ...]] = {
    "loss": ("Training Metrics.Loss",),
    "loss_policy": ("Training Metrics.Policy Gradient Loss",),
    "loss_actor_reward": ("Actor Reward Metrics.Reward Gradient Loss",),
    "answer_logprob": ("Training Metrics.Actor Answer Log Probs", "Training Metrics.Avg Log Prob"),
    "baseline_answer_logprob": ("Training Metrics.Critic Answer Log Probs", "Training Metrics.Baseline Avg Log Prob"),
    "normalized_reward_mean": ("Training Metrics.Normalized Reward",),
    "cot_logprob": ("Training Metrics.Actor Reasoning Log Probs", "Training Metrics.Actor Log Probs"),
    "kl": ("Training Metrics.actor_critic_kl",),
    "weighted_kl": ("Training Metrics.KL",),  # becomes kl, divided by the KL weight where "KL Type" says weighted
    "ratio_mean": ("Training Metrics.PPO Ratio",),
    "grad_norm": ("Training Metrics.Gradient Norm",),
    "active": ("Training Metrics.Active Samples.Fraction",),
    "actor_reward_weight": ("Actor Reward Metrics.Actor Reward Weight",),
    "temperature": ("Hyperparameters.Temperature",),
    "samples": ("Hyperparameters.Batch Size",),
    "cot_contains_answer": ("Example.Contains Answer",),
}


def keys_of(kind: str) -> Mapping[str, tuple[str, ...]]:
    """The key table of a generation."""
    return _FLAT_KEYS if kind in FLAT else _NESTED_KEYS


# The research code's hyperparameters <- under our configuration names, so that its runs and ours compare in one table.
SETTINGS: Mapping[str, str] = {
    "task_type": "task",
    "model_type": "model",
    "lr": "training.lr",
    "model_learning_rate": "training.lr",
    "num_batches": "training.steps",
    "batch_size": "rollouts.group_size",
    "cot_length": "rollouts.max_cot_tokens",
    "temperature": "rollouts.temperature",
    "kl_penalty": "objective.kl_weight",
    "actor_reward_weight": "objective.actor_reward_weight",
    "lora_rank": "lora.rank",
    "lora_alpha": "lora.alpha",
    "checkpoint_frequency": "training.checkpoint_every",
    "eval_frequency": "training.eval_every",
}

_HEADER_KEYS = {
    "task_type", "model_type", "model_learning_rate", "num_batches", "batch_size", "use_ei", "use_ppo", "normalize_loss", "lr",
}  # fmt: skip


def generation(row: Mapping[str, Any]) -> Kind | None:
    """The generation of a record, or None if it is no record of the research code."""
    metrics = row.get("Training Metrics")
    if isinstance(metrics, Mapping):
        if "Loss" not in metrics and "Actor Answer Log Probs" not in metrics:
            return "g2"
        newer = ("Raw Loss", "First Loss", "actor_critic_kl")
        return "g4" if any(key in metrics for key in newer) or "Actor Reward Metrics" in row else "g3"
    if "Normalized Reward" not in row and "Avg Log Prob" not in row:
        return None
    if "Loss" in row and "Aggregate loss" not in row:
        return "g1d"
    if "Fraction Active Samples" in row or "Num Active Samples" in row:
        return "g1c"
    return "g1b" if "PPO Ratio" in row else "g1"


def header(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The hyperparameters of a header line, flat or under "hyperparameters"; None for any other object."""
    inner = row.get("hyperparameters")
    if isinstance(inner, Mapping):
        return dict(inner)
    if generation(row) is None and len(_HEADER_KEYS & row.keys()) >= 2:
        return dict(row)
    return None


def header_generation(settings: Mapping[str, Any]) -> Kind:
    """The generation of a log that has only its header."""
    if "lora_rank" in settings or "parallel_samples" in settings:
        return "g4"
    return "g3" if "kl_penalty" in settings else "g1"
