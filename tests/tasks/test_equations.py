"""Equations in a chain of thought: judged where they can be, left alone where they cannot."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovlm.tasks.arithmetic_data import running_sums
from markovlm.tasks.equations import equations, has_wrong_equation


def verdicts(text):
    return [equation.holds for equation in equations(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("17+4=21,21+79=100", [True, True]),
        ("17+4=21,21+79=101", [True, False]),
        ("17+104=121,121+79=200", [True, True]),  # 121,121 is not one number here
        ("1,000 + 5 = 1,005", [True]),
        ("16 - 3 - 4 = $9, and 9 * 2 = $<<9*2=18>>18.", [True, True]),
        ("2 + 3 * 4 = 14", [True]),
        ("2 + 3 * 4 = 20", [False]),
        ("3 x 4 = 12 and 3×4=12 and 12 ÷ 4 = 3", [True, True, True]),
        ("8 = 5 + 3 = 4 + 4", [True, True]),
        ("10 - 2 = 8 = 5 + 4", [True, False]),
        ("5 + -3 = 2, -5 + 3 = -2", [True, True]),
        ("10/3 = 3.33, 10/3 = 3.34, 10/3 = 3.4, 7/2 = 3", [True, True, True, False]),
        ("20/3 = 6.5", [False]),
        ("(5 + 3 = 9)", [False]),
        ("5 + 3 = 8\n- 4 * 2 = 8", [True]),
    ],
)
def test_equations_are_judged(text, expected):
    assert verdicts(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "x + 5 + 3 = 12", "2x = 8", "20% * 50 = 11", "100 - 5% = 94", "(5 + 3) * 2 = 17", "3 + 5 = 9x",
        "3 + 5 = 9 * x", "5/0 = 3",
        "5 = 6", "no numbers", "", "3 + 5", "= 8", "2^3 + 1 = 10", "1" * 50 + " + 1 = 2", "so far 500 - 2 = 49",
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_left_alone(text):
    assert not has_wrong_equation(text)


def test_a_wrong_sum_is_wrong_before_the_end_of_the_text():
    assert has_wrong_equation("500 - 2 = 49 eggs")
    assert has_wrong_equation("so far 500 - 2 = 48")  # not the beginning of 498


@given(st.lists(st.integers(1, 9999), min_size=2, max_size=8))
def test_running_sums_hold_and_a_changed_digit_does_not(terms):
    text = running_sums(terms)
    assert verdicts(f"{text}.") == [True] * (len(terms) - 1)
    first, _, rest = text.partition("=")
    assert has_wrong_equation(f"{first}={int(rest.split(',')[0]) + 1};")


@given(st.text(max_size=200), st.text(st.sampled_from("0123456789+-*/=,. x()%\n"), max_size=200))
def test_any_text_is_read(anything, symbols):
    equations(anything)
    equations(symbols)


@pytest.mark.parametrize("piece", ["1+", "1 ", "1,", "1=1", "12,345", "-", "1+1=", "(", "1+1=2 ", "=", "1.1."])
def test_long_hostile_texts_take_no_time(piece):
    start = time.monotonic()
    equations(piece * 5000)
    assert time.monotonic() - start < 2
