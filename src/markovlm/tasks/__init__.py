"""Tasks by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from markovlm.registry import TASKS
from markovlm.tasks.base import Task


class _Configurable(Protocol):
    def configured(self, options: Mapping[str, Any]) -> Task: ...


def task_names() -> tuple[str, ...]:
    """The known tasks, those of plug-ins last."""
    return tuple(TASKS)


def get_task(name: str, options: Mapping[str, Any] | None = None) -> Task:
    """The task of this name with its options applied (they can change its answer type or source).

    Raises UserError for an unknown name or option. Pass the same options in `LoadRequest.options`.
    """
    return cast(_Configurable, TASKS.find(name)).configured(options or {})


def task_options(name: str) -> dict[str, str]:
    """Option -> what it does, for the task of this name."""
    return dict(getattr(get_task(name), "option_help", {}))
