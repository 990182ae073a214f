"""What `markovlm check` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from markovlm.checks.finding import Checked
from markovlm.content import first_few
from markovlm.terminal.console import stdout

_COLOUR = {"clear": "green", "warn": "yellow", "fails": "red"}
_SHOWN = 12


def show_checked(found: Sequence[Checked]) -> None:
    """Print one line per finding, the gravest first."""
    console = stdout()
    for checked in found:
        head = Text(checked.verdict, style=f"bold {_COLOUR[checked.verdict]}").append(f"  {checked.path}", style="bold")
        head.append(f"  {checked.framework}, {checked.settings:,} settings read", style="default")
        console.print(head, soft_wrap=True)
        for finding in checked.findings:
            line = Text(f"  {finding.level:<6}", style=_COLOUR[finding.level])
            line.append(f"{finding.what}. ", style="default").append(f"Change: {finding.change}", style="bold")
            console.print(line.append(f" ({finding.source})", style="dim"), soft_wrap=True)
        if checked.unread:
            names = first_few(checked.unread, _SHOWN)
            console.print(
                Text(f"  reading {len(checked.unread):,} settings are only known at run time: {names}", style="dim"),
                soft_wrap=True,
            )
