"""Cutting a chain of thought into sentences and finding the numbers in it. Pure: text in, pieces or spans out.

Numbers are written in ASCII digits, as `tasks.answers` reads them. What is hard is the comma: it groups the digits of
`1,080`, and it ends a step in `17+4=21,21+79=100`, which is how the embedded model writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from markovlm.tasks.numbers import CURRENCY, end_of_digits, normalize_number, with_sign

_BEFORE_A_RESULT = frozenset(" \t*\\") | CURRENCY  # what may stand between `=` and its number: `= **$9**`

_DIGITS = re.compile(
    r"[1-9]\d{0,2}(?:,\d{3})+(?!\d)(?:\.\d+)?"  # 1,080  12,345.60
    r"|\d+(?:\.\d+)?"
    r"|(?<![\w.])\.\d+",  # .5, but not the last digits of `v1.2.3` or of `wait...5`
    re.ASCII,
)

_FULL_STOPS = "。！？"  # end a sentence without white space after them
_CLOSERS = "\"'”’»)]}*_」』）"
_OPENERS = "\"'“‘«([{*_"
_WORD = re.compile(rf"[^\s{_FULL_STOPS}]+(?:[{_FULL_STOPS}]+[{re.escape(_CLOSERS)}]*)?\s*|[{_FULL_STOPS}]+\s*")
_STEP_END = re.compile(r"[,;，；]+\s*")
_LIST_MARKER = re.compile(r"\d{1,2}|[A-Za-z]", re.ASCII)
_DOTTED = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]")  # e.g, i.e, p.m, J.K: the last dot is already off
_ABBREVIATIONS = frozenset({"mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "cf", "fig", "figs", "eq", "eqs", "approx"})
# A capital after one of these is an option, not an initial: `the answer is B. Iron ...`.
_BEFORE_AN_OPTION = frozenset(
    {"answer", "option", "choice", "letter", "is", "be", "are", "was", "not", "or", "and", "choose", "select", "pick"}
)


@dataclass(frozen=True, slots=True)
class Span:
    """A number as it stands in a text: `Span(3, 8, "1,080", "1080")` in `is 1,080`.

    A sign belongs to the number, an operator does not: `17-4` holds 17 and 4, `x=-4` holds -4, `-$5` is one number.
    """

    start: int
    end: int
    text: str  # as written: text[start:end] of the whole
    value: str  # canonical, from `tasks.answers.normalize_number`; as written where that gives up (300 digits)


def sentences(text: str) -> list[str]:
    """The sentences of `text`; joined without anything between, they are `text` again. None in empty text.

    A sentence ends after `.`, `!` or `?` (and closing quotes and brackets) before white space, and at line ends; not
    in decimals, nor after initials, list markers, or abbreviations such as `e.g.` and `Mr.`. White space goes to the
    sentence before it. Text of one sentence is cut after its commas and semicolons instead, except in numbers.
    """
    pieces = _cut(text, _sentence_ends(text))
    return pieces if len(pieces) > 1 else _cut(text, _step_ends(text))


def numbers(text: str) -> list[Span]:
    """Every number in `text`, in order, wherever its digits stand: whole, decimal (`3.5`, `.5`) or grouped (`1,080`).

    A comma groups where 1-3 digits come before it and exactly three behind. It ends a step instead where what is
    before it follows `=` and what is behind it is added to or the like: `17+4=21,121+79=200` holds 21 and 121.
    """
    found: list[Span] = []
    position = 0
    while match := _DIGITS.search(text, position):
        position = end_of_digits(text, match.start(), match.end())
        start = with_sign(text, match.start())
        written = text[start:position]
        found.append(Span(start, position, written, normalize_number(written) or written))
    return found


def results(text: str) -> list[Span]:
    """The numbers that stand right after an `=`: `21` and `100` in `17+4=21, 21+79 = $100`."""
    return [span for span in numbers(text) if _follows_equals(text, span.start)]


def _cut(text: str, ends: Iterable[int]) -> list[str]:
    return [text[a:b] for a, b in pairwise([0, *ends, len(text)])] if text else []


def _sentence_ends(text: str) -> Iterator[int]:
    """Where one sentence ends and another follows."""
    previous, first = "", True
    for match in _WORD.finditer(text):
        word = match[0].rstrip()
        gap = match[0][len(word) :]
        ended = "\n" in gap or "\r" in gap or _has_full_stop(word) or (gap != "" and _closes(word, previous, first))
        if ended and match.end() < len(text):
            yield match.end()
        previous, first = word, ended


def _has_full_stop(word: str) -> bool:
    return word.rstrip(_CLOSERS)[-1:] in tuple(_FULL_STOPS)


def _closes(word: str, previous: str, first: bool) -> bool:
    """Whether a sentence ends with `word`, which white space follows. `first`: the sentence also begins with it."""
    bare = word.rstrip(_CLOSERS)
    if not bare.endswith((".", "!", "?", "…")):
        return False
    stem = bare.removesuffix(".").lstrip(_OPENERS)
    if bare[-1] != "." or stem.endswith("."):  # `!`, `?`, `...`
        return True
    if (first and _LIST_MARKER.fullmatch(stem)) or stem.lower() in _ABBREVIATIONS or _DOTTED.fullmatch(stem):
        return False
    if len(stem) == 1 and stem.isupper() and stem != "I":
        return previous.lower().rstrip(":=*") in _BEFORE_AN_OPTION
    return True


def _step_ends(text: str) -> Iterator[int]:
    in_numbers = {i for span in numbers(text) for i in range(span.start, span.end)}
    for match in _STEP_END.finditer(text):
        if match.start() not in in_numbers and match.end() < len(text):
            yield match.end()


def _follows_equals(text: str, start: int) -> bool:
    at = start - 1
    while at >= 0 and text[at] in _BEFORE_A_RESULT:
        at -= 1
    return at >= 0 and text[at] == "=" and text[max(0, at - 1) : at] not in ("<", ">", "!")
