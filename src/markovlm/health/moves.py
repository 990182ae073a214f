"""When did a signal leave the level it began at? The order in which signals moved is the order of cause and consequence.

A move is a change that stays for three rows, from the level of the first rows (at most eight, and only those before the change: a run may
break in its second row), and of the twenty rows after it most are not back at that level: what heals is no move. It is large against a stated
bound and against the noise between neighbouring rows, so no test is needed for a single signal; whether the run is ill at all is said elsewhere.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from markovlm.health.series import Course, noise

EARLY = 8  # rows of the early level at most
HEALS = 20  # rows within which a change is looked at for healing
STAYS = 3  # rows that a change must stay for (two, where the log ends)
_NOISE = 4.0  # standard deviations of a row


@dataclass(frozen=True, slots=True)
class Move:
    """A signal left its early level between the rows at `low` and `step`, from `before` to `after` (median of the rows that follow, at most five)."""

    key: str
    step: int
    low: int
    before: float
    after: float
    peak: float  # furthest it went in the direction of the move
    row: int  # index in the course

    def told(self) -> str:
        """`from 0.25 to 5.9`"""
        return f"from {self.before:.3g} to {self.after:.3g}"


def rise(c: Course | None, *, factor: float = 1.0, by: float = 0.0, least: float = -np.inf, dies: bool = False) -> Move | None:
    """The first lasting rise to `factor` times the early level and `by` above it, at least to `least`. `dies`: an end far under the early level
    is no healing (an entropy that explodes may end at 0)."""
    return None if c is None else _move(c, factor, by, least, up=True, dies=dies)


def fall(c: Course | None, *, factor: float, most: float) -> Move | None:
    """The first lasting fall under `factor` times the early level, at most at `most`."""
    return None if c is None else _move(c, factor, 0.0, most, up=False)


def _move(c: Course, factor: float, by: float, bound: float, up: bool, dies: bool = False) -> Move | None:
    values, n = c.values, len(c)
    if n < 3:
        return None

    def levels(r: int) -> tuple[float, float]:
        """The level before row `r`, and what counts as moved: the same of all rows behind the first `3 * EARLY`."""
        before = float(np.median(values[: min(r, EARLY)]))
        spread = noise(values[: min(r, 3 * EARLY)])
        if up:
            return before, max(before * factor if before > 0 else before, before + by, before + _NOISE * spread, bound)
        return before, min(before * factor if before > 0 else before, before - by, before - _NOISE * spread, bound)

    settled = min(3 * EARLY, n)
    early = ((r, *levels(r)) for r in range(1, min(settled, n - 1)))
    last = levels(settled)
    beyond = ~(values[settled : n - 1] < last[1] if up else values[settled : n - 1] > last[1])
    for r, before, limit in itertools.chain(early, ((settled + int(k), *last) for k in np.flatnonzero(beyond))):
        stays = values[r : r + STAYS]
        if len(stays) < min(STAYS, n - r) or (stays.min() < limit if up else stays.max() > limit):
            continue
        if _healed(values[r : r + HEALS], before, limit, up, dies):
            continue
        after = values[r : r + 5]
        peak = float(values[r:].max() if up else values[r:].min())
        return Move(c.key, int(c.steps[r]), int(c.steps[r - 1]) + 1, before, float(np.median(after)), peak, r)
    return None


def _healed(values: np.ndarray, before: float, limit: float, up: bool, dies: bool) -> bool:
    """Is more than half of the rows back at the level before?"""
    release = before + 0.5 * (limit - before)
    back = values < release if up else values > release
    if dies:
        back &= values > 0.5 * before
    return bool(back.mean() > 0.5)


def left_at(c: Course, move: Move, bound: float) -> int:
    """Step of the first row from which a signal stayed over `bound` until it had moved."""
    under = np.flatnonzero(c.values[: move.row] < bound)
    return int(c.steps[int(under[-1]) + 1 if len(under) else 0])
