"""What an objective is: credit for rewards, and a policy loss. Tensors in, tensors out; no model is loaded here.

To add one: a file like `grpo.py` (its configuration and its class) and its name in `markovlm.registry`; from outside the package
`markovlm.register.objective` takes the place of the latter. Importing this does not import torch, so that reading a configuration,
which names objectives, stays fast.

Notation (docs/method.md): Q questions, B CoTs each, N = Q*B samples, T CoT tokens (padded), all values in nats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from markovlm.config.objective import ObjectiveBase
from markovlm.errors import UserError
from markovlm.plugins import calling, named, require_tensor
from markovlm.registry import OBJECTIVES

if TYPE_CHECKING:
    from torch import Tensor

C = TypeVar("C", bound=ObjectiveBase)


@dataclass(frozen=True, slots=True)
class Credit:
    """How a reward becomes an advantage: `A = (R - centre) / scale`, with centre and scale constant to autograd.

    Because they are constant, `grad A = grad r / scale`: the actor-reward term has a gradient.
    """

    centre: Tensor  # [Q, B]
    scale: Tensor  # [Q, B], positive
    chosen: Tensor | None = None  # [Q, B] bool: samples that L_PG and L_AR see at all; None: every one
    idle: bool = False  # this step trains nothing (a warm-up that only gathers statistics)

    def advantage(self, reward: Tensor) -> Tensor:
        """[Q, B] (or any selection of it, given a Credit of the same selection); 0 where a sample is not chosen."""
        advantage = (reward - self.centre) / self.scale
        return advantage if self.chosen is None else advantage.where(self.chosen, 0.0)

    def select(self, index: Tensor) -> Credit:
        """Of the samples `index` [n] in question-major order: fields [n]."""
        chosen = None if self.chosen is None else self.chosen.reshape(-1)[index]
        return Credit(self.centre.reshape(-1)[index], self.scale.reshape(-1)[index], chosen, self.idle)


@dataclass(frozen=True, slots=True)
class PolicyBatch:
    """What a policy loss gets, for n samples of a micro-batch."""

    logp: Tensor  # [n, T] ln u_theta of each sampled token, with gradient; 0 where masked
    behavior_logp: Tensor  # [n, T] the same when it was sampled
    reference_logp: Tensor  # [n, T] ln u' of the frozen base
    mask: Tensor  # [n, T] 1 on sampled tokens
    advantage: Tensor  # [n] constant
    chosen: Tensor | None = None  # [n] bool, from the credit


RATIO_METRICS = ("ratio_min", "ratio_mean", "ratio_max", "ratio_clipped_fraction", "no_gradient_fraction")  # which reports know


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """Per-sample losses and what to log of them."""

    loss: Tensor  # [n]
    metrics: dict[str, Tensor]  # name -> [n]; means over samples go to metrics.jsonl, as `objective_NAME` unless in RATIO_METRICS
    reward_weight: Tensor | None = None  # [n] constant weight of each sample's L_AR; None: 1


class Objective(Protocol):
    """One way to form advantages and the policy loss (docs/objectives.md)."""

    Config: ClassVar[type[ObjectiveBase]]  # its section of the configuration; `name` has the objective's name as default
    config: Any
    passes: int  # optimisation passes over one rollout

    def goes_on(self, behavior_kl: float) -> bool:
        """Whether a later pass at this mean KL to the behaviour policy (nats per token) may still be applied."""
        ...

    def credit(self, reward: Tensor) -> Credit:
        """Rewards [Q, B] of the whole step, detached -> constants of the advantage."""
        ...

    def policy_loss(self, batch: PolicyBatch) -> PolicyLoss:
        """L_PG of each sample."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Running statistics, as JSON values; empty if there are none."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        ...


class PolicyGradient(Generic[C]):
    """The plain policy-gradient loss, shared by the objectives that differ only in credit.

    L_PG,i = - ln u_theta(z_i | q) * A_i, where ln u is the sum over CoT tokens (exact) or their mean (the research code).
    """

    Config: ClassVar[type[ObjectiveBase]]
    passes = 1

    def __init__(self, config: C):
        self.config = config

    def goes_on(self, behavior_kl: float) -> bool:
        return True

    def policy_loss(self, batch: PolicyBatch) -> PolicyLoss:
        return PolicyLoss(-reduce_tokens(batch.logp, batch.mask, self.config.cot_logprob) * batch.advantage, {})

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            raise ValueError(f"objective {type(self).__name__} keeps no state, but the checkpoint has {sorted(state)}")


def credit_of(objective: Objective, reward: Tensor) -> Credit:
    """The objective's credit for rewards [Q, B]. Raises UserError if it raises or does not return a valid `Credit`."""
    name = _name(objective)
    with calling(OBJECTIVES, name, "credit"):
        made = objective.credit(reward)
    _require(made, Credit, name, "credit")
    require_tensor(made.centre, reward.shape, OBJECTIVES, name, "centre of its credit")
    require_tensor(made.scale, reward.shape, OBJECTIVES, name, "scale of its credit")
    if made.chosen is not None:
        require_tensor(made.chosen, reward.shape, OBJECTIVES, name, "chosen of its credit", boolean=True)
    return made


def policy_loss_of(objective: Objective, batch: PolicyBatch) -> PolicyLoss:
    """The objective's loss of n samples. Raises UserError if it raises or does not return a valid `PolicyLoss`."""
    name, each = _name(objective), batch.advantage.shape
    with calling(OBJECTIVES, name, "policy_loss"):
        made = objective.policy_loss(batch)
    _require(made, PolicyLoss, name, "policy_loss")
    require_tensor(made.loss, each, OBJECTIVES, name, "loss of its policy_loss")
    _require(made.metrics, Mapping, name, "metrics of its policy_loss")
    for metric, value in made.metrics.items():
        require_tensor(value, each, OBJECTIVES, name, f"metric {metric!r} of its policy_loss")
    if made.reward_weight is not None:
        require_tensor(made.reward_weight, each, OBJECTIVES, name, "reward_weight of its policy_loss")
    return made


def _require(made: object, kind: type, name: str, what: str) -> None:
    if not isinstance(made, kind):
        raise UserError(f"{named(OBJECTIVES, name)}: {what} is {type(made).__name__}; it must be a {kind.__name__}")


def _name(objective: Objective) -> str:
    return objective.Config.model_fields["name"].default


def reduce_tokens(values: Tensor, mask: Tensor, reduction: str) -> Tensor:
    """[n, T] -> [n]: sum, or mean over unmasked tokens."""
    total = (values * mask).sum(-1)
    return total if reduction == "sum" else total / mask.sum(-1).clamp(min=1)


def in_order(reward: Tensor) -> list[float]:
    """[Q, B] -> Q*B numbers, question by question."""
    return reward.reshape(-1).tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def group_mean(reward: Tensor) -> Tensor:
    """[Q, B] -> [Q, B], each group's mean."""
    return reward.mean(dim=1, keepdim=True).expand_as(reward)


def unit_scale(reward: Tensor) -> Tensor:
    """[Q, B] of ones, for an advantage that is not divided."""
    return reward.new_ones(reward.shape)
