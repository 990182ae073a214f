"""Studies on the terminal: the findings in words, then the same tables as in the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from markovlm.analysis.loadbearing import Found
from markovlm.analysis.render import visible
from markovlm.intervals import found_text
from markovlm.present.table import Columns, percent_cell, table_of
from markovlm.studies.chains import Chains
from markovlm.studies.claims import claim_of
from markovlm.studies.files import read_result
from markovlm.studies.records import Resample
from markovlm.studies.tables import chain_tables, sentences_of, tables_of
from markovlm.terminal.attribution import explain_text
from markovlm.terminal.console import say, show

_SUMMARY_SEVERITIES = (0.2, 0.6, 1.0)
_WIDTH = 140  # where it is not a terminal
_EXAMPLES = 2  # CoTs shown under the tables
_ORDER = (
    "perturb", "bypass", "bypass_against", "leak", "intervention", "intervention_against", "explain", "transfer", "resample",
)  # fmt: skip


def show_found(console: Console, found: Found) -> None:
    """Print every study that was done."""
    if not console.is_terminal:
        console.width = _WIDTH
    own = (name for name in found.results if name not in _ORDER)  # studies that the user registered
    for name in (*_ORDER, *own):
        if name in found.results:
            show_study(console, found.results[name])
            console.print()
    if found.attributions:
        first = [one for one in found.attributions if one.id in {a.id for a in found.attributions[: 2 * _EXAMPLES]}]
        console.print(explain_text(first[: 2 * _EXAMPLES]))
        console.print()
    if found.page is not None:
        say(console, f"page: {found.page}")
    for path in found.paths:
        say(console, f"kept: {path}")


def show_study(console: Console, result: Mapping[str, Any]) -> None:
    """Print one result: where it was found, in words, and its tables."""
    study = read_result(result, [])
    if study is None:
        say(console, f"{result['kind']}, {visible(str(result['run']))}: nothing found")
        return
    claim = claim_of(study)
    say(console, f"{claim.about}, {visible(str(result['run']))}: {study.where}")
    for text in filter(None, (claim.lead, claim.more)):
        say(console, text)
    for found in chain_tables(study) if isinstance(study, Chains) else tables_of(study):
        console.print()
        show(console, found)
    for cot in study.resampled[:_EXAMPLES] if isinstance(study, Resample) else ():
        console.print()
        show(console, sentences_of(cot, f"{cot.question[:100]}  →  {cot.answer} (gold {cot.gold})"))


def show_summary(console: Console, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a few lines of each study, for the demo."""
    damage = results["perturb"]
    say(console, f"Is the CoT load-bearing? ({damage['n']} questions; drops with 95 % bootstrap intervals)")
    columns: Columns = {
        "perturbation": "perturbation", "severity": lambda row: percent_cell(row["severity"]), "drop of ln pi(answer|CoT)": "drop_logprob",
        "drop of accuracy": "drop_accuracy",
    }  # fmt: skip
    rows = [row for row in damage["rows"] if row["severity"] in _SUMMARY_SEVERITIES]
    show(console, table_of("damage", "Perturbing the CoT", rows, columns))
    bypass, leak, transfer = results["bypass"], results["leak"], results["transfer"]
    empty = next(row for row in bypass["rows"] if row["control"] == "empty" and row["reader"] == "sees the question")
    say(console, f"with the question visible and no CoT, accuracy is {found_text(empty['accuracy'], 2)}")
    leaks, cut = found_text(leak["leaks"], 2), found_text(leak["accuracy_cut_before"], 2)
    say(console, f"the answer appears in {leaks} of the CoTs; with the CoT cut before it, accuracy is {cut}")
    last = {point["reader"]: point for point in transfer["points"]}
    for name, point in last.items():
        if name != "actor" and point["vs_base"] is not None:
            gain = found_text(point["vs_base"]["accuracy"], 2)
            say(console, f"read by {name}: accuracy {found_text(point['accuracy'], 2)}, {gain} above the base model's CoTs")


def show_interventions(console: Console, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print interventions before and after training, and one changed CoT, for the demo."""
    columns: Columns = {
        "model": "model", "reader": "reader", "n": "n", "follows the changed CoT": "follows", "stays with the question": "question",
        "neither": "neither",
    }  # fmt: skip
    rows = [{"model": name, **row} for name, result in results.items() for row in result["rows"]]
    title = "One number of the CoT changed and the rest recalculated: what does the answer follow?"
    show(console, table_of("interventions", title, rows, columns))
    for one in list(results.values())[-1]["examples"][:1]:
        answers = ", ".join(f"{'none' if answer is None else answer} ({reader})" for reader, answer in one["answers"].items())
        for name, text in (("CoT", one["cot"]), ("changed", one["changed"])):
            say(console, f"{name:8}  {visible(text)}")
        gold = visible(one["gold"])
        say(console, f"changed, it leads to {visible(one['result'])}; the question's answer is {gold}; read: {answers}")
