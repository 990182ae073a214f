"""Checks of a command's input that need no model, made before torch is imported, which takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markovlm.config import CHANGEABLE, RunConfig, build_config, flatten, load_recorded
from markovlm.errors import UserError
from markovlm.models.registry import check_path
from markovlm.runs.asking import task_of


def check_ahead(config: RunConfig, *splits: str) -> None:
    """Raise UserError for a model that is neither a directory nor a Hub id, an unknown task, option or split, or missing data.
    `splits`: those that will be read. What remains to be checked needs the model or the data.
    """
    check_path(config.model)
    task = task_of(config)
    for split in splits:
        if split not in task.splits:
            raise UserError(f"task {task.name} has no split {split!r}; splits: {', '.join(task.splits)}")
    for part in (config.data, *(share.data(config.data) for share in config.tasks.values())):
        if part.path is not None and not Path(part.path).expanduser().exists():
            raise UserError(f"data.path: {part.path}: no such file or directory")


def resumed_config(out: Path, overrides: dict[str, Any]) -> RunConfig:
    """The configuration of the run in `out`. Only `training.steps` and keys that change no number may be overridden."""
    if not out.exists():
        raise UserError(f"--resume {out}: does not exist; name a run directory")
    if not out.is_dir():
        raise UserError(f"--resume {out}: is a file, not a run directory")
    path = out / "config.yaml"
    if not path.exists():
        raise UserError(f"--resume {out}: has no config.yaml, so it is not a run, or it never began; start a new run")
    for key in flatten(overrides):
        if key not in CHANGEABLE and not key.startswith("logging."):
            raise UserError(f"--resume keeps the run's configuration, so {key} can't be changed; start a new run to change it")
    return build_config(load_recorded(path), overrides, source=str(path))
