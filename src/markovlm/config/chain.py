"""Section: chains of more than two steps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from markovlm.config.base import Section

ChainKind = Literal["notes", "notes_then_questions", "thinking"]


class ChainConfig(Section):
    """A text read in chunks, of which only a short state in text is kept (docs/chains.md). Without `kind` there is no chain: T = 2."""

    kind: ChainKind | None = Field(
        None,
        description="notes: predict each next chunk from notes alone; notes_then_questions: answer questions from them; "
        "thinking: think in pieces of limited length",
    )
    steps: int | None = Field(
        None, ge=1, description="T, the most chunks of a text to read (thinking: pieces to write); default: all"
    )
    chunk_tokens: int | None = Field(None, ge=1, description="tokens per chunk, for tasks that provide whole texts")
    state_tokens: int | None = Field(None, ge=1, description="token budget of a state; default rollouts.max_cot_tokens")
    gamma: float = Field(1.0, gt=0, le=1, description="discount factor of later rewards: J = E sum_t gamma^(t-1) r_t")
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
            raise ValueError(
                f"reward={self.reward} needs questions, which kind=notes does not have; use kind=notes_then_questions"
            )
        if self.kind == "thinking":
            if self.predicts != "answer":
                raise ValueError(
                    f"reward={self.reward} needs chunks of a text, which kind=thinking does not have; use reward=answer"
                )
            if self.steps is None:
                raise ValueError("steps is needed with kind=thinking: how many pieces to write before the answer")
            if self.chunk_tokens is not None:
                raise ValueError("chunk_tokens has no effect with kind=thinking, which reads the question again; leave it out")
        if self.predicts != "answer" and self.steps == 1:
            raise ValueError(f"steps must be at least 2 with reward={self.predicts}: the next chunk is predicted")
        return self
