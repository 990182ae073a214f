"""The objectives (docs/objectives.md), one file each, found by name in `markovlm.registry`."""

from __future__ import annotations

from markovlm.config.objective import ObjectiveBase
from markovlm.objectives.base import Credit, Objective, PolicyBatch, PolicyGradient, PolicyLoss
from markovlm.registry import OBJECTIVES


def build_objective(config: ObjectiveBase) -> Objective:
    """The objective that a configuration names."""
    return OBJECTIVES.find(config.name, "objective.name: ")(config)


__all__ = ["OBJECTIVES", "Credit", "Objective", "PolicyBatch", "PolicyGradient", "PolicyLoss", "build_objective"]
