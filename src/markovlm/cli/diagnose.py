"""`markovlm diagnose`."""

from __future__ import annotations

import click

from markovlm.cli.common import check_there
from markovlm.cli.flags import Command, map_option, print_json
from markovlm.errors import UserError
from markovlm.health.verdict import FAILS_ON


@click.command(cls=Command, short_help="Is a run or log healthy? Since when, why, what to change.")
@click.argument("paths", metavar="RUN|LOG ...", nargs=-1, required=True)
@click.option(
    "--compare",
    is_flag=True,
    help="compare the first run with each of the others: which settings differ, and where their metrics part",
)
@click.option(
    "--fail-on",
    type=click.Choice([*FAILS_ON]),
    default="collapsed",
    help="exit 3 on a collapse [default], also on a warning (warn), on anything that is not healthy (unknown), or never",
)
@click.option("--github", is_flag=True, help="print annotations for GitHub Actions, one per run that is not healthy")
@map_option
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def diagnose(paths: tuple[str, ...], compare: bool, fail_on: str, github: bool, columns: tuple[str, ...], as_json: bool) -> int:
    """Give a verdict on each run or log: since when, why, and what to change. Exit 3 if any collapsed."""
    check_there(paths)
    from markovlm.api.judging import diagnose as judge
    from markovlm.health.compare import compare_all
    from markovlm.logs.find import Skipped
    from markovlm.terminal.annotations import show_annotations
    from markovlm.terminal.diagnosis import show_comparisons, show_diagnoses, show_skipped

    if github and (as_json or compare):
        raise UserError(f"--github prints only annotations: leave out {'--json' if as_json else '--compare'}")
    skipped: list[Skipped] = []
    found = judge(paths, columns, skipped=skipped)
    comparisons = compare_all(found) if compare else []
    if as_json:
        out = {"runs": [diagnosis.as_json() for diagnosis in found], "skipped": [left.as_json() for left in skipped]}
        print_json(out | ({"comparisons": [one.as_json() for one in comparisons]} if compare else {}))
    elif github:
        show_annotations(found, skipped, FAILS_ON[fail_on])
    else:
        show_diagnoses(found)
        show_comparisons(comparisons)
        show_skipped(skipped)
    return 3 if any(diagnosis.verdict in FAILS_ON[fail_on] for diagnosis in found) else 0
