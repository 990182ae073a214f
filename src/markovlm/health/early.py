"""A run that breaks within its first rows, before there is noise to test against.

With `logging_steps` of 10 a run that dies at step 40 has three good rows. Its baseline is those rows, however few, and the range of the task:
every row before the break lies above every row after it by most of the level, and the rows after it stay there. A single good row counts only where
something else broke in the same row (entropy, lengths, KL). Shares of few samples jump by themselves: the grain of the values must be fine enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markovlm.health.verdict import Evidence

ROWS = 14  # rows in which a break is looked for
_LATEST = 8  # last row that may be the first bad one
_AFTER = 5  # rows after the break that must stay down
_LEAST = 0.3  # of a level that can be lost
_LEFT = 0.2  # of the level at most is left
_GRAIN = 1.0 / 12.0  # coarsest step between shares
KEYS = ("answer_correct_fraction", "accuracy", "reward_mean")
_BESIDE = {  # metric -> (times as much, least) of a change that goes with a break
    "entropy": (3.0, 1.0),
    "kl": (8.0, 1.0),
    "cot_length_saturated_fraction": (1.0, 0.8),
    "grad_norm": (30.0, 10.0),
}


class EarlyBreak:
    """Looks at the first rows of a run; plain state."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.found: dict[str, Any] | None = None
        self.tail: list[float] = []  # last values of the outcome, once something was found

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Take one row."""
        if len(self.rows) < ROWS:
            kept = {key: values[key] for key in (*KEYS, *_BESIDE, "cot_length") if key in values}
            if not any(key in kept for key in KEYS):
                return
            self.rows.append({"step": float(step), **kept})
            if self.found is None:
                self.found = next((found for key in KEYS if (found := self._break(key)) is not None), None)
        if self.found is not None and self.found["key"] in values:
            self.tail = [*self.tail[-4:], values[self.found["key"]]]

    def _break(self, key: str) -> dict[str, Any] | None:
        rows = [row for row in self.rows if key in row]
        values = [row[key] for row in rows]
        n = len(values)
        if n < 1 + _AFTER or min(values) < 0.0:
            return None
        for m in range(1, min(_LATEST, n - _AFTER) + 1):
            low, high = min(values[:m]), max(values[m:])
            if low < _LEAST or high > _LEFT * low:
                continue
            if max(values) <= 1.0 and _grain(values) > _GRAIN:
                continue
            if m < 2 and not self._broke_beside(rows, m):
                continue
            if m == 2 and max(values[:m]) - low > 0.2 * low and not self._broke_beside(rows, m):
                continue
            step, before = int(rows[m]["step"]), int(rows[m - 1]["step"])
            return {"key": key, "step": step, "low": before + 1, "value": values[m], "level": low}
        return None

    @staticmethod
    def _broke_beside(rows: list[dict[str, float]], m: int) -> bool:
        """Did something else break in the same row or next to it?"""

        def around(key: str) -> tuple[list[float], list[float]]:
            return [row[key] for row in rows[:m] if key in row], [row[key] for row in rows[m:] if key in row]

        for key, (factor, least) in _BESIDE.items():
            before, after = around(key)
            if before and len(after) >= 3 and sorted(after)[len(after) // 2] > max(factor * max(before), least):
                return True
        before, after = around("cot_length")
        return bool(before) and len(after) >= 3 and max(after) < 0.2 * min(before)

    def evidence(self, kind: str, says: str) -> Evidence | None:
        """The break, or that it healed."""
        if self.found is None:
            return None
        found = self.found
        back = sorted(self.tail)[len(self.tail) // 2] > 0.5 * found["level"] if self.tail else False
        return Evidence(
            found["key"], found["step"], found["value"], _LEFT * found["level"], "warn" if back else "collapsed", kind, back,
            onset=(found["low"], found["step"]), says=says,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        return {"rows": [dict(row) for row in self.rows], "found": self.found, "tail": list(self.tail)}

    def load(self, state: Mapping[str, Any]) -> None:
        self.rows, self.found, self.tail = [dict(row) for row in state["rows"]], state["found"], list(state["tail"])


def _grain(values: list[float]) -> float:
    """Smallest step between two values, or to 0 and 1."""
    steps = [abs(a - b) for a in values for b in (*values, 0.0, 1.0) if a != b]
    return min((step for step in steps if step > 1e-9), default=1.0)
