"""A sequential test for a fall of one signal: Page's CUSUM in nats, with a stated mean time between false alarms.

With x a row, m the level the run had reached, s its long-run standard deviation and D the drop that matters (half of the reward, a nat
of log-prob, ...), k = D / s and z = (m - x) / s, every row adds the log-likelihood ratio of "fallen by 2 D" against "as it was",

    L <- max(0, L + min(2 k (z - k), CAP))

(Page 1954; Lorden 1971: no test with the same time between false alarms is quicker in the worst case). L grows only while rows lie more
than D below the level, so an alarm means that D is lost, not merely that something moved; how long it takes follows from the run's own
noise. Under no change L exceeds h about once in exp(h) rows; `benchmarks/calibrate_alarms.py` measures how often it really does, on rows with heavy
tails, autocorrelation, trends and few samples, its level and noise estimated as here, and ships the answer. CAP makes one row worth at most 5 nats:
no spike is an alarm, whatever its size.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markovlm.health.alarm_levels import LEVELS
from markovlm.health.noise import Noise

CAP = 5.0  # nats that one row may add
MOST = 30.0  # nats kept, so that a run that recovers is seen to recover
SUSPECTED = 2.0  # nats of the small drop from which rows no longer move the level ...
HELD = 40  # ... for this many rows
KEPT = 100  # rows kept to place the onset
LIKELY = 4.0  # nats under the best; an interval of 2 nats held 84 to 87 % of 1,000 simulated changes of 1.5 deviations, 4 held 95 to 96 %
LEAST_ROWS = 5  # rows before anything is tested
LEAST_K = 0.2  # a drop of less than a fifth of a row's noise is not looked for


def rows_between(nats: float, k: float) -> float:
    """Mean number of healthy rows between two false alarms at this level: how rarely such evidence appears by chance."""
    intercept, slope = _line(k)
    return math.exp(min(intercept + slope * nats, 60.0))


def nats_for(rows: float, k: float) -> float:
    """The alarm level with `rows` healthy rows between false alarms."""
    intercept, slope = _line(k)
    return max((math.log(rows) - intercept) / slope, 1.0)


def _line(k: float) -> tuple[float, float]:
    for most, intercept, slope in LEVELS:
        if k <= most:
            return intercept, slope
    return LEVELS[-1][1:]


class Onset(NamedTuple):
    """Where a change began: the likeliest step, and the steps that are nearly as likely (95 %)."""

    step: int
    low: int
    high: int


class Fall:
    """CUSUMs of one signal that must not fall: drops of `D` (collapse) and of half of it (warning)."""

    __slots__ = ("held", "nats", "noise", "recent")

    def __init__(self, floor: float) -> None:
        self.noise = Noise(floor)
        self.nats = [0.0, 0.0]  # of the small drop, of the large one
        self.held = 0
        self.recent: deque[tuple[int, float]] = deque(maxlen=KEPT)

    @property
    def reference(self) -> float:
        """The level a fall is measured from: the best reliable one."""
        return self.noise.best

    def add(self, step: int, value: float, drop: float) -> tuple[float, float]:
        """Take one row; `drop` is the loss that counts as a collapse. Returns k of the small and the large drop."""
        noise = self.noise
        small = large = 0.0
        if noise.rows >= LEAST_ROWS and drop > 0.0 and noise.best > -math.inf:
            z = (noise.best - value) / noise.long_sd
            large = drop / noise.long_sd
            small = 0.5 * large
            nats = self.nats
            if large >= LEAST_K:
                nats[1] = _added(nats[1], large, z)
            if small >= LEAST_K:
                nats[0] = _added(nats[0], small, z)
        self.recent.append((step, value))
        suspected = self.nats[0] >= SUSPECTED
        self.held = self.held + 1 if suspected else 0
        noise.add(value, not suspected or self.held > HELD)
        return small, large

    def onset(self) -> Onset:
        """The likeliest first row of the fall among the last hundred, and the steps within 4 nats of it.

        Likelihood of a change of mean from the reference to the mean of the last rows, noise as estimated (Hinkley 1970); rows are cut at
        four standard deviations. A row that is a mean over several steps stands for all of them: the interval begins after the row before.
        """
        return place(list(self.recent), self.reference, self.noise.long_sd)

    def state(self) -> dict[str, Any]:
        return {
            "noise": self.noise.state(),
            "nats": list(self.nats),
            "held": self.held,
            "recent": [list(row) for row in self.recent],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.noise.load(state["noise"])
        self.nats, self.held = list(state["nats"]), state["held"]
        self.recent = deque(((step, value) for step, value in state["recent"]), maxlen=KEPT)


def _added(nats: float, k: float, z: float) -> float:
    """L after one more row."""
    gained = 2.0 * k * (z - k)
    nats += gained if gained < CAP else CAP
    return 0.0 if nats < 0.0 else nats if nats < MOST else MOST


def place(rows: Sequence[tuple[int, float]], before: float, sd: float) -> Onset:
    """Onset of a change from level `before` in rows (step, value) in order; the level after it is that of the rows since."""
    tail = sorted(value for _, value in rows[-3:])
    after = tail[len(tail) // 2]
    scores = _change_at(rows, before, after, sd)
    best = max(range(len(scores)), key=scores.__getitem__)
    since = [value for _, value in rows[best:]]
    scores = _change_at(rows, before, sum(since) / len(since), sd)
    best = max(range(len(scores)), key=scores.__getitem__)
    likely = [at for at, score in enumerate(scores) if score >= scores[best] - LIKELY]
    first, last = likely[0], likely[-1]
    return Onset(rows[best][0], rows[first - 1][0] + 1 if first else rows[0][0], rows[last][0])


def _change_at(rows: Sequence[tuple[int, float]], before: float, after: float, sd: float) -> list[float]:
    """Log-likelihood of a change of mean at each row, up to a constant."""
    score, scores = 0.0, []
    for _, value in reversed(rows):
        z0, z1 = (value - before) / sd, (value - after) / sd
        score += 0.5 * (min(z0 * z0, 16.0) - min(z1 * z1, 16.0))
        scores.append(score)
    return scores[::-1]
