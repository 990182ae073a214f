"""The objectives of METHOD §2, by name."""

from __future__ import annotations

from typing import Any

from markovlm.config import ObjectiveBase
from markovlm.objectives.base import Credit, Objective, PolicyBatch, PolicyLoss
from markovlm.objectives.dr_grpo import DrGrpo
from markovlm.objectives.ema import Ema
from markovlm.objectives.expert_iteration import ExpertIteration
from markovlm.objectives.grpo import Grpo
from markovlm.objectives.ppo import Ppo
from markovlm.objectives.ppo_frozen_anchor import PpoFrozenAnchor
from markovlm.objectives.rloo import Rloo

OBJECTIVES: dict[str, Any] = {
    "grpo": Grpo,
    "rloo": Rloo,
    "dr_grpo": DrGrpo,
    "ema": Ema,
    "expert_iteration": ExpertIteration,
    "ppo": Ppo,
    "ppo_frozen_anchor": PpoFrozenAnchor,
}


def build_objective(config: ObjectiveBase) -> Objective:
    """The objective that a configuration names."""
    return OBJECTIVES[type(config).model_fields["name"].default](config)


__all__ = ["OBJECTIVES", "Credit", "Objective", "PolicyBatch", "PolicyLoss", "build_objective"]
