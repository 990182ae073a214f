"""What commands share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from markovlm.errors import UserError
from markovlm.plugins import loaded_plugins


def force_flag(command: Any) -> Any:
    """`--force`, for commands that open checkpoints."""
    text = "accept damaged checkpoints, checkpoints of another run, and a changed base model; recorded in events.jsonl"
    return click.option("--force", is_flag=True, expose_value=False, callback=_force, help=text)(command)


def _force(context: click.Context, _: click.Parameter, force: bool) -> None:
    if force:
        from markovlm.runs.manifest import accept_damaged

        context.with_resource(accept_damaged())


def check_there(paths: Sequence[str]) -> None:
    """Raises UserError for a path where nothing is, before the readers of logs are imported. Addresses (`wandb:…`) are left to them."""
    for path in paths:
        if ":" not in path and not Path(path).expanduser().exists():
            raise UserError(f"{path}: no such file or directory; give a run directory, a log, or a directory of these")


def rank() -> int:
    """Of this process, as torchrun numbers them."""
    return int(os.environ.get("RANK", "0"))


def with_plugins(over: dict[str, Any]) -> dict[str, Any]:
    """What was loaded with --plugin belongs to the configuration of a run."""
    return {**over, "plugins": list(loaded_plugins())} if loaded_plugins() else over
