"""Studies of chains on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from markovlm.terminal.console import say, stdout
from markovlm.terminal.studies import show_study

_WIDTH = 150


def show_chain_studies(result: dict[str, Any]) -> None:
    """Print the findings in words, the tables, and the words of two texts."""
    console = stdout()
    if not console.is_terminal:
        console.width = _WIDTH
    show_study(console, result)
    if result.get("words"):
        _words(console, result["words"], result["chain"] == "thinking")
    say(console, f"intervals: 95 %, bootstrap over {'questions' if result['chain'] == 'thinking' else 'texts'}")
    for note in result["notes"]:
        say(console, f"note: {note}")


def _words(console: Console, found: dict[str, Any], thinking: bool) -> None:
    read = "if nothing is predicted from it, of the next piece as written" if thinking else "of what is predicted"
    for text in found["texts"][:2]:
        say(console, f"\n{text['text']}: word (nats per token lost without it, {read}; + in the next one, - not)")
        for state in text["states"]:
            shown = "  ".join(f"{w['word']}{_drop(w)}{_mark(w['survives'])}" for w in state["words"])
            chunk = "" if thinking else f"{state['chunk'][:40]:40}  "
            say(console, f"  {state['t']:>3}  {chunk}{shown}")


def _drop(word: dict[str, Any]) -> str:
    value = word["drop_next"] if word["drop"] is None else word["drop"]
    return "" if value is None else f"({value:.1f})"


def _mark(survives: bool | None) -> str:
    return "" if survives is None else "+" if survives else "-"
