"""Numbers that change over training."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovlm.config.schedule import Schedule


def test_constants() -> None:
    for text in (0.5, "0.5", " .5 ", "5e-1", "+0.5"):
        schedule = Schedule.parse(text)
        assert [schedule.at(step, 10) for step in (0, 1, 7, 99)] == [0.5] * 4
        assert (schedule.minimum, schedule.maximum) == (0.5, 0.5)


def test_linear_goes_from_the_first_step_to_the_last() -> None:
    schedule = Schedule.parse("linear 1 -> 0")
    assert [schedule.at(step, 5) for step in range(1, 6)] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert schedule.at(0, 5) == 1
    assert schedule.at(9, 5) == 0


def test_over_fewer_steps_then_holds() -> None:
    schedule = Schedule.parse("linear 0.5->1.5 over 3")
    assert [schedule.at(step, 100) for step in range(1, 6)] == pytest.approx([0.5, 1.0, 1.5, 1.5, 1.5])


def test_cosine() -> None:
    # (1 - cos(pi * p)) / 2 at p = 0, 1/4, 1/2, 1
    schedule = Schedule.parse("cosine 2 -> 0")
    expected = [2.0, 2 - (1 - math.cos(math.pi / 4)), 1.0, 0.0]
    assert [schedule.at(step, 5) for step in (1, 2, 3, 5)] == pytest.approx(expected, abs=1e-12)


def test_one_step() -> None:
    assert Schedule.parse("linear 3 -> 1").at(1, 1) == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fast",
        "linear 1",
        "linear 1 -> x",
        "linear 1 -> 0 over 0",
        "cubic 1 -> 0",
        True,
        None,
        [1],
        "nan",
        "inf",
        float("inf"),
        float("nan"),
        "1e999",
    ],
)
def test_nonsense_is_refused_saying_what_is_right(text: object) -> None:
    with pytest.raises(ValueError, match="schedule"):
        Schedule.parse(text)


_FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(
    shape=st.sampled_from(["linear", "cosine"]),
    start=_FINITE,
    end=_FINITE,
    over=st.none() | st.integers(1, 1000),
    step=st.integers(1, 2000),
)
def test_text_round_trip_and_range(shape: str, start: float, end: float, over: int | None, step: int) -> None:
    schedule = Schedule(shape, start, end, over)  # type: ignore[arg-type]
    assert Schedule.parse(str(schedule)) == schedule
    slack = 1e-9 * max(abs(start), abs(end), 1.0)
    assert schedule.minimum - slack <= schedule.at(step, 500) <= schedule.maximum + slack


@given(value=_FINITE)
def test_a_constant_is_written_as_its_number(value: float) -> None:
    assert Schedule.parse(Schedule.constant(value)._serialize(Schedule.constant(value))) == Schedule.constant(value)
