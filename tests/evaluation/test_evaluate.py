"""The evaluator on tiny models: two stages, controls, extractors, failure kinds, log-likelihood alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from markovlm.evaluation.answering import score_text
from markovlm.evaluation.evaluate import evaluate, how_evaluated
from markovlm.evaluation.run import Control
from markovlm.evaluation.store import rescored
from markovlm.runs.setup import Setup, prepare
from markovlm.tasks import get_task
from markovlm.tasks.base import Example
from support import tiny
from support.fake import FakeSampler


@pytest.fixture(scope="module")
def setup(tiny_models: dict[str, Path]) -> Setup:
    return prepare(tiny.config(tiny_models["llama"]))


def how_of(setup: Setup, **changes):
    return replace(how_evaluated(setup.config, setup.prompter, step=1), **changes)


def scripted(setup: Setup, texts: dict[bool, str]) -> FakeSampler:
    """Writes texts[True] behind a CoT prompt and texts[False] where an answer is asked for."""
    header = setup.prompter.header_ids

    def script(prompt: tuple[int, ...], _: int) -> list[int]:
        text = texts[prompt[-len(header) :] != header]
        return setup.lm.tokenizer.encode(text, add_special_tokens=False)

    return FakeSampler(script)


def run(setup: Setup, examples, sampler=None, how=None, **options):
    return evaluate(setup.lm, sampler or setup.sampler(), setup.prompter, examples, how or how_of(setup), **options)


def test_the_answer_is_what_the_extractors_read_behind_the_cot(setup: Setup) -> None:
    done = run(setup, tiny.QUESTIONS[:2], scripted(setup, {True: "1+22=23 ", False: " 23."}), how_of(setup, cot_tokens=8))
    first, second = done.readings
    assert (first.cot, first.answer) == ("1+22=23 ", " 23.")
    assert first.extracted == {"final_number": "23", "anchor": "23", "simple": "23", "math_verify": "23"}
    assert all(first.correct.values())
    assert not any(second.correct.values())  # gold is 24
    assert (first.failure, second.failure) == (None, "other")
    summary = done.summary()
    assert (summary["n"], summary["accuracy"], summary["failures"]["other"]) == (2, 0.5, 1)
    # Wilson for 1 of 2, z² = 3.8415: centre (0.5 + z²/4)/(1 + z²/2) = 0.5, half width z sqrt(1/8 + z²/16)/(1 + z²/2) = 0.4055
    assert summary["ci95"] == pytest.approx([0.0945, 0.9055], abs=1e-4)


@pytest.mark.parametrize(
    ("reply", "read", "taken"), [(" 2", None, "2"), (" 1+22=2", None, "2"), (" 23. 2", "23", "23"), (" 23\n", "23", "23")]
)
def test_a_number_that_the_budget_cut_is_not_taken_for_the_answer(
    tiny_models: dict[str, Path], reply: str, read: str | None, taken: str
) -> None:
    setup = prepare(tiny.config(tiny_models["llama"], objective__answer_end="open"))
    line_break = setup.lm.tokenizer.encode("\n", add_special_tokens=False)
    sampler = scripted(setup, {True: "1+22=23 ", False: reply})
    sampler.terminators = tuple(line_break)
    done = run(setup, tiny.QUESTIONS[:1], sampler, how_of(setup, cot_tokens=8))
    [reading] = done.readings
    assert reading.answer_ended == reply.endswith("\n")
    assert reading.extracted["final_number"] == read
    assert reading.extracted["simple"] == taken  # the research code's take what there is
    assert rescored(setup.task, reading) == reading
    as_before = rescored(setup.task, replace(reading, answer_ended=None))  # a reading of a version that did not keep it
    assert as_before.extracted["final_number"] == taken


@pytest.mark.parametrize(
    ("cot", "answer", "kind"),
    [
        ("1+22=24", " 24", "wrong_arithmetic"),
        ("4" * 60, " 4", "repetition"),
        ("so", "", "no_answer"),
        ("so", " apples", "format"),
        ("so", " 7 or 23", "not_extracted"),
        ("so", " 7", "other"),
    ],
)
def test_failures_are_sorted(cot: str, answer: str, kind: str) -> None:
    scored = score_text(get_task("arithmetic"), tiny.QUESTIONS[0], cot, answer, {})
    assert scored.failure == kind


def test_likelihood_reads_no_text() -> None:
    example = Example("m/1", "Which?", "B", choices=("iron", "wood"))
    scored = score_text(get_task("arc"), example, "so", " A", {"A": -2.0, "B": -1.0})
    assert scored.extracted == {"final_letter": "A", "word_boundary": "A", "legacy": "A", "likelihood": "B"}
    assert scored.correct == {"final_letter": False, "word_boundary": False, "legacy": False, "likelihood": True}


def test_batches_and_order_change_nothing(setup: Setup) -> None:
    """CoTs come from streams of their own, so a question's reading does not depend on its neighbours."""
    seen: list[str] = []
    whole = run(setup, tiny.QUESTIONS, batch_size=4)
    single = run(setup, tiny.QUESTIONS[::-1], batch_size=1, on_batch=lambda batch: seen.extend(r.id for r in batch))
    assert [r.id for r in whole.readings] == [e.id for e in tiny.QUESTIONS]
    assert sorted(seen) == sorted(e.id for e in tiny.QUESTIONS)
    for ours, theirs in zip(whole.readings, single.readings[::-1], strict=True):
        assert replace(ours, logprob=0.0) == replace(theirs, logprob=0.0)
        assert ours.logprob == pytest.approx(theirs.logprob, rel=1e-9)


def test_the_markovian_reader_never_sees_the_question(setup: Setup) -> None:
    """Two questions, one CoT, one gold answer: the same likelihood; with the question visible another one."""
    same = [tiny.QUESTIONS[0], tiny.renamed(tiny.QUESTIONS[0], "9+8")]
    for conditioning, equal in (("markovian", True), ("non_markovian", False)):
        how, texts = how_of(setup, conditioning=conditioning), scripted(setup, {True: "12", False: "3"})
        first, second = (run(setup, [example], texts, how).readings[0].logprob for example in same)
        assert (first == second) is equal


def test_controls(setup: Setup) -> None:
    how = how_of(setup)
    assert Control(non_markovian=True).apply(how) == replace(how, conditioning="non_markovian")
    direct = Control(no_cot=True).apply(how)
    assert (direct.cot_tokens, direct.conditioning) == (0, "non_markovian")
    reading = run(setup, tiny.QUESTIONS[:1], how=direct).readings[0]
    assert (reading.cot, reading.cot_tokens) == ("", 0)


def test_a_frozen_reader_reads_with_the_base(tiny_models: dict[str, Path]) -> None:
    trained = prepare(tiny.config(tiny_models["llama"]), trainable=True)
    tiny.shake(trained.lm)
    base = prepare(tiny.config(tiny_models["llama"]))
    texts = scripted(trained, {True: "12", False: "3"})
    expected = run(base, tiny.QUESTIONS[:1], texts).readings[0].logprob
    assert run(trained, tiny.QUESTIONS[:1], texts, how_of(trained, reader="frozen")).readings[0].logprob == expected
    assert run(trained, tiny.QUESTIONS[:1], texts).readings[0].logprob != expected


def test_a_task_without_extractors_is_judged_by_likelihood_alone(tiny_models: dict[str, Path], monkeypatch) -> None:
    setup = prepare(tiny.config(tiny_models["llama"], task="wiki"))
    monkeypatch.setattr("markovlm.evaluation.evaluate.greedy_reads", lambda *_: pytest.fail("nothing is to be written"))
    with torch.random.fork_rng():
        done = run(setup, [Example("w/1", "The sea is", " deep and blue.")])
    summary = done.summary()
    assert (summary["accuracy"], summary["ci95"], summary["extractors"], summary["failures"]) == (None, None, {}, {})
    assert summary["logprob"] < 0


def test_answers_of_such_a_task_are_written_when_asked_for(tiny_models: dict[str, Path]) -> None:
    setup = prepare(tiny.config(tiny_models["llama"], task="wiki"))
    assert run(setup, [Example("w/1", "The sea is", " deep.")], write_answers=True).readings[0].answer
