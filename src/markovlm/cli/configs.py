"""`markovlm configs`."""

from __future__ import annotations

from pathlib import Path

import click

from markovlm.cli.flags import Command, print_json
from markovlm.config.shipped import shipped
from markovlm.errors import UserError
from markovlm.registry import close_match
from markovlm.terminal.plain import say


@click.command(cls=Command, short_help="List, print or copy the bundled configurations.")
@click.argument("name", required=False)
@click.option("--to", type=click.Path(path_type=Path), metavar="FILE", help="copy it to this file, for editing")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def configs(name: str | None, to: Path | None, as_json: bool) -> None:
    """List the bundled configurations, or print or copy NAME. `markovlm train NAME` uses one directly."""
    from markovlm.terminal.configs import show_configs

    known = shipped()
    if name is None:
        if to is not None:
            raise UserError("--to: name the configuration to copy: markovlm configs NAME --to FILE")
        if as_json:
            print_json({"configs": [{"name": one.name, "task": one.task, "model": one.model} for one in known.values()]})
        else:
            show_configs(known.values())
        return
    name = name.removeprefix("configs/").removesuffix(".yaml")
    if name not in known:
        raise UserError(f"configs: no configuration {name!r}{close_match(name, known)}; `markovlm configs` lists them")
    text = known[name].path.read_text(encoding="utf-8")
    if to is not None:
        _write_new(to, text)
    if as_json:
        print_json({"name": name, "text": text, "path": to and str(to)})
    elif to is None:
        click.echo(text, nl=False)
    else:
        say(f"{name} written to {to}; preview it with: markovlm train {to} --dry-run")


def _write_new(to: Path, text: str) -> None:
    """Raises UserError if something is there already, or nothing can be written."""
    try:
        with to.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"--to {to}: already exists; name a new file") from None
    except OSError as error:
        raise UserError(f"--to {to}: cannot be written: {error.strerror}") from None
