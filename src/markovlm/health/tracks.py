"""Which signals are watched by the sequential test, what loss counts, and the alarms that come of it.

*Outcomes* say whether the run still does what it is for; only they can make a run `collapsed` here:

| signal | a collapse is the loss of | a warning |
|---|---|---|
| share of right answers, rewards that are never negative | half of the best level | a quarter |
| log-probs (nats per answer token) | 2 nats, and all that was gained and half a nat | half of that |
| rewards of either sign | half of what was gained, at least 3 deviations of a row (and the spread of a group) | half of that |

*Symptoms* warn: completions at the length limit, entropy that explodes, KL that runs away, a sampler that drifts from the trainer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from markovlm.health.detect import LEAST_K, SUSPECTED, Fall, Onset, nats_for, rows_between
from markovlm.health.verdict import Evidence, Level

# Mean number of healthy rows between false alarms of one signal. A run has one to four outcomes.
ROWS_BETWEEN: Mapping[Level, float] = {"warn": 50_000.0, "collapsed": 400_000.0}
_GONE = 4.0  # nats; less is no evidence of a fall that lasts
MOST_ROWS = 1e7  # rarer than this is not told apart
UNCALIBRATED = 0.65  # correlation of neighbouring rows above which the rate of false alarms was not measured (it was up to 0.6)
Scale = Literal["share", "nats", "reward", "rise", "log_rise"]


@dataclass(frozen=True, slots=True)
class Watched:
    """One signal under the sequential test."""

    signal: str
    scale: Scale
    floor: float  # least noise believed: of a share or in nats; of a reward as a share of its level
    drop: float = 0.0  # of a symptom: the rise that counts (a factor's logarithm on a log scale) ...
    least: float = 0.0  # ... and the level that three rows in a row must reach
    follows: bool = False  # risen above the level of the last rows; else above the lowest level of the run
    kind: str = ""  # the rule's name
    says: str = ""  # the rule's sentence

    @property
    def outcome(self) -> bool:
        """Whether it says if the run still does what it is for."""
        return self.scale in ("share", "nats", "reward")


class Track:
    """The test of one signal, and its alarms: on from enough evidence until the signal has been back for a while."""

    __slots__ = (
        "clear", "fall", "grain", "highest", "k", "last", "lowest", "most", "on", "on_rows", "recovered", "usual", "watched",
    )  # fmt: skip

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self.fall = Fall(watched.floor)
        self.k = (0.0, 0.0)
        self.on: dict[Level, dict[str, Any]] = {}
        self.on_rows = 0
        self.clear = 0
        self.most = 0.0  # nats of the strongest evidence in this alarm
        self.recovered: dict[str, Any] | None = None
        self.lowest, self.highest = math.inf, -math.inf  # values met
        self.grain = math.inf  # smallest step between values
        self.last = 0.0
        self.usual = 0.0  # noise of a row before a fall was suspected

    @property
    def rises(self) -> bool:
        return self.watched.scale in ("rise", "log_rise")

    @property
    def falling(self) -> bool:
        """Is a collapse on, and its evidence still there in the last rows?"""
        return "collapsed" in self.on and self.fall.nats[1] >= _GONE

    def add(self, step: int, value: float, spread: float = 0.0, tokens: float | None = None) -> None:
        """Take one row. `spread`: of a group's rewards; `tokens`: answer tokens that a log-prob reward sums over, None for other rewards."""
        fall = self.fall
        if not self.rises:
            self._note(value)
        inner = self._inner(value)
        if self.watched.follows and fall.noise.n:
            fall.noise.best = fall.noise.level
        drop = self._drop(spread, tokens)
        if fall.nats[0] < SUSPECTED:
            self.usual = fall.noise.sd
        self.k = fall.add(step, inner, drop)
        if not self.on and fall.nats[0] < 5.0 and fall.nats[1] < 5.0:
            return
        for i, level in enumerate(("warn", "collapsed")):
            k = self.k[i]
            if level not in self.on and k >= LEAST_K and fall.nats[i] >= nats_for(ROWS_BETWEEN[level], k) and self._enough(level):
                self._alarm(level, drop if i else 0.5 * drop)
        if self.on:
            self._keep()

    def _note(self, value: float) -> None:
        """Range and grain of an outcome, and the least noise they allow.

        Eight rows that are all 1.0 say nothing of their noise. The smallest step that was seen between two values (or to 0 and 1,
        of a share) is about that of one sample: m samples make a share in steps of 1 / m, whose noise is sqrt(p (1 - p) / m), p by
        Agresti and Coull's rule.
        """
        self.lowest, self.highest = min(self.lowest, value), max(self.highest, value)
        noise = self.fall.noise
        step = abs(value - self.last) if noise.rows else 0.0
        share = self.watched.scale == "share" or (self.watched.scale == "reward" and self.lowest >= 0.0 and self.highest <= 1.0)
        if 0.0 < step < self.grain:
            self.grain = max(step, 1e-6) if share else step
        self.last = value
        floor = self.watched.floor * (abs(noise.level) if self.watched.scale == "reward" else 1.0)
        if share:
            for step in (value, 1.0 - value):
                if 0.0 < step < self.grain:
                    self.grain = max(step, 1e-6)
            grain = min(self.grain, 1.0)
            n = min(noise.n, 24) / grain
            p = (noise.level * n + 2.0) / (n + 4.0)
            floor = max(floor, math.sqrt(max(p * (1.0 - p), 0.0) * grain))
        elif self.grain < math.inf:
            floor = max(floor, 0.3 * self.grain)
        noise.floor = max(floor, 1e-9)

    def _inner(self, value: float) -> float:
        """The value on the scale of the test, where down is bad."""
        if self.watched.scale == "log_rise":
            return -math.log(max(value, 1e-6))
        return -value if self.watched.scale == "rise" else value

    def _outer(self, inner: float) -> float:
        if self.watched.scale == "log_rise":
            return math.exp(min(-inner, 60.0))
        return -inner if self.watched.scale == "rise" else inner

    def _enough(self, level: Level) -> bool:
        """A symptom speaks once, as a warning, when its large rise is there and the level is high in itself."""
        if not self.rises:
            return True
        last = list(self.fall.recent)[-3:]
        high = all(self._outer(inner) >= self.watched.least for _, inner in last)
        return level == "warn" and high and self.fall.nats[1] >= nats_for(ROWS_BETWEEN["warn"], self.k[1])

    def _drop(self, spread: float, tokens: float | None) -> float:
        """The loss, on the scale of the test, that counts as a collapse."""
        watched, fall = self.watched, self.fall
        noise, reference = fall.noise, fall.noise.best
        if self.rises:
            return watched.drop
        if reference == -math.inf:
            return 0.0
        if watched.scale == "share":
            return 0.5 * reference
        gained = max(reference - noise.early, 0.0)
        if watched.scale == "nats":
            return max(2.0, gained + 0.5)
        if self.lowest >= 0.0:
            return 0.5 * reference
        if tokens is not None:
            return tokens * max(2.0, gained / tokens + 0.5)
        return max(0.5 * gained, 3.0 * self.usual, spread)

    def _alarm(self, level: Level, drop: float) -> None:
        onset, bound = self.fall.onset(), self.fall.noise.best - drop
        rows = [(step, value) for step, value in self.fall.recent if step >= onset.low]
        step, inner = next(((s, v) for s, v in rows if s >= onset.step and v < bound), rows[-1])
        self.on[level] = {
            "step": step, "value": self._outer(inner), "bound": self._outer(bound), "onset": list(onset),
        }  # fmt: skip
        self.on_rows = max(self.on_rows, len(rows))
        self.clear = 0

    def _keep(self) -> None:
        """An alarm ends when its evidence has been gone for twice the rows it was on (10 at least)."""
        i = 1 if "collapsed" in self.on or self.rises else 0
        self.most = max(self.most, rows_between(self.fall.nats[i], max(self.k[i], LEAST_K)))
        if self.fall.nats[i] >= _GONE:
            self.on_rows += 1
            self.clear = 0
            return
        self.clear += 1
        if self.clear < max(10, min(2 * self.on_rows, 60)):
            return
        if "collapsed" in self.on:
            self.recovered = self.on["collapsed"] | {"chance": self.most}
        self.on, self.on_rows, self.clear, self.most = {}, 0, 0, 0.0

    def evidence(self) -> Evidence | None:
        """The gravest alarm that is on; else a collapse that went by."""
        for level in ("collapsed", "warn"):
            if level in self.on:
                return self._evidence(self.on[level], level, self.most)
        if self.recovered is not None:
            return self._evidence(self.recovered, "warn", self.recovered["chance"], recovered=True)
        return None

    def _evidence(self, on: Mapping[str, Any], level: Level, chance: float, recovered: bool = False) -> Evidence:
        onset, phi = Onset(*on["onset"]), self.fall.noise.phi
        known = phi < UNCALIBRATED
        return Evidence(
            self.watched.signal, on["step"], on["value"], on["bound"], level, self.watched.kind, recovered, says=self.watched.says,
            onset=(min(onset.low, on["step"]), max(onset.high, on["step"])), chance_rows=min(chance, MOST_ROWS) if known else None,
            correlation=None if known else phi,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        return {
            "fall": self.fall.state(), "k": list(self.k), "on": {level: dict(on) for level, on in self.on.items()},
            "on_rows": self.on_rows, "clear": self.clear, "most": self.most, "recovered": self.recovered,
            "met": [self.last, self.usual, *(None if math.isinf(v) else v for v in (self.lowest, self.highest, self.grain))],
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        self.fall.load(state["fall"])
        self.k = (state["k"][0], state["k"][1])
        self.on = {level: dict(on) for level, on in state["on"].items()}
        self.on_rows, self.clear, self.most, self.recovered = state["on_rows"], state["clear"], state["most"], state["recovered"]
        self.last, self.usual, lowest, highest, grain = state["met"]
        self.lowest = math.inf if lowest is None else lowest
        self.highest = -math.inf if highest is None else highest
        self.grain = math.inf if grain is None else grain
