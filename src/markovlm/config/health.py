"""Section: the guard that watches for collapse."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from markovlm.config.base import Section


class HealthConfig(Section):
    """The guard that watches for collapse."""

    policy: Literal["off", "warn", "stop", "rollback"] = Field(
        "warn",
        description="on a collapse: record it (warn); stop with exit code 3; or roll back to the last healthy "
        "checkpoint at half the learning rate",
    )
    max_rollbacks: int = Field(2, ge=1, description="rollbacks before a run is stopped, with policy=rollback")
    gradient_shares_every: int = Field(
        0,
        ge=0,
        description="log the gradient norm of each loss term every so many steps (one more backward pass per term); 0: never",
    )
