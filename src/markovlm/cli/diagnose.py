"""`markovlm diagnose`."""

from __future__ import annotations

import click

from markovlm.cli.flags import print_json


@click.command()
@click.argument("paths", metavar="RUN|LOG ...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def diagnose(paths: tuple[str, ...], as_json: bool) -> int:
    """A verdict for each run or log, since when, why, and what to change. Exit 3 if any collapsed."""
    from markovlm.report.diagnose import diagnose_paths
    from markovlm.terminal.diagnosis import show_diagnoses

    found = diagnose_paths(paths)
    if as_json:
        print_json({"runs": [diagnosis.as_json() for diagnosis in found]})
    else:
        show_diagnoses(found)
    return 3 if any(diagnosis.verdict == "collapsed" for diagnosis in found) else 0
