"""`markovlm ask`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from markovlm.cli.common import force_flag
from markovlm.cli.flags import EVAL_SECTIONS, Command, config_flags, overrides, print_json
from markovlm.content import read_content
from markovlm.errors import UserError


@click.command(cls=Command, short_help="Ask one question: the CoT, and the answer read from it.")
@click.argument("target", metavar="RUN|MODEL")
@click.argument("question", required=False)
@click.option(
    "--choice", "choices", multiple=True, metavar="TEXT", help="for a multiple-choice task: one choice; repeat for each, in order"
)
@click.option(
    "--text",
    "text",
    type=click.Path(path_type=Path),
    help="for a run that reads texts in chunks (chain.kind): a file to read; prints the notes after each chunk",
)
@click.option("--checkpoint", default="last", help="the checkpoint: last, best, base, or a step [default last]")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@force_flag
@config_flags(*EVAL_SECTIONS)
def ask(
    target: str, question: str | None, choices: tuple[str, ...], text: Path | None, checkpoint: str, as_json: bool, **flags: Any
) -> None:
    """Write one CoT, and read the answer from it alone. A run that reads texts in chunks writes notes, and the answer is read
    from the last of them."""
    from dataclasses import asdict

    from markovlm.api.models import load
    from markovlm.terminal.ask import show_asked
    from markovlm.terminal.chains import show_asked_chain

    if text is None and question is None:
        raise UserError("give a question, or --text FILE for a run of chains")
    if text is not None and choices:
        raise UserError("--choice is for a multiple-choice question, not for --text")
    passage = None if text is None else read_text(text)
    model = load(target, checkpoint=checkpoint, config=overrides(flags))
    result = model.ask_text(passage, question) if passage is not None else model.ask(question or "", choices)
    if as_json:
        print_json({"checkpoint": model.checkpoint, **asdict(result)})
    elif hasattr(result, "states"):
        show_asked_chain(model.checkpoint, result)
    else:
        show_asked(model.checkpoint, result)


def read_text(path: Path) -> str:
    """A file of the user's. Raises UserError in one line if it can't be read as text."""
    try:
        return read_content(path).decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"--text {path}: is not a UTF-8 text file") from None
    except OSError as error:
        raise UserError(f"--text {path}: cannot be read: {error.strerror}") from None
