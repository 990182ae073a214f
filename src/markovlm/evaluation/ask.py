"""One question: its CoT, and the answer read from the CoT alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markovlm.errors import UserError
from markovlm.evaluation.evaluate import evaluate, how_evaluated
from markovlm.runs.setup import Setup
from markovlm.tasks.base import Example
from markovlm.tasks.prompts import unknown_in


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of a question."""

    question: str
    cot: str
    answer: str | None  # as the task's default extractor reads it; None: no answer in the text
    raw_answer: str
    cot_tokens: int


def ask(setup: Setup, question: str) -> Any:
    """Write a CoT, hide the question, read the answer. Raises UserError for a question the task can't put.

    An `Asked`; of a run that thinks in pieces (chain.kind=thinking) an `AskedChain`.
    """
    if setup.config.chain.on:
        from markovlm.evaluation.ask_chain import ask_thinking

        return ask_thinking(setup, check_question(setup, question))
    example = Example("ask", check_question(setup, question), answer="0")  # the gold answer is unknown; its score is not shown
    how = how_evaluated(setup.config, setup.prompter.style, step=setup.config.training.steps)
    reading = evaluate(setup.lm, setup.sampler(), setup.prompter, [example], how, write_answers=True).readings[0]
    extracted = reading.extracted[setup.task.extractors[0]] if setup.task.extractors else reading.answer.strip()
    return Asked(reading.question, reading.cot, extracted, reading.answer, reading.cot_tokens)


def check_question(setup: Setup, question: str) -> str:
    """The question as it is put. UserError where it is empty or has characters that the model has no token for."""
    asked = question.strip()
    if not asked:
        raise UserError("the question is empty")
    unknown = unknown_in(setup.lm.tokenizer, asked)
    if unknown:
        raise UserError(f"the question has words this model does not know: {' '.join(unknown[:8])}")
    return asked
