"""`markovlm perturb`."""

from __future__ import annotations

from typing import Any

import click

from markovlm.cli.flags import Command
from markovlm.cli.study import damage_flags, plan_of, request_of, run_study, study_flags


@click.command(cls=Command)
@click.argument("run", metavar="RUN|MODEL")
@damage_flags
@study_flags(100)
def perturb(run: str, perturbations: str | None, severities: str | None, against: str | None, **flags: Any) -> None:
    """What damage to the CoT does to the answer; with --against, how much more than to a twin (fragility)."""
    request = request_of(run, ("perturb",), flags, against=against, plan=plan_of(perturbations, severities))
    run_study(request, flags["as_json"], "perturb")
