"""Section: how accuracy from the CoT alone is measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from markovlm.config.base import Section


class EvaluationConfig(Section):
    """How accuracy from the CoT alone is measured."""

    dev_size: int = Field(200, ge=1, description="dev questions used during training")
    test_size: int | None = Field(None, ge=1, description="test questions of markovlm eval; default: all of the split")
    decoding: Literal["sampled", "greedy"] = Field("sampled", description="how the CoT is decoded; the answer is always greedy")
    temperature: Annotated[float, Field(gt=0)] | Literal["training"] | None = Field(
        None,
        description="of sampled CoTs; default: 1, whatever training used, so that runs that differ in it are compared alike; "
        "training: the training temperature at that step",
    )
    reader: Literal["same", "actor", "frozen"] = Field("same", description="who answers; same: the objective's reader")
    extractors: tuple[str, ...] = Field((), description="how answers are read, the first decides; default: the task's own")
    batch_size: int = Field(128, ge=1, description="questions evaluated at once")
