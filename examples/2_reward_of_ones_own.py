"""A reward of your own: ln pi(a|z), minus a price for every character of the CoT beyond a budget, compared with the plain reward.

    python examples/2_reward_of_ones_own.py [OUT]

In a file of its own the class is a plug-in: `markovlm train --plugin brief.py --objective.reward brief`.
"""

import sys
from pathlib import Path

from pydantic import Field

import markovlm
from markovlm import Answers, Options, Reward, register

out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/brief")


class BriefOptions(Options):
    budget: int = Field(12, ge=0, description="characters that cost nothing")
    price: float = Field(0.02, ge=0, description="nats per character")


@register.reward("brief")
class Brief(Reward[BriefOptions]):
    Options = BriefOptions
    summary = "ln pi(a|z) minus a price for long CoTs"
    needs_text = True

    def value(self, answers: Answers):
        over = [max(0, len(read.cot) - self.options.budget) for read in answers.read]
        return answers.logp_mean - self.options.price * answers.logp_mean.new_tensor(over)

    def surrogate(self, answers: Answers):  # the price has no gradient through the reader
        return answers.logp_mean


for reward, options in (("logprob", {}), ("brief", {"price": 0.05})):
    lengths = []
    markovlm.train(
        {"model": "embedded", "objective": {"reward": reward, "reward_options": options}},
        out / reward,
        on_step=lambda row: lengths.append(row["cot_length"]),  # noqa: B023
        training__steps=6,
        rollouts__group_size=8,
        training__eval_every=0,
    )
    print(f"{reward:8} CoT tokens, first and last step: {lengths[0]:.1f} {lengths[-1]:.1f}")
