"""`markovlm ask`."""

from __future__ import annotations

from typing import Any

import click

from markovlm.cli.flags import EVAL_SECTIONS, Command, config_flags, overrides, print_json


@click.command(cls=Command)
@click.argument("target", metavar="RUN|MODEL")
@click.argument("question")
@click.option("--checkpoint", default="last", help="last, best, base or a step [default last]")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@config_flags(*EVAL_SECTIONS)
def ask(target: str, question: str, checkpoint: str, as_json: bool, **flags: Any) -> None:
    """One CoT, and the answer read from it alone."""
    from dataclasses import asdict

    from markovlm.api.models import load
    from markovlm.terminal.ask import show_asked

    model = load(target, checkpoint=checkpoint, config=overrides(flags))
    result = model.ask(question)
    if as_json:
        print_json({"checkpoint": model.checkpoint, **asdict(result)})
    else:
        show_asked(model.checkpoint, result)
