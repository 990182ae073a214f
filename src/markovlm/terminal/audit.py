"""An audit on the terminal: the tables of its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from markovlm.analysis.render import visible
from markovlm.auditing.tables import tables_of
from markovlm.terminal.console import say, show

_WIDTH = 160  # where it is not a terminal


def show_preview(console: Console, found: Mapping[str, Any]) -> None:
    """Print groups and cost."""
    _source(console, found)
    for group in found["groups"]:
        say(console, f"group {visible(group['group'])}: {group['cots']} CoTs of {group['n']} questions")
    for one in found["readers"]:
        parts = ", ".join(f"{part} {tokens:,}" for part, tokens in one["by_part"].items())
        say(console, f"{one['reader']}: about {one['tokens']:,} tokens ({parts}); longest CoT {one['longest_cot']:,}")
    say(console, f"results would go to {found['out']}")


def show_audit(console: Console, result: Mapping[str, Any]) -> None:
    """Print everything but the examples, which are on the page."""
    if not console.is_terminal:
        console.width = _WIDTH
    _source(console, result)
    for found in (table for tables in tables_of(result).values() for table in tables):
        console.print()
        show(console, found)
    console.print()
    say(console, visible(result["quote"]))
    say(console, visible(result["caveat"]))


def _source(console: Console, result: Mapping[str, Any]) -> None:
    say(console, f"read as {', '.join(result['sources'])}; brackets hold 95 % bootstrap intervals over questions")
    for note in result["notes"]:
        say(console, f"note: {visible(note)}")
    if result["skipped"]["rows"]:
        say(console, f"left out: {result['skipped']['rows']} rows, the first: {visible(result['skipped']['first'][0])}")
