"""Advice in the words of the framework whose log it is."""

from __future__ import annotations

import pytest

from markovlm.health.remedies import in_framework_words

RAISE = "raise rollouts.max_cot_tokens: reasoning is being cut off"


@pytest.mark.parametrize(
    ("line", "framework", "said"),
    [
        (RAISE, "", RAISE),
        (RAISE, "TRL", "raise max_completion_length: reasoning is being cut off"),
        (RAISE, "transformers", "raise max_completion_length: reasoning is being cut off"),
        (RAISE, "verl", "raise data.max_response_length: reasoning is being cut off"),
        ("evaluate every 500 steps (training.eval_every)", "OpenRLHF", "evaluate every 500 steps (--eval_steps)"),
        ("evaluate every 500 steps (training.eval_every)", "tinker-cookbook", "evaluate every 500 steps"),
        ("raise objective.kl_weight", "ms-swift", "raise --beta"),
    ],
)
def test_our_keys_become_theirs(line: str, framework: str, said: str) -> None:
    assert in_framework_words(line, framework) == said
