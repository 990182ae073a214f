"""Which task a configuration asks, with which options, and where its questions come from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from markovlm.config import RunConfig
from markovlm.errors import UserError
from markovlm.tasks import get_task, task_options
from markovlm.tasks.base import HubSource, Task
from markovlm.tasks.custom import Kind, kind_of_answers
from markovlm.tasks.mixture import Mixture

OWN = "custom"  # the task whose columns and kind of answer are the user's


def parts_of(config: RunConfig) -> dict[str, RunConfig]:
    """Task -> a configuration that asks this task alone. A run with one task has one entry."""
    if not config.tasks:
        return {config.task: config}
    for option in config.task_options:
        if not any(option in task_options(name) for name in config.tasks):
            raise UserError(
                f"task_options.{option}: none of the tasks {config.task} has this option; an option of one task goes in tasks.NAME.options"
            )
    return {name: part_of(config, name) for name in config.tasks}


def part_of(config: RunConfig, name: str) -> RunConfig:
    """The run's configuration with one of its tasks alone."""
    share, known = config.tasks[name], task_options(name)
    shared = {option: value for option, value in config.task_options.items() if option in known}
    update = {"task": name, "tasks": {}, "task_options": {**shared, **share.options}, "data": share.data(config.data)}
    return config.model_copy(update=update)


def options_of(config: RunConfig) -> dict[str, Any]:
    """Options of the task: `task_options`, and for task custom what `data.columns` and `data.answer_kind` say. If nothing says what
    kind the answers of task custom are, it is inferred from them: see `chosen_kind`.
    """
    options = _options_given(config)
    found = chosen_kind(config)
    return options if found is None else {**options, "answer_type": found.answer_type}


def chosen_kind(config: RunConfig) -> Kind | None:
    """The kind of the answers in the user's own file or dataset where the configuration does not say; None for any other task."""
    where = hub_of(config) or (Path(config.data.path).expanduser() if config.data.path else None)
    if config.task != OWN or config.tasks or where is None:
        return None
    options = _options_given(config)
    return None if "answer_type" in options else kind_of_answers(where, options)


def with_kind(config: RunConfig) -> RunConfig:
    """The configuration with the inferred kind of the user's own answers, so that the run's record holds what was chosen."""
    if OWN in config.tasks:
        part = part_of(config, OWN)
        share = config.tasks[OWN].model_copy(update={"answer_kind": with_kind(part).data.answer_kind})
        return config.model_copy(update={"tasks": {**config.tasks, OWN: share}})
    if config.task != OWN or config.data.answer_kind or "answer_type" in config.task_options:
        return config
    return config.model_copy(
        update={"data": config.data.model_copy(update={"answer_kind": options_of(config).get("answer_type", "number")})}
    )


def _options_given(config: RunConfig) -> dict[str, Any]:
    options: dict[str, Any] = dict(config.task_options)
    if config.task != OWN:
        if config.data.answer_kind is not None:
            raise UserError(f"data.answer_kind is only for task {OWN}, not for {config.task}: leave it out, or use --task {OWN}")
        return options
    said = {**config.data.columns.given(), **({"answer_type": config.data.answer_kind} if config.data.answer_kind else {})}
    for name, value in said.items():
        if options.get(name, value) != value:
            key = "data.answer_kind" if name == "answer_type" else f"data.columns.{name}"
            raise UserError(f"task_options.{name} is {options[name]!r}, but {key} is {value!r}; leave one of them out")
    return {**options, **said}


def task_of(config: RunConfig) -> Task:
    """The task with its options. Raises UserError if the task is unknown or an option does not fit."""
    if config.tasks:
        return Mixture({name: task_of(part) for name, part in parts_of(config).items()})
    return get_task(config.task, options_of(config))


def columns_of(config: RunConfig) -> dict[str, str]:
    """What a built-in task calls its columns -> what the data calls them."""
    return {} if config.task == OWN else config.data.columns.given()


def hub_of(config: RunConfig) -> HubSource | None:
    """The Hub dataset that replaces the task's own."""
    return None if config.data.hub is None else HubSource(config.data.hub, config.data.hub_subset)


def source_of(config: RunConfig) -> str | None:
    """A name for where the questions come from, the same for the same questions. None: the task's own Hub dataset, or a generator."""
    data = config.data
    name = os.path.realpath(Path(data.path).expanduser()) if data.path else None
    if data.hub is not None:
        name = f"hub:{data.hub}" + (f"/{data.hub_subset}" if data.hub_subset else "")
    columns = ",".join(f"{ours}={theirs}" for ours, theirs in columns_of(config).items())
    return f"{name or ''} ({columns})" if columns else name
