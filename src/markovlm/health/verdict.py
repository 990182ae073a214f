"""What is said of a run: evidence and verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from markovlm.health.thresholds import KINDS

VerdictName = Literal["healthy", "warn", "collapsed", "unknown"]
Level = Literal["warn", "collapsed"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One signal that is, or was, beyond its threshold. `step`, `value` and `threshold` belong to the row where it began."""

    name: str
    step: int
    value: float
    threshold: float
    level: Level
    kind: str = ""
    recovered: bool = False  # it was beyond the collapse threshold once and came back

    def describe(self) -> str:
        """`answer_logprob -41 (threshold -4.1) at step 999`."""
        back = ", recovered since" if self.recovered else ""
        return f"{self.name} {self.value:.4g} (threshold {self.threshold:.4g}) at step {self.step}{back}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on the rows so far. `onset_step` is the first step of the gravest evidence; None where healthy or unknown."""

    verdict: VerdictName
    onset_step: int | None
    signals: tuple[Evidence, ...]
    rows: int = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of collapse in order of onset, the gravest level first, without repeats."""
        return tuple(dict.fromkeys(e.kind for e in self.signals))

    def describe(self) -> str:
        """One line for a log or a terminal."""
        if self.verdict == "unknown":
            return f"unknown: {self.rows} rows, too few or without a usable signal"
        if not self.signals:
            return f"healthy over {self.rows} rows"
        what = "; ".join(e.describe() for e in self.signals[:4])
        return f"{self.verdict} from step {self.onset_step}: {KINDS.get(self.signals[0].kind, self.signals[0].kind)} ({what})"
