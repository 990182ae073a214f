"""`markovlm diagnose`."""

from __future__ import annotations

import click

from markovlm.cli.flags import Command, map_option, print_json


@click.command(cls=Command)
@click.argument("paths", metavar="RUN|LOG ...", nargs=-1, required=True)
@map_option
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def diagnose(paths: tuple[str, ...], columns: tuple[str, ...], as_json: bool) -> int:
    """A verdict for each run or log, since when, why, and what to change. Exit 3 if any collapsed."""
    from markovlm.api.judging import diagnose as judge
    from markovlm.logs.find import Skipped
    from markovlm.terminal.diagnosis import show_diagnoses, show_skipped

    skipped: list[Skipped] = []
    found = judge(paths, columns, skipped=skipped)
    if as_json:
        print_json({"runs": [diagnosis.as_json() for diagnosis in found], "skipped": [left.as_json() for left in skipped]})
    else:
        show_diagnoses(found)
        show_skipped(skipped)
    return 3 if any(diagnosis.verdict == "collapsed" for diagnosis in found) else 0
