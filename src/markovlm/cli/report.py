"""`markovlm report`."""

from __future__ import annotations

from pathlib import Path

import click

from markovlm.cli.common import check_there
from markovlm.cli.flags import Command, map_option, print_json
from markovlm.terminal.plain import say


@click.command(cls=Command, short_help="Write one report on any number of runs and logs.")
@click.argument("paths", metavar="RUN|LOG|DIR ...", nargs=-1, required=True)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="directory for report.html, report.md and tables"
)
@map_option
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def report(paths: tuple[str, ...], out: Path, columns: tuple[str, ...], as_json: bool) -> None:
    """Write one report on any set of runs and logs, from any framework."""
    check_there(paths)
    from markovlm.api.judging import write_report

    written = write_report(paths, out, columns)
    if as_json:
        print_json(written.as_json())
    else:
        say(f"{written.html}  ({written.runs} runs, {written.steps} steps, {written.seconds:.1f} s)")
