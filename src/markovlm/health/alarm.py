"""One threshold at one level, with its memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markovlm.health.thresholds import Threshold
from markovlm.health.verdict import Evidence, Level


class Alarm:
    """One threshold at one level: recent hits, and whether it is on. It goes off after twice the rows it was on (20 at least)."""

    __slots__ = ("active", "clear", "hits", "kind", "level", "name", "needed", "on_rows", "recovered", "rows", "says")

    def __init__(self, row: Threshold, level: Level) -> None:
        self.name, self.kind, self.says = row.signal, row.kind, row.says
        self.level: Level = level
        self.needed, self.rows = row.needed, row.rows
        self.hits: list[tuple[int, int, float, float]] = []  # (index, step, value, limit)
        self.active: tuple[int, float, float] | None = None  # (step, value, limit) of the onset
        self.on_rows = 0
        self.clear = 0
        self.recovered: tuple[int, float, float] | None = None

    @property
    def idle(self) -> bool:
        return self.active is None and not self.hits

    @property
    def silent(self) -> bool:
        """Has it no evidence to give?"""
        return self.active is None and self.recovered is None

    def hit(self, index: int, step: int, value: float, limit: float) -> None:
        """One row beyond the threshold."""
        self.clear = 0
        if self.active is not None:
            self.on_rows += 1
            return
        self._forget(index)
        self.hits.append((index, step, value, limit))
        if len(self.hits) >= self.needed:
            self.active = self.hits[0][1:]
            self.on_rows = len(self.hits)
            self.hits = []

    def miss(self, index: int) -> None:
        """One row on the right side of the threshold."""
        if self.active is None:
            self._forget(index)
            return
        self.clear += 1
        if self.clear < max(20, 2 * self.on_rows):
            return
        if self.level == "collapsed" and self.recovered is None:
            self.recovered = self.active
        self.active, self.on_rows, self.clear = None, 0, 0

    def _forget(self, index: int) -> None:
        if self.hits and self.hits[0][0] <= index - self.rows:
            self.hits = [hit for hit in self.hits if hit[0] > index - self.rows]

    def evidence(self) -> Evidence | None:
        if self.active is not None:
            step, value, limit = self.active
            return Evidence(self.name, step, value, limit, self.level, self.kind, says=self.says)
        if self.recovered is not None:
            step, value, limit = self.recovered
            return Evidence(self.name, step, value, limit, "warn", self.kind, recovered=True, says=self.says)
        return None

    def state(self) -> dict[str, Any]:
        return {
            "hits": [list(hit) for hit in self.hits], "active": self.active and list(self.active), "on_rows": self.on_rows,
            "clear": self.clear, "recovered": self.recovered and list(self.recovered),
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        self.hits = [(index, step, value, limit) for index, step, value, limit in state["hits"]]
        self.active = _onset(state["active"])
        self.recovered = _onset(state["recovered"])
        self.on_rows, self.clear = state["on_rows"], state["clear"]


def _onset(stored: Sequence[Any] | None) -> tuple[int, float, float] | None:
    return (stored[0], stored[1], stored[2]) if stored else None
