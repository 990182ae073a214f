"""Update: clip, set the learning rate of the step, move the adapter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from markovlm.config import RunConfig
from markovlm.training.gradients import require_finite_gradient
from markovlm.training.records import Learner, Sample


def update_adapter(learner: Learner, gradients: list[Tensor], samples: Sequence[Sample], step: int) -> float:
    """One AdamW step. Returns the gradient's norm before clipping."""
    require_finite_gradient(gradients, samples, step)
    parameters = [parameter for _, parameter in learner.lm.adapter_parameters()]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    norm = torch.nn.utils.clip_grad_norm_(parameters, learner.config.training.max_grad_norm)
    for group in learner.optimizer.param_groups:
        group["lr"] = learner.lr_scale * learning_rate(learner.config, step)
    learner.optimizer.step()
    learner.optimizer.zero_grad(set_to_none=True)
    if learner.room.slow is not None:
        learner.room.slow.follow()
    return norm.item()


def learning_rate(config: RunConfig, step: int) -> float:
    """The learning rate of step `step`: the schedule, times a linear warm-up."""
    training = config.training
    warmup = min(1.0, step / (training.warmup_steps + 1)) if training.warmup_steps else 1.0
    return training.lr.at(step, training.steps) * warmup
