"""Tasks by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol, cast

from markovlm.errors import UserError
from markovlm.tasks.base import Task
from markovlm.tasks.sources import close_match

# Where each task lives; a module is imported when its task is asked for.
_MODULES: dict[str, tuple[str, str]] = {
    "arithmetic": ("arithmetic", "TASK"),
    "gsm8k": ("gsm8k", "TASK"),
    "svamp": ("svamp", "TASK"),
    "aqua": ("aqua", "TASK"),
    "mathqa": ("mathqa", "TASK"),
    "arc": ("arc", "CHALLENGE"),
    "arc_easy": ("arc", "EASY"),
    "mmlu": ("mmlu", "TASK"),
    "wiki": ("wiki", "TASK"),
    "custom": ("custom", "TASK"),
}


class _Configurable(Protocol):
    def configured(self, options: Mapping[str, Any]) -> Task: ...


def task_names() -> tuple[str, ...]:
    """The known tasks."""
    return tuple(_MODULES)


def get_task(name: str, options: Mapping[str, Any] | None = None) -> Task:
    """The task of this name, with its options applied (they can change its answer type or source).

    UserError on an unknown name or option. The same options belong in `LoadRequest.options`.
    """
    if name not in _MODULES:
        raise UserError(f"no task {name!r}{close_match(name, _MODULES)}; tasks: {', '.join(_MODULES)}")
    module, attribute = _MODULES[name]
    task = getattr(importlib.import_module(f"markovlm.tasks.{module}"), attribute)
    return cast(_Configurable, task).configured(options or {})


def task_options(name: str) -> dict[str, str]:
    """Option -> what it does, of the task of this name."""
    return dict(getattr(get_task(name), "option_help", {}))
