"""One CoT and its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from markovlm.tasks.base import LETTERS
from markovlm.terminal.console import stdout

if TYPE_CHECKING:
    from markovlm.evaluation.ask import Asked


def show_asked(checkpoint: str, asked: Asked) -> None:
    """Question, CoT, answer."""
    console = stdout()
    console.print(Text(f"question  {asked.question}"))
    for letter, choice in zip(LETTERS, asked.choices, strict=False):
        console.print(Text(f"        {letter}  {choice}"))
    console.print(Text(f"CoT       {asked.cot}"))
    answer = asked.answer if asked.answer is not None else f"no answer found in {asked.raw_answer!r}"
    if asked.answer is not None and asked.answer in LETTERS[: len(asked.choices)]:
        answer += f"  {asked.choices[LETTERS.index(asked.answer)]}"
    console.print(Text(f"answer    {answer}    (read from the CoT alone, {checkpoint})"))
