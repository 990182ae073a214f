"""The result of `markovlm eval` on the terminal: one table, and what is needed to read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

from rich.console import Console

from markovlm.present.table import BLANK, NOTHING, Cell, Columns, Table, decimal_cell, number_cell, p_cell, scored_cell, table_of
from markovlm.tasks.answers import FAILURE_KINDS, FailureKind
from markovlm.terminal.console import say, show, stdout

_WIDTH = 150  # characters of a table in a file or pipe


def show_evaluation(report: dict[str, Any], readings: str | None = None) -> None:
    """Print a report of `evaluation.report`: a table for each way of evaluating, failure kinds, selection, references.

    `readings`: where per-question results are kept.
    """
    console = stdout()
    if not console.is_terminal:
        console.width = _WIDTH
    for number, rows in enumerate(_alike(report["results"])):
        if number:
            console.print()
        _show_rows(console, report, rows)
        if not number:
            _show_selection(console, report)
        _show_failures(console, rows)
    _show_references(console, report["references"])
    for line in report["notes"]:
        say(console, f"note: {line}")
    for line in report["warnings"]:
        if not line.startswith("best"):  # said beside the selection
            say(console, f"warning: {line}")
    if readings:
        say(console, f"all readings: {readings} (to apply other extractors: --rescore)")


def describe_how(how: dict[str, Any]) -> str:
    """`CoT sampled at temperature 1, at most 48 tokens; answers greedy, read by the actor …` from a row's `how`."""
    if how["cot_tokens"] == 0:
        cot = "no CoT: the answer directly from the question"
    else:
        decoded = "greedy CoT" if how["decoding"] == "greedy" else f"CoT sampled at temperature {how['temperature']:g}"
        cot = f"{decoded}, {'exactly' if how['fixed_length'] else 'at most'} {how['cot_tokens']} tokens"
        cot += "; question hidden" if how["conditioning"] == "markovian" else "; question still visible (non-Markovian)"
    header = "" if how["answer_header"] is None else f", answer header {how['answer_header']!r}"
    return f"{cot}; answer greedy, read by the {how['reader']}; {how['prompt_style']} prompt{header}; seed {how['seed']}"


def _alike(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows that were obtained in the same way, together."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(f"{row['task']} {row['data']} {row['split']} {row['how']}", []).append(row)
    return list(groups.values())


def _show_rows(console: Console, report: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    found = _results(report, rows)
    show(console, found)
    end = rows[0]["how"].get("answer_end", "open")
    answer = "the gold answer" if end == "open" else f"the gold answer and the end {end!r}"
    accuracy = "accuracy: Wilson interval; " if "accuracy [95 %]" in found.columns else ""
    say(console, f"{accuracy}ln pi(a|CoT): log-likelihood of {answer}, mean nats per token")
    if "runs on" in found.columns:
        say(console, "runs on: share of replies that begin with the gold answer and do not end there (docs/likelihood-gap.md)")
    say(console, describe_how(rows[0]["how"]))
    if len(rows[0]["extractors"]) > 1:
        say(
            console,
            f"{next(iter(rows[0]['extractors']))} is the task's default extractor; comparisons and the best checkpoint are based on it",
        )
    if "McNemar p" in found.columns and len(rows) > 2:
        say(console, "each p value is for one comparison, not corrected for multiple comparisons")


def _results(report: dict[str, Any], rows: list[dict[str, Any]]) -> Table:
    """A row for each extractor of a checkpoint, one alone where nothing is extracted; what holds for all of them stands in the first."""
    none = {None: {"accuracy": None, "ci95": None, "no_answer": None}}
    lines = [
        {**row, "extractor": name, **found, "first": number == 0}
        for row in rows
        for number, (name, found) in enumerate((row["extractors"] or none).items())
    ]

    def first(make: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
        return lambda line: make(line) if line["first"] else BLANK

    star = report["best"] if report["selection"] else None
    columns: Columns = {
        "checkpoint": first(lambda line: line["checkpoint"] + " *" * (line["checkpoint"] == star)),
        "n": first(itemgetter("n")),
        "extractor": "extractor",
        "accuracy [95 %]": lambda line: scored_cell(line, "accuracy"),
        "no answer": lambda line: decimal_cell(line["no_answer"]),
        "ln pi(a|CoT)": first(lambda line: decimal_cell(line["logprob"]) if line["extractors"] else scored_cell(line, "logprob")),
        "runs on": first(lambda line: decimal_cell(line.get("answer_run_on_fraction"))),
        "vs base, paired [95 %]": first(lambda line: _paired(line["vs_base"])[0]),
        "McNemar p": first(lambda line: _paired(line["vs_base"])[1]),
    }
    data = f" of {rows[0]['data']}" if rows[0]["data"] else ""
    title = f"{rows[0]['task']}, {rows[0]['split']} split{data}, {report['model']}"
    return table_of("results", title, lines, columns).with_known()


def _paired(paired: dict[str, Any] | None) -> tuple[Cell, Cell]:
    """The difference, and McNemar's p of one in accuracy."""
    if paired is None:
        return NOTHING, NOTHING
    if paired["accuracy"] is None:
        nats = scored_cell(paired, "logprob", signed=True)
        return replace(nats, text=f"{nats.text} nats"), NOTHING
    if not paired["gained"] and not paired["lost"]:  # a bootstrap of equal values has an interval of width 0, which says too much
        return number_cell(0, "+0.000, none differs"), number_cell(1)
    return scored_cell(paired, "accuracy", signed=True), p_cell(paired["mcnemar_p"])


def _show_selection(console: Console, report: dict[str, Any]) -> None:
    chosen = report["selection"]
    if chosen is None:
        return
    where = {
        "training": f"evaluated during training on {chosen['n']} {chosen['split']} questions",
        "now": f"evaluated now on {chosen['n']} {chosen['split']} questions",
        "reported": f"selected here, optimistic: on the same {chosen['n']} {chosen['split']} questions",
    }[chosen["source"]]
    reported = f"the row reports it on {report['split']} (n = {report['n']})"
    say(console, f"* best of {chosen['among']} checkpoints, {where}; {reported}")
    difference = chosen["difference"]
    if difference is not None:
        value, p = _paired(difference)
        verdict = "differs significantly" if chosen["told_apart"] else "does not differ significantly"
        test = "" if p is NOTHING else f", McNemar p = {p.text}"
        say(console, f"  from the second best ({chosen['second']}) it {verdict}: {value.text}{test}, n = {difference['n']}")


def _show_failures(console: Console, rows: list[dict[str, Any]]) -> None:
    """Kinds of failure that occur, as counts: what a low accuracy is made of."""
    kinds: list[FailureKind] = [kind for kind in FAILURE_KINDS if any(row["failures"].get(kind) for row in rows)]
    if not kinds:
        return
    console.print()
    columns: Columns = {"checkpoint": "checkpoint", "n": "n"}
    columns |= {kind: lambda row, kind=kind: row["failures"].get(kind, 0) for kind in kinds}
    show(console, table_of("failures", "Wrong answers by kind (default extractor)", rows, columns))
    for kind in kinds:
        say(console, f"  {kind}: {FAILURE_KINDS[kind]}")


def _show_references(console: Console, references: list[dict[str, Any]]) -> None:
    if not references:
        return
    console.print()
    columns: Columns = {
        "their setting": "setting",
        "theirs": lambda one: number_cell(one["value"], f"{one['value']:.3f}" + (f" (n {one['n']})" if one["n"] else "")),
        "our row": "checkpoint",
        "extractor": lambda one: (
            (one["extractor"] or "log-likelihood") + " ?" * bool(one["extractor"] and not one["extractor_stated"])
        ),
        "gap [95 %]": lambda one: scored_cell(one, "gap", signed=True),
    }
    show(console, table_of("references", "Gap to reference numbers (ours - theirs; interval of ours alone)", references, columns))
    if any(entry["extractor"] and not entry["extractor_stated"] for entry in references):
        say(console, "  ?: the source doesn't say which extractor; ours is the task's default")
    for source, how in dict.fromkeys((entry["source"], entry["how"]) for entry in references):
        settings = ", ".join(e["setting"] for e in references if (e["source"], e["how"]) == (source, how))
        say(console, f"  {settings}: {source}; {how}")
    differing = dict.fromkeys(difference for entry in references for difference in entry["differs_in"])
    if differing:
        say(console, f"  not directly comparable; done differently here: {'; '.join(differing)}")
    else:
        say(console, "  numbers obtained in different ways (decoding, prompts, questions) are not comparable")
