"""One way to write an estimate."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from markovlm.intervals import decimal_texts, estimate_text, found_text, p_text, percent_text

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


def test_shares_and_p_values() -> None:
    assert [percent_text(share) for share in (0.571, 0, 1, 0.004)] == ["57 %", "0 %", "100 %", "0.4 %"]
    assert percent_text(0.571, places=1) == percent_text(0.571, 0.5, None, places=1)[:6] == "57.1 %"
    assert percent_text(0.571, 0.544, 0.598, places=1) == "57.1 % [54.4, 59.8]"
    assert [p_text(p) for p in (1, 0.0123, 0.001, 0.0004)] == ["1.000", "0.012", "0.001", "< 0.001"]


@pytest.mark.parametrize(
    ("what", "pattern", "elsewhere"),
    [
        ("an interval", r"\[\{[^{}\"]+\}, \{[^{}\"]+\}\]", set()),
        ("a share", r"\{[^{}]+:\.\d%\}|\{100 \* [^{}]+\} %", {"studies/records.py", "studies/words.py"}),
        ("a p-value", r"\bp ?=? ?\{[^{}]*:\.\d[fg]\}", set()),
        ("what is missing", "[\"']([—–]|n/a)[\"']", {"logs/rows.py"}),
    ],
)
def test_nothing_else_writes(what: str, pattern: str, elsewhere: set[str]) -> None:
    """Places of a CoT and severities that a user set are no measured shares; `n/a` is a text that logs have."""
    files = {str(path.relative_to(SOURCES)): path.read_text(encoding="utf-8") for path in SOURCES.rglob("*.py")}
    assert {name for name, text in files.items() if re.search(pattern, text)} - {"intervals.py"} == elsewhere, what
