"""The configurations that ship with the package."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from markovlm.config.shipped import Shipped
from markovlm.intervals import MISSING
from markovlm.terminal.console import stdout, table


def show_configs(found: Iterable[Shipped]) -> None:
    """A table, and what can be done with a name of it."""
    console = stdout()
    console.print(
        table("Configurations", ["name", "task", "model"], [[one.name, one.task or MISSING, one.model] for one in found])
    )
    console.print(Text("markovlm train NAME --dry-run         what it would do, and an estimate of memory"))
    console.print(Text("markovlm configs NAME --to my.yaml    a copy to change"))
