"""The result of `markovlm eval` as people read it: one table, and what must be known to read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from markovlm.intervals import MISSING, estimate_text
from markovlm.tasks.answers import FAILURE_KINDS, FailureKind
from markovlm.terminal.console import percent, say, stdout, table

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
        say(console, f"every reading: {readings} (new extractors: --rescore)")


def describe_how(how: dict[str, Any]) -> str:
    """`CoT sampled at temperature 1, at most 48 tokens; answers greedy, read by the actor …` of a row's `how`."""
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
    compared = any(row["vs_base"] for row in rows)
    ends = any(row.get("answer_run_on_fraction") is not None for row in rows)
    columns = ["checkpoint", "n", "extractor", "accuracy [95 %]", "no answer", "ln pi(a|CoT)", *(["runs on"] if ends else [])]
    columns += ["vs base, paired [95 %]", "McNemar p"] if compared else []
    cells = [line for row in rows for line in _lines(report, row, compared, ends)]
    console.print(table(_title(report, rows[0]), columns, cells))
    end = rows[0]["how"].get("answer_end", "open")
    answer = "the gold answer" if end == "open" else f"the gold answer and the end {end!r}"
    say(console, f"accuracy: Wilson interval; ln pi(a|CoT): log-likelihood of {answer}, mean nats per token")
    if ends:
        say(console, "runs on: share of replies that begin with the gold answer and do not end there (docs/likelihood-gap.md)")
    say(console, describe_how(rows[0]["how"]))
    if len(rows[0]["extractors"]) > 1:
        say(console, f"{next(iter(rows[0]['extractors']))} is the task's default extractor; comparisons and the best go by it")
    if compared and len(rows) > 2:
        say(console, "p values are each for one comparison, not corrected for their number")


def _title(report: dict[str, Any], row: dict[str, Any]) -> str:
    data = f" of {row['data']}" if row["data"] else ""
    return f"{row['task']}, {row['split']} split{data}, {report['model']}"


def _lines(report: dict[str, Any], row: dict[str, Any], compared: bool, ends: bool) -> list[list[str]]:
    """A checkpoint's lines of the table, one an extractor (one alone where nothing is extracted)."""
    star = " *" if report["selection"] and row["checkpoint"] == report["best"] else ""
    lines: list[list[str]] = []
    for number, (name, entry) in enumerate(list(row["extractors"].items()) or [(MISSING, None)]):
        accuracy = [percent(entry), f"{entry['no_answer']:.3f}"] if entry else [MISSING, MISSING]
        if number:
            lines.append(["", "", name, *accuracy, ""] + [""] * ends + ([""] * 2 if compared else []))
            continue
        logprob = f"{row['logprob']:.3f}" if entry else estimate_text(row["logprob"], *row["logprob_ci95"])
        first = [f"{row['checkpoint']}{star}", str(row["n"]), name, *accuracy, logprob]
        if ends:
            runs_on = row.get("answer_run_on_fraction")
            first.append(MISSING if runs_on is None else f"{runs_on:.3f}")
        lines.append(first + (_paired(row["vs_base"]) if compared else []))
    return lines


def _paired(paired: dict[str, Any] | None) -> list[str]:
    if paired is None:
        return ["", ""]
    if paired["accuracy"] is None:
        return [f"{estimate_text(paired['logprob'], *paired['logprob_ci95'], signed=True)} nats", ""]
    if not paired["gained"] and not paired["lost"]:  # a bootstrap of equal values has an interval of width 0, which says too much
        return ["+0.000, none differs", "1"]
    return [estimate_text(paired["accuracy"], *paired["ci95"], signed=True), f"{paired['mcnemar_p']:.2g}"]


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
        test = f", McNemar p = {p}" if p else ""
        say(console, f"  from the second best ({chosen['second']}) it {verdict}: {value}{test}, n = {difference['n']}")


def _show_failures(console: Console, rows: list[dict[str, Any]]) -> None:
    """Kinds of failure that occur, as counts: what a low accuracy is made of."""
    kinds: list[FailureKind] = [kind for kind in FAILURE_KINDS if any(row["failures"].get(kind) for row in rows)]
    if not kinds:
        return
    console.print()
    cells = [[row["checkpoint"], str(row["n"]), *(str(row["failures"].get(kind, 0)) for kind in kinds)] for row in rows]
    console.print(table("Wrong answers by kind (default extractor)", ["checkpoint", "n", *kinds], cells))
    for kind in kinds:
        say(console, f"  {kind}: {FAILURE_KINDS[kind]}")


def _show_references(console: Console, references: list[dict[str, Any]]) -> None:
    if not references:
        return
    console.print()
    cells = [
        [
            entry["setting"],
            f"{entry['value']:.3f}" + (f" (n {entry['n']})" if entry["n"] else ""),
            entry["checkpoint"],
            (entry["extractor"] or "log-likelihood") + ("" if entry["extractor_stated"] or not entry["extractor"] else " ?"),
            estimate_text(entry["gap"], *entry["gap_ci95"], signed=True),
        ]
        for entry in references
    ]
    title = "Gap to reference numbers (ours - theirs; interval of ours alone)"
    console.print(table(title, ["their setting", "theirs", "our row", "extractor", "gap [95 %]"], cells))
    if any(entry["extractor"] and not entry["extractor_stated"] for entry in references):
        say(console, "  ?: the source doesn't say which extractor; ours is the task's default")
    for source, how in dict.fromkeys((entry["source"], entry["how"]) for entry in references):
        settings = ", ".join(e["setting"] for e in references if (e["source"], e["how"]) == (source, how))
        say(console, f"  {settings}: {source}; {how}")
    differing = dict.fromkeys(difference for entry in references for difference in entry["differs_in"])
    if differing:
        say(console, f"  not comparable as they stand; done otherwise here: {'; '.join(differing)}")
    else:
        say(console, "  numbers obtained in different ways (decoding, prompts, questions) are not comparable")
