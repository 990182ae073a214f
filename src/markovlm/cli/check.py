"""`markovlm check`."""

from __future__ import annotations

import click

from markovlm.cli.flags import Command, print_json


@click.command(cls=Command, short_help="Find TRL, verl or markovlm settings with a known outcome.")
@click.argument("configs", metavar="CONFIG ...", nargs=-1, required=True)
@click.option(
    "--framework",
    type=click.Choice(["trl", "verl", "markovlm"]),
    help="the configuration's framework [default: recognised from its settings]",
)
@click.option("--processes", type=click.IntRange(1), help="number of trainer processes (GPUs), if the file doesn't say")
@click.option(
    "--answers",
    type=click.Path(),
    metavar="FILE",
    help="gold answers (JSONL, CSV, Parquet): check whether they fit within the completion limit",
)
@click.option(
    "--answers-column",
    metavar="NAME",
    help="column that holds the gold answers; dotted if nested [default: of the usual columns, the one with the longest text]",
)
@click.option(
    "--fail-on",
    type=click.Choice(["fails", "warn", "never"]),
    default="fails",
    help="lowest level that gives exit code 3 [default fails]",
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
    """Find combinations of settings with a known outcome, and say for each what to change, with a source. CONFIG is YAML or
    JSON, a shell script with verl overrides or TRL flags, or a Python file with a GRPOConfig; nothing in it is executed. Exit
    3 where training would fail."""
    from markovlm.api.checking import check as look
    from markovlm.terminal.check import show_checked

    found = look(configs, framework=framework, processes=processes, answers=answers, answers_column=answers_column)
    if as_json:
        print_json({"configs": [checked.as_json() for checked in found]})
    else:
        show_checked(found)
    return 3 if fail_on != "never" and any(checked.verdict in ("fails", fail_on) for checked in found) else 0
