"""Which of the things that were found is the cause: what moved first. What followed is its consequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markovlm.health.advice import advice_of
from markovlm.health.case import Case
from markovlm.health.rule import GRAVE, SURE, Explains, Finding
from markovlm.health.rules import RULE, RULES

_KIND: Mapping[Explains, int] = {"settings": 0, "mechanism": 1, "summary": 2, "fallback": 3, "": 4}
_PLACE = {rule.name: n for n, rule in enumerate(RULES)}
TOGETHER = 2  # rows within which two things moved at once


@dataclass(frozen=True, slots=True)
class Cause:
    """The most likely cause. `sentence` says what it means, with this run's numbers; `rule` is the record that it is of."""

    name: str
    sentence: str
    advice: tuple[str, ...]
    rule: str


@dataclass(frozen=True, slots=True)
class CauseEvent:
    """One thing that happened, in the order of appearance."""

    step: int
    rule: str
    what: str


def explaining(case: Case, found: Sequence[Finding]) -> list[Finding]:
    """The findings that may be the cause, the most likely first."""
    candidates = [f for f in found if RULE[f.rule].explains and (f.weight != "note" or RULE[f.rule].explains == "summary")]
    lost = case.loss_of_outcome
    late = lost.onset[1] if lost is not None and lost.onset is not None else lost.step if lost is not None else None
    if case.collapsed:
        candidates = [f for f in candidates if _kind(f) != 2 and not (case.outcome_lost and f.rule in _SAY_THE_LOSS)]
        if late is not None:  # what moved after the outcome was lost did not lose it
            candidates = [f for f in candidates if f.step is None or _kind(f) != 1 or f.step <= late + TOGETHER * case.spacing]
    else:
        candidates = [f for f in candidates if _kind(f) != 3]
    first = min((f.step for f in candidates if f.step is not None and _kind(f) == 1 and GRAVE[f.weight] == 0), default=0)

    def order(f: Finding) -> tuple[int, int, int, int, int]:
        kind = _kind(f)
        if kind == 1:  # mechanisms by appearance, those that moved at once by their place in the table
            rows = 0 if f.step is None else max(0, f.step - first) // (case.spacing * (TOGETHER + 1))
            return (kind, GRAVE[f.weight], rows, _PLACE[f.rule], 0)
        return (kind, SURE[f.confidence], GRAVE[f.weight], _PLACE[f.rule], 0)

    return sorted(candidates, key=order)


def _kind(f: Finding) -> int:
    """Settings that are surely to blame before what moved, that before what only describes."""
    rule = RULE[f.rule]
    if rule.explains == "fallback" and f.confidence != "low":
        return 0
    if rule.explains == "settings" and f.confidence == "low":
        return 3
    return _KIND[rule.explains]


def cause_of(case: Case, finding: Finding) -> Cause:
    """The cause that a finding is."""
    rule = RULE[finding.rule]
    with_numbers = f"{rule.sentence} ({finding.evidence})" if rule.explains == "mechanism" else rule.sentence
    return Cause(rule.as_cause, with_numbers, advice_of(finding.advice or rule.advice, case), rule.name)


def consequences(case: Case, cause: Finding, found: Sequence[Finding]) -> list[Finding]:
    """The mechanisms that moved with the cause or after it: what it brought about, not to be treated by themselves."""
    if RULE[cause.rule].explains != "mechanism" or cause.step is None:
        return []
    spoilt = ("summary", "mechanism")
    return [
        f
        for f in found
        if f is not cause
        and (RULE[f.rule].explains in spoilt or f.rule in _FOLLOW)
        and f.rule not in _OWN
        and (f.step is None or f.step >= cause.step - TOGETHER * case.spacing)
    ]


_SAY_THE_LOSS = ("groups_hopeless",)  # that all are wrong now is the loss itself, not its cause
_FOLLOW = ("idle_groups", "plateau", "cannot_tell")  # say nothing beside a mechanism
# matters by themselves
_OWN = ("held_out_fell", "best_by_reward", "copies_question", "ignores_question", "copies_answer", "sampler_mismatch")


def events(case: Case, found: Sequence[Finding]) -> tuple[CauseEvent, ...]:
    """What moved, in the order of appearance: mechanisms, and the loss of what the run is for."""
    happened = [
        CauseEvent(f.step, f.rule, RULE[f.rule].sentence)
        for f in found
        if f.step is not None
        and RULE[f.rule].explains == "mechanism"
        and (f.weight != "note" or f.rule == "truncation")
        and not (case.outcome_lost and f.rule in _SAY_THE_LOSS)
    ]
    known = {event.rule for event in happened}
    happened += [
        CauseEvent(e.step, e.kind, e.says)
        for e in case.verdict.signals
        if e.kind not in known
        and not e.recovered
        and (e.level == "collapsed" or e.kind in ("reward_crash", "accuracy_crash", "logprob_crash"))
    ]
    unique: dict[str, CauseEvent] = {}
    for event in sorted(happened, key=lambda event: (event.step, _PLACE[event.rule])):
        unique.setdefault(event.rule, event)
    return tuple(unique.values())
