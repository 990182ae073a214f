"""One way to write an estimate."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from markovlm.intervals import decimal_texts, estimate_text, found_text

SOURCES = Path(__file__).parents[1] / "src" / "markovlm"


@pytest.mark.parametrize(
    ("numbers", "places", "signed", "text"),
    [
        ((0.932, 0.907, 0.951), 3, False, "0.932 [0.907, 0.951]"),
        ((0.932, 0.907, 0.951), 2, False, "0.93 [0.91, 0.95]"),
        ((1234.5, -2.0, 20000.0), 0, False, "1,234 [-2, 20,000]"),
        ((0.25, -0.5, 1.0), 3, True, "+0.250 [-0.500, +1.000]"),
        ((0.0, 0.0, 0.0), 2, False, "0.00 [0.00, 0.00]"),
        ((-0.0, -0.0, 0.5), 2, False, "0.00 [0.00, 0.50]"),
        ((0.01, 0.0004, 0.02), 2, False, "0.0100 [0.0004, 0.0200]"),  # above 0, and reads so
        ((0.01, -0.0004, 0.02), 2, False, "0.0100 [-0.0004, 0.0200]"),
        ((1.0, 3e-9, 2.0), 2, False, "1.00000 [3e-09, 2.00000]"),
        ((0.5, None, None), 2, False, "0.50 [—]"),
        ((0.5, math.nan, math.nan), 2, False, "0.50 [—]"),
        ((None, None, None), 2, False, "—"),
        ((math.nan, math.nan, math.nan), 2, False, "—"),
    ],
)
def test_an_estimate_as_text(
    numbers: tuple[float | None, float | None, float | None], places: int, signed: bool, text: str
) -> None:
    assert estimate_text(*numbers, places=places, signed=signed) == text


def test_an_estimate_as_studies_keep_it() -> None:
    assert found_text({"mean": 0.5, "ci95": [0.25, 0.75], "n": 3}, 2) == "0.50 [0.25, 0.75]"
    assert found_text({"mean": 0.5, "ci95": [None, None]}) == "0.500 [—]"
    assert found_text({"mean": None, "ci95": [None, None]}) == found_text(None) == "—"


def test_all_numbers_have_one_count_of_decimals() -> None:
    assert decimal_texts([1, 0.5, 0.001], 1) == ["1.000", "0.500", "0.001"]


def test_nothing_else_writes_an_interval() -> None:
    """`[{low…}, {high…}]` in an f-string stands in one file; per cent and sentences of the report and of `health/` are another thing."""
    pattern = re.compile(r"\[\{[^{}]*(low|\[0\])[^{}]*\}, \{[^{}]*(high|\[1\])")
    where = {str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.py") if pattern.search(path.read_text(encoding="utf-8"))}
    assert {file for file in where if not file.startswith("health/")} - {"report/tables.py", "report/overview.py"} == set()
