"""A chain of one piece is an ordinary run: `chain.kind: thinking, chain.steps: 1` writes one CoT of a question and reads the answer from it.

The same step computes it, with branches of their own for states of chains in sampling, scoring and credit; here the one is held against
the other. They differ in one thing: the keys of the random streams, ("cot", step, id, number) and ("chain", step, id, number, t). With the
same stream for each CoT everything else agrees, to the rounding of other micro-batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from markovlm.rollouts.types import CoT, Decoding, Sampler, SampleRequest
from markovlm.training.records import Learner, Sample, StepResult
from markovlm.training.step import take_step
from support import naive, tiny

KEYS: dict[str, Any] = {"rollouts__group_size": 3, "objective__baseline_every": 1, "rollouts__max_cot_tokens": 6}
OF_A_SAMPLE = ("reward", "reward_weight", "baseline", "baseline_logprob", "answer_logprob", "answer_probability", "advantage")


class AsOrdinary:
    """A sampler that draws the CoTs of one-step chains from the streams of ordinary ones."""

    def __init__(self, sampler: Sampler):
        self.sampler = sampler
        self.seen: list[SampleRequest] = []

    @property
    def splits(self) -> int:
        return self.sampler.splits

    def sample(self, requests: Sequence[SampleRequest], decoding: Decoding) -> list[list[CoT]]:
        self.seen += requests
        return self.sampler.sample([replace(r, streams=tuple(map(self._key, r.streams))) for r in requests], decoding)

    def _key(self, key: Any) -> Any:
        if "chain" not in key:
            return key
        assert key[-1] == 1
        return tuple("cot" if part == "chain" else part for part in key[:-1])


def stepped(
    model: Path, questions: Sequence[Any] = tiny.QUESTIONS[:2], **overrides: Any
) -> tuple[Learner, StepResult, AsOrdinary]:
    few = {"microbatch_tokens": overrides.pop("microbatch_tokens")} if "microbatch_tokens" in overrides else {}
    learner = tiny.learner(tiny.config(model, **{**KEYS, **overrides}), **few)
    sampler = learner.sampler = AsOrdinary(learner.sampler)
    return learner, take_step(learner, questions, 1), sampler


def assert_the_same(ordinary: tuple[Learner, StepResult, AsOrdinary], chain: tuple[Learner, StepResult, AsOrdinary]) -> None:
    (one, ours, _), (other, theirs, _) = ordinary, chain
    for a, b in zip(ours.samples, theirs.samples, strict=True):
        assert (b.example.id, b.number, b.cot) == (f"{a.example.id}@1", a.number, a.cot)
        for name in OF_A_SAMPLE:
            expected = getattr(a, name)
            assert getattr(b, name) == (None if expected is None else pytest.approx(expected, rel=1e-9, abs=1e-12)), name
        assert (b.correct, b.baseline_cot, b.scored, b.future, b.loss_weight) == (a.correct, a.baseline_cot, True, 0.0, 1.0)
        assert b.stats.keys() == a.stats.keys()
        for name, value in a.stats.items():
            assert b.stats[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name
    assert theirs.grad_norm == pytest.approx(ours.grad_norm, rel=1e-9)
    gradients = [learner.optimizer.flat() for learner in (one, other)]  # type: ignore[attr-defined]
    assert gradients[0].norm() > 0.01
    naive.assert_close(gradients[1], gradients[0], 1e-10)


CHAIN = {"chain__kind": "thinking", "chain__steps": 1}
CASES: dict[str, dict[str, Any]] = {
    "grpo": {},
    "the question visible": {"objective__conditioning": "non_markovian"},
    "rloo, prob, no baseline": {"objective__name": "rloo", "objective__reward": "prob", "objective__normalize_reward": False},
    "ppo, two passes": {"objective__name": "ppo", "objective__passes": 2},
    "one CoT a micro-batch": {"microbatch_tokens": 1},
    "other temperature, no gradient through the reward": {"rollouts__temperature": 1.7, "objective__actor_reward_weight": 0.0},
    "fixed length, entropy": {"rollouts__fixed_length": True, "objective__entropy_weight": 0.1},
    "every prompt with its CoT": {"training__prompt_sharing": "padded"},
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_is_the_ordinary_step(tiny_models: dict[str, Path], case: str) -> None:
    ordinary, chain = (stepped(tiny_models["gpt2"], **CASES[case], **more) for more in ({}, CHAIN))
    assert_the_same(ordinary, chain)


def test_a_question_that_comes_twice(tiny_models: dict[str, Path]) -> None:
    questions = [tiny.QUESTIONS[0], tiny.QUESTIONS[0]]
    assert_the_same(*(stepped(tiny_models["gpt2"], questions, **more) for more in ({}, CHAIN)))


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_of_other_models(tiny_models: dict[str, Path], architecture: str) -> None:
    assert_the_same(*(stepped(tiny_models[architecture], **more) for more in ({}, CHAIN)))


def test_prompts_are_the_same_and_only_the_keys_of_the_draws_differ(tiny_models: dict[str, Path]) -> None:
    """With their own keys the same questions get other CoTs: a resumed run of either keeps its draws."""
    (_, ours, one), (learner, _, other) = (stepped(tiny_models["gpt2"], **more) for more in ({}, CHAIN))
    assert [r.prompt for r in other.seen if "chain" in r.streams[0]] == [r.prompt for r in one.seen[:2] for _ in range(3)]
    assert [r.streams for r in one.seen[:1]] == [tuple((0, "cot", 1, "q/1", n) for n in range(3))]
    assert [r.streams for r in other.seen[:3]] == [((0, "chain", 1, "q/1", n, 1),) for n in range(3)]
    learner.sampler = other.sampler
    drawn = take_step(learner, tiny.QUESTIONS[:2], 1).samples
    assert [s.cot for s in drawn] != [s.cot for s in ours.samples]
    assert all(isinstance(s, Sample) and math.isfinite(s.reward) for s in drawn)
    assert torch.isfinite(learner.optimizer.flat()).all()  # type: ignore[attr-defined]
