"""Diagnoses as `markovlm diagnose` prints them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from markovlm.health.advice import number_text
from markovlm.health.compare import RunComparison
from markovlm.health.diagnose import Diagnosis
from markovlm.health.rules import RULE
from markovlm.logs.find import Skipped
from markovlm.terminal.console import say, stdout

if TYPE_CHECKING:
    from markovlm.integrations.follow import Change

_COLOUR = {"healthy": "green", "warn": "yellow", "collapsed": "red", "unknown": "dim"}
_SHOWN = ("part_fell", "best_by_reward", "slower_steps", "healed_spike")  # findings that neither cause nor advice would tell


def show_diagnoses(diagnoses: Sequence[Diagnosis]) -> None:
    """Verdict, evidence, cause and advice of each run, in order."""
    console = stdout()
    for diagnosis in diagnoses:
        head = Text(diagnosis.verdict, style=f"bold {_COLOUR[diagnosis.verdict]}").append(f"  {diagnosis.path}", style="bold")
        number, of = diagnosis.run.launch
        if of > 1:
            head.append(f"  launch {number} of {of}", style="default")
        if diagnosis.onset_step is not None:
            head.append(f"  from step {diagnosis.onset_step:,}", style="default")
        console.print(head, soft_wrap=True)
        say(console, f"  why     {diagnosis.why}")
        if diagnosis.cause is not None:
            said = f"{RULE[diagnosis.cause.rule].sentence}: "
            sentence = (
                said[:-2] if diagnosis.why.startswith(said) else diagnosis.cause.sentence
            )  # its numbers are in the line above
            say(console, f"  cause   {sentence} (confidence: {diagnosis.cause_confidence})")
        if len(diagnosis.events) > 1:
            order = "; ".join(f"step {event.step:,} {event.what}" for event in diagnosis.events[:5])
            say(console, f"  order   {order}")
        if diagnosis.error is not None:
            say(console, f"  ended   {diagnosis.error}")
        for finding in diagnosis.findings:
            if finding.rule in _SHOWN:
                say(console, f"  also    {finding.evidence}")
        if diagnosis.best_step is not None:
            say(console, f"  best    checkpoint at step {diagnosis.best_step:,}")
        for line in diagnosis.cost.lines:
            say(console, f"  cost    {line}")
        for line in diagnosis.advice:
            say(console, f"  do      {line}")
        for problem in diagnosis.run.problems[:3]:
            console.print(Text(f"  reading {problem}", style="dim"), soft_wrap=True)


def show_skipped(skipped: Sequence[Skipped]) -> None:
    """Files of directories that were not read, and why."""
    console = stdout()
    for left in skipped:
        console.print(Text(f"left out  {left.path}: {left.why}", style="dim"), soft_wrap=True)


def show_comparisons(comparisons: Sequence[RunComparison]) -> None:
    """Print two runs against each other: differences of their settings, and where their metrics diverge, in order."""
    console = stdout()
    for c in comparisons:
        console.print(Text("compare ", style="bold").append(f"{c.a.run.name} against {c.b.run.name}"), soft_wrap=True)
        for setting in c.settings:
            seen = " (seen in the rows)" if setting.seen else ""
            say(console, f"  setting {setting.name}: {_said(setting.a)} against {_said(setting.b)}{seen}")
        if not c.settings:
            none = f"no difference in the {c.same:,} that both logs name" if c.same else "the logs name none"
            say(console, f"  setting {none}")
        for parting in c.partings:
            say(console, f"  parts   {parting.what}")
        if not c.partings:
            of = (
                f"none of the {len(c.compared):,} metrics that both have parts beyond noise"
                if c.compared
                else "no metric has enough common rows"
            )
            say(console, f"  parts   {of}")


def _said(value: object) -> str:
    return "not logged" if value is None else number_text(value) if isinstance(value, float) else str(value)


def show_change(change: Change, now: str, as_json: bool) -> None:
    """Print one line on a new verdict, flushed at once."""
    if as_json:
        print(json.dumps({"time": now, **change.as_json()}), flush=True)
        return
    found = change.diagnosis
    if change.stalled is not None:
        usual = f"; before, there was a row every {change.usual:,.3g} s" if change.usual is not None else ""
        line = Text(f"{now}  ").append("stalled", style="bold yellow").append(f"  {change.path}", style="bold")
        line.append(f"  at step {found.run.last_step or 0:,}: nothing new for {change.stalled:,.0f} s{usual}")
        stdout().print(line, soft_wrap=True)
        return
    line = Text(f"{now}  ").append(f"{change.before} -> " if change.before else "")
    line.append(found.verdict, style=f"bold {_COLOUR[found.verdict]}")
    number, of = found.run.launch
    line.append(f"  {change.path}", style="bold").append(f" (launch {number} of {of})" if of > 1 else "").append(
        f"  at step {found.run.last_step or 0:,}: {found.why}"
    )
    stdout().print(line, soft_wrap=True)
    if found.verdict == "collapsed":
        for advice in found.advice[:3]:
            stdout().print(Text(f"          do  {advice}"), soft_wrap=True)
