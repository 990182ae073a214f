"""Sample: B CoTs of each question from the actor, one greedy CoT from the frozen policy.

Of chains: B chains of each text. Each state is a sample of its own, and a group is all states of a text: those of t = 1, then of t = 2, …
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from markovlm.chains.prompter import Turn, chain_prompter_of
from markovlm.chains.walk import Walk, walk
from markovlm.config import RunConfig
from markovlm.errors import UserError
from markovlm.models.memory import chunks
from markovlm.plugins import calling, is_plugin, named
from markovlm.registry import SAMPLERS
from markovlm.rollouts.types import CoT, Decoding, SampleRequest
from markovlm.tasks.base import Example
from markovlm.training.records import Learner, Retries, Sample
from markovlm.training.scoring import score_alone


def sample_groups(learner: Learner, questions: Sequence[Example], step: int) -> list[list[Sample]]:
    """B CoTs for each of this process's questions; a draw depends on (seed, step, question, sample number) alone.

    If a question comes twice in one step (a small dataset, the border of an epoch), its samples are numbered on.
    """
    config, size = learner.config, learner.config.rollouts.group_size
    again = ("attempt", learner.attempt) if learner.attempt else ()
    numbered = [(q, size * sum(other.id == q.id for other in questions[:at])) for at, q in enumerate(questions)]
    ours = learner.world.share(numbered)
    if config.chain.on:
        prompter = chain_prompter_of(learner.prompter)
        chains = [(prompter.text_of(question), first + i) for question, first in ours for i in range(size)]
        walks = walk(
            learner.sampler,
            prompter,
            chains,
            cot_decoding(config, step),
            lambda text, number, t: (config.seed, *again, "chain", step, text.id, number, t),
        )
        return [_states(learner, few) for few in chunks(walks, size)]
    requests = [
        SampleRequest(
            learner.prompter.cot_prompt(question),
            tuple((config.seed, *again, "cot", step, question.id, first + i) for i in range(size)),
        )
        for question, first in ours
    ]
    groups = drawn_groups(learner, requests, cot_decoding(config, step))
    return [
        [Sample(question, first + i, cot) for i, cot in enumerate(group)]
        for (question, first), group in zip(ours, groups, strict=True)
    ]


def _text_of(sample: Sample) -> Example:
    """The example whose chain a state belongs to."""
    assert isinstance(sample.example, Turn)
    assert sample.example.source is not None
    return sample.example.source


def _states(learner: Learner, walks: Sequence[Walk]) -> list[Sample]:
    """The states of chains over one text, by t."""
    prompter, conditioning = chain_prompter_of(learner.prompter), learner.config.objective.conditioning
    return [
        Sample(prompter.turn(one.text, t, one.state(t), conditioning), one.number, one.written[t - 1])
        for t in range(1, walks[0].text.states + 1)
        for one in walks
    ]


def drawn_groups(learner: Learner, requests: Sequence[SampleRequest], decoding: Decoding) -> list[list[CoT]]:
    """What the sampler draws. Raises UserError if a plug-in's raises, or returns anything but a CoT for each stream of each request."""
    backend = learner.config.rollouts.backend
    with calling(SAMPLERS, backend, "sample"):
        groups: object = learner.sampler.sample(requests, decoding)
    problem = _drawn_problem(groups, requests, len(learner.lm.tokenizer)) if is_plugin(SAMPLERS, backend) else ""
    if problem:
        raise UserError(f"{named(SAMPLERS, backend)}: sample returned {problem}")
    return cast("list[list[CoT]]", groups)


def _drawn_problem(groups: object, requests: Sequence[SampleRequest], vocabulary: int) -> str:
    """What is wrong with groups of CoTs, or nothing."""
    if not isinstance(groups, list | tuple):
        return f"{type(groups).__name__}; it must return a list of lists of CoT"
    found = cast("Sequence[object]", groups)
    counts = [len(cast("Sequence[object]", group)) if isinstance(group, list | tuple) else None for group in found]
    if counts != [len(request.streams) for request in requests]:
        return f"groups of {counts} CoTs for requests of {[len(request.streams) for request in requests]} streams"
    for cot in (cot for group in found for cot in cast("Sequence[object]", group)):
        if not isinstance(cot, CoT):
            return f"{type(cot).__name__} instead of a markovlm.rollouts.types.CoT"
        if not cot.tokens or len(cot.behavior_logp) != len(cot.tokens) or not 0 <= cot.kept <= len(cot.tokens):
            sizes = f"{len(cot.tokens)} tokens, {len(cot.behavior_logp)} log-probs and kept={cot.kept}"
            return f"a CoT with {sizes}: it needs one log-prob per token, and at least one token"
        outside = [token for token in cot.tokens if not 0 <= token < vocabulary]
        if outside:
            return f"a CoT with token {outside[0]}, but the vocabulary has {vocabulary}"
    return ""


def cot_decoding(config: RunConfig, step: int, temperature: float | None = None) -> Decoding:
    """How CoTs are decoded in step `step`, or at another temperature."""
    rollouts = config.rollouts
    assert rollouts.max_cot_tokens is not None, "the configuration must be resolved"
    tau = rollouts.temperature.at(step, config.training.steps) if temperature is None else temperature
    return Decoding(rollouts.max_cot_tokens, tau, rollouts.fixed_length, rollouts.stop)


def baseline_is_due(config: RunConfig, step: int) -> bool:
    """Whether b is computed in this step: at intervals if the advantage cancels it, otherwise always."""
    return config.objective.normalize_reward and (step - 1) % config.objective.baseline_every == 0


@torch.no_grad()
def read_baselines(learner: Learner, groups: list[list[Sample]], retries: Retries) -> None:
    """b = reward of the frozen model's greedy CoT, read by the frozen model."""
    with learner.lm.frozen():
        greedy = _greedy(learner, groups)
        score_alone(learner, greedy, retries)
    everyone = [sample for group in groups for sample in group]
    for group, one in zip(chunks(everyone, learner.config.rollouts.group_size), greedy, strict=True):
        text = learner.prompter.text(one.cot.ids)
        for sample in group:
            sample.baseline, sample.baseline_cot, sample.baseline_logprob = one.reward, text, one.answer_logprob


def _greedy(learner: Learner, groups: list[list[Sample]]) -> list[Sample]:
    """The frozen model's own CoT of each question; of chains each state of its chain over each text."""
    decoding = cot_decoding(learner.config, 1, temperature=0.0)
    if learner.config.chain.on:
        prompter = chain_prompter_of(learner.prompter)
        texts = [(prompter.text_of(_text_of(group[0])), 0) for group in groups]
        walks = walk(learner.sampler, prompter, texts, decoding, lambda *_: ("greedy",))
        return [sample for one in walks for sample in _states(learner, [one])]
    questions = [group[0].example for group in groups]
    requests = [SampleRequest(learner.prompter.cot_prompt(q), (("greedy",),)) for q in questions]
    drawn = drawn_groups(learner, requests, decoding)
    return [Sample(q, 0, group[0]) for q, group in zip(questions, drawn, strict=True)]
