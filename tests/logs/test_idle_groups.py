"""Groups all right and all wrong, by the names and in the units of three frameworks."""

from __future__ import annotations

import pytest

from markovlm.logs.dialects import translator_of

PRIME = {"optim/lr": 1e-6, "kl_ent_ratio/mean": 0.1, "reward/all/mean": 0.5}
VERL = {"actor/pg_loss": 0.1, "critic/score/mean": 0.5}
TINKER = {"optim/lr": 1e-6, "env/all/reward/total": 0.5}


def read(row: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in translator_of(row).row(row).items() if key.startswith("groups")}


@pytest.mark.parametrize(
    "row",
    [
        PRIME | {"solve_all/all": 0.125, "solve_none/all": 0.25},
        PRIME | {"batch/solve_all": 0.125, "batch/solve_none": 0.25},
        TINKER
        | {"env/all/by_group/frac_all_good": 0.125, "env/all/by_group/frac_all_bad": 0.25, "env/all/by_group/frac_mixed": 0.625},
        VERL | {"batch/solve_all": 8.0, "batch/solve_none": 16.0, "batch/solve_partial": 40.0},  # counts
        VERL | {"batch/solve_all": 0.125, "batch/solve_none": 0.25, "batch/solve_partial": 0.625},
    ],
)
def test_shares_of_all_groups(row: dict[str, float]) -> None:
    assert read(row) == {"groups_all_right": 0.125, "groups_all_wrong": 0.25, "groups_without_spread": 0.375}


@pytest.mark.parametrize(
    "row",
    [
        VERL | {"batch/solve_all": 1.0, "batch/solve_none": 0.0},  # one group, or all of them?
        VERL | {"batch/solve_all": 0.0, "batch/solve_none": 0.0, "batch/solve_partial": 0.0},
        PRIME | {"solve_all/all": 8.0, "solve_none/all": 16.0},
        PRIME | {"solve_all/all": 0.5},
        PRIME | {"solve_all/all": float("nan"), "solve_none/all": 0.5},
    ],
)
def test_what_is_no_share_is_left_out(row: dict[str, float]) -> None:
    assert read(row) == {}
