"""A whole run."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from markovlm.config.base import Scalar, Section
from markovlm.config.chain import ChainConfig
from markovlm.config.data import Data
from markovlm.config.distributed import DistributedConfig
from markovlm.config.evaluation import EvaluationConfig
from markovlm.config.health import HealthConfig
from markovlm.config.logging import LoggingConfig
from markovlm.config.mixture import TaskShare, with_joined_name
from markovlm.config.model import Loading, Lora, Prompt, named_targets
from markovlm.config.objective import ObjectiveBase, objective_from
from markovlm.config.rollouts import RolloutConfig
from markovlm.config.training import TrainingConfig
from markovlm.registry import REWARDS

_VOCABULARY = {"embed_tokens", "lm_head", "wte", "embed_in", "embed_out", "word_embeddings"}


# Keys that a run may be resumed with other values of, besides logging: how long, how often and where, not what is computed.
CHANGEABLE = frozenset(
    {
        "training.steps",
        "training.eval_every",
        "training.checkpoint_every",
        "training.microbatch_tokens",
        "loading.device",
        "loading.trust_remote_code",
        "distributed.strategy",
        "rollouts.server_url",
        "rollouts.adapter_dir",
    }
)


class RunConfig(Section):
    """The configuration of a run. `config.yaml` in a run directory is this, resolved."""

    task: str = Field("arithmetic", description="a name from `markovlm tasks`")
    model: str = Field(
        "embedded", description="a name from `markovlm models` (embedded, smollm2, …), a directory, a GGUF file, or a Hub id"
    )
    seed: int = Field(0, ge=0, description="random seed of the whole run")
    task_options: dict[str, Scalar] = Field(
        {}, description="options of the task, e.g. task_options.max_terms (see `markovlm tasks NAME`)"
    )
    tasks: dict[str, TaskShare] = Field(
        {},
        description="several tasks with weights, instead of one: `{gsm8k: 2, svamp: 1}` (flag: --tasks "
        "gsm8k=2,svamp=1); a task can also be a mapping with weight, options, path, hub, hub_subset, "
        "columns, answer_kind (docs/tasks.md)",
    )
    plugins: tuple[str, ...] = Field(
        (), description="Python files that register objectives, rewards, tasks, …; the flag is --plugin"
    )
    loading: Loading = Loading()  # pyright: ignore[reportCallIssue]
    lora: Lora = Lora()  # pyright: ignore[reportCallIssue]
    prompt: Prompt = Prompt()  # pyright: ignore[reportCallIssue]
    data: Data = Data()  # pyright: ignore[reportCallIssue]
    chain: ChainConfig = ChainConfig()  # pyright: ignore[reportCallIssue]
    objective: Annotated[SerializeAsAny[ObjectiveBase], BeforeValidator(objective_from)] = Field(
        default_factory=lambda: objective_from({})
    )
    rollouts: RolloutConfig = RolloutConfig()  # pyright: ignore[reportCallIssue]
    training: TrainingConfig = TrainingConfig()  # pyright: ignore[reportCallIssue]
    distributed: DistributedConfig = DistributedConfig()  # pyright: ignore[reportCallIssue]
    evaluation: EvaluationConfig = EvaluationConfig()  # pyright: ignore[reportCallIssue]
    health: HealthConfig = HealthConfig()  # pyright: ignore[reportCallIssue]
    logging: LoggingConfig = LoggingConfig()  # pyright: ignore[reportCallIssue]

    @model_validator(mode="before")
    @classmethod
    def _several_tasks(cls, values: Any) -> Any:
        return with_joined_name(values)

    @model_validator(mode="after")
    def _one_place_for_data(self) -> RunConfig:
        data = self.data
        if self.tasks and (data.path or data.hub or data.answer_kind or data.columns.given()):
            raise ValueError(
                "data.path, hub, columns and answer_kind are for a single task; with several tasks, set them in tasks.NAME"
            )
        if self.tasks and self.chain.on:
            raise ValueError("tasks: chains train on a single task; leave out tasks or chain")
        return self

    @model_validator(mode="after")
    def _combinations(self) -> RunConfig:
        if self.objective.grouped and self.rollouts.group_size < 2:
            raise ValueError(
                f"rollouts.group_size must be at least 2 for objective {self.objective.name}: "
                "a group of one has no spread to learn from"
            )
        if REWARDS[self.objective.reward].whole_groups and self.rollouts.group_size < 2:
            raise ValueError(
                f"rollouts.group_size must be at least 2 for reward {self.objective.reward}: it compares the CoTs of a group"
            )
        if self.evaluation.decoding == "greedy" and self.evaluation.temperature is not None:
            raise ValueError("evaluation.temperature has no effect with evaluation.decoding=greedy; leave one of them out")
        if self.loading.quantization != "none" and (vocabulary := _VOCABULARY & set(named_targets(self.lora.targets))):
            raise ValueError(
                f"lora.targets: {', '.join(sorted(vocabulary))} can't be trained with loading.quantization={self.loading.quantization}: "
                "embeddings and output head stay unchanged; name layers in between"
            )
        if self.distributed.strategy == "fsdp2" and self.loading.quantization != "none":
            raise ValueError(
                "distributed.strategy=fsdp2 can't shard quantized weights; leave loading.quantization at none, or use ddp"
            )
        _check_chain(self)
        return self


def _check_chain(config: RunConfig) -> None:
    """Raises ValueError for what a chain makes no sense with elsewhere in the configuration."""
    chain, objective, rollouts = config.chain, config.objective, config.rollouts
    if not chain.on:
        return
    if not objective.chains:
        raise ValueError(
            f"objective.name={objective.name} can't train chains: its running history has one entry per CoT, but states of a chain "
            "are not worth the same at every t; use grpo, rloo, dr_grpo, ppo or reinforce"
        )
    made = REWARDS[objective.reward]
    reward = made(made.Options.model_validate(objective.reward_options), objective)
    if reward.whole_groups or reward.needs_text or reward.needs_reply or objective.reward == "readers":
        raise ValueError(f"objective.reward={objective.reward} can't train chains; use logprob, prob or mean_prob without debias")
    if reward.needs_direct:
        raise ValueError("objective.reward_options.debias must be false in a chain, where no chunk can be read without its state")
    if getattr(reward.options, "std_filter", 0):
        raise ValueError(
            "objective.reward_options.std_filter must be 0 in a chain, where groups of all t would share one average"
        )
    if not config.prompt.mention_budget:
        raise ValueError(
            "prompt.mention_budget=false has no effect in a chain, whose prompts always say how long a state may be; leave it out"
        )
    if chain.state_tokens and rollouts.max_cot_tokens and chain.state_tokens != rollouts.max_cot_tokens:
        raise ValueError(
            f"chain.state_tokens ({chain.state_tokens}) and rollouts.max_cot_tokens ({rollouts.max_cot_tokens}) are the same "
            "budget in a chain; leave one of them out"
        )
