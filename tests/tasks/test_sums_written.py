"""What benchmarks/sums_written.py sees in a CoT."""

from __future__ import annotations

import pytest

from support.scripts import load

Q = "Sam has 2 boxes of 7 postcards. How many postcards does Sam have now?"


@pytest.mark.parametrize(
    ("cot", "gold", "right", "seen"),
    [
        (" 2 x 7 = 14\nSam has now 14 postcards.", "14", True, [True, True, True, True, True, True, False]),
        (" 2 x 7 = 12 postcards", "14", False, [True, True, True, False, False, False, False]),
        (" 2 + 7 = 9", "14", False, [True, True, False, False, False, False, False]),
        (" 10 boxes + 4 = 14", "14", True, [True, False, True, True, True, True, False]),
        (" Let us see: 14", "14", False, [False, False, False, False, True, False, False]),
        (" 2 boxes of 7", "14", True, [False, False, False, False, False, True, True]),
        (" 7 / 0 = 1", "14", False, [True, False, False, False, False, False, False]),
    ],
)
def test_what_a_cot_has(cot: str, gold: str, right: bool, seen: list[bool]) -> None:
    assert load("sums_written", "benchmarks").looked_at(Q, cot, gold, right, True) == [*seen, True]
