"""The table of `markovlm demo`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from rich.text import Text

from markovlm.intervals import estimate_text
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
    console.print(
        Text(f"trained less base, paired by question (95 % bootstrap): {_difference(result.difference())}"), soft_wrap=True
    )
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


def _difference(found: dict[str, Any]) -> str:
    """Of accuracy and of the log-likelihood."""
    parts = []
    for name, key in (("accuracy", "ci95"), ("logprob", "logprob_ci95")):
        parts.append(f"{'accuracy' if name == 'accuracy' else 'ln pi'} {estimate_text(found[name], *found[key], signed=True)}")
    return ", ".join(parts)
