"""1 if the greedy answer read from the CoT is right by the task's default extractor, else 0. No gradient through the reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markovlm.rewards.base import Answers, NoOptions, Reward

if TYPE_CHECKING:
    from torch import Tensor


class ExactMatch(Reward[NoOptions]):
    summary = "1 if the greedy answer is right"
    differentiable = False
    needs_reply = True

    def value(self, answers: Answers) -> Tensor:
        return answers.logp.new_tensor([float(read.correct) for read in answers.read])
