"""The live guard: what `health.policy` does with the verdicts of `health/`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markovlm.config import RunConfig
from markovlm.config.health import HealthConfig
from markovlm.health.monitor import HealthMonitor
from markovlm.health.verdict import Verdict
from markovlm.models.registry import highest_tried_lr
from markovlm.objectives.ppo_frozen_anchor import NOTICE

_SMALL_GROUP = 8
_PPO_LR_SHARE = 0.5


class Guard:
    """Judges every metric row and remembers which checkpoints were healthy."""

    def __init__(self, config: HealthConfig):
        self.config = config
        self.monitor = HealthMonitor()
        self.verdict: Verdict | None = None
        self.healthy: list[int] = []  # steps of checkpoints saved while nothing was wrong
        self.rollbacks = 0

    @property
    def on(self) -> bool:
        return self.config.policy != "off"

    def see(self, row: dict[str, Any]) -> bool:
        """Take a metric row. True where the verdict changed (its first `unknown` and `healthy` are no change)."""
        before = self.verdict.verdict if self.verdict else "unknown"
        self.verdict = self.monitor.update(row)
        return self.on and self.verdict.verdict != before and (before, self.verdict.verdict) != ("unknown", "healthy")

    @property
    def collapsed(self) -> bool:
        return self.on and self.verdict is not None and self.verdict.verdict == "collapsed"

    def saved(self, step: int) -> None:
        """A checkpoint was written at `step`."""
        if self.verdict is None or self.verdict.verdict in ("healthy", "unknown"):
            self.healthy.append(step)

    def last_healthy(self, saved: Sequence[int]) -> int | None:
        """The last of the `saved` checkpoints that was healthy then and lies before the onset; None where there is none."""
        onset = self.verdict.onset_step if self.verdict else None
        healthy = (step for step in self.healthy if step in saved and (onset is None or step < onset))
        return max(healthy, default=None)

    def way_back(self, saved: Sequence[int]) -> int | None:
        """Where a rollback goes; None where none is left or there is no healthy checkpoint."""
        if self.config.policy != "rollback" or self.rollbacks >= self.config.max_rollbacks:
            return None
        return self.last_healthy(saved)

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"monitor": self.monitor.state_dict(), "healthy": self.healthy, "rollbacks": self.rollbacks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.monitor = HealthMonitor()
        self.monitor.load_state_dict(state["monitor"])
        self.verdict = self.monitor.verdict() if self.monitor.n else None
        self.healthy, self.rollbacks = list(state["healthy"]), state["rollbacks"]


def doubts(config: RunConfig) -> list[str]:
    """Settings that work on paper and have failed in practice: one line each, with a pointer."""
    objective, training = config.objective, config.training
    tried = highest_tried_lr(config.model)
    found = []
    if objective.name == "ppo_frozen_anchor":
        found.append(NOTICE)
    if objective.name == "ppo" and objective.actor_reward_weight.maximum > 0 and training.lr.maximum > _PPO_LR_SHARE * tried:
        found.append(
            f"objective.name=ppo with a live actor reward at training.lr {training.lr.maximum:g}: several passes multiply the step; "
            f"half the usual rate ({_PPO_LR_SHARE * tried:g}) is safer (docs/objectives.md, PPO)"
        )
    if not training.eval_every:
        found.append(
            "training.eval_every=0: without evaluation during training a peak can't be told from a decline (docs/objectives.md, evaluation)"
        )
    if objective.grouped and config.rollouts.group_size < _SMALL_GROUP:
        found.append(
            f"rollouts.group_size={config.rollouts.group_size}: the mean and spread of a group under {_SMALL_GROUP} are mostly noise "
            "(docs/objectives.md, group size)"
        )
    if training.lr.maximum > tried:
        found.append(
            f"training.lr {training.lr.maximum:g} is above {tried:g}, the highest that held up (docs/objectives.md, learning rate)"
        )
    return found
