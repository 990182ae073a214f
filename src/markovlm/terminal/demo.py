"""The table of `markovlm demo`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rich.text import Text

from markovlm.terminal.console import percent, stdout, table

if TYPE_CHECKING:
    from markovlm.demo import DemoResult


def show_demo(result: DemoResult) -> None:
    """The table of `markovlm demo`."""
    from markovlm.terminal.studies import show_interventions, show_summary

    console = stdout()
    rows = []
    for name, one in (("base", result.base), ("trained", result.trained)):
        summary = one.evaluation.summary()
        rows.append([name, str(summary["n"]), percent(summary), f"{summary['logprob']:.3f}"])
    title = "Accuracy from the CoT alone, held-out questions (95 % Wilson interval)"
    console.print(table(title, ["model", "n", "accuracy", "ln pi(answer|CoT)"], rows))
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
    asked = "17+4+79" if result.intervened is None else shlex.quote(before.question)
    console.print(Text(f"next: markovlm ask {result.run} {asked}"))
