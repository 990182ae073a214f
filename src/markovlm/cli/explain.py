"""`markovlm explain`."""

from __future__ import annotations

from typing import Any

import click

from markovlm.cli.flags import Command
from markovlm.cli.study import (
    check_run,
    explain_one_question,
    manner_flags,
    request_of,
    run_study,
    study_flags,
)
from markovlm.errors import UserError
from markovlm.terminal.plain import say


@click.command(cls=Command, short_help="Which words or sentences of a CoT does the answer need?")
@click.argument("run", metavar="RUN|MODEL")
@click.option("--example", metavar="ID", help="one question of the split, by id")
@click.option("--question", metavar="TEXT", help="a question of your own")
@click.option(
    "--choice",
    "choices",
    multiple=True,
    metavar="TEXT",
    help="for a multiple-choice --question: one choice; repeat for each, in order",
)
@click.option(
    "--different-below",
    type=float,
    help="with --how resample: a new sentence counts as different below this similarity [default 1: any change]",
)
@click.option("--resamples", type=int, help="with --how resample: continuations sampled per sentence [default 20]")
@manner_flags("remove", "replace", "resample")
@study_flags(50)
def explain(
    run: str, example: str | None, question: str | None, by: str | None, how: str, resamples: int | None, different_below: float | None,
    choices: tuple[str, ...], **flags: Any,
) -> None:  # fmt: skip
    """Find which tokens, words or sentences of a CoT are load-bearing; over many CoTs, of which kinds and at which positions.
    With --how resample, find what each sentence causes: the policy continues from just before it."""
    from markovlm.tasks.base import Example

    check_run(run, flags)
    if choices and question is None:
        raise UserError("--choice is only for --question")
    asked = Example("question", question, "", choices) if question is not None and choices else question
    if how == "resample":
        if by not in (None, "sentence"):
            raise UserError(f"--by {by}: --how resample works by sentence only")
        from markovlm.analysis.resample import Resampling

        given = {"k": resamples, "below": different_below}
        resampling = Resampling(**{name: value for name, value in given.items() if value is not None})
        more = {"resampling": resampling, "say": lambda line: say(line, err=True)}
        request = request_of(run, ("resample",), flags, **more)
        if example is None and question is None:
            run_study(request, flags["as_json"], "resample")
        else:
            explain_one_question(request, example, asked, flags["as_json"])
        return
    if resamples is not None or different_below is not None:
        raise UserError("--resamples and --different-below are only for --how resample")
    if example is not None and question is not None:
        raise UserError("--example and --question: give only one of them")
    from markovlm.analysis.explain import Manner

    manner = Manner(by or "token", how)  # pyright: ignore[reportArgumentType]  click has checked both
    request = request_of(run, ("explain",), flags, manner=manner)
    if example is None and question is None:
        run_study(request, flags["as_json"], "explain")
    else:
        explain_one_question(request, example, asked, flags["as_json"])
