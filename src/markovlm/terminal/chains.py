"""Chains as people read them: evaluation tables, and the states of one text one after another."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from markovlm.intervals import estimate_text
from markovlm.terminal.console import stdout, table
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
    _say(console, describe_how(report["results"][0]["how"]).replace("CoT", "states", 1))
    _say(console, "intervals: 95 %, bootstrap over texts")
    for note in report["notes"]:
        _say(console, f"note: {note}")
    if readings:
        _say(console, f"every state and reading: {readings}")


def _show_kind(console: Console, report: dict[str, Any], kind: str) -> None:
    rows = [
        (row["checkpoint"], control, of) for row in report["results"] for control, of in row["predicted"].get(kind, {}).items()
    ]
    judged = any(of["accuracy"] is not None for _, _, of in rows)
    columns = [
        "checkpoint",
        "read from",
        "n",
        *(["accuracy [95 %]"] if judged else []),
        "nats per token [95 %]",
        "own minus this",
    ]
    cells = []
    for checkpoint, control, of in rows:
        versus = of["versus_own"]
        line = [checkpoint if control == "own" else "", _NAMES[control], str(of["n"])]
        line += [_number(of["accuracy"], of["ci95"])] if judged else []
        cells.append(
            [
                *line,
                _number(of["logprob"], of["logprob_ci95"]),
                "" if versus is None else _number(versus["logprob"], versus["logprob_ci95"]),
            ]
        )
    first = report["results"][0]
    console.print(table(f"{report['task']}, {report['split']} split, {first['texts']} texts: {_KINDS[kind]}", columns, cells))
    for name, what in (("by_t", "t"), ("by_distance", "distance")):
        found = [
            (row["checkpoint"], row["predicted"][kind]["own"][name]) for row in report["results"] if kind in row["predicted"]
        ]
        values = list(dict.fromkeys(one[what] for _, few in found for one in few))
        if len(values) > 1:
            _show_by(console, what, values, found, judged)


def _show_by(console: Console, what: str, values: list[int], found: list[tuple[str, list[dict[str, Any]]]], judged: bool) -> None:
    title = (
        "by t, the chunk after which the state was written" if what == "t" else "by distance, chunks between fact and question"
    )
    cells = []
    for value in values:
        line = [str(value)]
        for _, few in found:
            one = next((one for one in few if one[what] == value), None)
            shown = (
                ""
                if one is None
                else _number(one["accuracy"], one["ci95"])
                if judged
                else _number(one["logprob"], one["logprob_ci95"])
            )
            line += ["" if one is None else str(one["n"]), shown]
        cells.append(line)
    columns = [what, *(text for name, _ in found for text in ("n", f"{name}: {'accuracy' if judged else 'nats per token'}"))]
    console.print(table(title, columns, cells))


def _show_states(console: Console, row: dict[str, Any]) -> None:
    states = row["states"]
    shares = {
        "the same as the one before": "notes_frozen",
        "copies of their chunk": "notes_copied",
        "cut by the budget": "notes_overflow",
    }
    told = ", ".join(f"{states[name]:.0%} {words}" for words, name in shares.items() if states.get(name) is not None)
    kept = states.get("notes_kept")
    carried = "" if kept is None else f"; {kept:.0%} of a state's words are in the next one"
    size = f"{states['mean_tokens']:.1f} tokens a state, at most {states['max_tokens']}"
    _say(console, f"{row['checkpoint']}: {states['written']} states, {size}; {told}{carried}")


def _show_lengths(console: Console, rows: list[dict[str, Any]]) -> None:
    cells = [
        [
            row["checkpoint"], str(row["chunks"]), str(row["texts"]), str(row["n"]), _number(row["accuracy"], row["ci95"]),
            f"{row['logprob']:.3f}", str(row["states"]["max_tokens"]), f"{row['seconds_per_text']:.3f}", f"{row['peak_memory'] / 2**20:.0f}",
        ]
        for row in rows
    ]  # fmt: skip
    columns = ["checkpoint", "chunks", "texts", "n", "accuracy [95 %]", "nats per token", "longest state", "s a text", "peak MiB"]
    console.print(table("other lengths", columns, cells))


def _number(value: float | None, interval: list[float] | None) -> str:
    return estimate_text(value, *(interval or (None, None)))


def _say(console: Console, line: str) -> None:
    console.print(Text(line), soft_wrap=True)


def show_asked_chain(checkpoint: str, asked: Any) -> None:
    """The states of a text as they follow each other, then answers."""
    console = stdout()
    _say(console, f"{checkpoint}: {len(asked.chunks)} chunks, a state has at most {asked.state_budget} tokens")
    for t, (chunk, state, tokens) in enumerate(zip(asked.chunks, asked.states, asked.tokens, strict=True), 1):
        _say(console, f"\nchunk {t}   {_one_line(chunk)}")
        _say(console, f"state {t + 1}   {_one_line(state)}   ({tokens} tokens)")
    if asked.question is not None:
        _say(console, f"\nquestion  {asked.question}\nanswer    {asked.answer}   (read from the last state alone)")


def _one_line(text: str) -> str:
    return " ".join(text.split())
