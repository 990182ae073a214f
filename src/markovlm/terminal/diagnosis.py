"""Diagnoses as `markovlm diagnose` prints them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from markovlm.logs.find import Skipped
from markovlm.report.diagnose import Diagnosis
from markovlm.terminal.console import stdout

_COLOUR = {"healthy": "green", "warn": "yellow", "collapsed": "red", "unknown": "dim"}


def show_diagnoses(diagnoses: Sequence[Diagnosis]) -> None:
    """Verdict, evidence, cause and advice of each run, in order."""
    console = stdout()
    for diagnosis in diagnoses:
        head = Text(diagnosis.verdict, style=f"bold {_COLOUR[diagnosis.verdict]}").append(f"  {diagnosis.path}", style="bold")
        if diagnosis.onset_step is not None:
            head.append(f"  from step {diagnosis.onset_step:,}", style="default")
        console.print(head, soft_wrap=True)
        console.print(Text(f"  why     {diagnosis.why}"), soft_wrap=True)
        if diagnosis.cause is not None:
            console.print(
                Text(f"  cause   {diagnosis.cause.sentence} (confidence: {diagnosis.cause_confidence})"), soft_wrap=True
            )
        if diagnosis.best_step is not None:
            console.print(Text(f"  best    checkpoint at step {diagnosis.best_step:,}"), soft_wrap=True)
        for line in diagnosis.advice:
            console.print(Text(f"  do      {line}"), soft_wrap=True)
        for problem in diagnosis.run.problems[:3]:
            console.print(Text(f"  reading {problem}", style="dim"), soft_wrap=True)


def show_skipped(skipped: Sequence[Skipped]) -> None:
    """Files of directories that were not read, and why."""
    console = stdout()
    for left in skipped:
        console.print(Text(f"left out  {left.path}: {left.why}", style="dim"), soft_wrap=True)
