"""Section: chains of more than two steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from markovlm.config.base import Section
from markovlm.registry import REWARDS

if TYPE_CHECKING:
    from markovlm.config.run import RunConfig

ChainKind = Literal["notes", "notes_then_questions", "thinking"]


class ChainConfig(Section):
    """A text read in chunks, of which only a short state in text is kept (docs/chains.md). Without `kind` there is no chain: T = 2."""

    kind: ChainKind | None = Field(
        None,
        description="notes: predict every next chunk from notes alone; notes_then_questions: answer from them; thinking: think in bounded pieces",
    )
    steps: int | None = Field(
        None, ge=1, description="T, chunks of a text that are read at most (thinking: pieces written); default: all there are"
    )
    chunk_tokens: int | None = Field(None, ge=1, description="tokens of a chunk, where the task brings whole texts")
    state_tokens: int | None = Field(None, ge=1, description="budget of a state in tokens; default rollouts.max_cot_tokens")
    gamma: float = Field(1.0, gt=0, le=1, description="discount of later rewards: J = E sum_t gamma^(t-1) r_t")
    reward: Literal["next_chunk", "answer", "both"] | None = Field(
        None, description="what is predicted from a state; default next_chunk for notes, else answer"
    )

    @property
    def on(self) -> bool:
        return self.kind is not None

    @property
    def predicts(self) -> str:
        """`next_chunk`, `answer` or `both`."""
        return self.reward or ("next_chunk" if self.kind == "notes" else "answer")

    @model_validator(mode="after")
    def _combinations(self) -> ChainConfig:
        given = sorted(self.model_fields_set - {"kind"})
        idle = [name for name in given if getattr(self, name) != type(self).model_fields[name].default]
        if self.kind is None:
            if idle:
                raise ValueError(f"{idle[0]} has no effect without chain.kind; set it to notes, notes_then_questions or thinking")
            return self
        if self.kind == "notes" and self.predicts != "next_chunk":
            raise ValueError(f"reward={self.reward} needs questions, which kind=notes has none of; use kind=notes_then_questions")
        if self.kind == "thinking":
            if self.predicts != "answer":
                raise ValueError(
                    f"reward={self.reward} needs chunks of a text, which kind=thinking has none of; use reward=answer"
                )
            if self.steps is None:
                raise ValueError("steps is needed with kind=thinking: how many pieces are thought before the answer")
            if self.chunk_tokens is not None:
                raise ValueError("chunk_tokens has no effect with kind=thinking, which reads the question again; leave it out")
        if self.predicts != "answer" and self.steps == 1:
            raise ValueError(f"steps must be at least 2 with reward={self.predicts}: the next chunk is predicted")
        return self


def check_chain(config: RunConfig) -> None:
    """ValueError for what a chain makes no sense with elsewhere in the configuration."""
    chain, objective, rollouts = config.chain, config.objective, config.rollouts
    if not chain.on:
        return
    if not objective.chains:
        raise ValueError(
            f"objective.name={objective.name} can't train chains: its running history has one entry a CoT, and states of a chain "
            "are not worth the same at every t; use grpo, rloo, dr_grpo, ppo or reinforce"
        )
    made = REWARDS[objective.reward]
    reward = made(made.Options.model_validate(objective.reward_options), objective)
    if reward.whole_groups or reward.needs_text or reward.needs_reply or objective.reward == "readers":
        raise ValueError(f"objective.reward={objective.reward} can't train chains; use logprob, prob or mean_prob without debias")
    if reward.needs_direct:
        raise ValueError("objective.reward_options.debias must be false in a chain: no chunk can be read without its state")
    if getattr(reward.options, "std_filter", 0):
        raise ValueError("objective.reward_options.std_filter must be 0 in a chain: groups of every t would share one average")
    if chain.state_tokens and rollouts.max_cot_tokens and chain.state_tokens != rollouts.max_cot_tokens:
        raise ValueError(
            f"chain.state_tokens ({chain.state_tokens}) and rollouts.max_cot_tokens ({rollouts.max_cot_tokens}) are the same "
            "budget in a chain; leave one of them out"
        )
