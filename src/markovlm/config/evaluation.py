"""Section: how accuracy from the CoT alone is measured."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from markovlm.config.base import Section


class EvaluationConfig(Section):
    """How accuracy from the CoT alone is measured."""

    dev_size: int = Field(200, ge=1, description="dev questions used during training")
    test_size: int | None = Field(None, ge=1, description="test questions for markovlm eval; default: the whole split")
    decoding: Literal["sampled", "greedy"] = Field("sampled", description="how the CoT is decoded; the answer is always greedy")
    temperature: float | Literal["training"] | None = Field(
        None,
        description="sampling temperature of the CoTs; default: 1, whatever training used, so that runs with different "
        "temperatures are compared alike; training: the training temperature at that step",
    )
    reader: Literal["same", "actor", "frozen"] = Field("same", description="which model answers; same: the objective's reader")
    extractors: tuple[str, ...] = Field(
        (), description="how answers are extracted; the first one decides; default: the task's own"
    )
    batch_size: int = Field(128, ge=1, description="questions evaluated at once")

    @field_validator("temperature", mode="before")
    @classmethod
    def _positive_or_training(cls, value: Any) -> Any:
        """One message in place of one for each type it may have."""
        if value is None or value == "training":
            return value
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = 0.0
        if isinstance(value, bool) or not 0 < number < float("inf"):
            raise ValueError(f"must be a positive number, or training (got {value!r:.80})")
        return number
