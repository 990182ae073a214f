"""`markovlm models`."""

from __future__ import annotations

import click

from markovlm.cli.flags import Command, print_json
from markovlm.config import flatten
from markovlm.models.registry import KNOWN


@click.command(cls=Command)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def models(as_json: bool) -> None:
    """Models known by name, and their defaults. Any causal LM works by path or Hub id."""
    from markovlm.models.registry import SUGGESTED
    from markovlm.terminal.models import show_models

    if as_json:
        known = [{"name": m.name, "summary": m.summary, "defaults": flatten(m.defaults)} for m in KNOWN.values()]
        print_json({"embedded": known, "suggested": [{"name": name, "summary": text} for name, text in SUGGESTED.items()]})
    else:
        show_models()
