"""Studies of chains as people read them."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from markovlm.terminal.console import stdout, table

_WIDTH = 150
_KINDS = {"answer": "answers", "next_chunk": "next chunks"}


def show_chain_studies(result: dict[str, Any]) -> None:
    """Tables of the parts that are there."""
    console = stdout()
    if not console.is_terminal:
        console.width = _WIDTH
    about = f"{result['task']}, {result['split']} split, {result['n']} texts, {result['checkpoint']}"
    console.print(Text(about))
    if result.get("damage"):
        _damage(console, result["damage"])
    if result.get("words"):
        _words(console, result["words"])
    if result.get("facts"):
        _facts(console, result["facts"])
    console.print(Text("intervals: 95 %, bootstrap over texts"))


def _damage(console: Any, found: dict[str, Any]) -> None:
    cells = [
        [
            row["perturbation"],
            f"{row['severity']:.0%}",
            str(row["lag"]),
            _KINDS[row["predicted"]],
            str(row["n"]),
            _number(row["drop_logprob"]),
            _number(row["drop_accuracy"]),
            _number(row["state_differs"]),
        ]
        for row in found["rows"]
        if row["severity"] > 0
    ]
    columns = ["damage", "of it", "lag", "predicted", "n", "drop of nats per token", "drop of accuracy", "state differs"]
    console.print(table("damage to the state at t, read `lag` chunks later", columns, cells))


def _words(console: Any, found: dict[str, Any]) -> None:
    for text in found["texts"][:2]:
        console.print(Text(f"\n{text['text']}: word (nats lost without it; + in the next state, - not)"))
        for state in text["states"]:
            shown = "  ".join(f"{w['word']}{_drop(w['drop'])}{_mark(w['survives'])}" for w in state["words"])
            console.print(Text(f"  {state['t']:>3}  {state['chunk'][:40]:40}  {shown}"), soft_wrap=True)
    console.print(Text(f"share of a state's words that stand in the next one: {_number(found['survival'])}"))


def _facts(console: Any, found: dict[str, Any]) -> None:
    cells = [[str(row["age"]), str(row["n"]), _number(row["accuracy"]), _number(row["logprob"])] for row in found["by_age"]]
    columns = ["age of the fact", "n", "answered right", "nats per token"]
    console.print(table("facts in the notes (age 0: the fact is in the chunk just read; below: not read yet)", columns, cells))


def _drop(value: float | None) -> str:
    return "" if value is None else f"({value:.1f})"


def _mark(survives: bool | None) -> str:
    return "" if survives is None else "+" if survives else "-"


def _number(found: dict[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return "—"
    low, high = found["ci95"]
    return f"{found['mean']:.3f}" if low is None else f"{found['mean']:.3f} [{low:.3f}, {high:.3f}]"
