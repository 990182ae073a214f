"""Rules about what the CoTs say: the answer bare, the question again, nothing about the question."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from markovlm.health.levels import levels
from markovlm.health.rules.case import Case, Finding, percent
from markovlm.health.samples import COPIES, alike_at_the_end
from markovlm.logs.records import Sample


def _late(samples: Sequence[Sample]) -> list[Sample]:
    steps = sorted({s.step for s in samples})
    if not steps:
        return []
    bound = steps[-1] - (steps[-1] - steps[0]) / 3
    return [s for s in samples if s.step >= bound]


def copies_answer(case: Case) -> Iterable[Finding]:
    late = [s for s in _late(case.run.samples) if s.answer.strip()]
    if len(late) < 10:
        return
    copied = sum(_is_bare_answer(s) for s in late) / len(late)
    if copied > 0.5:
        yield Finding(
            "copies_answer",
            f"{percent(copied)} of {len(late)} late CoTs are little more than the answer",
            "medium",
            "caution",
            advice=("check fragility (markovlm perturb): an answer without reasoning is a code, not an explanation",),
        )


_WORD = re.compile(r"\w+")


def _is_bare_answer(sample: Sample) -> bool:
    """Is the CoT nothing but the answer, perhaps repeated or announced?"""
    answer, cot = sample.answer.strip().lower(), sample.cot.strip().lower()
    if not answer or answer not in cot:
        return False
    rest = [word for word in _WORD.findall(cot.replace(answer, " ")) if word not in ("answer", "the", "is", "final", "so")]
    return len(rest) <= 2


def copies_question(case: Case) -> Iterable[Finding]:
    """At the end most CoTs restate their question, lack the answer, and add little."""
    c = case.course("copies_question_fraction")
    stretch = _open_stretch(case, "copies_question")
    if c is None or stretch is None:
        return
    found = levels(c)
    held = case.course("cot_contains_answer")
    answer = f"; CoTs with the answer: {percent(levels(held).end.mean)}" if held is not None else ""
    as_before = found.start.mean >= COPIES and stretch <= found.start.last_step
    yield Finding(
        "copies_question",
        f"from step {stretch:,} on CoTs restate their question and add little: {percent(found.end.mean)} of the last "
        f"{found.end.rows:,} looked at, {percent(found.start.mean)} of the first{answer}"
        + (" (as before training)" if as_before else ""),
        "high" if found.end.mean >= 0.8 else "medium",
        "problem",
        stretch,
        (
            f"use no checkpoint from step {stretch:,} on: the question is carried past its redaction, there is no reasoning in it",
            "restart from before it with a higher objective.kl_weight, or a reader that cannot use the copy (objective.reader: frozen)",
        ),
    )


def ignores_question(case: Case) -> Iterable[Finding]:
    """At the end the CoTs would fit any question."""
    c = case.course("question_specificity")
    stretch = _open_stretch(case, "ignores_question")
    if c is None or stretch is None:
        return
    found = levels(c)
    like = alike_at_the_end(case.run.samples)
    alike = f"; late CoTs of different questions share {percent(like)} of their phrases" if like is not None else ""
    yield Finding(
        "ignores_question",
        f"from step {stretch:,} on CoTs would fit any question: they hold {100 * found.end.mean:.0f} points more of their own question's "
        f"numbers and words than of another's, {100 * found.start.mean:.0f} at the start{alike}",
        "high" if found.start.mean > 0.3 else "medium",
        "problem",
        stretch,
        (
            f"use no checkpoint from step {stretch:,} on: a CoT without its question cannot hold reasoning about it",
            "restart from before it with a lower training.lr or a higher objective.kl_weight",
        ),
    )


def _open_stretch(case: Case, rule: str) -> int | None:
    """First step of the stretch of a rule that lasts to the end of what was looked at."""
    key = "copies_question_fraction" if rule == "copies_question" else "question_specificity"
    c = case.course(key)
    last = None if c is None else int(c.steps[-1])
    return next((start for start, end, name in case.stretches if name == rule and end == last), None)
