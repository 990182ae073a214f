"""The tasks as data: what `markovlm tasks --json` prints."""

from __future__ import annotations

from typing import Any

from markovlm.tasks import get_task, task_names, task_options


def tasks_json() -> dict[str, Any]:
    """All tasks with their defaults."""
    return {"tasks": [_task_row(name) for name in task_names()]}


def _task_row(name: str) -> dict[str, Any]:
    task = get_task(name)
    return {
        "name": name,
        "summary": task.summary,
        "answer_type": task.answer_type,
        "splits": list(task.splits),
        "cot_tokens": task.default_cot_tokens,
        "extractors": list(task.extractors),
        "hub": task.hub.path if task.hub else None,
        "licence": task.licence,
        "options": task_options(name),
    }
