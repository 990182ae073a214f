"""The configuration of a run: frozen, validated, one definition for YAML keys and command-line flags.

Every field carries its description, which is what `markovlm train --help` and `docs/configuration.md` print.
Nonsense fails here, at construction, with the name of the field.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, Union, cast, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from markovlm.errors import UserError
from markovlm.schedule import Schedule

Scalar = str | int | float | bool | None


class Section(BaseModel):
    """A frozen group of keys; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class Loading(Section):
    """How the base model is loaded."""

    device: str = Field("auto", description="cpu, cuda, cuda:N, mps, or auto (cuda where there is one, else cpu)")
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = Field(
        "auto", description="of the base weights; auto is bfloat16 on cuda and float32 elsewhere; the adapter is float32"
    )
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        "auto", description="attention implementation; auto lets transformers choose"
    )
    gradient_checkpointing: bool = Field(False, description="recompute layers in backward: less memory, more time")
    trust_remote_code: bool = Field(False, description="run Python code found in the model repository")
    revision: str | None = Field(None, description="Hub revision of the model")

    @model_validator(mode="after")
    def _combinations(self) -> Loading:
        if self.attention == "eager" and self.dtype == "float64":
            raise ValueError(
                "attention=eager gives NaN with dtype=float64: transformers masks padding in float32 there; use sdpa"
            )
        return self


def _module_names(value: Any) -> Any:
    """Of `lora.targets`: here, because pydantic's message for a union names its branches."""
    many = isinstance(value, list | tuple)
    names = list(cast("list[Any]", value)) if many else [value]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"must be all-linear or names of modules such as q_proj,v_proj (got {value!r:.80})")
    return tuple(names) if many else value


class Lora(Section):
    """The adapter that is trained."""

    rank: int = Field(8, ge=1, description="rank of the LoRA matrices")
    alpha: float = Field(16, gt=0, description="LoRA scale: the update is alpha/rank * B A")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input, in the training pass only")
    targets: Annotated[str | tuple[str, ...], BeforeValidator(_module_names)] = Field(
        "all-linear", description="module names, or all-linear (all but the output head)"
    )


class Prompt(Section):
    """How questions are put to the model."""

    style: Literal["auto", "compact", "plain", "chat"] = Field(
        "auto", description="auto: compact for embedded models, chat where the tokenizer has a template, else plain"
    )
    answer_header: str | None = Field(None, description="text between CoT and answer; default ' Answer:' (compact: its token)")


class Data(Section):
    """Where questions come from."""

    path: str | None = Field(None, description="original file or directory; default: the Hub, or the task's generator")
    train_split: str = Field("train", description="split that training draws from")
    dev_split: str = Field("dev", description="split on which checkpoints are chosen")
    test_split: str = Field("test", description="split that is reported")
    strict: bool = Field(False, description="a malformed row is fatal instead of skipped with a count")


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


class RolloutConfig(Section):
    """How CoTs are sampled."""

    backend: Literal["hf"] = Field("hf", description="hf: the KV-cache sampler over transformers models")
    questions_per_step: int = Field(4, ge=1, description="questions in one optimisation step")
    group_size: int = Field(16, ge=1, description="B: CoTs sampled per question")
    max_cot_tokens: int | None = Field(None, ge=1, description="CoT budget in tokens; default: the task's")
    fixed_length: bool = Field(False, description="every CoT has exactly max_cot_tokens (end tokens masked), as in the paper")
    temperature: Schedule = Field(
        Schedule.constant(1.0), description="sampling temperature tau; the logits are divided by it everywhere"
    )
    stop: tuple[str, ...] = Field((), description="strings that end a CoT, beside the model's end tokens")
    batch_tokens: int = Field(32768, ge=64, description="prompt + CoT tokens sampled at once; more questions wait their turn")

    @model_validator(mode="after")
    def _combinations(self) -> RolloutConfig:
        if self.temperature.minimum <= 0:
            raise ValueError("temperature must be positive; greedy decoding is an evaluation setting")
        if self.fixed_length and self.stop:
            raise ValueError("stop has no effect with fixed_length=true; leave one of them out")
        return self


class TrainingConfig(Section):
    """The optimiser and the loop."""

    steps: int = Field(1000, ge=1, description="optimisation steps")
    lr: Schedule = Field(Schedule.constant(5e-5), description="AdamW learning rate")
    warmup_steps: int = Field(0, ge=0, description="steps over which the learning rate rises linearly from 0")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay of the adapter")
    max_grad_norm: float = Field(1.0, gt=0, description="gradient norm above which gradients are scaled down")
    microbatch_tokens: int = Field(16384, ge=64, description="tokens in one forward and backward pass; a step is split to fit")
    prompt_sharing: Literal["auto", "shared", "padded"] = Field(
        "auto",
        description="shared: one prompt pass per group, its KV cache with gradient; padded: every row whole; equal to rounding",
    )
    eval_every: int = Field(500, ge=0, description="evaluate on dev questions every so many steps (and at step 0); 0: never")
    checkpoint_every: int = Field(500, ge=1, description="checkpoint every so many steps, and at the end")

    @model_validator(mode="after")
    def _combinations(self) -> TrainingConfig:
        if self.lr.minimum < 0:
            raise ValueError("lr must not be negative")
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must not exceed steps ({self.steps})")
        return self


class EvaluationConfig(Section):
    """How accuracy from the CoT alone is measured."""

    dev_size: int = Field(200, ge=1, description="dev questions used during training")
    test_size: int | None = Field(None, ge=1, description="test questions of markovlm eval; default: all of the split")
    decoding: Literal["sampled", "greedy"] = Field("sampled", description="how the CoT is decoded; the answer is always greedy")
    temperature: float | None = Field(None, gt=0, description="of sampled CoTs; default: the training temperature at that step")
    reader: Literal["same", "actor", "frozen"] = Field("same", description="who answers; same: the objective's reader")
    batch_size: int = Field(128, ge=1, description="questions evaluated at once")


class LoggingConfig(Section):
    """What a run writes beside its metrics."""

    samples_every: int = Field(10, ge=0, description="write every sampled CoT of every so many steps to samples.jsonl; 0: never")
    trackers: tuple[Literal["tensorboard", "wandb", "trackio", "mlflow"], ...] = Field(
        (), description="experiment trackers that receive the metric rows, through accelerate"
    )


class HealthConfig(Section):
    """The guard that watches for collapse."""

    policy: Literal["off", "warn", "stop", "rollback"] = Field(
        "warn",
        description="on a collapse: note it; stop with exit code 3; or return to the last healthy checkpoint at half the rate",
    )
    max_rollbacks: int = Field(2, ge=1, description="rollbacks before a run is stopped, with policy=rollback")
    gradient_shares_every: int = Field(
        0, ge=0, description="log the gradient norm of each loss term every so many steps (one more backward a term); 0: never"
    )


def _default_name(value: Any) -> Any:
    """`objective` without a name is GRPO: lets `--objective.kl_weight 0` stand alone."""
    if isinstance(value, Mapping) and "name" not in value:
        return {"name": "grpo", **cast(Mapping[str, Any], value)}
    return cast(Any, value)


class RunConfig(Section):
    """A whole run. `config.yaml` in a run directory is this, resolved."""

    task: str = Field("arithmetic", description="a name from `markovlm tasks`")
    model: str = Field("embedded", description="embedded, embedded-shortcut, a path, or a Hub id")
    seed: int = Field(0, ge=0, description="of everything random")
    task_options: dict[str, Scalar] = Field(
        {}, description="options of the task, e.g. task_options.max_terms (see `markovlm tasks NAME`)"
    )
    loading: Loading = Loading()  # pyright: ignore[reportCallIssue]
    lora: Lora = Lora()  # pyright: ignore[reportCallIssue]
    prompt: Prompt = Prompt()  # pyright: ignore[reportCallIssue]
    data: Data = Data()  # pyright: ignore[reportCallIssue]
    objective: Annotated[ObjectiveConfig, BeforeValidator(_default_name)] = Grpo()  # pyright: ignore[reportCallIssue]
    rollouts: RolloutConfig = RolloutConfig()  # pyright: ignore[reportCallIssue]
    training: TrainingConfig = TrainingConfig()  # pyright: ignore[reportCallIssue]
    evaluation: EvaluationConfig = EvaluationConfig()  # pyright: ignore[reportCallIssue]
    health: HealthConfig = HealthConfig()  # pyright: ignore[reportCallIssue]
    logging: LoggingConfig = LoggingConfig()  # pyright: ignore[reportCallIssue]

    @model_validator(mode="after")
    def _combinations(self) -> RunConfig:
        if self.objective.grouped and self.rollouts.group_size < 2:
            raise ValueError(
                f"rollouts.group_size must be at least 2 for objective {self.objective.name}: "
                "a group of one has no spread to learn from"
            )
        if self.evaluation.decoding == "greedy" and self.evaluation.temperature is not None:
            raise ValueError("evaluation.temperature has no effect with evaluation.decoding=greedy; leave one of them out")
        if self.training.prompt_sharing == "shared" and self.loading.gradient_checkpointing:
            raise ValueError("training.prompt_sharing=shared needs a KV cache, which loading.gradient_checkpointing rules out")
        return self


# ---------------------------------------------------------------------------------------------- reading and writing


def build_config(*layers: Mapping[str, Any], source: str = "configuration") -> RunConfig:
    """Validate the layers merged left to right (later ones win). Raises UserError naming the first wrong field."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge(merged, layer)
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise UserError(f"{source}: {describe_validation(error)}") from None


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge; naming another objective drops the keys that only the old one has."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        if key == "objective" and isinstance(old, Mapping) and isinstance(value, Mapping):
            out[key] = _merge_objective(cast(Mapping[str, Any], old), cast(Mapping[str, Any], value))
        elif isinstance(old, Mapping) and isinstance(value, Mapping):
            out[key] = merge(cast(Mapping[str, Any], old), cast(Mapping[str, Any], value))
        else:
            out[key] = value
    return out


def _merge_objective(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    name = new.get("name", old.get("name", "grpo"))
    if name != old.get("name", "grpo") and name in objective_classes():
        shared = objective_classes()[name].model_fields
        old = {key: value for key, value in old.items() if key in shared}
    return {**old, **new}


def objective_classes() -> dict[str, type[ObjectiveBase]]:
    """Objective name -> its configuration class."""
    union = get_args(ObjectiveConfig)[0]
    return {cls.model_fields["name"].default: cls for cls in get_args(union)}


def load_yaml(path: Path) -> dict[str, Any]:
    """A configuration file as a nested dict. Raises UserError with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except IsADirectoryError:
        raise UserError(f"{path}: is a directory; a configuration file is needed (a run is continued with --resume)") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read the configuration file: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a UTF-8 text file; a YAML configuration is needed") from None
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or 'cannot be parsed'}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: a mapping of keys is needed, found {type(loaded).__name__}")
    return {str(key): value for key, value in cast(dict[Any, Any], loaded).items()}


def dump_yaml(config: RunConfig) -> str:
    """YAML that `load_yaml` and `build_config` turn back into the same configuration."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def describe_validation(error: ValidationError) -> str:
    """One line for a pydantic error: key, what is wrong, and a suggestion for an unknown key."""
    details = error.errors()
    first = details[0]
    key = ".".join(str(part) for part in first["loc"] if part not in objective_classes())
    if first["type"] == "extra_forbidden":
        guess = difflib.get_close_matches(key, known_keys(), n=1, cutoff=0.6)
        message = "unknown key" + (f"; did you mean {guess[0]}?" if guess else "; `markovlm train --help` lists all keys")
    elif first["type"] == "union_tag_invalid":
        key, message = "objective.name", f"unknown objective; choose from {', '.join(objective_classes())}"
    else:
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] != "value_error":
            message += f" (got {first['input']!r:.80})"
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return f"{key}: {message}{more}" if key else f"{message}{more}"


# ---------------------------------------------------------------------------------------------- keys as flags


class Key:
    """One leaf of the configuration: what a flag or a row of the documentation needs to know."""

    __slots__ = ("choices", "default", "description", "name", "only_for")

    def __init__(self, name: str, description: str, default: Any, choices: tuple[str, ...], only_for: tuple[str, ...]):
        self.name = name  # "training.lr"
        self.description = description
        self.default = default
        self.choices = choices
        self.only_for = only_for  # objectives that have it; empty: all


def keys() -> list[Key]:
    """All leaf keys of RunConfig in order, those of every objective merged."""
    found: dict[str, Key] = {}
    for key in _walk(RunConfig, ""):
        found.setdefault(key.name, key)
    shared = set(ObjectiveBase.model_fields)
    found["objective.name"] = Key(
        "objective.name", "how advantages and the policy loss are formed", "grpo", tuple(objective_classes()), ()
    )
    for name, cls in objective_classes().items():
        for key in _walk(cls, "objective."):
            field = key.name.removeprefix("objective.")
            if field == "name":
                continue
            if field not in shared:
                owners = found[key.name].only_for if key.name in found else ()
                key.only_for = (*owners, name)
            found[key.name] = key
    return list(found.values())


def known_keys() -> list[str]:
    """Names of all keys and of their sections."""
    names = [key.name for key in keys()]
    return names + sorted({name.split(".")[0] for name in names if "." in name})


def _walk(cls: type[Section], prefix: str) -> Iterator[Key]:
    for name, field in cls.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from _walk(annotation, f"{prefix}{name}.")
        elif name == "objective":
            continue
        else:
            yield Key(f"{prefix}{name}", field.description or "", field.default, _choices(annotation), ())


def _choices(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return tuple(str(value) for value in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(choice for part in get_args(annotation) for choice in _choices(part))
    return ()


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"training.lr": 1} -> {"training": {"lr": 1}}."""
    out: dict[str, Any] = {}
    for name, value in flat.items():
        *sections, leaf = name.split(".")
        here = out
        for section in sections:
            here = here.setdefault(section, {})
        here[leaf] = value
    return out


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The inverse of `nest`."""
    out: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping) and value:
            out |= flatten(cast(Mapping[str, Any], value), f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = value
    return out
