"""One optimisation step: sample, score, credit, loss, update — in that order, as docs/method.md writes it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from markovlm.rollouts.streams import torch_seed
from markovlm.tasks.base import Example
from markovlm.training.agreement import begin_sampling, check_received
from markovlm.training.crediting import assign_credit
from markovlm.training.microbatches import microbatches
from markovlm.training.passes import apply_passes
from markovlm.training.records import Clock, Learner, Retries, StepResult
from markovlm.training.sampling import baseline_is_due, read_baselines, sample_groups
from markovlm.training.scoring import score_rewards


def take_step(learner: Learner, questions: Sequence[Example], step: int) -> StepResult:
    """Step `step` (1-based) on `questions`, those of all processes. Raises RunFailed on a loss or gradient that is not finite."""
    torch.manual_seed(torch_seed(learner.config.seed, "torch", step, learner.world.rank))  # LoRA dropout, torch's only use here
    clock, retries = Clock(learner.lm.device), Retries(learner.sampler)

    # z_i ~ u_theta(. | q), i = 1..B, for each question of this process
    begin_sampling(learner, step)
    groups = sample_groups(learner, questions, step)
    samples = [sample for group in groups for sample in group]
    check_received(learner, samples, step)
    clock.mark("sampling")

    # b = reward of z' ~ u'(. | q), read by pi'
    if baseline_is_due(learner.config, step):
        read_baselines(learner, groups, retries)
        clock.mark("baseline")

    # r_i = ln pi_theta(a | z_i), or another reward of the answer
    plan = microbatches(learner, samples)
    held = score_rewards(learner, samples, len(plan) == 1, retries)
    clock.mark("scoring")

    # R_i = r_i - b;  A_i = (R_i - centre) / scale, over the rewards of all processes
    credit = assign_credit(learner, groups)

    # L = mean_i ( L_PG,i + L_AR,i + beta KL_i - alpha H_i ), once, or several times over the same CoTs
    update = apply_passes(learner, groups, samples, plan, credit, held, step, retries, clock.mark)
    everyone = [sample for group in learner.world.gather(groups) for sample in group]
    return StepResult(everyone, update.grad_norm, clock.seconds, retries.count, update.passes, update.term_norms)
