"""How load-bearing each unit of a CoT is for an answer, and the same over many CoTs. Pure: numbers in, JSON out.

    drop = ln pi(a | z) - ln pi(a | z without the unit)        nats per answer token

Positive: the unit is load-bearing for that answer. Negative: the answer is more likely without it. Exact occlusion, one unit at a time
(Zeiler & Fergus 2014, arXiv 1311.2901; Li et al. 2016, arXiv 1612.08220), so what two units both carry shows in neither: drops don't
add up to the effect of the whole CoT.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from markovlm.analysis.units import KINDS, By
from markovlm.statistics import cluster_mean_ci

How = Literal["remove", "replace"]

TENTHS = 10
TOP_UNITS = 3  # of a CoT
TOP_EXAMPLES = 5  # of a study


@dataclass(frozen=True, slots=True)
class UnitDrop:
    """One unit and the drop without it: `UnitDrop(" 21", "number", 0.5, 1.23)`."""

    text: str
    kind: str  # of units.KINDS
    start: float  # fraction of the CoT's tokens before its first one, 0..1
    drop: float  # nats per answer token
    # of a unit replaced by filler: the drop when as much filler is put before it and nothing is taken away
    filler: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.drop):
            raise ValueError(f"the drop of unit {self.text!r} is {self.drop}, not a number")
        if not 0 <= self.start <= 1:
            raise ValueError(f"unit {self.text!r} starts at {self.start}: must be a fraction between 0 and 1")


@dataclass(frozen=True, slots=True)
class Attribution:
    """One CoT explained towards one answer. A wrong answer has two: towards the gold answer and towards its own."""

    id: str  # of the question
    question: str
    gold: str
    choices: tuple[str, ...]
    cot: str
    answer: str  # greedy text read from the CoT
    extracted: str | None  # None: no answer found in it
    correct: bool | None  # None: not judged
    target: str  # the text whose likelihood is explained
    logprob: float  # ln pi(target | CoT), per answer token
    units: tuple[UnitDrop, ...]  # in the CoT's order
    how: How
    by: By

    def __post_init__(self) -> None:
        if not math.isfinite(self.logprob):
            raise ValueError(f"the log-probability of question {self.id} is {self.logprob}, not a number")

    def top(self) -> list[int]:
        """Indices in `units` of the largest drops, largest first; equal ones in the CoT's order. Units without a drop are left out."""
        bearing = [i for i in range(len(self.units)) if self.units[i].drop > 0]
        return sorted(bearing, key=lambda i: -self.units[i].drop)[:TOP_UNITS]

    def hurting(self) -> int | None:
        """Index in `units` of the lowest drop, if it is below zero: without that unit the answer is more likely."""
        lowest = min(range(len(self.units)), key=lambda i: self.units[i].drop, default=None)
        return lowest if lowest is not None and self.units[lowest].drop < 0 else None

    def to_json(self) -> dict[str, Any]:
        """The attribution as JSON values."""
        row = asdict(self)
        return row | {"choices": list(row["choices"]), "units": list(map(_unit_row, self.units))}


def _unit_row(unit: UnitDrop) -> dict[str, Any]:
    """`filler` only of units that were replaced."""
    return {key: value for key, value in asdict(unit).items() if key != "filler" or value is not None}


# ------------------------------------------------------------------------------------------------------ over many CoTs


@dataclass(frozen=True, slots=True)
class _Placed:
    """A unit with the question it belongs to."""

    question: str
    unit: UnitDrop


def aggregate(attributions: Sequence[Attribution], seed: int) -> dict[str, Any]:
    """Which kinds of unit are load-bearing, and where in the CoT.

    Give one target a CoT: drops towards the gold answer and towards a wrong one answer different questions. Means are
    over units, intervals from a bootstrap that draws whole questions (95 %, percentile). Bounds are null where a row has units
    of one question only. `share`: of the sum of all positive drops, null where none is positive. Where units were replaced, rows have
    `filler` as well: the mean drop by as much filler with nothing taken away, which a unit that bears nothing costs too.

        {"by", "how", "attributions", "questions", "units", "seed",
         "by_kind": [{"kind", "units", "questions", "drop": {"mean", "ci95": [low, high]}, "share", "share_of_units"}],
         "by_position": [{"from", "to", "units", "questions", "drop": {...}}],             ten tenths
         "top_examples": [{"id", "question", "gold", "target", "correct", "logprob", "units": [{"text", "kind", "start", "drop"}]}]}

    ValueError where words and sentences, or removals and replacements, are mixed.
    """
    by, how = _the_only({a.by for a in attributions}, "by"), _the_only({a.how for a in attributions}, "how")
    placed = [_Placed(a.id, unit) for a in attributions for unit in a.units]
    return {
        "by": by,
        "how": how,
        "attributions": len(attributions),
        "questions": len({a.id for a in attributions}),
        "units": len(placed),
        "seed": seed,
        "by_kind": _by_kind(placed, seed),
        "by_position": _by_position(placed, seed),
        "top_examples": _top_examples(attributions),
    }


def _the_only(values: set[str], name: str) -> str | None:
    if len(values) > 1:
        raise ValueError(f"attributions with {name} = {', '.join(sorted(values))} can't be put in one table")
    return next(iter(values), None)


def _by_kind(placed: Sequence[_Placed], seed: int) -> list[dict[str, Any]]:
    """One row a kind, the one with the largest share first."""
    total = _load(placed)
    rows: list[dict[str, Any]] = []
    for kind in sorted({p.unit.kind for p in placed}, key=_rank):
        own = [p for p in placed if p.unit.kind == kind]
        share = _load(own) / total if total > 0 else None
        rows.append({"kind": kind, **_summary(own, seed), "share": share, "share_of_units": len(own) / len(placed)})
    return sorted(rows, key=lambda row: -(row["share"] or 0.0))


def _by_position(placed: Sequence[_Placed], seed: int) -> list[dict[str, Any]]:
    """Always ten rows."""
    tenths: list[list[_Placed]] = [[] for _ in range(TENTHS)]
    for p in placed:
        tenths[min(int(p.unit.start * TENTHS), TENTHS - 1)].append(p)
    return [{"from": i / TENTHS, "to": (i + 1) / TENTHS, **_summary(own, seed)} for i, own in enumerate(tenths)]


def _summary(placed: Sequence[_Placed], seed: int) -> dict[str, Any]:
    found = cluster_mean_ci([p.unit.drop for p in placed], [p.question for p in placed], seed)
    drop = {"mean": _or_null(found.mean), "ci95": [_or_null(found.low), _or_null(found.high)]}
    row = {"units": len(placed), "questions": len({p.question for p in placed}), "drop": drop}
    beside = [(p.unit.filler, p.question) for p in placed if p.unit.filler is not None]
    if beside:
        found = cluster_mean_ci([value for value, _ in beside], [question for _, question in beside], seed)
        row["filler"] = {"mean": _or_null(found.mean), "ci95": [_or_null(found.low), _or_null(found.high)]}
    return row


def _top_examples(attributions: Sequence[Attribution]) -> list[dict[str, Any]]:
    """The CoTs with the largest single drop, with their top units."""
    shown = sorted((a for a in attributions if a.units), key=lambda a: -max(unit.drop for unit in a.units))[:TOP_EXAMPLES]
    return [
        {
            "id": a.id,
            "question": a.question,
            "gold": a.gold,
            "target": a.target,
            "correct": a.correct,
            "logprob": a.logprob,
            "units": [_unit_row(a.units[i]) for i in a.top()],
        }
        for a in shown
    ]


def _load(placed: Sequence[_Placed]) -> float:
    """Sum of the positive drops."""
    return math.fsum(max(p.unit.drop, 0.0) for p in placed)


def _rank(kind: str) -> tuple[int, str]:
    known = list(KINDS)
    return (known.index(kind) if kind in KINDS else len(known), kind)


def _or_null(value: float) -> float | None:
    return value if math.isfinite(value) else None
