"""The live guard: what `health.policy` does with the verdicts of `health/`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from markovlm.config.health import HealthConfig
from markovlm.health.evaluations import Measured
from markovlm.health.monitor import HealthMonitor
from markovlm.health.verdict import Verdict


class Guard:
    """Judges every metric row and every dev evaluation, and remembers which checkpoints were healthy."""

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
        """Take a metric row. True if the verdict changed (its first `unknown` and `healthy` are not changes)."""
        return self._changed(self.monitor.update(row))

    def evaluated(self, step: int, accuracy: float | None, n: int) -> bool:
        """Take a dev evaluation of the policy after `step`. True if the verdict changed."""
        if accuracy is None:
            return False
        return self._changed(self.monitor.evaluated(step, accuracy, n))

    def _changed(self, verdict: Verdict) -> bool:
        before = self.verdict.verdict if self.verdict else "unknown"
        self.verdict = verdict
        return self.on and verdict.verdict != before and (before, verdict.verdict) != ("unknown", "healthy")

    @property
    def collapsed(self) -> bool:
        return self.on and self.verdict is not None and self.verdict.verdict == "collapsed"

    def saved(self, step: int) -> None:
        """A checkpoint was written at `step`."""
        if self.verdict is None or self.verdict.verdict in ("healthy", "unknown"):
            self.healthy.append(step)

    def last_healthy(self, saved: Sequence[int]) -> int | None:
        """The checkpoint to go back to: saved, and before the first step at which the fall may have begun; None if there is none.

        With dev evaluations, the one with the best accuracy (interpolated between two evaluations; the latest of equal ones). Without,
        the last one saved while nothing was wrong.
        """
        onset = self._onset()
        before = [step for step in saved if onset is None or step < onset]
        rows = self.monitor.evaluations.rows
        if len(rows) > 1 and rows[0].step <= min(before, default=-1):
            return max(before, key=lambda step: (self._accuracy(step), step))
        return max((step for step in before if step in self.healthy), default=None)

    def _onset(self) -> int | None:
        """The first step at which what is called a collapse may have begun."""
        grave = [e for e in self.verdict.signals if e.level == "collapsed"] if self.verdict else []
        return min((e.step if e.onset is None else e.onset[0] for e in grave), default=None)

    def _accuracy(self, step: int) -> float:
        """Accuracy at a step, from the evaluations on both sides of it."""
        rows = self.monitor.evaluations.rows
        before = max((row for row in rows if row.step <= step), key=lambda row: row.step, default=rows[0])
        after = min((row for row in rows if row.step >= step), key=lambda row: row.step, default=rows[-1])
        if after.step == before.step:
            return before.accuracy
        return before.accuracy + (after.accuracy - before.accuracy) * (step - before.step) / (after.step - before.step)

    def way_back(self, saved: Sequence[int]) -> int | None:
        """The step that a rollback goes to; None if none is left or there is no healthy checkpoint."""
        if self.config.policy != "rollback" or self.rollbacks >= self.config.max_rollbacks:
            return None
        return self.last_healthy(saved)

    def begin_anew(self, step: int, evaluations: Sequence[Measured]) -> None:
        """After a rollback to `step`: level and noise are estimated again, evaluations up to there are kept."""
        self.monitor = HealthMonitor()
        for measured in evaluations:
            if measured.step <= step:
                self.monitor.evaluations.add(measured.step, measured.accuracy, measured.n)
        self.verdict = None
        self.healthy = [saved for saved in self.healthy if saved <= step]

    def state_dict(self) -> dict[str, Any]:
        """The state as plain JSON values."""
        return {"monitor": self.monitor.state_dict(), "healthy": self.healthy, "rollbacks": self.rollbacks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.monitor = HealthMonitor()
        self.monitor.load_state_dict(state["monitor"])
        copy.deepcopy(self.monitor).update({"step": self.monitor.n + 1})  # a damaged state fails here, and not steps later
        self.verdict = self.monitor.verdict() if self.monitor.n else None
        self.healthy, self.rollbacks = list(state["healthy"]), state["rollbacks"]
