"""What is said of a run: evidence and verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

VerdictName = Literal["healthy", "warn", "collapsed", "unknown"]
Level = Literal["warn", "collapsed"]

FAILS_ON: Mapping[str, tuple[VerdictName, ...]] = {  # `--fail-on` -> the verdicts with exit code 3
    "collapsed": ("collapsed",),
    "warn": ("collapsed", "warn"),
    "unknown": ("collapsed", "warn", "unknown"),
    "never": (),
}


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
    onset: tuple[int, int] | None = None  # steps between which it began (95 %), where a sequential test says
    chance_rows: float | None = None  # by chance such evidence appears once in so many healthy rows
    correlation: float | None = None  # of neighbouring rows, where it is so high that how often by chance is not known
    says: str = ""  # what it means, as a clause

    def describe(self) -> str:
        """`answer_logprob -41 (threshold -4.1) at step 999`."""
        back = ", recovered since" if self.recovered else ""
        return (
            f"{self.name} {self.value:.4g} (threshold {self.threshold:.4g}) at step {self.step}{self.between}{back}{self.rarity}"
        )

    @property
    def between(self) -> str:
        """` (95 % 101 to 110)`, or nothing."""
        return "" if self.onset is None or self.onset[0] == self.onset[1] else f" (95 % {self.onset[0]} to {self.onset[1]})"

    @property
    def rarity(self) -> str:
        """`; by chance once in 20,000 rows`, that this is not known, or nothing."""
        if self.correlation is not None:
            return (
                f"; how often by chance is not known, as neighbouring rows are alike (correlation {self.correlation:.1f} or more)"
            )
        if self.chance_rows is None:
            return ""
        most = 1_000_000
        if self.chance_rows >= most:
            return f"; by chance less than once in {most:,} rows"
        return f"; by chance once in {round(self.chance_rows, 1 - len(str(int(self.chance_rows)))):,.0f} rows"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on the rows so far. `onset_step` is the first step of the gravest evidence; None where healthy or unknown."""

    verdict: VerdictName
    onset_step: int | None
    signals: tuple[Evidence, ...]
    rows: int = 0
    rising: bool = False  # accuracy is rising, so that nothing is called collapsed

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
        rising = ", but accuracy is rising" if self.rising else ""
        return f"{self.verdict}{rising} from step {self.onset_step}: {self.signals[0].says or self.signals[0].kind} ({what})"
