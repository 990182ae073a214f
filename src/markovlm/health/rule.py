"""One rule: what it looks at, row by row and in hindsight, what it means, and what to do about it.

A rule is written once, in the file of its family in `rules/`. The guard and `watch` run its `live` tests, `diagnose` and `report` its `check` too;
verdict, cause, advice, the table in docs/metrics.md and what is said of several runs together are all made from the same record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from markovlm.health.thresholds import Threshold
from markovlm.health.tracks import Watched

if TYPE_CHECKING:
    from markovlm.health.case import Case

Confidence = Literal["high", "medium", "low"]
Weight = Literal["note", "caution", "problem"]  # how much a finding should worry the reader
SURE: Mapping[Confidence, int] = {"high": 0, "medium": 1, "low": 2}
GRAVE: Mapping[Weight, int] = {"problem": 0, "caution": 1, "note": 2}
Explains = Literal["", "settings", "mechanism", "summary", "fallback"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a rule found: `evidence` is a sentence with the numbers in it, `step` where it began.

    `advice` replaces the rule's own if the numbers of this run say more.
    """

    rule: str
    evidence: str
    confidence: Confidence
    weight: Weight = "note"
    step: int | None = None
    advice: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    `explains` says whether it may be the cause of what is seen: `settings` (the run's own configuration is to blame), `mechanism` (something moved;
    what moved first is the cause, what followed its consequence), `summary` (says only what happened), `fallback` (a collapse that nothing else
    explains).
    """

    name: str
    sentence: str  # what it means, as a clause
    looks_at: str = ""
    fires: str = ""
    confidence: str = ""  # where its confidence comes from
    live: tuple[Threshold | Watched, ...] = ()  # tests row by row
    check: Callable[[Case], Iterable[Finding]] | None = None  # in hindsight
    explains: Explains = ""
    cause: str = ""  # its name in `cause`, where that is another
    advice: tuple[str, ...] = ()  # names of knobs (`advice.KNOBS`) and sentences, in order
    doubt: str = ""  # the doubt it casts on a run that did not collapse, in two or three words
    plural: str = ""  # of several runs: they …
    warns: Confidence | None = None  # at this confidence a run that looked healthy is a warning
    seen: tuple[str, ...] = ()  # issue threads where people met it

    @property
    def as_cause(self) -> str:
        return self.cause or self.name
