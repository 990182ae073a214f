"""Checks the equations that a chain of thought writes down: `17+4=21,21+79=100`, `16 - 3 - 4 = $9`.

An equation is a sequence of sums or products of written numbers joined by `=`. What cannot be read with certainty (unknowns,
percentages, units inside the sum) is not judged. Numbers are exact fractions; nothing is evaluated as code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_GROUPED = r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?"  # 1,080 is one number
_UNGROUPED = r"\d+(?:\.\d+)?"  # 21,21 is two
_MARKS = "+*/\N{MULTIPLICATION SIGN}\N{DIVISION SIGN}\N{MIDDLE DOT}\N{MINUS SIGN}\N{EN DASH}"
_OPERATOR = f"[-x{_MARKS}]"
_TOUCHING = f"-{_MARKS}^%="  # a chain that stands beside one of these is a piece of something longer
_MAX_NUMBER_DIGITS = 30
_MAX_OPERATORS = 60  # of one side
_MAX_TEXT = 20_000
_SIGNS = {
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "\N{MULTIPLICATION SIGN}": "*",
    "\N{MIDDLE DOT}": "*",
    "x": "*",
    "\N{DIVISION SIGN}": "/",
}


@dataclass(frozen=True, slots=True)
class Equation:
    """One chain: `Equation("17+4=21", True)`."""

    text: str
    holds: bool


def equations(text: str) -> list[Equation]:
    """Every equation in `text` that can be judged, in order.

    A comma between digits is read as a thousands separator, or as the end of one equation if that makes more of them true. A last
    number that the end of the text may have cut off is not judged.
    """
    text = text[:_MAX_TEXT].replace("$", "").replace("£", "").replace("€", "")
    found: list[Equation] = []
    for match in _GROUPED_CHAIN.finditer(text):
        if not _stands_alone(text, match):
            continue
        at_end = match.end() == len(text)
        readings = [_judge(match[0], at_end)]
        if "," in match[0]:
            pieces = _UNGROUPED_CHAIN.finditer(match[0])
            readings.append([part for piece in pieces for part in _judge(piece[0], at_end and _ends(piece))])
        found += min(filter(None, readings), key=_false_ones, default=list[Equation]())
    return found


def has_wrong_equation(text: str) -> bool:
    """Whether an equation in `text` is false."""
    return any(not equation.holds for equation in equations(text))


def _chain(number: str) -> re.Pattern[str]:
    sum_ = rf"-?(?:{number})(?:[ \t]*{_OPERATOR}[ \t]*-?(?:{number})){{0,{_MAX_OPERATORS}}}+"
    return re.compile(rf"(?<![\w.]){sum_}(?:[ \t]*=[ \t]*{sum_})+", re.IGNORECASE | re.ASCII)


_GROUPED_CHAIN, _UNGROUPED_CHAIN = _chain(_GROUPED), _chain(_UNGROUPED)


def _false_ones(parts: list[Equation]) -> int:
    return sum(not part.holds for part in parts)


def _ends(match: re.Match[str]) -> bool:
    return match.end() == len(match.string)


def _stands_alone(text: str, match: re.Match[str]) -> bool:
    """Whether the chain is not a piece of a longer expression such as `x + 5 + 3 = 12` or `20% * 50 = 10`."""
    left, right = text[: match.start()].rstrip(" "), text[match.end() :].lstrip(" ")
    if text[match.end() : match.end() + 1].isalpha():
        return False  # `= 8x`
    if left.endswith("("):  # `(5 + 3 = 8)` is an aside, `(5 + 3) * 2 = 16` is not
        if not right.startswith(")"):
            return False
        left, right = left[:-1].rstrip(" "), right[1:].lstrip(" ")
    if match[0].startswith("-") and left[-1:].isalnum():
        return False  # `x - 5 + 3 = 2`: a sign, or an operator?
    return left[-1:] not in tuple(f"{_TOUCHING})") and right[:1] not in tuple(f"{_TOUCHING}(")


def _judge(chain: str, cut_off: bool) -> list[Equation]:
    """Each neighbouring pair of a chain that has an operator in it, compared."""
    sides = [side.strip() for side in chain.split("=")]
    values = [value_of(side) for side in sides]
    judged: list[Equation] = []
    for i in range(len(sides) - 1):
        left, right = values[i], values[i + 1]
        if left is None or right is None or not (_is_sum(sides[i]) or _is_sum(sides[i + 1])):
            continue
        holds = _close(left, right, sides[i], sides[i + 1])
        if not holds and cut_off and i == len(sides) - 2 and str(left).startswith(sides[-1].replace(",", "")):
            continue
        judged.append(Equation(f"{sides[i]}={sides[i + 1]}", holds))
    return judged


def _is_sum(side: str) -> bool:
    return re.search(rf"\d\s*{_OPERATOR}", side, re.IGNORECASE) is not None


def value_of(side: str) -> Fraction | None:
    """A written sum of products, exactly: `9 * 2 + 3` is 21. None if it divides by zero or a number is absurdly long."""
    tokens: list[str] = re.findall(rf"{_UNGROUPED}|{_OPERATOR}", side.replace(",", "").lower())
    if any(len(token) > _MAX_NUMBER_DIGITS for token in tokens):
        return None
    total, product, sign, operator = Fraction(0), None, 1, ""
    for token in tokens:
        token = _SIGNS.get(token, token)
        if token[0].isdigit():
            factor = sign * Fraction(token)
            sign = 1
            if product is None:
                product = factor
            elif operator == "/" and factor == 0:
                return None
            else:
                product = product / factor if operator == "/" else product * factor
        elif token == "-" and (product is None or operator):
            sign = -sign  # a sign, not a subtraction
            continue
        elif token in "+-":
            total, product, sign = total + (product or 0), None, -1 if token == "-" else 1
        operator = token if token in ("*", "/") else ""
    return total + (product or 0)


def _close(left: Fraction, right: Fraction, left_text: str, right_text: str) -> bool:
    """Equal, or as equal as the decimals written: `10/3 = 3.33` and `= 3.34` do, `7/2 = 3` does not."""
    if left == right:
        return True
    places = [len(text.rpartition(".")[2]) for text in (left_text, right_text) if "." in text and not _is_sum(text)]
    return bool(places) and abs(left - right) < Fraction(1, 10 ** min(places))
