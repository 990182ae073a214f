"""One question: its CoT, and the answer read from the CoT alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from markovlm.errors import UserError
from markovlm.evaluation.evaluate import evaluate, how_evaluated
from markovlm.runs.setup import Setup
from markovlm.tasks.base import Example
from markovlm.tasks.choices import asked_example
from markovlm.tasks.prompts import unknown_in


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of a question."""

    question: str
    cot: str
    answer: str | None  # as the task's default extractor reads it; None: no answer in the text
    raw_answer: str
    cot_tokens: int
    choices: tuple[str, ...] = ()
    choice_logprobs: dict[str, float] = field(default_factory=dict[str, float])  # letter -> ln pi(letter | CoT), nats
    correct: bool | None = None  # None: no gold answer was given, or the task extracts none
    logprob: float | None = None  # ln pi(gold | CoT), nats per answer token; None: no gold answer was given


def ask(setup: Setup, question: str | Example, choices: Sequence[str] = ()) -> Any:
    """Write a CoT, hide the question, read the answer. Raises UserError for a question the task can't put.

    `choices`: of a multiple-choice task; those of an Example, or listed in the question's text, count too. An `Asked`; of a run that
    thinks in pieces (chain.kind=thinking) an `AskedChain`.
    """
    task = setup.task
    asked = check_example(setup, asked_example(question, choices, task.answer_type, task.name, identity="ask"))
    if setup.config.chain.on:
        from markovlm.evaluation.ask_chain import ask_thinking

        return ask_thinking(setup, with_some_answer(asked))
    how = how_evaluated(setup.config, setup.prompter.style, step=setup.config.training.steps)
    example = with_some_answer(asked)
    reading = evaluate(setup.lm, setup.sampler(), setup.prompter, [example], how, write_answers=True).readings[0]
    first = task.extractors[0] if task.extractors else None
    return Asked(
        question=reading.question,
        cot=reading.cot,
        answer=reading.answer.strip() if first is None else reading.extracted[first],
        raw_answer=reading.answer,
        cot_tokens=reading.cot_tokens,
        choices=reading.choices,
        choice_logprobs=reading.choice_logprobs,
        correct=reading.correct[first] if first is not None and asked.answer else None,
        logprob=reading.logprob if asked.answer else None,
    )


def with_some_answer(example: Example) -> Example:
    """An example whose gold answer is not known gets one that can be scored; its score must not be shown."""
    return example if example.answer else replace(example, answer="A" if example.choices else "0")


def check_question(setup: Setup, question: str) -> str:
    """The question as it is put. UserError where it is empty or has characters that the model has no token for."""
    return check_example(setup, Example("asked", question.strip(), "")).question


def check_example(setup: Setup, example: Example) -> Example:
    """The example itself. UserError where its question is empty or it has characters that the model has no token for."""
    if not example.question:
        raise UserError("the question is empty")
    unknown = unknown_in(setup.lm.tokenizer, " ".join((example.question, *example.choices)))
    if unknown:
        raise UserError(f"the question has words this model does not know: {' '.join(unknown[:8])}")
    return example
