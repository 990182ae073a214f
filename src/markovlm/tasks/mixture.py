"""Several tasks in one: each question belongs to the task that its id begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from markovlm.errors import UserError
from markovlm.tasks.base import AnswerType, Example, HubSource, Loaded, LoadRequest, PromptKind, Task


@dataclass(frozen=True, eq=False)
class Mixture:
    """What a prompter needs of several tasks at once. Budgets are the largest; everything else comes from the question's own task."""

    parts: Mapping[str, Task]

    def of(self, example: Example) -> Task:
        """The task of a question."""
        return self.parts[example.id.partition("/")[0]]

    @property
    def name(self) -> str:
        return "+".join(self.parts)

    @property
    def summary(self) -> str:
        return f"{len(self.parts)} tasks: {', '.join(self.parts)}"

    @property
    def prompt_kind(self) -> PromptKind:
        return next(iter(self.parts.values())).prompt_kind

    @property
    def answer_type(self) -> AnswerType:
        return next(iter(self.parts.values())).answer_type

    @property
    def default_cot_tokens(self) -> int:
        return max(task.default_cot_tokens for task in self.parts.values())

    @property
    def max_answer_tokens(self) -> int:
        return max(task.max_answer_tokens for task in self.parts.values())

    @property
    def extractors(self) -> tuple[str, ...]:
        return ()

    @property
    def splits(self) -> tuple[str, ...]:
        first, *rest = (task.splits for task in self.parts.values())
        return tuple(split for split in first if all(split in other for other in rest))

    @property
    def hub(self) -> HubSource | None:
        return None

    @property
    def licence(self) -> str:
        return "; ".join(dict.fromkeys(task.licence for task in self.parts.values() if task.licence))

    def load(self, request: LoadRequest) -> Loaded:
        raise UserError(f"{self.name}: load the questions of one task at a time")


def task_of_example(task: Task, example: Example) -> Task:
    """The task itself, or the part of a mixture that the question belongs to."""
    return task.of(example) if isinstance(task, Mixture) else task


def under_its_name(name: str, examples: Sequence[Example]) -> list[Example]:
    """Examples whose ids begin with the name of their part."""
    return [e if e.id.startswith(f"{name}/") else replace(e, id=f"{name}/{e.id}") for e in examples]
