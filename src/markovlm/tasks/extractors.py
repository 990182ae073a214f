"""Reads the answers of a task with other extractors than its own, if a configuration names some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass, replace
from typing import Any, cast

from markovlm.errors import UserError
from markovlm.registry import EXTRACTORS
from markovlm.tasks.base import LIKELIHOOD, Task


def with_extractors(task: Task, names: Sequence[str]) -> Task:
    """The task with these extractors instead of its own (the first decides), or the task itself if none are given.

    Raises UserError for an unknown name, or an extractor for answers of another type.
    """
    if not names:
        return task
    for name in names:
        if name == LIKELIHOOD:
            fits, reads = task.answer_type == "letter", "letter"
        else:
            reads = EXTRACTORS.find(name, "evaluation.extractors: ").answer_type
            fits = reads == task.answer_type
        if not fits:
            raise UserError(
                f"evaluation.extractors: {name} reads answers of type {reads}, but those of {task.name} are of type {task.answer_type}"
            )
    if is_dataclass(task):
        return cast(Task, replace(cast(Any, task), extractors=tuple(dict.fromkeys(names))))
    return cast(Task, _Reading(task, tuple(dict.fromkeys(names))))


class _Reading:
    """Another task, read by other extractors."""

    def __init__(self, task: Task, extractors: tuple[str, ...]):
        self._task = task
        self.extractors = extractors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)
