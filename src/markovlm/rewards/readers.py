"""The mean log-likelihood over several readers: a CoT must be understood by all of them, so that a private code does not pay.

    r = 1/K sum_k ln pi_k(a|z)               per answer token; the readers are `objective.readers`

`actor`, `frozen` and `ema` are this model; any other name is a model or a run of its own, which reads the CoT's *text*, tokenised
anew. Readers of other tokenizers split answers differently, hence the mean over tokens. Live gradient: the actor's share,
1/K grad ln pi_theta(a|z), where it is among them. Costs one answer pass a reader, and the memory of each model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from markovlm.rewards.base import Answers, NoOptions, Reward

if TYPE_CHECKING:
    from torch import Tensor

    from markovlm.config.objective import ObjectiveBase


class Readers(Reward[NoOptions]):
    summary = "mean of ln pi(a|z) over several readers (objective.readers)"

    @classmethod
    def check(cls, config: ObjectiveBase) -> None:
        if not config.readers:
            raise ValueError("reward=readers needs objective.readers, such as actor,frozen or a model's name")
        if "actor" not in config.readers and config.actor_reward_weight.maximum > 0:
            raise ValueError("actor_reward_weight must be 0 without the actor in objective.readers: nothing has a gradient then")

    def value(self, answers: Answers) -> Tensor:
        each = [answers.logp_mean if name == "actor" else answers.others[name] for name in self.config.readers]
        total = each[0]
        for one in each[1:]:
            total = total + one
        return total / len(each)

    def surrogate(self, answers: Answers) -> Tensor:
        return answers.logp_mean / len(self.config.readers)
