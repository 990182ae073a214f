"""Section: what a run writes beside its metrics."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from markovlm.config.base import Section


class LoggingConfig(Section):
    """What a run writes beside its metrics."""

    samples_every: int = Field(10, ge=0, description="every so many steps, write all sampled CoTs to samples.jsonl; 0: never")
    trackers: tuple[Literal["tensorboard", "wandb", "trackio", "mlflow"], ...] = Field(
        (), description="experiment trackers that receive the metric rows, through accelerate"
    )
