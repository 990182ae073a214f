"""The optimisation passes over one rollout: gradient and update, repeated if the objective wants more than one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markovlm.objectives import Credit
from markovlm.training.gradients import loss_gradients, measure_only, pass_means
from markovlm.training.records import Learner, Retries, Sample
from markovlm.training.scoring import HeldGraph
from markovlm.training.update import update_adapter


@dataclass(slots=True)
class Applied:
    """The result of a step's passes."""

    grad_norm: float = 0.0
    passes: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    term_norms: dict[str, float] = field(default_factory=dict[str, float])


def apply_passes(
    learner: Learner,
    groups: Sequence[Sequence[Sample]],
    samples: Sequence[Sample],
    plan: Sequence[list[int]],
    credit: Credit,
    held: HeldGraph,
    step: int,
    retries: Retries,
    mark: Callable[[str], None],
) -> Applied:
    """Train on `samples` (those of `groups`, one group a question of this process), micro-batch by micro-batch of `plan`."""
    done = Applied()
    while len(done.passes) < learner.objective.passes and not credit.idle:
        gradients = loss_gradients(learner, samples, plan, credit, held, step, retries)
        means = pass_means(learner, groups)
        if done.passes and not learner.objective.goes_on(means["behavior_kl"]):
            break
        done.passes.append(means)
        mark("training")
        done.term_norms = done.term_norms or gradients.term_norms
        done.grad_norm = update_adapter(learner, gradients.total, samples, step)
        mark("optimizer")
    if credit.idle:
        measure_only(learner, samples, plan, credit, step, retries)
    return done
