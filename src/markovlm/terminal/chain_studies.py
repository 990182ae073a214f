"""Studies of chains as people read them."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from markovlm.intervals import found_text
from markovlm.terminal.console import stdout, table

_WIDTH = 150
_KINDS = {"answer": "answers", "next_chunk": "next chunks"}


def show_chain_studies(result: dict[str, Any]) -> None:
    """Tables of the parts that are there."""
    console = stdout()
    if not console.is_terminal:
        console.width = _WIDTH
    thinking = result["chain"] == "thinking"
    several = "questions" if thinking else "texts"
    about = f"{result['task']}, {result['split']} split, {result['n']} {several}, {result['checkpoint']}"
    console.print(Text(about))
    if result.get("damage"):
        _damage(console, result["damage"], "piece" if thinking else "state", "pieces" if thinking else "chunks")
    if result.get("words"):
        _words(console, result["words"], thinking)
    if result.get("facts"):
        _facts(console, result["facts"])
    console.print(Text(f"intervals: 95 %, bootstrap over {several}"))
    for note in result["notes"]:
        console.print(Text(f"note: {note}"), soft_wrap=True)


def _damage(console: Any, found: dict[str, Any], one: str, many: str) -> None:
    cells = [
        [
            row["perturbation"],
            f"{row['severity']:.0%}",
            str(row["lag"]),
            _KINDS[row["predicted"]],
            str(row["n"]),
            found_text(row["drop_logprob"]),
            found_text(row["drop_accuracy"]),
            found_text(row["state_differs"]),
        ]
        for row in found["rows"]
        if row["severity"] > 0
    ]
    columns = ["damage", "of it", "lag", "predicted", "n", "drop of nats per token", "drop of accuracy", f"{one} differs"]
    console.print(table(f"damage to the {one} at t, read `lag` {many} later", columns, cells))


def _words(console: Any, found: dict[str, Any], thinking: bool) -> None:
    read = "where nothing is predicted from it: of the next piece as it was written" if thinking else "of what is predicted"
    for text in found["texts"][:2]:
        console.print(
            Text(f"\n{text['text']}: word (nats a token lost without it, {read}; + in the next one, - not)"), soft_wrap=True
        )
        for state in text["states"]:
            shown = "  ".join(f"{w['word']}{_drop(w)}{_mark(w['survives'])}" for w in state["words"])
            chunk = "" if thinking else f"{state['chunk'][:40]:40}  "
            console.print(Text(f"  {state['t']:>3}  {chunk}{shown}"), soft_wrap=True)
    one = "piece" if thinking else "state"
    console.print(Text(f"share of a {one}'s words and numbers that stand in the next one: {found_text(found['survival'])}"))


def _facts(console: Any, found: dict[str, Any]) -> None:
    """By age where it is known which chunk a fact stands in, else by t."""
    name, rows = ("age", found["by_age"]) if found["by_age"] else ("t", found["by_t"])
    cells = [[str(row[name]), str(row["n"]), found_text(row["accuracy"]), found_text(row["logprob"])] for row in rows]
    columns = ["age of the fact" if name == "age" else "read after t", "n", "answered right", "nats per token"]
    about = "facts in the notes (age 0: the fact is in the chunk just read; below: not read yet)"
    console.print(table(about if name == "age" else "the question's answer, read from every state", columns, cells))


def _drop(word: dict[str, Any]) -> str:
    value = word["drop_next"] if word["drop"] is None else word["drop"]
    return "" if value is None else f"({value:.1f})"


def _mark(survives: bool | None) -> str:
    return "" if survives is None else "+" if survives else "-"
