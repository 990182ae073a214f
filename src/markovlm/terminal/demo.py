"""The output of `markovlm demo`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rich.text import Text

from markovlm.present.table import Columns, decimal_cell, scored_cell, table_of
from markovlm.terminal.console import say, show, stdout

if TYPE_CHECKING:
    from markovlm.demo import DemoResult


def show_demo(result: DemoResult) -> None:
    """Print the table of `markovlm demo`."""
    from markovlm.terminal.studies import show_interventions, show_summary

    console = stdout()
    rows = [{"model": name, **one.evaluation.summary()} for name, one in (("base", result.base), ("trained", result.trained))]
    columns: Columns = {
        "model": "model", "n": "n", "accuracy": lambda row: scored_cell(row, "accuracy"),
        "ln pi(answer|CoT)": lambda row: decimal_cell(row["logprob"]),
    }  # fmt: skip
    show(console, table_of("demo", "Accuracy from the CoT alone, held-out questions (95 % Wilson interval)", rows, columns))
    change = (scored_cell(result.difference(), name, signed=True).text for name in ("accuracy", "logprob"))
    say(console, "trained minus base, paired by question (95 % bootstrap): accuracy {}, ln pi {}".format(*change))
    at = result.changed_example()
    before, after = result.base.evaluation.readings[at], result.trained.evaluation.readings[at]
    console.print(Text(f"\nQuestion  {before.question}    gold answer {before.gold}"))
    for name, reading in (("before", before), ("after", after)):
        console.print(Text(f"{name:8}  {reading.cot}  ->  {reading.answer}"))
    console.print()
    show_summary(console, result.studies.results)
    if result.intervened is not None:
        console.print()
        show_interventions(console, result.intervened)
    times = f"{result.steps} steps, {result.seconds:.0f} s with both evaluations, {result.total_seconds:.0f} s in all"
    console.print(Text(f"\nrun: {result.run}  ({times})"))
    console.print(Text(f"report: {result.report}"))
    asked = shlex.quote(before.question) if " " in before.question else "17+4+79"
    console.print(Text(f"next: markovlm ask {result.run} {asked}"))
