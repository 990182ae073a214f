"""Sample: B CoTs of each question from the actor, one greedy CoT from the frozen policy."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from markovlm.config import RunConfig
from markovlm.rollouts.types import Decoding, SampleRequest
from markovlm.tasks.base import Example
from markovlm.training.records import Learner, Retries, Sample
from markovlm.training.scoring import score_alone


def sample_groups(learner: Learner, questions: Sequence[Example], step: int) -> list[list[Sample]]:
    """B CoTs for each of this process's questions; a draw depends on (seed, step, question, sample number) alone.

    A question that comes twice in one step (a small dataset, the border of an epoch) goes on counting its samples.
    """
    config, size = learner.config, learner.config.rollouts.group_size
    again = ("attempt", learner.attempt) if learner.attempt else ()
    numbered = [(q, size * sum(other.id == q.id for other in questions[:at])) for at, q in enumerate(questions)]
    ours = learner.world.share(numbered)
    requests = [
        SampleRequest(
            learner.prompter.cot_prompt(question),
            tuple((config.seed, *again, "cot", step, question.id, first + i) for i in range(size)),
        )
        for question, first in ours
    ]
    groups = learner.sampler.sample(requests, cot_decoding(config, step))
    return [
        [Sample(question, first + i, cot) for i, cot in enumerate(group)]
        for (question, first), group in zip(ours, groups, strict=True)
    ]


def cot_decoding(config: RunConfig, step: int, temperature: float | None = None) -> Decoding:
    """How CoTs are decoded in step `step`, or at another temperature."""
    rollouts = config.rollouts
    assert rollouts.max_cot_tokens is not None, "the configuration must be resolved"
    tau = rollouts.temperature.at(step, config.training.steps) if temperature is None else temperature
    return Decoding(rollouts.max_cot_tokens, tau, rollouts.fixed_length, rollouts.stop)


def baseline_is_due(config: RunConfig, step: int) -> bool:
    """Is b computed in this step? Every so often where the advantage cancels it, always where it does not."""
    return config.objective.normalize_reward and (step - 1) % config.objective.baseline_every == 0


@torch.no_grad()
def read_baselines(learner: Learner, groups: list[list[Sample]], retries: Retries) -> None:
    """b = reward of the frozen model's greedy CoT, read by the frozen model."""
    questions = [group[0].example for group in groups]
    requests = [SampleRequest(learner.prompter.cot_prompt(q), (("greedy",),)) for q in questions]
    with learner.lm.frozen():
        drawn = learner.sampler.sample(requests, cot_decoding(learner.config, 1, temperature=0.0))
        greedy = [Sample(q, 0, group[0]) for q, group in zip(questions, drawn, strict=True)]
        score_alone(learner, greedy, retries)
    for group, one in zip(groups, greedy, strict=True):
        text = learner.prompter.text(one.cot.ids)
        for sample in group:
            sample.baseline, sample.baseline_cot, sample.baseline_logprob = one.reward, text, one.answer_logprob
