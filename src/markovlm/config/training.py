"""Section: the optimiser and the loop."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from markovlm.config.base import Section
from markovlm.config.schedule import Schedule


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
        description="shared: one prompt pass per group, with gradient through its KV cache; padded: every row whole; "
        "equal up to rounding",
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
