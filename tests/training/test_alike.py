"""CoTs that are the same are computed once, and nothing but the time shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from markovlm.models.language import LanguageModel
from markovlm.rollouts.reader import AnswerScores, answer_batch, joined_scores, score_answers
from markovlm.rollouts.types import CoT
from markovlm.training.records import Learner, Sample
from markovlm.training.scoring import score_cots
from support import naive, tiny

COTS = ((20, 21, 22, 23), (30, 31), (20, 21, 22, 23), (20, 21), (30, 31), (20, 21, 22, 23))
ASKED = (0, 3, 0, 3, 0, 0)  # CoTs 0, 2 and 5 are the same; CoT 4 is CoT 1 to another question, with a shorter answer


def samples() -> list[Sample]:
    return [
        Sample(tiny.QUESTIONS[asked], number, CoT(ids, len(ids), (-1.0,) * len(ids), ended=False))
        for number, (asked, ids) in enumerate(zip(ASKED, COTS, strict=True))
    ]


@pytest.fixture(params=["shared", "padded"])
def learner(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> Learner:
    made = tiny.learner(tiny.config(tiny_models["llama"]))
    made.sharing = request.param
    return made


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sequences each pass computes."""
    decode, seen = LanguageModel.decode, []

    def watched(self: LanguageModel, input_ids: Tensor, **kwargs: Any) -> Any:
        seen.append(len(input_ids))
        return decode(self, input_ids, **kwargs)

    monkeypatch.setattr(LanguageModel, "decode", watched)
    return seen


def of_tokens(learner: Learner, some: Sequence[Sample]) -> Tensor:
    """A number of each CoT in which each of its tokens counts otherwise, from all that is scored."""
    scores = score_cots(learner, some, 1)
    weight = torch.linspace(0.5, 2.5, scores.logp.shape[1], dtype=torch.float64)
    return ((scores.logp + 3 * scores.kl - 0.3 * scores.entropy + 0.1 * scores.reference_logp) * weight).sum(-1)


def test_their_tokens_are_scored_as_if_they_were_alone(learner: Learner) -> None:
    of_each = torch.tensor([0.7, -1.3, 0.4, 2.1, -0.2, 0.9], dtype=torch.float64)
    padding = samples()[0]  # so that columns, and their weights, are as many

    def together() -> Tensor:
        return of_tokens(learner, samples())

    def alone() -> Tensor:
        return torch.stack([of_tokens(learner, [sample, padding])[0] for sample in samples()])

    naive.assert_close(together().detach(), alone().detach(), naive.TOLERANCE["llama"])
    ours, theirs = (naive.gradient(learner.lm, lambda make=make: (make() * of_each).sum()) for make in (together, alone))
    assert theirs.abs().max() > 1e-3
    naive.assert_close(ours, theirs, naive.TOLERANCE["llama"])


def answers(learner: Learner, some: Sequence[Sample]) -> AnswerScores:
    batch = answer_batch(learner.prompter, "markovian", [(sample.example, sample.cot.ids) for sample in some])
    return score_answers(learner.lm, batch, learner.sharing)


def test_their_answers_are_scored_as_if_they_were_alone(learner: Learner) -> None:
    together = answers(learner, samples())
    alone = joined_scores([answers(learner, [sample]) for sample in samples()])
    for name in ("logp_sum", "logp_mean", "greedy", "token_logp", "row"):
        naive.assert_close(
            getattr(together, name).detach().double(), getattr(alone, name).detach().double(), naive.TOLERANCE["llama"]
        )
    weight = torch.linspace(-1, 2, len(alone.token_logp), dtype=torch.float64)
    ours, theirs = (
        naive.gradient(learner.lm, lambda s=scores: (s.token_logp * weight).sum() + s.logp_mean[2] - s.logp_sum[5])
        for scores in (together, alone)
    )
    assert theirs.abs().max() > 1e-3
    naive.assert_close(ours, theirs, naive.TOLERANCE["llama"])


def test_a_pass_computes_each_once(learner: Learner, rows: list[int]) -> None:
    with torch.no_grad():
        score_cots(learner, samples(), 1)
        answers(learner, samples())
    distinct = 4
    cots, reads = (distinct, distinct) if learner.sharing == "padded" else (2, 1)  # two questions' prompts; one without any
    assert rows == ([cots] * 2 + [reads] if learner.sharing == "padded" else [cots, distinct] * 2 + [reads, distinct])


def test_dropout_draws_for_each(tiny_models: dict[str, Path], rows: list[int]) -> None:
    learner = tiny.learner(tiny.config(tiny_models["llama"], lora__dropout=0.5))
    learner.sharing = "padded"
    rows.clear()
    with learner.lm.training_mode(), torch.no_grad():
        logp = score_cots(learner, samples(), 1).logp
        read = answers(learner, samples()).logp_sum
    assert rows == [len(COTS)] * 3  # policy, frozen policy, answers
    assert not torch.equal(logp[0], logp[2])
    assert read[0] != read[2]
    with torch.no_grad():
        assert torch.equal(*(score_cots(learner, samples(), 1).logp[[0, 2]]))
