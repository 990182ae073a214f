"""`markovlm check`."""

from __future__ import annotations

import click

from markovlm.cli.flags import Command, print_json


@click.command(cls=Command, short_help="Settings of TRL, verl or markovlm with a known outcome.")
@click.argument("configs", metavar="CONFIG ...", nargs=-1, required=True)
@click.option(
    "--framework",
    type=click.Choice(["trl", "verl", "markovlm"]),
    help="whose configuration it is [default: recognised by its settings]",
)
@click.option("--processes", type=click.IntRange(1), help="how many the trainer will have (GPUs), where the file doesn't say")
@click.option(
    "--answers",
    type=click.Path(),
    metavar="FILE",
    help="reference answers (JSONL, CSV, Parquet): do they fit into the limit on completions?",
)
@click.option(
    "--answers-column",
    metavar="NAME",
    help="the column they are in; dotted where nested [default: the longest of the usual ones]",
)
@click.option(
    "--fail-on", type=click.Choice(["fails", "warn", "never"]), default="fails", help="exit 3 from this level on [default fails]"
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def check(
    configs: tuple[str, ...],
    framework: str | None,
    processes: int | None,
    answers: str | None,
    answers_column: str | None,
    fail_on: str,
    as_json: bool,
) -> int:
    """Combinations of settings with a known outcome, each with what to change and its source. CONFIG is YAML or JSON, a shell script with
    verl's overrides or TRL's flags, or a Python file with a GRPOConfig; nothing is run. Exit 3 where training would fail."""
    from markovlm.api.checking import check as look
    from markovlm.terminal.check import show_checked

    found = look(configs, framework=framework, processes=processes, answers=answers, answers_column=answers_column)
    if as_json:
        print_json({"configs": [checked.as_json() for checked in found]})
    else:
        show_checked(found)
    return 3 if fail_on != "never" and any(checked.verdict in ("fails", fail_on) for checked in found) else 0
