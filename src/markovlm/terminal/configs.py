"""The configurations that ship with the package."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from markovlm.config.shipped import Shipped
from markovlm.present.table import table_of
from markovlm.terminal.console import show, stdout


def show_configs(found: Iterable[Shipped]) -> None:
    """Print a table of the configurations, and what can be done with a name."""
    console = stdout()
    show(console, table_of("configs", "Configurations", found, {"name": "name", "task": "task", "model": "model"}))
    console.print(Text("markovlm train NAME --dry-run         what it would do, with a memory estimate"))
    console.print(Text("markovlm configs NAME --to my.yaml    a copy to edit"))
