"""What a collapse cost, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from markovlm.health.cost import Cost, IdleGroups, SinceOnset, cost_of
from markovlm.logs.native import run_of_rows


def cost(rows: list[dict[str, Any]], onset: int | None = None) -> Cost:
    return cost_of(run_of_rows(rows), onset)


def rows(n: int = 100, every: int = 1, **columns: Any) -> list[dict[str, Any]]:
    steps = range(every, n + 1, every)
    return [{"step": s, **{key: value(s) if callable(value) else value for key, value in columns.items()}} for s in steps]


def test_steps_time_and_share_since_the_onset() -> None:
    """60 steps of 30 s, then 40 of 120 s: 4,800 of 6,600 s."""
    found = cost(rows(reward_mean=0.5, step_seconds=lambda s: 30.0 if s <= 60 else 120.0), 61).since_onset
    assert found == SinceOnset(61, 40, 100, 4800.0, 6600.0, None)
    assert (found.share, found.share_of) == (pytest.approx(4800 / 6600), "time")
    assert found.line == "40 of 100 steps since step 61: 1.3 of 1.8 hours, 73 % of the time"


def test_rows_that_stand_for_several_steps() -> None:
    """A row every 10 steps with the mean time of a step; the row of step 70 is of steps 61 to 70."""
    found = cost(rows(every=10, reward_mean=0.5, step_seconds=3.0), 70).since_onset
    assert found is not None
    assert (found.steps, found.of_steps, found.seconds, found.of_seconds) == (40, 100, 120.0, 300.0)


def test_without_times_tokens_stand_for_compute_and_without_both_steps() -> None:
    """50 steps of 100 tokens, 50 of 300: 3/4 of the tokens. With twice the CoTs in the first half: 3/5."""
    longer = {"cot_length": lambda s: 100.0 if s <= 50 else 300.0}
    found = cost(rows(**longer), 51)
    assert found.since_onset is not None
    assert (found.since_onset.share, found.since_onset.share_of) == (pytest.approx(0.75), "tokens")
    assert found.lines == ("50 of 100 steps since step 51: 75 % of the tokens",)
    weighted = cost(rows(samples=lambda s: 8 if s <= 50 else 4, **longer), 51).since_onset
    assert weighted is not None
    assert weighted.share == pytest.approx(0.6)
    bare = cost(rows(reward_mean=0.0), 76).since_onset
    assert bare is not None
    assert (bare.share, bare.share_of) == (0.25, "steps")


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -1.0])
def test_times_that_are_missing_are_the_usual_ones_and_of_too_few_nothing_is_said(missing: float | None) -> None:
    some = cost(rows(reward_mean=0.0, step_seconds=lambda s: missing if s % 4 == 0 else 2.0), 51).since_onset
    assert some is not None
    assert (some.seconds, some.of_seconds) == (100.0, 200.0)
    few = cost(rows(reward_mean=0.0, step_seconds=lambda s: 2.0 if s % 4 == 0 else missing), 51).since_onset
    assert few is not None
    assert (few.seconds, few.share_of) == (None, "steps")


def test_a_gap_in_the_log_is_not_charged() -> None:
    """Steps 1 to 50 and 5,001 to 5,050: the gap counts as at most two rows."""
    kept = [*rows(50, reward_mean=1.0), *({"step": s, "reward_mean": 0.0} for s in range(5001, 5051))]
    found = cost(kept, 5001).since_onset
    assert found is not None
    assert (found.steps, found.of_steps) == (51, 101)


def test_groups_without_spread_before_the_onset_and_how_many_cots() -> None:
    """10 % in steps 1 to 50 of 8 CoTs, 40 % in steps 51 to 60 of 16: (40 + 64) of 560 CoTs; all later ones are the collapse's."""
    found = cost(
        rows(groups_without_spread=lambda s: 0.1 if s <= 50 else 0.4 if s <= 60 else 1.0, samples=lambda s: 8 if s <= 50 else 16),
        61,
    ).idle_groups
    assert found == IdleGroups(pytest.approx(104 / 560), None, None, 104, 61)
    assert (
        found.line
        == "19 % of the groups before step 61 had one reward for all CoTs: 104 CoTs paid for, and no advantage to learn from"
    )


def test_all_right_and_all_wrong_as_a_log_says() -> None:
    found = cost(rows(groups_without_spread=0.5, groups_all_right=0.2, groups_all_wrong=0.3))
    assert found.since_onset is None
    assert found.idle_groups == IdleGroups(pytest.approx(0.5), pytest.approx(0.2), pytest.approx(0.3), None, None)
    assert found.lines == (
        "50 % of the groups had one reward for all CoTs (20 % all right, 30 % all wrong): paid for, and no advantage to learn from",
    )


def test_steps_whose_rewards_are_all_equal_where_groups_are_not_counted() -> None:
    """Of 100 steps 10 all right, 30 all wrong and 5 neither have a reward std of 0."""

    def std(s: int) -> float:
        return 0.0 if s <= 45 else 0.3

    def accuracy(s: int) -> float:
        return 1.0 if s <= 10 else 0.0 if s <= 40 else 0.5

    found = cost(rows(reward_std=std, accuracy=accuracy)).idle_groups
    assert found == IdleGroups(pytest.approx(0.45), pytest.approx(0.1), pytest.approx(0.3), None, None)
    assert cost(rows(reward_std=std)).idle_groups == IdleGroups(pytest.approx(0.45), None, None, None, None)


def test_what_is_not_known_is_not_said() -> None:
    assert cost([]) == Cost(None, None)
    assert cost(rows(loss=0.1)) == Cost(None, None)
    assert cost(rows(reward_mean=0.1), 500).since_onset is None
    assert cost(rows(groups_without_spread=0.2), 1).idle_groups is None  # there is nothing before
    assert cost(rows(groups_without_spread=0.01)).lines == ()
    assert cost(rows(groups_without_spread=None)).as_json() == {"since_onset": None, "groups_without_spread": None, "lines": []}


def test_as_json() -> None:
    found = cost(rows(step_seconds=1.0, groups_without_spread=0.5), 51).as_json()
    assert found["since_onset"] == {
        "onset_step": 51, "steps": 50, "of_steps": 100, "seconds": 50.0, "of_seconds": 100.0, "token_share": None, "share": 0.5, "share_of": "time",
    }  # fmt: skip
    assert found["groups_without_spread"] == {"share": 0.5, "all_right": None, "all_wrong": None, "cots": None, "before_step": 51}
    assert found["lines"][0] == "50 of 100 steps since step 51: 0.8 of 1.7 minutes, 50 % of the time"
