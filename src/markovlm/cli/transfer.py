"""`markovlm transfer`."""

from __future__ import annotations

from typing import Any

import click

from markovlm.cli.flags import Command
from markovlm.cli.study import listed, request_of, run_study, study_flags


@click.command(cls=Command, short_help="Do other models understand the CoTs?")
@click.argument("run", metavar="RUN")
@click.option(
    "--readers",
    "--reader",
    "readers",
    required=True,
    multiple=True,
    metavar="MODEL",
    help="model or run that reads the CoTs; repeatable, or comma-separated",
)
@click.option(
    "--checkpoints",
    default="all",
    help="checkpoints that write the CoTs: all, last, best, or steps such as 100,200 [default all]",
)
@study_flags(100, checkpoint=False)
def transfer(run: str, readers: tuple[str, ...], checkpoints: str, **flags: Any) -> None:
    """Measure whether other models understand the CoTs. The control: the base model's CoTs, read by the same readers."""
    request = request_of(run, ("transfer",), flags, readers=listed(readers), checkpoints=checkpoints)
    run_study(request, flags["as_json"], "transfer")
