"""Section: the objective; one class each, and what they share."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, Union, get_args

from pydantic import Field, model_validator

from markovlm.config.base import Section
from markovlm.config.schedule import Schedule


class ObjectiveBase(Section):
    """What every objective shares (METHOD §2). Rewards, reader, conditioning and weights are independent choices."""

    grouped: ClassVar[bool] = True  # the advantage compares the CoTs of one question
    needs_baseline: ClassVar[bool] = False  # the advantage depends on b itself, so b is computed in every step

    reward: Literal["logprob", "prob", "exact_match"] = Field(
        "logprob",
        description="r: ln pi(a|z); prob: pi(a|z) from the summed log-prob; exact_match: 1 if the greedy answer is right",
    )
    reader: Literal["actor", "frozen"] = Field(
        "actor", description="whose pi reads the CoT: the trained model or the frozen base"
    )
    conditioning: Literal["markovian", "non_markovian"] = Field(
        "markovian", description="reward and evaluation see the CoT alone, or the question too"
    )
    actor_reward_weight: Schedule = Field(
        Schedule.constant(1.0), description="w of L_AR = -w A, the gradient that flows through the reward; 0 turns it off"
    )
    kl_weight: Schedule = Field(
        Schedule.constant(0.1), description="beta of the exact per-token KL(u_theta || u') to the frozen base"
    )
    entropy_weight: Schedule = Field(Schedule.constant(0.0), description="weight of the entropy bonus (mean per CoT token)")
    cot_logprob: Literal["sum", "mean"] = Field("sum", description="reduction of ln u over CoT tokens in L_PG: sum is exact")
    answer_logprob: Literal["mean", "sum"] | None = Field(
        None, description="reduction of ln pi over answer tokens in the logprob reward; default mean"
    )
    normalize_reward: bool = Field(True, description="R = r - b with the frozen model's baseline CoT; false: R = r")
    baseline_every: int = Field(
        5, ge=1, description="compute the baseline b every so many steps where the advantage cancels it (it is then only logged)"
    )

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if self.needs_baseline and self.normalize_reward and self.baseline_every != 1:
            raise ValueError("baseline_every must be 1: this objective's advantage depends on the baseline in every step")
        live = self.actor_reward_weight.maximum > 0
        if self.actor_reward_weight.minimum < 0 or self.kl_weight.minimum < 0:
            raise ValueError("actor_reward_weight and kl_weight must not be negative")
        if live and self.reader == "frozen":
            raise ValueError("actor_reward_weight must be 0 with reader=frozen: the frozen reader's reward has no gradient")
        if live and self.reward == "exact_match":
            raise ValueError("actor_reward_weight must be 0 with reward=exact_match: a 0/1 reward has no gradient")
        if self.reward != "logprob" and self.answer_logprob is not None:
            raise ValueError(f"answer_logprob has no effect with reward={self.reward}; leave it out or use reward=logprob")
        return self


class Grpo(ObjectiveBase):
    """Group standardisation: A = (R - mean R) / max(std R, std_floor)."""

    name: Literal["grpo"] = "grpo"
    std_floor: float = Field(0.1, gt=0, description="floor of the group's standard deviation (METHOD §7: near-identical groups)")


class Rloo(ObjectiveBase):
    """Leave-one-out mean as baseline, no division: with w=1, kl 0, raw rewards this is the exact gradient."""

    name: Literal["rloo"] = "rloo"


class DrGrpo(ObjectiveBase):
    """Group mean as baseline, no division by the standard deviation."""

    name: Literal["dr_grpo"] = "dr_grpo"


class Ema(ObjectiveBase):
    """Different questions in a batch; baseline: exponential moving average of earlier samples' rewards."""

    grouped: ClassVar[bool] = False
    needs_baseline: ClassVar[bool] = True
    name: Literal["ema"] = "ema"
    baseline_every: int = Field(1, ge=1, description="compute the baseline b every so many steps; must be 1 here")
    decay: float = Field(0.9, gt=0, lt=1, description="r of the moving average: V_t = sum w_i R_i, w_i ~ r^(t-1-i)")


class ExpertIteration(ObjectiveBase):
    """L_PG and L_AR only where the reward stands out from the running history: R > mu + threshold_std * sigma."""

    grouped: ClassVar[bool] = False
    needs_baseline: ClassVar[bool] = True
    name: Literal["expert_iteration"] = "expert_iteration"
    baseline_every: int = Field(1, ge=1, description="compute the baseline b every so many steps; must be 1 here")
    threshold_std: float = Field(
        1.0, description="k: standard deviations above the mean of the reward history (2.2 in older runs)"
    )
    warmup_batches: int = Field(25, ge=1, description="first batches that only fill the reward history and train nothing")
    advantage: Literal["reward", "one"] = Field(
        "reward", description="of the chosen CoTs in L_PG: their reward R, or 1 (plain imitation; safe where R may be negative)"
    )


class PpoBase(ObjectiveBase):
    """What both PPO objectives share."""

    clip: float = Field(0.2, gt=0, lt=1, description="epsilon: the ratio is clipped to [1 - epsilon, 1 + epsilon]")


class Ppo(PpoBase):
    """Clipped ratio to the behaviour policy, several passes over one rollout; KL and actor-reward terms stay."""

    name: Literal["ppo"] = "ppo"
    advantage: Literal["grpo", "rloo", "dr_grpo"] = Field("grpo", description="how rewards become advantages")
    std_floor: float = Field(0.1, gt=0, description="floor of the group's standard deviation, for advantage=grpo")
    ratio: Literal["token", "sequence"] = Field(
        "token", description="one ratio a token, or one a CoT (exp of summed or mean log-ratio)"
    )
    passes: int = Field(2, ge=1, description="optimisation passes over one rollout")
    kl_bound: float = Field(
        0.05,
        gt=0,
        description="end the passes of a step early when the mean KL to the behaviour policy (nats per token) exceeds this",
    )


class PpoFrozenAnchor(PpoBase):
    """The research code's PPO, to reproduce the seed's runs: ratio to the frozen base, loss overwritten (METHOD §3.2)."""

    name: Literal["ppo_frozen_anchor"] = "ppo_frozen_anchor"
    cot_logprob: Literal["sum", "mean"] = Field(
        "mean", description="reduction of the log-ratio over CoT tokens; the research code: mean"
    )
    actor_reward_weight: Schedule = Field(
        Schedule.constant(0.0), description="must be 0: the loss is overwritten, the term is dead"
    )
    kl_weight: Schedule = Field(Schedule.constant(0.0), description="must be 0: the loss is overwritten, the KL is dropped")
    std_floor: float = Field(
        1e-4, gt=0, description="floor of the group's standard deviation (the research code has next to none)"
    )

    @model_validator(mode="after")
    def _dead_terms(self) -> Self:
        for name in ("actor_reward_weight", "kl_weight", "entropy_weight"):
            if getattr(self, name).maximum > 0:
                raise ValueError(
                    f"{name} must be 0: ppo_frozen_anchor overwrites the loss, as the research code did; use ppo to keep the term"
                )
        return self


ObjectiveConfig = Annotated[
    Union[Grpo, Rloo, DrGrpo, Ema, ExpertIteration, Ppo, PpoFrozenAnchor],  # noqa: UP007 (get_args below)
    Field(discriminator="name"),
]


def objective_classes() -> dict[str, type[ObjectiveBase]]:
    """Objective name -> its configuration class."""
    union = get_args(ObjectiveConfig)[0]
    return {cls.model_fields["name"].default: cls for cls in get_args(union)}
