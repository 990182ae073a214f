"""Perturbations of meaning: the text says the same in other words, or says another thing on purpose. Pure: text in, text out.

Each says what *should* happen to the answer (`Perturbation.expect`): nothing, if the facts are kept; it should follow, if a fact is
changed together with its consequences; it should suffer, if the text is broken. Rules, not a model: English, and cautious. Where a rule
finds nothing, the text stays as it is.
"""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np

from markovlm.analysis.segments import numbers, sentences
from markovlm.analysis.units import FILLERS
from markovlm.tasks.numbers import written_numbers

NAMES = (
    "Anna", "Boris", "Clara", "Derek", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kira", "Leon", "Mina", "Nils", "Olga", "Pablo",
)  # fmt: skip
# Each word of a pair for the other, in the same form: facts stay.
_PAIRS = (
    ("buys", "purchases"), ("bought", "purchased"), ("gives", "hands"), ("gave", "handed"), ("gets", "receives"), ("got", "received"),
    ("loses", "misplaces"), ("lost", "misplaced"), ("makes", "produces"), ("made", "produced"), ("spends", "pays"), ("spent", "paid"),
    ("so", "therefore"), ("then", "next"), ("altogether", "in total"), ("remaining", "left over"), ("begins", "starts"), ("began", "started"),
    ("big", "large"), ("small", "little"), ("also", "too"), ("needs", "requires"), ("needed", "required"), ("finds", "discovers"),
    ("we", "one can"), ("add", "sum up"), ("equals", "is equal to"), ("sells", "trades away"), ("costs", "is priced at"),
)  # fmt: skip
_SYNONYMS = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
_SYNONYM = re.compile(
    r"(?<![\w'’-])(" + "|".join(sorted(map(re.escape, _SYNONYMS), key=len, reverse=True)) + r")(?![\w'’-])", re.IGNORECASE
)
_COMMUTES = re.compile(r"(?<![\w.*/+=-])(?<![*/+=-] )(\d+(?:\.\d+)?)([ \t]*[+*][ \t]*)(\d+(?:\.\d+)?)(?=[ \t]*=)")
_PASSIVE = re.compile(r"(?<![\w'’-])([A-Z][a-z]+) (gives|gave) (\d+ [a-z]+) to ([A-Z][a-z]+)(?=[.,;])")
_POINTS_BACK = re.compile(
    r"\b(?:it|this|that|these|those|he|she|they|then|so|now|therefore|thus|them|his|her|their|finally|next)\b", re.IGNORECASE
)
_WORDS_THAT_START = """
So Then Now First Second Third Next Finally Therefore Thus Hence There Each After Before Since Because If When For Total Answer Step Let
Adding Subtract Multiply Divide Given Here Once Also But And
"""
_STARTERS = frozenset(_WORDS_THAT_START.split())

_TO_NINETEEN = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen
"""
_ONES = _TO_NINETEEN.split()
_TENS = ["-", "-", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_MOST = 999_999


def paraphrase(text: str, _: Fraction, rng: np.random.Generator, __: object) -> str:
    """Synonyms, summands and factors in the other order, active for passive, and neighbouring sentences that don't build on each other."""
    text = _PASSIVE.sub(lambda m: f"{m[3]} {'are' if m[2] == 'gives' else 'were'} given to {m[4]} by {m[1]}", text)
    text = _COMMUTES.sub(lambda m: f"{m[3]}{m[2]}{m[1]}", text)
    text = _SYNONYM.sub(lambda m: _like(m[0], _SYNONYMS[m[0].lower()]), text)
    return _reordered(text, rng)


def _like(old: str, new: str) -> str:
    return new[:1].upper() + new[1:] if old[:1].isupper() else new


def _reordered(text: str, rng: np.random.Generator) -> str:
    """One pair of neighbouring sentences changes places, if neither holds a number of the other or points back, and both end in a stop."""
    pieces = sentences(text)
    apart = [
        i
        for i in range(len(pieces) - 2)  # the last stays: that is where answers are read
        if all(piece.rstrip().endswith((".", "!")) for piece in pieces[i : i + 2])
        and not _POINTS_BACK.search(pieces[i + 1])
        and not {s.value for s in numbers(pieces[i])} & {s.value for s in numbers(pieces[i + 1])}
    ]
    if not apart:
        return text
    at = apart[int(rng.integers(len(apart)))]
    first, second = pieces[at], pieces[at + 1]
    gap, end = first[len(first.rstrip()) :], second[len(second.rstrip()) :]
    pieces[at : at + 2] = [second.rstrip() + gap, first.rstrip() + end]
    return "".join(pieces)


def spelled(number: int) -> str:
    """`1080` is `one thousand eighty`; up to 999,999."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        return _TENS[number // 10] + (f"-{_ONES[number % 10]}" if number % 10 else "")
    scale, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    head, rest = divmod(number, scale)
    return f"{spelled(head)} {name}" + (f" {spelled(rest)}" if rest else "")


def translate_numbers(text: str, _: Fraction, __: np.random.Generator, ___: object) -> str:
    """Whole numerals as words."""
    for span in reversed(numbers(text)):
        if span.value.isdigit() and int(span.value) <= _MOST and not text[span.end : span.end + 1].isalpha():
            sign = span.text[: len(span.text) - len(span.text.lstrip("$£€"))]
            text = text[: span.start] + sign + spelled(int(span.value)) + text[span.end :]
    return text


def digitize_numbers(text: str, _: Fraction, __: np.random.Generator, ___: object) -> str:
    """Number words above one as numerals (`one` often is not a number)."""
    for one in reversed(written_numbers(text)):
        if one.kind == "words" and one.value.isdigit() and int(one.value) > 1:
            text = text[: one.start] + one.value + text[one.end :]
    return text


def names_in(text: str, question: str = "") -> list[str]:
    """Capitalised words inside sentences, or that also occur in the question."""
    asked = set(re.findall(r"\b[A-Z][a-z]{2,}\b", question))
    found = []
    for match in re.finditer(r"(?<![\w'’-])[A-Z][a-z]{2,}(?![\w-])", text):
        word = match[0]
        inside = match.start() > 0 and re.search(r"[a-z0-9,] \Z", text[: match.start()]) is not None
        if word not in _STARTERS and word.lower() not in FILLERS and (inside or word in asked):
            found.append(word)
    return list(dict.fromkeys(found))


def _others(text: str, question: str, count: int, rng: np.random.Generator) -> list[str]:
    free = [name for name in NAMES if name not in text and name not in question]
    return [free[i] for i in rng.permutation(len(free))[:count].tolist()]


def rename(text: str, _: Fraction, rng: np.random.Generator, context: object) -> str:
    """Every name replaced by another one, the same everywhere."""
    question = getattr(context, "question", "")
    old = names_in(text, question)
    new = dict(zip(old, _others(text, question, len(old), rng), strict=False))
    return re.sub(r"\b[A-Z][a-z]{2,}\b", lambda m: new.get(m[0], m[0]), text) if new else text


def rename_inconsistently(text: str, _: Fraction, rng: np.random.Generator, context: object) -> str:
    """Every second mention of a name replaced by another person's."""
    question = getattr(context, "question", "")
    old = set(names_in(text, question))
    others = _others(text, question, len(NAMES), rng)
    seen = 0

    def another(match: re.Match[str]) -> str:
        nonlocal seen
        if match[0] not in old or not others:
            return match[0]
        seen += 1
        return others[seen // 2 % len(others)] if seen % 2 == 0 else match[0]

    return re.sub(r"\b[A-Z][a-z]{2,}\b", another, text)
