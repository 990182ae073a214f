"""Groups whose rewards are all equal, and whether their answers are right."""

from __future__ import annotations

from markovlm.training.answer_metrics import group_columns


def test_groups_without_spread_all_right_all_wrong_and_neither() -> None:
    rewards = [[1.0, 1.0], [0.0, 0.0], [0.5, 0.5], [0.0, 1.0], [-1.5, -1.5 + 1e-9]]
    correct = [[True, True], [False, False], [True, False], [True, True], [False, False]]
    assert group_columns(rewards, correct) == {"groups_without_spread": 0.8, "groups_all_right": 0.2, "groups_all_wrong": 0.4}
