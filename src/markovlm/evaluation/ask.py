"""One question: its CoT, and the answer read from the CoT alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from markovlm.evaluation.ask_chain import AskedChain, ask_thinking
from markovlm.evaluation.evaluate import evaluate, how_evaluated
from markovlm.runs.setup import Setup
from markovlm.tasks.base import Example
from markovlm.tasks.choices import asked_example
from markovlm.tasks.prompts import check_example


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


def ask(setup: Setup, question: str | Example, choices: Sequence[str] = ()) -> Asked | AskedChain:
    """Write a CoT, hide the question, read the answer. Raises UserError for a question that does not fit the task.

    `choices`: of a multiple-choice task; those of an Example, or listed in the question's text, count too. Returns an `Asked`; for a
    run that thinks in pieces (chain.kind=thinking) an `AskedChain`.
    """
    task = setup.task
    asked = check_example(setup.lm.tokenizer, asked_example(question, choices, task.answer_type, task.name, identity="ask"))
    if setup.config.chain.on:
        return ask_thinking(setup, with_some_answer(asked))
    how = how_evaluated(setup.config, setup.prompter)
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
    """Give an example without a known gold answer one that can be scored; its score must not be shown."""
    return example if example.answer else replace(example, answer="A" if example.choices else "0")
