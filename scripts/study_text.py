"""Markdown that the tables of the studies share."""

from __future__ import annotations

from collections.abc import Sequence

from markovlm.intervals import decimal_texts
from markovlm.statistics import wilson


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join([f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *(f"| {' | '.join(row)} |" for row in rows)])


def share(count: int, n: int) -> str:
    """`21 of 23 [0.73, 0.98]`, Wilson."""
    if not n:
        return "0 of 0"
    low, high = decimal_texts(wilson(count, n), 2)
    return f"{count} of {n} [{low}, {high}]"
