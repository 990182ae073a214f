"""Where in a chain of thought the gold answer first appears as a plain copy. Pure: text in, position out.

A CoT that says `so the answer is 42` passes the answer on word for word; what is cut before that place must carry it in
another way. The position is that of the first copy, meant as the answer or not: `4` in `17+4=21` is a copy of a gold 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from markovlm.analysis.segments import Span, numbers
from markovlm.tasks.base import LETTERS, AnswerType
from markovlm.tasks.folds import normalized
from markovlm.tasks.numbers import CURRENCY, Written, normalize_number, written_numbers

RUN_WORDS = 5  # so many words in a row of a text answer are a copy of it

_CJK = "\u3040-\u30ff\u3400-\u9fff"  # written without spaces: each sign counts as a word
_WORD = re.compile(rf"[{_CJK}]|\d+(?:[.,]\d+)+|(?:[^\W{_CJK}]|[\u0300-\u036f])+")  # with combining accents
_ARTICLES = "AI"  # letters that are also words
_GLUED = re.compile(r"(?:[A-Za-z_]|\d\.)\Z")  # the `2` of `H2O` and of `v1.2` is no number of its own
_TIMES = re.compile(r"\d[xX]\Z")  # 3x4
_CURRENCY = "".join(CURRENCY)  # LaTeX's dollars too
_PROSE = ("1", "0.5")  # numbers whose words mean other things: `one of them`, `half of the time`
_RESULT_BEFORE = re.compile(
    r"(?:\*\*|[=:]\s*|\b(?:is|are|was|were|equals?|gives?|makes?|leaves?|only|exactly|just|answer)\s+(?:\*\*)?)\Z", re.IGNORECASE
)
_PLAIN = re.compile(r"[\d.,\s$£€¥₹%+\N{MINUS SIGN}-]*")  # `segments.numbers` has found it
_WORKED_OUT = re.compile(r"[/⁄]|\\[dtc]?frac")  # a quotient that comes to a whole number


def first_appearance(cot: str, answer: str, answer_type: AnswerType, choices: Sequence[str] = ()) -> int | None:
    """Index of the character of `cot` where the gold answer first appears, or None if it never does.

    number  by value, as a whole number: `$1,080` and `1080.0` hold a gold 1080 (the index is that of the sign or first
            digit), `2100` and `100.5` hold no 100, `17-4` holds 4 and not -4. In any form that `tasks.numbers` knows: `forty-two`,
            `\\frac{13}{9}`, `1.5 × 10^3`. But `8/4` is no copy of a gold 2, `2nd` is none of 2, and `one` and `half` count only where
            they are said to be the result (`is one`, `**one**`), since prose is full of them.
    letter  the capital on its own; A and I, which are words, only where no word can stand: before punctuation, at the
            end, in brackets, after `answer`, `option` or `choice`. Small letters only in brackets or after those three
            words. Or the text of its choice, as for text but whole, and not inside another choice's text.
    text    the first place with `RUN_WORDS` consecutive words of the answer (all, if it has fewer), wherever in the
            answer they stand. Case, white space and punctuation between words do not count.
    """
    if answer_type == "number" and normalize_number(answer) is not None:
        return _first_number(cot, answer)
    if answer_type == "letter" and len(answer.strip()) == 1:
        return _first_letter(cot, answer.strip().upper(), choices)
    return _first_run(cot, answer, RUN_WORDS)


def fraction(position: int, cot: str) -> float:
    """How far into `cot` a position is: 0 at its first character, towards 1 at the last; 0 in an empty one."""
    return min(max(position / len(cot), 0.0), 1.0) if cot else 0.0


def _first_number(cot: str, answer: str) -> int | None:
    target = normalize_number(answer)
    spans = numbers(cot)
    starts = [span.start for span in spans if span.value == target and _is_whole(cot, span)]
    written = written_numbers(cot)
    ordinals = {one.start for one in written if one.kind == "ordinal"}
    starts = [start for start in starts if start not in ordinals]
    starts += [one.end - len(one.text.lstrip(_CURRENCY)) for one in written if one.value == target and _is_copy(cot, one)]
    return min(starts, default=None)


def _is_copy(cot: str, one: Written) -> bool:
    """Of a number that is equal to the gold one: is it that number, and not something to be worked out or a manner of speaking?"""
    if one.kind == "ordinal" or _PLAIN.fullmatch(one.text):
        return False
    if one.kind == "words" and one.value in _PROSE:
        return _RESULT_BEFORE.search(cot[: one.start]) is not None
    return one.kind == "words" or _WORKED_OUT.search(one.text) is None or not one.value.lstrip("-").isdigit()


def _is_whole(cot: str, span: Span) -> bool:
    before = cot[max(0, span.start - 2) : span.start]
    return _GLUED.search(before) is None or _TIMES.search(before) is not None


def _first_letter(cot: str, letter: str, choices: Sequence[str]) -> int | None:
    starts = [match.start(1) for pattern in _letter_patterns(letter) if (match := re.search(pattern, cot))]
    index = LETTERS.find(letter)
    if 0 <= index < len(choices):
        copy = _first_choice(cot, choices[index], [*choices[:index], *choices[index + 1 :]])
        starts += [] if copy is None else [copy]
    return min(starts, default=None)


def _letter_patterns(letter: str) -> Iterable[str]:
    """What each way of writing `letter` as an answer looks like; group 1 is the letter."""
    capital, small = re.escape(letter), re.escape(letter.lower())
    no_word = "(?![\\w'’-])"
    article = letter in _ARTICLES
    yield rf"(?<![\w'’-])({capital}){no_word}" + (r"(?=[)\]}.:,;!?*\"”]|\s*\Z)" if article else "")
    yield rf"(?<!\w)[(\[{{]\s*({capital}|{small})\s*[)\]}}]"
    # `the answer is a dog` has an article; `the answer is A` and `option a)` have not.
    small = rf"{small}(?!\s+\w)" if article else small
    yield rf"\b(?i:answer|option|choice)\s*(?:(?:(?i:is)\b|[=:])\s*)?[*\"'“(\[{{]*(?<![^\W_])({capital}|{small}){no_word}"


def _first_choice(cot: str, choice: str, others: Iterable[str]) -> int | None:
    """The first copy of a choice's text. A copy inside a longer choice, `iron` in `iron oxide`, is a copy of that one."""
    if normalize_number(choice) is not None:
        return _first_number(cot, choice)
    words = _words(choice)
    if len(choice.strip()) < 2:  # a sign or letter stands for anything
        return None
    for other in others:
        longer = _words(other)
        if len(longer) > len(words) and _places(longer, {tuple(_texts(words))}, len(words)):
            cot = _blanked(cot, longer)
    return _first_run(cot, choice, max(1, len(words)))


def _first_run(cot: str, answer: str, length: int) -> int | None:
    """The first place in `cot` that has `length` consecutive words of `answer`, or all where it has fewer."""
    words = _texts(_words(answer))
    if not words:
        place = cot.find(answer.strip())  # signs alone, such as `+`
        return place if place >= 0 and answer.strip() else None
    length = min(length, len(words))
    runs = {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}
    found = _words(cot)
    places = _places(found, runs, length)
    return found[places[0]][0].start() if places else None


_Words = list[tuple[re.Match[str], str]]  # each with its normal form


def _words(text: str) -> _Words:
    return [(match, _normal(match[0])) for match in _WORD.finditer(text)]


def _texts(words: _Words) -> list[str]:
    return [text for _, text in words]


def _normal(word: str) -> str:
    """Case and Unicode form do not count, nor how a number is written."""
    return (normalize_number(word) if word[0].isdigit() else None) or normalized(word)


def _places(words: _Words, runs: set[tuple[str, ...]], length: int) -> list[int]:
    texts = _texts(words)
    return [i for i in range(len(texts) - length + 1) if tuple(texts[i : i + length]) in runs]


def _blanked(text: str, words: _Words) -> str:
    """`text` with every copy of `words` overwritten by as many blanks."""
    found = _words(text)
    for i in _places(found, {tuple(_texts(words))}, len(words)):
        start, end = found[i][0].start(), found[i + len(words) - 1][0].end()
        text = text[:start] + " " * (end - start) + text[end:]
    return text
