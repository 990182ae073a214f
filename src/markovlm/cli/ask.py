"""`markovlm ask`."""

from __future__ import annotations

from typing import Any

import click

from markovlm.cli.flags import EVAL_SECTIONS, config_flags, overrides, print_json


@click.command()
@click.argument("target", metavar="RUN|MODEL")
@click.argument("question")
@click.option("--checkpoint", default="last", help="last, best, base or a step [default last]")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@config_flags(*EVAL_SECTIONS)
def ask(target: str, question: str, checkpoint: str, as_json: bool, **flags: Any) -> None:
    """One CoT, and the answer read from it alone."""
    from dataclasses import asdict

    from markovlm.evaluation.ask import ask as ask_model
    from markovlm.runs.targets import open_targets
    from markovlm.terminal.ask import show_asked

    picked = open_targets(target, checkpoint, overrides(flags))[0]
    result = ask_model(picked.prepare(), question)
    if as_json:
        print_json({"checkpoint": picked.checkpoint, **asdict(result)})
    else:
        show_asked(picked.checkpoint, result)
