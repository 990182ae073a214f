"""Checks of a plug-in's task and of the examples that it yields. Each function returns what is wrong, or nothing."""

from __future__ import annotations

from typing import cast, get_args

from markovlm.tasks.base import LETTERS, AnswerType, Example, PromptKind, Task
from markovlm.tasks.chain import ChainExample
from markovlm.tasks.numbers import normalize_number

_MEMBERS = ("name", "summary", "prompt_kind", "answer_type", "default_cot_tokens", "max_answer_tokens", "extractors", "splits", "hub",
            "licence", "load", "configured")  # fmt: skip


def missing_members(task: object) -> list[str]:
    """Members of `markovlm.Task` that an object does not have."""
    return [name for name in _MEMBERS if not hasattr(task, name)]


def kind_problem(answer_type: object, prompt_kind: object) -> str:
    """What is wrong with a task's `answer_type` and `prompt_kind`."""
    for name, value, known in (
        ("answer_type", answer_type, get_args(AnswerType)),
        ("prompt_kind", prompt_kind, get_args(PromptKind)),
    ):
        if value not in known:
            return f"{name} {value!r} is not one of {', '.join(known)}"
    return ""


def example_problem(example: object, task: Task) -> str:
    """What is wrong with one thing that a task yielded, phrased to follow "yielded"."""
    if not isinstance(example, Example):
        return f"{type(example).__name__}; it must be a markovlm.Example"
    for name in ("id", "question", "answer"):
        value: object = getattr(example, name)
        if not isinstance(value, str):
            return f"an Example whose {name} is {value!r:.40} ({type(value).__name__}); it must be a str"
    for name in ("choices", "also"):
        value = getattr(example, name)
        if not isinstance(value, tuple) or not all(isinstance(one, str) for one in cast("tuple[object, ...]", value)):
            return f"an Example whose {name} is {value!r:.60}; it must be a tuple of str"
    if not example.question.strip():
        return "an Example whose question is empty"
    return "" if isinstance(example, ChainExample) else _answer_problem(example, task.answer_type)


def _answer_problem(example: Example, answer_type: AnswerType) -> str:
    """Of a gold answer that no reply could ever equal."""
    if answer_type == "letter":
        if not 2 <= len(example.choices) <= len(LETTERS):
            return f"an Example with {len(example.choices)} choices; answer_type letter needs 2 to {len(LETTERS)}"
        letters = LETTERS[: len(example.choices)]
        bad = [one for one in (example.answer, *example.also) if len(one) != 1 or one not in letters]
        return f"an Example whose answer is {bad[0]!r:.40}; it must be one of the letters {', '.join(letters)}" if bad else ""
    if answer_type == "number":
        bad = [one for one in (example.answer, *example.also) if normalize_number(one) is None]
        return f"an Example whose answer is {bad[0]!r:.40}; answer_type number needs a number" if bad else ""
    return "" if example.answer.strip() else "an Example whose answer is empty"
