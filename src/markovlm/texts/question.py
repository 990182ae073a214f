"""How a CoT relates to its question: whether it merely restates it, ignores it, or contains the answer. Pure functions.

Both are shortcuts of this method: a copy of the question bypasses the redaction, so that the reader may answer it without reasoning; a
CoT that would fit any question carries nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_PIECE = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|[^\W\d_]+")
_MOST = 4_000  # characters of a text that are compared
_N = 5  # length of the n-grams
_LEAST_NUMBERS = 4  # a question with fewer says too little by its numbers alone
_LEAST_PIECES = 10
RESTATED = 0.8  # share of the question that must be there again
NEW_NUMBERS = 0.34  # a CoT with a larger share of numbers that the question has not is computing


def numbers(text: str) -> list[str]:
    """`1,080.50 and 7` -> ['1080.5', '7']"""
    return [_plain(found) for found in _NUMBER.findall(text[:_MOST])]


def _plain(found: str) -> str:
    found = found.replace(",", "")
    return (found.rstrip("0").rstrip(".") if "." in found else found).lstrip("0") or "0"


@lru_cache(maxsize=256)  # the question is the same for a whole group
def _pieces(text: str) -> tuple[str, ...]:
    return tuple(_plain(p) if p[0].isdigit() else p.lower() for p in _PIECE.findall(text[:_MOST]))


def contains_answer(cot: str, answer: str) -> bool | None:
    """Whether the CoT contains the answer as a whole number, an isolated capital letter, or a text. None if there is no answer to look for.

    >>> contains_answer("41 + 5 = 46", "46"), contains_answer("465", "46")
    (True, False)
    """
    answer = answer.strip()
    if not answer or len(answer) > 100:
        return None
    if _NUMBER.fullmatch(answer.lstrip("-$")):
        return _plain(answer.lstrip("-$")) in numbers(cot)
    if len(answer) == 1 and answer.isalpha():
        return re.search(rf"(?<![^\W_]){re.escape(answer)}(?![^\W_])", cot[:_MOST]) is not None
    return answer.lower() in cot[:_MOST].lower()


def _longest_common_run(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest run of neighbouring items that both sequences have."""
    if len(a) * len(b) > 1_000_000:
        return 0
    best, before = 0, [0] * (len(b) + 1)
    for x in a:
        row = [0] * (len(b) + 1)
        for j, y in enumerate(b, 1):
            if x == y:
                row[j] = before[j - 1] + 1
        best, before = max(best, *row), row
    return best


def restates(question: str, cot: str) -> bool | None:
    """Whether the CoT restates its question and adds little. None if the question is too short to tell.

    Either four fifths of the question's numbers are in the CoT one after the other, or four fifths of its words and numbers
    lie in n-grams of five that the CoT repeats; and at most a third of the CoT's numbers are new. A running sum (`59 + 39 = 98, 98 + 48 = …`) has the
    question's numbers too, but never one after the other, and half of its numbers are new.

    >>> restates("3 + 14 + 15 + 92", "To find 3 + 14 + 15 + 92, add 3, 14, 15 and 92."), restates("3 + 14 + 15 + 92", "3+14=17, 17+15=32, 32+92=124")
    (True, False)
    """
    asked, said = numbers(question), numbers(cot)
    words = _pieces(question)
    if len(asked) < _LEAST_NUMBERS and len(words) < _LEAST_PIECES:
        return None
    known = Counter(asked)
    if said and sum(n not in known for n in said) > NEW_NUMBERS * len(said):
        return False
    if len(asked) >= _LEAST_NUMBERS and _longest_common_run(asked, said) >= RESTATED * len(asked):
        return True
    return len(words) >= _LEAST_PIECES and _covered(words, _pieces(cot)) >= RESTATED


def _covered(words: Sequence[str], other: Sequence[str]) -> float:
    """Share of the words that lie in an n-gram that the other text has too."""
    there = {tuple(other[i : i + _N]) for i in range(len(other) - _N + 1)}
    covered: set[int] = set()
    for i in range(len(words) - _N + 1):
        if tuple(words[i : i + _N]) in there:
            covered.update(range(i, i + _N))
    return len(covered) / len(words)


@lru_cache(maxsize=256)
def _content(text: str) -> frozenset[str]:
    """Numbers and the longer words: what makes a question this question. Numbers under 10 also count list items: left out."""
    return frozenset(p for p in _pieces(text) if (p[0].isdigit() and len(p) > 1) or (not p[0].isdigit() and len(p) > 4))


def specificity(question: str, cot: str, other_question: str) -> float | None:
    """Share of the question's numbers and longer words that the CoT has, minus the share of another question's: 0 if the CoT would fit
    any question, near 1 if it is about this one. None if the questions say too little.
    """
    own, other = _content(question), _content(other_question)
    own, other = own - other, other - own
    if len(own) < 3 or len(other) < 3:
        return None
    said = _content(cot)
    return len(own & said) / len(own) - len(other & said) / len(other)


def alike(a: str, b: str) -> float | None:
    """Share of the shorter text's n-grams of five that the other has too (numbers as one kind of word); None if too short."""
    first, second = ({tuple(p[i : i + _N]) for i in range(len(p) - _N + 1)} for p in (_shape(a), _shape(b)))
    if min(len(first), len(second)) < _N:
        return None
    return len(first & second) / min(len(first), len(second))


def _shape(text: str) -> list[str]:
    return ["#" if p[0].isdigit() else p for p in _pieces(text)]


def question_signals(questions: Sequence[str], cots: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    """Means over samples of one step, in order: `cot_contains_answer`, `copies_question_fraction` (the CoT restates its question and
    lacks the answer), `question_specificity` (against the next sample with another question). Unknown values are left out.
    """
    n = len(questions)
    held = [contains_answer(cot, answer) for cot, answer in zip(cots, answers, strict=True)]
    copied = [
        None if (said := restates(q, c)) is None else float(said and not h) for q, c, h in zip(questions, cots, held, strict=True)
    ]
    others = [
        next((questions[(i + k) % n] for k in range(1, n) if questions[(i + k) % n] != questions[i]), None) for i in range(n)
    ]
    specific = [None if o is None else specificity(q, c, o) for q, c, o in zip(questions, cots, others, strict=True)]
    means = {
        "cot_contains_answer": _mean(None if h is None else float(h) for h in held),
        "copies_question_fraction": _mean(copied),
        "question_specificity": _mean(specific),
    }
    return {key: value for key, value in means.items() if value is not None}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def similarity(cots: Sequence[str]) -> float | None:
    """Mean of `alike` over neighbouring CoTs, which should be of different questions."""
    return _mean(alike(a, b) for a, b in pairwise(cots))
