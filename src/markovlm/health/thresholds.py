"""What counts as an alarm in a row: a threshold, fixed by reasoning, with its reason. The rules of `rules/` have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Measure = Literal["value", "below_early", "below_best", "fraction_of_best", "times_early"]


@dataclass(frozen=True, slots=True)
class Threshold:
    """One row of the table: when a signal is beyond its threshold, for how long, and what that means."""

    signal: str  # name of the metric (or of a derived signal, see `monitor._derive`)
    measure: Measure  # how `warn` and `collapse` are to be read
    comparison: Literal["above", "below"]
    warn: float | None
    collapse: float | None
    needed: int  # this many …
    rows: int  # … of this many rows that carry the signal
    reason: str
    floor: float = 0.0  # `times_early`: the value must also exceed this times the factor
    gain_excuses: bool = False  # with a clear gain over the early level: a warning at most
    solved_excuses: bool = False  # silent while the answers are right
    kind: str = ""  # the rule's name, which is the kind of collapse it shows
    says: str = ""  # the rule's sentence
