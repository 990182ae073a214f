"""Section: how CoTs are sampled."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from markovlm.config.base import Section
from markovlm.config.schedule import Schedule


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
