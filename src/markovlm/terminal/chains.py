"""Evaluations of chains on the terminal: tables, and the states of one text one after another."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from markovlm.intervals import percent_text
from markovlm.present.table import BLANK, Columns, decimal_cell, scored_cell, table_of
from markovlm.terminal.console import say, show, stdout
from markovlm.terminal.evaluation import describe_how

_WIDTH = 150
_NAMES = {
    "own": "its own state",
    "nothing": "nothing",
    "last_tokens": "last tokens of the text",
    "other_text": "state of another text",
    "frozen": "frozen model's state",
    "past_in_sight": "own state, past visible",
}
_MEASURES = {"accuracy": "accuracy", "logprob": "nats per token"}
_KINDS = {"answer": "answers to questions", "next_chunk": "next chunks"}


def show_chains(report: dict[str, Any], readings: str | None = None) -> None:
    """Print a report of `evaluation.chain_run`."""
    console = stdout()
    if not console.is_terminal:
        console.width = _WIDTH
    kinds = dict.fromkeys(kind for row in report["results"] for kind in row["predicted"])
    for kind in kinds:
        _show_kind(console, report, kind)
    for row in report["results"]:
        _show_states(console, row)
    if report["lengths"]:
        _show_lengths(console, report["lengths"])
    say(console, describe_how(report["results"][0]["how"]).replace("CoT", "states", 1))
    say(console, "intervals: 95 %, bootstrap over texts")
    for note in report["notes"]:
        say(console, f"note: {note}")
    if readings:
        say(console, f"all states and readings: {readings}")


def _show_kind(console: Console, report: dict[str, Any], kind: str) -> None:
    results = [row for row in report["results"] if kind in row["predicted"]]
    rows = [{"checkpoint": r["checkpoint"], "control": name, **of} for r in results for name, of in r["predicted"][kind].items()]
    columns: Columns = {
        "checkpoint": lambda row: row["checkpoint"] if row["control"] == "own" else BLANK,
        "read from": lambda row: _NAMES[row["control"]],
        "n": "n",
        "accuracy [95 %]": lambda row: scored_cell(row, "accuracy"),
        "nats per token [95 %]": lambda row: scored_cell(row, "logprob"),
        "own minus this": lambda row: scored_cell(row["versus_own"], "logprob"),
    }
    title = f"{report['task']}, {report['split']} split, {report['results'][0]['texts']} texts: {_KINDS[kind]}"
    show(console, table_of(kind, title, rows, columns).with_known())
    measure = "logprob" if all(row["accuracy"] is None for row in rows) else "accuracy"
    for key, what, title in _BY:
        found = {row["checkpoint"]: {one[what]: one for one in row["predicted"][kind]["own"][key]} for row in results}
        values = list(dict.fromkeys(value for of in found.values() for value in of))
        if len(values) > 1:
            show(console, table_of(key, title, values, {what: int, **_across(found, measure)}))


_BY = (
    ("by_t", "t", "by t, the chunk after which the state was written"),
    ("by_distance", "distance", "by distance, chunks between fact and question"),
)


def _across(found: dict[str, dict[int, dict[str, Any]]], measure: str) -> Columns:
    """n and what was measured of each checkpoint, by t or distance."""
    columns: Columns = {}
    for name, of in found.items():
        columns[f"{name}: n"] = lambda value, of=of: of.get(value, {}).get("n")
        columns[f"{name}: {_MEASURES[measure]}"] = lambda value, of=of: scored_cell(of.get(value), measure)
    return columns


def _show_states(console: Console, row: dict[str, Any]) -> None:
    states = row["states"]
    shares = {
        "the same as the previous one": "notes_frozen",
        "copies of their chunk": "notes_copied",
        "cut by the budget": "notes_overflow",
    }
    faults = ", ".join(f"{percent_text(states[name])} {words}" for words, name in shares.items() if states.get(name) is not None)
    kept = states.get("notes_kept")
    carried = "" if kept is None else f"; {percent_text(kept)} of a state's words are in the next one"
    size = f"{states['mean_tokens']:.1f} tokens per state, at most {states['max_tokens']}"
    say(console, f"{row['checkpoint']}: {states['written']} states, {size}; {faults}{carried}")


def _show_lengths(console: Console, rows: list[dict[str, Any]]) -> None:
    columns: Columns = {
        "checkpoint": "checkpoint", "chunks": "chunks", "texts": "texts", "n": "n", "accuracy [95 %]": lambda row: scored_cell(row, "accuracy"),
        "nats per token": lambda row: decimal_cell(row["logprob"]), "longest state": lambda row: row["states"]["max_tokens"],
        "s per text": lambda row: decimal_cell(row["seconds_per_text"]), "peak MiB": lambda row: decimal_cell(row["peak_memory"] / 2**20, 0),
    }  # fmt: skip
    show(console, table_of("lengths", "other lengths", rows, columns).with_known())


def show_asked_chain(checkpoint: str, asked: Any) -> None:
    """Print the states of a text in order, then answers."""
    console = stdout()
    say(console, f"{checkpoint}: {len(asked.chunks)} chunks, a state has at most {asked.state_budget} tokens")
    for t, (chunk, state, tokens) in enumerate(zip(asked.chunks, asked.states, asked.tokens, strict=True), 1):
        say(console, f"\nchunk {t}   {_one_line(chunk)}")
        say(console, f"state {t + 1}   {_one_line(state)}   ({tokens} tokens)")
    if asked.question is not None:
        say(console, f"\nquestion  {asked.question}\nanswer    {asked.answer}   (read from the last state alone)")


def _one_line(text: str) -> str:
    return " ".join(text.split())
