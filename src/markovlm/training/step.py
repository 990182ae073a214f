"""One optimisation step: sample, score, credit, loss, update — in that order, as METHOD §2 writes it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from markovlm.rollouts.streams import torch_seed
from markovlm.tasks.base import Example
from markovlm.training.crediting import assign_credit
from markovlm.training.gradients import loss_gradients, measure_only, microbatches, pass_means
from markovlm.training.records import Learner, Retries, StepResult
from markovlm.training.sampling import baseline_is_due, read_baselines, sample_groups
from markovlm.training.scoring import score_rewards
from markovlm.training.update import update_adapter


def take_step(learner: Learner, questions: Sequence[Example], step: int) -> StepResult:
    """Step `step` (1-based) on `questions`, those of all processes. Raises RunFailed on a loss or gradient that is not finite."""
    torch.manual_seed(torch_seed(learner.config.seed, "torch", step, learner.world.rank))  # LoRA dropout, torch's only use here
    clock, retries = _Clock(learner.lm.device), Retries(learner.sampler)

    # z_i ~ u_theta(. | q), i = 1..B, for each question of this process
    groups = sample_groups(learner, questions, step)
    samples = [sample for group in groups for sample in group]
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
    norm, passes, term_norms = 0.0, list[dict[str, float]](), dict[str, float]()
    while len(passes) < learner.objective.passes and not credit.idle:
        gradients = loss_gradients(learner, samples, plan, credit, held, step, retries)
        means = pass_means(learner, groups)
        if passes and not learner.objective.goes_on(means["behavior_kl"]):
            break
        passes.append(means)
        clock.mark("training")
        term_norms = term_norms or gradients.term_norms
        norm = update_adapter(learner, gradients.total, samples, step)
        clock.mark("optimizer")
    if credit.idle:
        measure_only(learner, samples, plan, credit, step, retries)
    everyone = [sample for group in learner.world.gather(groups) for sample in group]
    return StepResult(everyone, norm, clock.seconds, retries.count, passes, term_norms)


class _Clock:
    """Seconds by phase."""

    def __init__(self, device: torch.device):
        self.seconds: dict[str, float] = {}
        self.cuda = device.type == "cuda"
        self.last = time.perf_counter()

    def mark(self, phase: str) -> None:
        if self.cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self.last
        self.last = now
