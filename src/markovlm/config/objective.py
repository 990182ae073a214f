"""Section: the objective; one class each, and what they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, cast

from pydantic import Field, ValidationError, field_validator, model_validator

from markovlm.config.base import Section
from markovlm.config.schedule import Schedule
from markovlm.errors import UserError
from markovlm.registry import OBJECTIVES, REWARDS


class ObjectiveBase(Section):
    """What every objective shares (docs/method.md). Rewards, reader, conditioning and weights are independent choices."""

    grouped: ClassVar[bool] = True  # the advantage compares the CoTs of one question
    needs_baseline: ClassVar[bool] = False  # the advantage depends on b itself, so b is computed in every step
    chains: ClassVar[bool] = True  # the advantage makes sense state by state (docs/chains.md): it keeps no history of rewards

    name: str = Field("", description="how advantages and the policy loss are formed")
    reward: str = Field("logprob", description="r, the reward of a CoT for the answer read from it")
    reward_options: dict[str, Any] = Field({}, description="options of the reward")
    reader: Literal["actor", "frozen", "ema"] = Field(
        "actor",
        description="which model reads the CoT: the one being trained, the frozen base, or a copy that follows the actor slowly",
    )
    reader_decay: float | None = Field(
        None, gt=0, lt=1, description="d of the slow reader: theta_r <- d theta_r + (1 - d) theta after every step; default 0.98"
    )
    readers: tuple[str, ...] = Field(
        (), description="for reward=readers: actor, frozen, ema, or other models and runs, e.g. actor,frozen"
    )
    conditioning: Literal["markovian", "non_markovian"] = Field(
        "markovian", description="what reward and evaluation see: the CoT alone, or the question too"
    )
    actor_reward_weight: Schedule = Field(
        Schedule.constant(1.0), description="w of L_AR = -w A, the gradient that flows through the reward; 0 turns it off"
    )
    kl_weight: Schedule = Field(
        Schedule.constant(0.1), description="beta, the weight of the exact per-token KL(u_theta || u') from the frozen base"
    )
    entropy_weight: Schedule = Field(Schedule.constant(0.0), description="weight of the entropy bonus (mean per CoT token)")
    cot_logprob: Literal["sum", "mean"] = Field("sum", description="reduction of ln u over CoT tokens in L_PG: sum is exact")
    answer_logprob: Literal["mean", "sum"] | None = Field(
        None, description="reduction of ln pi over answer tokens in the logprob reward; default mean"
    )
    answer_end: Literal["scored", "open"] = Field(
        "scored",
        description="whether the end of the reply is scored as the last token of the gold answer. scored: the end of "
        "turn (chat), a line break (plain), or <eos> (compact), so that an answer that runs on earns less; "
        "open: the likelihood of a prefix of the reply, as in the research code",
    )
    normalize_reward: bool = Field(True, description="R = r - b with the frozen model's baseline CoT; false: R = r")
    baseline_every: int = Field(
        5, ge=1, description="compute the baseline b every so many steps, if it cancels in the advantage (it is then only logged)"
    )

    @field_validator("name")
    @classmethod
    def _own_name(cls, value: str) -> str:
        own = cls.model_fields["name"].default
        if value != own:
            raise ValueError(f"{cls.__name__} is the configuration of objective {own!r}, not of {value!r}")
        return value

    @field_validator("reward")
    @classmethod
    def _known_reward(cls, value: str) -> str:
        try:
            REWARDS.find(value)
        except UserError as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        try:
            REWARDS[self.reward].Options.model_validate(self.reward_options)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(("reward_options", *map(str, first["loc"])))
            there = ", ".join(REWARDS[self.reward].Options.model_fields) or "none"
            raise ValueError(f"{key}: {first['msg']} (options of reward {self.reward}: {there})") from None
        return self

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if self.needs_baseline and self.normalize_reward and self.baseline_every != 1:
            raise ValueError("baseline_every must be 1: this objective's advantage depends on the baseline in every step")
        if self.readers and self.reward != "readers":
            raise ValueError(f"readers has no effect with reward={self.reward}; leave it out or use reward=readers")
        if len(set(self.readers)) < len(self.readers):
            raise ValueError(f"readers contains a duplicate: {', '.join(self.readers)}")
        if self.reader_decay is not None and not self.slow_reader:
            raise ValueError("reader_decay has no effect unless a reader is ema; leave it out or use reader=ema")
        live = self.actor_reward_weight.maximum > 0
        if self.actor_reward_weight.minimum < 0 or self.kl_weight.minimum < 0:
            raise ValueError("actor_reward_weight and kl_weight must not be negative")
        if live and self.reader == "frozen":
            raise ValueError("actor_reward_weight must be 0 with reader=frozen: the frozen reader's reward has no gradient")
        if live and not REWARDS[self.reward].differentiable:
            raise ValueError(
                f"actor_reward_weight must be 0 with reward={self.reward}: that reward has no gradient through the reader"
            )
        if self.reward != "logprob" and self.answer_logprob is not None:
            raise ValueError(f"answer_logprob has no effect with reward={self.reward}; leave it out or use reward=logprob")
        REWARDS[self.reward].check(self)
        return self

    @property
    def slow_reader(self) -> bool:
        """Whether there is a copy that follows the actor."""
        return self.reader == "ema" or "ema" in self.readers


def objective_classes() -> dict[str, type[ObjectiveBase]]:
    """Objective name -> its configuration class, plug-ins included."""
    return {name: made.Config for name, made in OBJECTIVES.usable().items()}


def objective_from(value: Any) -> ObjectiveBase:
    """From a mapping with a `name` (default grpo) to the configuration of that objective. Raises ValueError on an unknown name."""
    if isinstance(value, ObjectiveBase):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a mapping of keys, not {type(value).__name__}")
    fields = cast("Mapping[str, Any]", value)
    name = fields.get("name", "grpo")
    try:
        made = OBJECTIVES.find(str(name))
    except UserError as error:
        raise ValueError(str(error)) from None
    return made.Config.model_validate({**fields, "name": name})
