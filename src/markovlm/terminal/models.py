"""The models known by name."""

from __future__ import annotations

from rich.text import Text

from markovlm.config import flatten
from markovlm.models.registry import KNOWN, SUGGESTED
from markovlm.terminal.console import stdout, table


def show_models() -> None:
    """Embedded models with their defaults, and Hub ids to try."""
    console = stdout()
    console.print(table("Embedded (--model NAME)", ["name", "what"], [[m.name, m.summary] for m in KNOWN.values()]))
    for model in KNOWN.values():
        console.print(Text(f"  defaults of {model.name}: " + "  ".join(f"{k}={v}" for k, v in flatten(model.defaults).items())))
    console.print()
    console.print(table("From the Hub (any other causal LM works too)", ["id", "what"], [[k, v] for k, v in SUGGESTED.items()]))
