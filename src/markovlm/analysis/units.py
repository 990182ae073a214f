"""Groups the tokens of a CoT into tokens, words or sentences, and says what kind each group is. Pure: texts in, positions out.

A unit is a set of neighbouring token positions, so a caller removes it by dropping ids: nothing is tokenised again. A
token is never split; one that covers several words is one unit with all of them.

    units_of(["1", "7", "+", "4", "=", "2", "1"], "word")  ->  17 | + | 4 | = | 21
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from markovlm.tasks.equations import equations

By = Literal["token", "word", "sentence"]

KINDS: dict[str, str] = {  # where a unit touches words of several kinds, the first of this table counts
    "number": "holds a digit: 21, 1,080, 3.5",
    "operator": "+ - * / = × ÷ < > % ^ and their relatives, and the words plus, minus, times, equals, divided",
    "name": "a capitalised word inside a sentence: a person, a place, the letter of a choice",
    "word": "any other word",
    "filler": "function words and discourse markers: the, of, is, so, well, hmm, let me see",
    "punctuation": "stops, brackets, quotes, and a hyphen or slash inside a word",
    "other": "other signs, and pieces without text of their own",
    "space": "only white space",
    "sentence": "a whole sentence",
}

_FILLERS = """
    a about an and are as at be because but by can did do does for from had has have here hmm hm how i i'll i'm if in is
    it it's its just let let's me my now of oh ok okay on or our see should so some than that that's the their
    then there these this those to uh um very was we we'll we're well were what when where which who will with would yes you
    your
"""
FILLERS = frozenset(_FILLERS.split())
OPERATOR_WORDS = frozenset({"plus", "minus", "times", "equals", "divided"})
OPERATORS = frozenset("+-*/=×÷<>%^−·∗≤≥≠≈±√∙")  # the plain ones, then their typographic relatives

_RANK = {kind: rank for rank, kind in enumerate(KINDS)}
_PART = "\ufffd"  # what a tokenizer shows for a piece of a character
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]")  # kana and ideographs
# Over a mask of the text, one letter a character (see `_class_of`). A piece of a character stays with what it touches.
_REST = "p*(?:{core})[mp]*|p+"
_WORD = "a[amp]*(?:'[am]+)*"
_GROUPED = re.compile(_REST.format(core=rf"{_WORD}|0{{1,3}}(?:,000)+(?!0)(?:\.0+)?|0+(?:\.0+)?|[^sp]"))  # 1,080 is one number
_UNGROUPED = re.compile(_REST.format(core=rf"{_WORD}|0+(?:\.0+)?|[^sp]"))  # 21,21 is two
_COMMA = re.compile(r"(?<=\d),(?=\d)")
_SENTENCE_ENDS = ".!?:\n\N{IDEOGRAPHIC FULL STOP}\N{FULLWIDTH EXCLAMATION MARK}\N{FULLWIDTH QUESTION MARK}"


@dataclass(frozen=True, slots=True)
class Unit:
    """Neighbouring tokens of one CoT: `Unit("21", (5, 6), "number")`. `text` holds the white space before it."""

    text: str
    positions: tuple[int, ...]
    kind: str  # of KINDS


@dataclass(frozen=True, slots=True)
class _Span:
    """A number, word or sign at `start:end` of the text, without white space."""

    start: int
    end: int
    kind: str


def units_of(pieces: Sequence[str], by: By) -> list[Unit]:
    """The units of a CoT in order; every position is in exactly one.

    `pieces[i]` is the text that token i adds. Where a character takes several tokens, all but the last may add '' (or
    U+FFFD, which stays with what it touches): except for `by="token"` those tokens join the unit that follows. So does
    white space. At the end, where nothing follows, tokens without text join the last unit; white space is a word of its
    own, and part of the last sentence.
    """
    text = "".join(pieces)
    spans = _spans(text)
    if by == "token":
        groups = [[position] for position in range(len(pieces))]
    elif by == "word":
        groups = _by_word(pieces, spans)
    elif by == "sentence":
        from markovlm.analysis.segments import sentences

        groups = _by_sentence(pieces, sentences(text))
    else:
        raise ValueError(f"by={by!r}: must be token, word or sentence")
    units: list[Unit] = []
    end = 0
    for group in groups:
        own = "".join(pieces[position] for position in group)
        start, end = end, end + len(own)
        kind = "sentence" if by == "sentence" else _kind(own, spans, start, end)
        units.append(Unit(own, tuple(group), kind))
    return units


def joined(units: Sequence[Unit], most: int) -> list[Unit]:
    """Neighbours joined so that at most `most` units of about equal number are left."""
    if len(units) <= most:
        return list(units)
    edges = [round(i * len(units) / most) for i in range(most + 1)]
    groups = [units[a:b] for a, b in pairwise(edges)]
    return [Unit("".join(u.text for u in g), tuple(p for u in g for p in u.positions), g[0].kind) for g in groups]


def _by_word(pieces: Sequence[str], spans: Sequence[_Span]) -> list[list[int]]:
    """A group ends after a token with visible text that ends in no span."""
    groups: list[list[int]] = []
    group: list[int] = []
    visible, end = False, 0
    for position, piece in enumerate(pieces):
        group.append(position)
        end += len(piece)
        visible = visible or bool(piece.strip())
        if visible and _cuts_no_span(spans, end):
            groups.append(group)
            group, visible = [], False
    if group and groups and not any(pieces[position] for position in group):
        groups[-1] += group
    elif group:
        groups.append(group)
    return groups


def _cuts_no_span(spans: Sequence[_Span], at: int) -> bool:
    """Whether offset `at` is not strictly inside a span."""
    number = bisect_left(spans, at, key=lambda span: span.start) - 1  # the last span that starts before it
    return number < 0 or spans[number].end <= at


def _by_sentence(pieces: Sequence[str], sentences: Sequence[str]) -> list[list[int]]:
    """Tokens by the sentence that their first visible character is in; what shows nothing goes with the next that does."""
    ends: list[int] = []
    for sentence in sentences:
        ends.append((ends[-1] if ends else 0) + len(sentence))
    groups: dict[int, list[int]] = {}
    waiting: list[int] = []
    home, at = 0, 0
    for position, piece in enumerate(pieces):
        waiting.append(position)
        if piece.strip():
            home = bisect_right(ends, at + len(piece) - len(piece.lstrip()))
            groups.setdefault(home, []).extend(waiting)
            waiting = []
        at += len(piece)
    if waiting:  # nothing to see to the end: with the last sentence
        groups.setdefault(home, []).extend(waiting)
    return list(groups.values())


def _kind(own: str, spans: Sequence[_Span], start: int, end: int) -> str:
    """The kind of the tokens at `start:end`, from the whole words they touch: "et" of "Janet" is a piece of a name."""
    first = bisect_right(spans, start, key=lambda span: span.end)
    last = bisect_left(spans, end, key=lambda span: span.start)
    touched = [span.kind for span in spans[first:last]]
    if touched and own.strip():
        return min(touched, key=lambda kind: _RANK[kind])
    return "space" if own.isspace() else "other"


# --------------------------------------------------------------------------------------------------- words and signs


def _spans(text: str) -> list[_Span]:
    """Numbers, words and single signs of `text`, in order."""
    mask = "".join(map(_class_of, text))
    pattern = _GROUPED if _commas_group(text) else _UNGROUPED
    return [_Span(m.start(), m.end(), _span_kind(text, m.start(), m.end())) for m in pattern.finditer(mask)]


def _class_of(char: str) -> str:
    """s space, a letter, 0 digit, m mark that belongs to the sign before it, p piece of a character, ' , . themselves, ? other."""
    if char.isspace():
        return "s"
    if char in ",.":
        return char
    if char in "'\N{RIGHT SINGLE QUOTATION MARK}":
        return "'"
    if char == _PART:
        return "p"
    category = unicodedata.category(char)
    if category == "Nd":
        return "0"
    if category[0] == "L":
        return "?" if _UNSPACED.match(char) else "a"
    return "m" if category[0] == "M" or category == "Cf" else "?"


def _commas_group(text: str) -> bool:
    """Whether commas between digits separate thousands (`=1,080+20`) and not equations (`=121,121+30`): as more comes true.

    Undecided, a text in which some comma can't separate thousands has none that does.
    """
    if not _COMMA.search(text):
        return False
    grouped, split = (_credit(_COMMA.sub(sign, text)) for sign in ("", ";"))
    if grouped != split:
        return grouped > split
    return not re.search(r"\d{4},\d|\d,(?!\d{3}(?!\d))\d", text)


def _credit(text: str) -> int:
    """True equations less false ones."""
    return sum(1 if equation.holds else -1 for equation in equations(text))


def _span_kind(text: str, start: int, end: int) -> str:
    word = text[start:end].strip(_PART)
    if any(unicodedata.category(char)[0] == "N" for char in word):
        return "number"
    if not word:
        return "other"
    if word[0].isalpha():
        return _word_kind(text, start, word)
    if word[0] in OPERATORS:
        return "punctuation" if word[0] in "-/" and _inside_word(text, start, end) else "operator"
    return "punctuation" if unicodedata.category(word[0])[0] == "P" else "other"


def _word_kind(text: str, start: int, word: str) -> str:
    plain = word.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    if plain in OPERATOR_WORDS or (plain == "x" and _between_numbers(text, start, start + 1)):
        return "operator"
    inside = word[0].isupper() and not _starts_sentence(text, start)
    if plain in FILLERS and not (inside and plain == "a"):  # "option A" is no article
        return "filler"
    return "name" if inside else "word"


def _starts_sentence(text: str, start: int) -> bool:
    """Whether only spaces, quotes, brackets and list signs lie between `start` and the sentence (or line) before it."""
    at = start
    while at and (text[at - 1] in " \t\"'([{*#_->\N{LEFT DOUBLE QUOTATION MARK}\N{BULLET}"):
        at -= 1
    return at == 0 or text[at - 1] in _SENTENCE_ENDS


def _inside_word(text: str, start: int, end: int) -> bool:
    """A hyphen or slash tight between words of two letters or more (`well-known`, `and/or`, not `a-b`)."""
    return text[max(0, start - 2) : start].isalpha() and start >= 2 and text[end : end + 2].isalpha() and len(text) >= end + 2


def _between_numbers(text: str, start: int, end: int) -> bool:
    """Whether `start:end` joins two numbers (`3 x 4`)."""
    return text[:start].rstrip(" ")[-1:].isdigit() and text[end:].lstrip(" $")[:1].isdigit()
