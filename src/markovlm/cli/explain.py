"""`markovlm explain`."""

from __future__ import annotations

from typing import Any

import click

from markovlm.cli.flags import Command
from markovlm.cli.study import explain_one_question, manner_flags, request_of, run_study, study_flags
from markovlm.errors import UserError


@click.command(cls=Command)
@click.argument("run", metavar="RUN|MODEL")
@click.option("--example", metavar="ID", help="one question of the split, by its id")
@click.option("--question", metavar="TEXT", help="one question of your own")
@manner_flags
@study_flags(50)
def explain(run: str, example: str | None, question: str | None, by: str, how: str, **flags: Any) -> None:
    """Which tokens, words or sentences of a CoT bear the load; over many CoTs, which kinds and where."""
    from markovlm.analysis.explain import Manner

    if example is not None and question is not None:
        raise UserError("--example and --question: give one of them")
    manner = Manner(by, how)  # pyright: ignore[reportArgumentType]  click has checked both
    request = request_of(run, ("explain",), flags, manner=manner)
    if example is None and question is None:
        run_study(request, flags["as_json"], "explain")
    else:
        explain_one_question(request, example, question, flags["as_json"])
