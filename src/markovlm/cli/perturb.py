"""`markovlm perturb`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from markovlm.cli.flags import Command
from markovlm.cli.study import damage_flags, plan_of, request_of, run_study, study_flags
from markovlm.errors import UserError

if TYPE_CHECKING:
    from markovlm.analysis.loadbearing import Part


@click.command(cls=Command, short_help="Perturb the CoT: how often does the answer change?")
@click.argument("run", metavar="RUN|MODEL")
@click.option(
    "--intervene", is_flag=True, help="also change one number in each CoT: does the answer follow the CoT or the question?"
)
@click.option(
    "--paraphraser",
    metavar="MODEL",
    help="model that writes the paraphrases: a Hub id, directory, run or bundled model [default: rules, no model]",
)
@click.option(
    "--paraphrase-temperature",
    type=float,
    default=0.0,
    help="sampling temperature of the paraphraser [default 0: greedy]",
)
@damage_flags
@study_flags(100)
def perturb(
    run: str,
    intervene: bool,
    paraphraser: str | None,
    paraphrase_temperature: float,
    perturbations: str | None,
    severities: str | None,
    against: str | None,
    **flags: Any,
) -> None:
    """Measure how perturbing the CoT changes the answer; with --against, how much more so than in a paired control run
    (fragility)."""
    parts: tuple[Part, ...] = ("intervention", "perturb") if intervene else ("perturb",)
    if paraphrase_temperature and paraphraser is None:
        raise UserError("--paraphrase-temperature is only for --paraphraser, which is not given")
    by = {"paraphraser": paraphraser, "paraphrase_temperature": paraphrase_temperature}
    request = request_of(run, parts, flags, against=against, plan=plan_of(perturbations, severities), **by)
    run_study(request, flags["as_json"], "perturb")
