"""One number of a CoT changed, and everything that follows from it recalculated: correct by construction. Pure: text in, text out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from markovlm.analysis.segments import sentences
from markovlm.tasks.equations import value_of
from markovlm.tasks.numbers import normalize_number

SECOND = 1  # index of the step that is changed; the first one where there is no other
_TRIES = 40
_NUMBER = r"\d+(?:\.\d+)?"
_STEP = re.compile(
    rf"(?<![\w.])({_NUMBER}(?:[ \t]*[-+*/x×][ \t]*{_NUMBER})+)[ \t]*=[ \t]*\$?({_NUMBER})(?![\d.]*\d)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Changed:
    """A CoT with one number changed: `17+4=21,21+79=100` with 83 for 79 is `17+4=21,21+83=104`, and its result is 104."""

    text: str
    old: str
    new: str
    result: str  # of its last step


@dataclass(frozen=True, slots=True)
class _Step:
    operands: tuple[tuple[int, int], ...]  # places in the text
    result: tuple[int, int]
    source: tuple[int | None, ...]  # of each operand, the step whose result it is


def last_result(text: str) -> str | None:
    """The result of the last true equation; None if there is none."""
    steps = _steps(text)
    return normalize_number(text[slice(*steps[-1].result)]) if steps else None


def change_number(cot: str, rng: np.random.Generator) -> Changed | None:
    """The CoT with another number of as many digits in its second step (in the first, if that one has none of its own).

    Steps are the equations that hold. A number is the step's own if it is not an earlier step's result. Later steps, and later copies
    of a result, are recalculated. None if there is no step, or no change of the last result in whole positive numbers.
    """
    steps = _steps(cot)
    for index in dict.fromkeys((min(SECOND, len(steps) - 1), 0)) if steps else ():
        own = [operand for operand, source in zip(steps[index].operands, steps[index].source, strict=True) if source is None]
        for _ in range(_TRIES if own else 0):
            place = own[int(rng.integers(len(own)))]
            old = cot[slice(*place)]
            low = 10 ** (len(old) - 1) if len(old) > 1 else 1
            if not old.isdigit() or len(old) > 6:
                continue
            new = str(rng.integers(low, 10 ** len(old)))
            made = _recomputed(cot, steps, index, place, new) if new != old else None
            if made is not None and made[1] != last_result(cot):
                return Changed(made[0], old, new, made[1])
    return None


def _steps(text: str) -> list[_Step]:
    steps: list[_Step] = []
    results: list[Fraction] = []
    for match in _STEP.finditer(text):
        left, right = value_of(match[1]), value_of(match[2])
        if left is None or left != right:
            continue
        start = match.start(1)
        operands = tuple((start + m.start(), start + m.end()) for m in re.finditer(_NUMBER, match[1]))
        source = tuple(_source(Fraction(text[a:b]), results) for a, b in operands)
        steps.append(_Step(operands, match.span(2), source))
        results.append(left)
    return steps


def _source(value: Fraction, results: Sequence[Fraction]) -> int | None:
    """The latest step with that result."""
    return next((i for i in range(len(results) - 1, -1, -1) if results[i] == value), None)


def _recomputed(text: str, steps: Sequence[_Step], index: int, place: tuple[int, int], new: str) -> tuple[str, str] | None:
    """The changed text and its last result. Copies of the number outside equations change with it to the end of its sentence, those of a
    changed result everywhere behind it."""
    edits: dict[tuple[int, int], str] = {place: new}
    values: dict[int, str] = {}  # step -> its new result
    for number, step in enumerate(steps[index:], index):
        for operand, source in zip(step.operands, step.source, strict=True):
            if source in values:
                edits[operand] = values[source]
        start, end = step.operands[0][0], step.operands[-1][1]
        total = value_of(
            _edited(text[start:end], {(a - start, b - start): e for (a, b), e in edits.items() if start <= a and b <= end})
        )
        if total is None or total.denominator != 1 or total <= 0:
            return None
        if str(total) != text[slice(*step.result)]:
            values[number] = edits[step.result] = str(total)
    last = len(steps) - 1
    if last not in values:
        return None
    taken = {edge for step in steps for edge in (*step.operands, step.result)}
    old = text[slice(*place)]
    stop = _end_of_sentence(text, place[0])
    for match in re.finditer(rf"(?<![\w.,]){_NUMBER}(?![\d.]*\d)", text):
        if match.span() in taken:
            continue
        if match.start() < stop and match[0] == old:
            edits[match.span()] = new
        for number, value in values.items():
            if match.start() > steps[number].result[1] and match[0] == text[slice(*steps[number].result)]:
                edits[match.span()] = value
    return _edited(text, edits), values[last]


def _edited(text: str, edits: dict[tuple[int, int], str]) -> str:
    for (start, end), written in sorted(edits.items(), reverse=True):
        text = text[:start] + written + text[end:]
    return text


def _end_of_sentence(text: str, place: int) -> int:
    end = 0
    for sentence in sentences(text):
        end += len(sentence)
        if place < end:
            return end
    return len(text)
