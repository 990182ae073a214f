"""Greedy answers read from CoTs, what the extractors make of them, and why a wrong one is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markovlm.tasks.answers import classify_failure, extract, is_correct
from markovlm.tasks.base import LIKELIHOOD, Example, Task


def read_answer(task: Task, example: Example, text: str, method: str, *, ended: bool = True) -> tuple[str | None, bool]:
    """What an extractor reads from the answer text (None: no answer), and whether it is a gold answer. `ended` as in `extract`."""
    found = extract(text, method, choices=example.choices, ended=ended)
    right = any(is_correct(found, gold, task.answer_type, method=method) for gold in (example.answer, *example.also))
    return found, right


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """An answer as every extractor of its task reads it."""

    extracted: dict[str, str | None]  # None: no answer found
    correct: dict[str, bool]
    failure: str | None  # of the default extractor, a key of `answers.FAILURE_KINDS`; None: right, or nothing to extract


def score_text(
    task: Task, example: Example, cot: str, text: str, choice_logprobs: Mapping[str, float], *, ended: bool = True
) -> ScoredAnswer:
    """Apply all extractors of the task to an answer text; with `likelihood`, read the log-probs of the choice letters instead.
    `ended=False`: the token limit cut the text off.
    """
    found: dict[str, tuple[str | None, bool]] = {}
    for method in task.extractors:
        if method == LIKELIHOOD:
            likeliest = max(choice_logprobs, key=choice_logprobs.__getitem__) if choice_logprobs else None
            found[method] = (likeliest, likeliest in (example.answer, *example.also))
        else:
            found[method] = read_answer(task, example, text, method, ended=ended)
    extracted = {method: read for method, (read, _) in found.items()}
    correct = {method: right for method, (_, right) in found.items()}
    if not task.extractors or correct[task.extractors[0]]:
        return ScoredAnswer(extracted, correct, None)
    failure = classify_failure(
        cot=cot,
        answer_text=text,
        predicted=extracted[task.extractors[0]],
        gold=example.answer,
        answer_type=task.answer_type,
        choices=example.choices,
    )
    return ScoredAnswer(extracted, correct, failure)
