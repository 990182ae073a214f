"""What a reward is: it turns the answers that the reader read into one number per CoT, and says what of it has a gradient.

The exact gradient of J = E[R] has a second term where R depends on theta (docs/method.md): the reader's. A reward defines it through
`surrogate`, whose gradient, weighted by constants, is the reader's share. Nothing here imports torch, so that reading a configuration,
which names rewards, stays fast.

To add one: a file like `prob.py`, registered by name (`markovlm.registry`, or `markovlm.register.reward` from outside).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from markovlm.config.base import Section
from markovlm.plugins import calling, require_tensor
from markovlm.registry import REWARDS

if TYPE_CHECKING:
    from torch import Tensor

    from markovlm.config.objective import ObjectiveBase
    from markovlm.tasks.base import Example


class NoOptions(Section):
    """The options of a reward without options."""


@dataclass(frozen=True, slots=True)
class Read:
    """One CoT and what was read from it, as text."""

    example: Example
    cot: str
    reply: str | None  # the greedy answer, where the reward asks for it (`needs_reply`)
    correct: bool  # the reply is right by the task's default extractor; without a reply: the gold tokens are the likeliest


@dataclass(frozen=True, slots=True)
class Answers:
    """The gold answers of N CoTs under the reader that saw each CoT. Nats, temperature 1.

    For computing rewards: whole groups in order, question by question (N = Q*B). For gradients: any selection of them (n of them,
    `logp` and `logp_mean` with gradient).
    """

    logp: Tensor  # [N] ln pi(a|z), summed over answer tokens
    logp_mean: Tensor  # [N] the same per answer token
    token_logp: Tensor  # [M] of each answer token, CoT after CoT
    row: Tensor  # [M] which of the N it belongs to
    group_size: int  # B
    read: Sequence[Read] = ()  # [N] where the reward asks for text (`needs_text`, `needs_reply`)
    direct: Answers | None = None  # of Q questions read without a CoT, where the reward asks for them (`needs_direct`)
    others: Mapping[str, Tensor] = field(
        default_factory=dict["str", "Tensor"]
    )  # other reader -> [N] its ln pi(a|z) per answer token

    def grouped(self, values: Tensor) -> Tensor:
        """[N] -> [Q, B]."""
        return values.view(-1, self.group_size)

    def mean_over_tokens(self, values: Tensor) -> Tensor:
        """[M] values of answer tokens -> [N] their mean for each CoT."""
        zeros = self.logp.new_zeros(len(self.logp))
        ones = values.new_ones(values.shape)
        return zeros.index_add(0, self.row, values) / zeros.index_add(0, self.row, ones)


O = TypeVar("O", bound=Section)  # noqa: E741


class Reward(Generic[O]):
    """One kind of reward. Subclasses define what a CoT earns (`value`) and, if `differentiable`, what L_AR differentiates."""

    Options: ClassVar[type[Section]] = NoOptions
    name: str = ""  # as registered; `build_reward` fills it in
    summary: ClassVar[str] = ""  # one line for `markovlm train --help` and the docs
    differentiable: ClassVar[bool] = True  # has a gradient through the reader; else objective.actor_reward_weight must be 0
    whole_groups: ClassVar[bool] = False  # a CoT's reward depends on the others of its group
    needs_text: ClassVar[bool] = False  # looks at the text of question and CoT
    needs_reply: ClassVar[bool] = False  # the greedy answer must be decoded

    @property
    def needs_direct(self) -> bool:
        """Whether the answers must also be scored without a CoT."""
        return False

    @classmethod
    def check(cls, config: ObjectiveBase) -> None:
        """Raise ValueError, naming the key, for an objective that this reward does not work with."""

    def __init__(self, options: O, config: ObjectiveBase):
        self.options = options
        self.config = config

    def value(self, answers: Answers) -> Tensor:
        """[N] r of each CoT, larger is better."""
        raise NotImplementedError

    def surrogate(self, answers: Answers) -> Tensor:
        """[n], differentiable: the reader's term of grad J is the mean of `weight * grad surrogate`. Default: the value."""
        return self.value(answers)

    def weight(self, answers: Answers) -> Tensor | None:
        """[N] constants that multiply the gradient of each CoT's surrogate; None: all 1."""
        return None

    def keep(self, reward: Tensor) -> Tensor | None:
        """Rewards [Q, B] of the whole step -> [Q] which groups are trained on; None: all."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Running statistics, as JSON values; empty if there are none."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""


def build_reward(config: ObjectiveBase) -> Reward[Section]:
    """The reward that an objective's configuration names."""
    kind = REWARDS.find(config.reward, "objective.reward: ")
    made: Reward[Section] = kind(kind.Options.model_validate(config.reward_options), config)
    made.name = config.reward
    return made


# What a reward gives, UserError where a plug-in's raises, or is none of the shape that its method says.


def value_of(reward: Reward[Any], answers: Answers) -> Tensor:
    with calling(REWARDS, reward.name, "value"):
        made = reward.value(answers)
    return require_tensor(made, answers.logp.shape, REWARDS, reward.name, "value")


def surrogate_of(reward: Reward[Any], answers: Answers) -> Tensor:
    what = "value" if type(reward).surrogate is Reward.surrogate else "surrogate"
    with calling(REWARDS, reward.name, what):
        made = reward.surrogate(answers)
    return require_tensor(made, answers.logp.shape, REWARDS, reward.name, what)


def weight_of(reward: Reward[Any], answers: Answers) -> Tensor | None:
    with calling(REWARDS, reward.name, "weight"):
        made = reward.weight(answers)
    return None if made is None else require_tensor(made, answers.logp.shape, REWARDS, reward.name, "weight")


def kept_groups(reward: Reward[Any], earned: Tensor) -> Tensor | None:
    with calling(REWARDS, reward.name, "keep"):
        made = reward.keep(earned)
    return None if made is None else require_tensor(made, earned.shape[:1], REWARDS, reward.name, "keep", boolean=True)
