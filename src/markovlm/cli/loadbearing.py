"""`markovlm loadbearing`."""

from __future__ import annotations

from typing import Any

import click

from markovlm.cli.flags import Command, print_json
from markovlm.cli.study import check_run, damage_flags, listed, manner_flags, plan_of, request_of, show, studied, study_flags
from markovlm.terminal.plain import say


@click.command(cls=Command, short_help="Run all studies of a run's CoTs at once, with a report.")
@click.argument("run", metavar="RUN")
@damage_flags
@manner_flags("remove", "replace")
@click.option(
    "--readers",
    "--reader",
    "readers",
    multiple=True,
    metavar="MODEL",
    help="other models that read the CoTs [default: the run's base model; for a bundled model, other bundled ones too]",
)
@study_flags(100)
def loadbearing(
    run: str, perturbations: str | None, severities: str | None, against: str | None, by: str | None, how: str, readers: tuple[str, ...],
    **flags: Any,
) -> None:  # fmt: skip
    """Run all studies of a run's CoTs at once, and write the run's report with them."""
    check_run(run, flags)
    from markovlm.analysis.explain import Manner
    from markovlm.analysis.loadbearing import PARTS
    from markovlm.report import write_report

    manner = Manner(by or "token", how)  # pyright: ignore[reportArgumentType]  click has checked both
    request = request_of(
        run, PARTS, flags, against=against, plan=plan_of(perturbations, severities), readers=listed(readers), manner=manner
    )
    found = studied(request)
    where = request.target.run
    paths = [one.run.path for one in (request.target, request.against) if one is not None and one.run is not None]
    page = write_report(paths, where.path / "report").html if where is not None else None
    if flags["as_json"]:
        print_json({**found.results, "files": [str(path) for path in found.paths], "report": page and str(page)})
        return
    show(found)
    if page is not None:
        say(f"report: {page}")
