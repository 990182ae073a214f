"""Section: how a run is spread over several processes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from markovlm.config.base import Section


class DistributedConfig(Section):
    """How a run is spread over several processes (torchrun). In one process nothing here has an effect, and fsdp2 is refused."""

    strategy: Literal["auto", "ddp", "fsdp2"] = Field(
        "auto",
        description="ddp: every process holds the whole base model; fsdp2: each holds a part of it; auto: fsdp2 if the "
        "base would take more than 70 % of a GPU's memory, else ddp (docs/howto-gpus.md)",
    )
