"""What the commands share that ask whether the reasoning is load-bearing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from markovlm.cli.common import force_flag
from markovlm.cli.flags import EVAL_SECTIONS, config_flags, overrides, print_json
from markovlm.errors import UserError
from markovlm.terminal.plain import say

if TYPE_CHECKING:
    from markovlm.analysis.loadbearing import Part, Request
    from markovlm.analysis.perturb import Plan
    from markovlm.tasks.base import Example

_Command = Callable[..., Any]


def study_flags(limit: int, *, checkpoint: bool = True) -> Callable[[_Command], _Command]:
    """Flags of every study."""

    def decorate(command: _Command) -> _Command:
        command = force_flag(config_flags(*EVAL_SECTIONS)(command))
        command = click.option("--json", "as_json", is_flag=True, help="print one JSON object")(command)
        command = click.option("--out", type=click.Path(path_type=Path), help="directory for results [default RUN/loadbearing]")(
            command
        )
        command = click.option("--non-markovian", is_flag=True, help="control: the reader also sees the question")(command)
        command = click.option("--cots", type=int, default=1, help="CoTs per question [default 1]")(command)
        command = click.option("--limit", type=int, default=limit, help=f"number of questions [default {limit}]")(command)
        command = click.option("--split", help="split that the questions come from [default data.test_split]")(command)
        if checkpoint:
            text = "the checkpoint: last, best, base, or a step [default last]"
            command = click.option("--checkpoint", default="last", help=text)(command)
        return command

    return decorate


def damage_flags(command: _Command) -> _Command:
    names = "comma-separated [default all] (docs/perturbations.md)"
    command = click.option("--severities", metavar="LIST", help="comma-separated, from 0 to 1 [default 0.2,0.4,0.6,0.8,1]")(
        command
    )
    command = click.option("--perturbations", "--only", "perturbations", metavar="LIST", help=names)(command)
    text = "a paired control run, usually the non-Markovian one: how much more does perturbation cost this run (its fragility)?"
    return click.option("--against", metavar="RUN", help=text)(command)


def manner_flags(*ways: str) -> Callable[[_Command], _Command]:
    """`ways`: what may become of a unit, the default first."""

    def decorate(command: _Command) -> _Command:
        how = f"what happens to each unit, one at a time [default {ways[0]}]"
        command = click.option("--how", type=click.Choice(ways), default=ways[0], help=how)(command)
        by = click.Choice(["token", "word", "sentence"])
        return click.option("--by", type=by, help="the unit to leave out [default token]")(command)

    return decorate


def listed(texts: tuple[str, ...]) -> list[str]:
    """Names of a flag that may be repeated or take several, separated by commas."""
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def check_run(run: str, flags: dict[str, Any]) -> None:
    """Raises UserError for a run, checkpoint, split or number that is plainly wrong: before torch is imported, which takes seconds."""
    from markovlm.api.arguments import require_count
    from markovlm.runs.ahead import check_ahead
    from markovlm.runs.targets import open_targets

    for flag in ("limit", "cots"):
        require_count(f"--{flag}", flags[flag])
    config = open_targets(run, str(flags.get("checkpoint", "last")), overrides(flags))[0].config
    check_ahead(config, flags["split"] or config.data.test_split)


def plan_of(perturbations: str | None, severities: str | None) -> Plan:
    from markovlm.analysis.perturb import PERTURBATIONS, Plan

    names = tuple(name.strip() for name in perturbations.split(",")) if perturbations else tuple(PERTURBATIONS)
    try:
        graded = tuple(float(text) for text in severities.split(",")) if severities else None
    except ValueError:
        raise UserError(f"--severities {severities}: write numbers between 0 and 1, such as 0.2,0.6") from None
    return Plan(names, graded)


def request_of(run: str, parts: tuple[Part, ...], flags: dict[str, Any], **more: Any) -> Request:
    """From the flags that every study has."""
    from markovlm.api.studies import study_request

    shared = {name: flags[name] for name in ("split", "limit", "cots", "non_markovian", "out")}
    more = {"checkpoint": flags.get("checkpoint", "last"), **more}
    return study_request(run, parts, config=overrides(flags), **shared, **more)


def studied(request: Request) -> Any:
    from markovlm.api.studies import study
    from markovlm.terminal.console import counting, stderr

    console = stderr()
    return study(request, lambda label, n: counting(console, label, n))


def run_study(request: Request, as_json: bool, part: str) -> None:
    found = studied(request)
    if found.chains:
        show_chain_study(found, part, as_json)
        return
    figures = _drawn(found)
    if as_json:
        files, drawn = [str(path) for path in found.paths], [str(path) for path in figures]
        more = {name: value for name, value in found.results.items() if name.startswith("intervention")}
        print_json({**found.results[part], **more, "files": files, "figures": drawn})
        return
    show(found)
    for figure in figures:
        say(f"figure: {figure}")


def show_chain_study(found: Any, part: str, as_json: bool) -> None:
    """Of a run of chains: one result for all parts."""
    if as_json:
        print_json({**found.results[part], "files": [str(found.paths[0]), str(found.page)]})
        return
    from markovlm.terminal.chain_studies import show_chain_studies

    show_chain_studies(found.results[part])
    say(f"page: {found.page}")


def _drawn(found: Any) -> list[Path]:
    """Heat maps, curves and bars beside the results. What Vega refuses is said; the results are there already."""
    from markovlm.report.draw import DrawingFailed
    from markovlm.report.loadbearing.beside import draw_beside

    try:
        return draw_beside(found.paths)
    except DrawingFailed as error:
        say(f"no figures: {error}", err=True)
        return []


def show(found: Any) -> None:
    if found.chains:
        show_chain_study(found, "chains", as_json=False)
        return
    from markovlm.terminal.console import stdout
    from markovlm.terminal.studies import show_found

    show_found(stdout(), found)


def explain_one_question(request: Request, example: str | None, question: str | Example | None, as_json: bool) -> None:
    from markovlm.analysis.loadbearing import explain_question
    from markovlm.terminal.attribution import explain_text
    from markovlm.terminal.console import stdout
    from markovlm.terminal.studies import show_study

    found = explain_question(request, example, question)
    resampled = found.results.get("resample")
    if found.chains:
        show_chain_study(found, "explain", as_json)
        return
    if as_json:
        shown = resampled or {"attributions": [one.to_json() for one in found.attributions]}
        print_json({**shown, "page": str(found.page)})
        return
    if resampled is not None:
        show_study(stdout(), resampled)
    else:
        stdout().print(explain_text(found.attributions))
        if request.target.config.objective.conditioning == "non_markovian":
            say("the reader also saw the question: where the answer does not depend on the CoT, it may depend on the question")
    say(f"page: {found.page}")
