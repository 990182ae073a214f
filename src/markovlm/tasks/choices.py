"""The choices of a multiple-choice question that somebody typed: given separately, or written into its text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from markovlm.errors import UserError
from markovlm.tasks.base import LETTERS, AnswerType, Example

_LABEL = re.compile(
    rf"(?:^|(?<=\s))(?P<open>\(?)(?P<letter>[{LETTERS}{LETTERS.lower()}])(?P<close>[).:])[ \t]+(?=\S)", re.MULTILINE
)
_HEADING = re.compile(r"\s*(?:answer\s+)?(?:choices|options)\s*:\s*\Z", re.IGNORECASE)
_PROMPT = re.compile(r"\s*(?:the\s+)?(?:correct\s+)?answer\s*(?:is)?\s*:?\s*", re.IGNORECASE)


def split_choices(text: str) -> tuple[str, tuple[str, ...]]:
    """(question, choices) of a text that lists its choices as `A. …`, `A) …`, `(A) …` or `A: …`, one per line or in a row.

    The labels must run A, B, … in one style. A paragraph after the last choice belongs to the question, except a bare `Answer:`.
    Without such a list: the text itself and no choices.

    >>> split_choices("Which is a metal?\\nA. iron\\nB. wood")
    ('Which is a metal?', ('iron', 'wood'))
    """
    labels = list(_LABEL.finditer(text))
    for start in reversed([i for i, label in enumerate(labels) if label["letter"] in "Aa"]):
        run = _run_from(labels[start:])
        if len(run) < 2:
            continue
        *inner, last = [text[a.end() : b.start()] for a, b in pairwise(run)] + [text[run[-1].end() :]]
        last, _, rest = last.partition("\n")
        choices = tuple(piece.strip() for piece in (*inner, last))
        question = _HEADING.sub("", text[: run[0].start()]).strip()
        if question and all(choices):
            behind = "" if _PROMPT.fullmatch(rest) else rest.strip()
            return "\n".join(part for part in (question, behind) if part), choices
    return text, ()


def _run_from(labels: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    """The labels A, B, … in the style of the first; others between them are text."""
    first, found = labels[0], list[re.Match[str]]()
    letters = LETTERS if first["letter"] == "A" else LETTERS.lower()
    for label in labels:
        same_style = (label["open"], label["close"]) == (first["open"], first["close"])
        if same_style and len(found) < len(letters) and label["letter"] == letters[len(found)]:
            found.append(label)
    return found


def asked_example(
    question: str | Example, choices: Sequence[str], answer_type: AnswerType, task: str, *, identity: str = "asked"
) -> Example:
    """A question of the user's own as an Example; `answer` is empty if no gold answer is known.

    Of a multiple-choice task the choices are `choices`, else those of the Example or those listed in the text (`split_choices`).
    UserError for a question without text, one that lacks choices, choices of a task that has none, and a gold answer that is none of
    them.
    """
    given = question if isinstance(question, Example) else Example(identity, question, "")
    text, own = given.question.strip(), tuple(choice.strip() for choice in (choices or given.choices))
    if not text:
        raise UserError("the question is empty")
    if answer_type != "letter":
        if own:
            raise UserError(f"choices: task {task} is not multiple choice, its answers are {answer_type}s; leave them out")
        return Example(given.id, text, given.answer)
    if not own:
        text, own = split_choices(text)
    if not own:
        raise UserError(
            f"task {task} is multiple choice, and this question has no choices: give each with --choice TEXT (from Python "
            "choices=[…] or an Example), or list them in the question as lines 'A. …', 'B. …'"
        )
    if not 2 <= len(own) <= len(LETTERS):
        raise UserError(f"choices: {len(own)} given, expected 2 to {len(LETTERS)}")
    if not all(own):
        raise UserError(f"choices: choice {LETTERS[own.index('')]} is empty")
    letter = given.answer.strip().upper()
    if letter and letter not in LETTERS[: len(own)]:
        raise UserError(f"answer {given.answer[:30]!r}: is not one of {', '.join(LETTERS[: len(own)])}")
    return Example(given.id, text, letter, own)
