"""What the CoTs say: one character or phrase over and over, the answer bare, the question again, nothing about the question."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from markovlm.health.advice import BEFORE
from markovlm.health.case import Case, percent
from markovlm.health.levels import levels
from markovlm.health.rule import Finding, Rule
from markovlm.health.samples import COPIES, alike_at_the_end
from markovlm.health.thresholds import Threshold
from markovlm.logs.records import LoggedSample


def _late(samples: Sequence[LoggedSample]) -> list[LoggedSample]:
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
        )


_WORD = re.compile(r"\w+")


def _is_bare_answer(sample: LoggedSample) -> bool:
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


def degenerate(case: Case) -> Iterable[Finding]:
    found = [e for e in case.verdict.signals if e.kind in ("repeated_character", "repetition") and e.level == "collapsed"]
    if found and case.collapsed:
        first = min(found, key=lambda e: e.step)
        yield Finding("degenerate_text", "; ".join(e.describe() for e in found[:2]), "medium", "problem", first.step)


def garbage_is_paid(case: Case) -> Iterable[Finding]:
    """The text has lost its content and the reward has not noticed."""
    if case.outcome_lost:
        return
    distinct, packed = case.now("distinct_bigram_fraction"), case.now("compression_ratio")
    seen = []
    if distinct is not None and distinct < 0.35:
        seen.append(f"distinct bigrams {distinct:.3g}")
    if packed is not None and packed < 0.15:
        seen.append(f"CoTs compress to {packed:.3g}")
    run, length = case.now("longest_char_run") or 0.0, case.now("cot_length") or 100.0
    if run >= 20 and run / max(length, 1.0) > 0.5 and (distinct or 0.0) < 0.5:
        seen.append(f"one character {run:.0f} times in a row")
    outcome = next(
        (
            key
            for key in ("answer_correct_fraction", "reward_mean", "answer_logprob", "normalized_reward_mean")
            if case.now(key) is not None
        ),
        None,
    )
    if not seen or outcome is None:
        return
    first = min((e.step for e in case.verdict.signals if e.kind in ("repeated_character", "repetition")), default=None)
    yield Finding(
        "garbage_is_paid",
        f"{', '.join(seen)}, while {outcome} is {case.now(outcome):.3g} (early {case.early(outcome):.3g})",
        "medium",
        "problem",
        first,
    )


RULES = (
    Rule(
        "repeated_character",
        "the CoT repeats one character",
        live=(
            Threshold(
                "char_run_share", "value", "above", 0.3, 0.5, 4, 5,
                "Longest run of one character, of at least 20, divided by the number of CoT tokens (by 100 if the "
                "length is not logged). A token is one to four characters, so 0.5 is an eighth to a half of a CoT. "
                "Counted only if the group's bigrams agree: a line of dashes in one sample is no collapse.",
                solved_excuses=True,
            ),
        ),
    ),
    Rule(
        "repetition",
        "the CoT repeats itself",
        live=(
            Threshold(
                "distinct_bigram_fraction", "value", "below", 0.35, 0.2, 4, 5,
                "Prose has 0.9, running sums of digits 0.6 and more, a repeated phrase of ten words 0.16, one character 0.02.",
                solved_excuses=True,
            ),
            Threshold(
                "compression_ratio", "value", "below", 0.2, 0.1, 4, 5,
                "Prose compresses to 0.5, long running sums to 0.2 in the worst case, loops to 0.05.",
                solved_excuses=True,
            ),
        ),
    ),
    Rule(
        "garbage_is_paid",
        "the text has no content but the reward stays: the reader has learned the answers, or the question leaks",
        "repetition, outcomes",
        "few distinct bigrams, high compression or one repeated character, with the outcome kept",
        "medium: counts",
        check=garbage_is_paid,
        explains="mechanism",
        advice=(
            "read completions alongside their rewards: does the reward see the question, or the answer in the prompt?",
            "evaluate with a reader that was not trained",
            "kl",
        ),
        doubt="garbage rewarded",
        plural="are rewarded for garbage",
        warns="medium",
        seen=("https://github.com/verl-project/verl/issues/628", "https://github.com/modelscope/ms-swift/issues/3372"),
    ),
    Rule(
        "degenerate_text",
        "the CoT lost its content",
        "repetition",
        "a live test of repetition at its collapse level",
        "medium: counts",
        check=degenerate,
        explains="mechanism",
        advice=("kl", "lower objective.actor_reward_weight at the start", BEFORE, "rate"),
        plural="lost their content",
    ),
    Rule(
        "copies_question",
        "the CoT restates its question instead of reasoning, which carries the question past its redaction",
        "numbers and n-grams of the question in its CoT",
        "until the end, over half of the CoTs restate their question, lack the answer and add little",
        "high if over four fifths do",
        live=(
            Threshold(
                "copies_question_fraction", "value", "above", 0.8, None, 18, 20,
                "Four of five CoTs repeat their question, lack the answer and add little. Base models do so on sums "
                "before they learn to calculate; with one sample per row, in seven of ten rows. Hence eighteen of "
                "twenty rows are required.",
            ),
        ),
        check=copies_question,
        explains="summary",
        doubt="question copied",
        plural="end by copying their question",
        warns="high",
    ),
    Rule(
        "ignores_question",
        "the CoT would fit any question, so it holds no reasoning",
        "numbers and words of its own question and of another",
        "until the end, CoTs contain no more of their own question than of another, and not the answer",
        "high if it was different at the start",
        live=(
            Threshold(
                "question_specificity", "value", "below", 0.05, None, 18, 20,
                "The CoT contains as much of another question as of its own. CoTs that reason about word problems have "
                "0.5 and more, sums 0.9. A bare answer also has 0, and is fine.",
                solved_excuses=True,
            ),
        ),
        check=ignores_question,
        explains="summary",
        doubt="question ignored",
        plural="end with CoTs that would fit any question",
        warns="high",
    ),
    Rule(
        "copies_answer",
        "the CoT states the answer without reasoning",
        "late samples",
        "over half are little more than the answer",
        "medium: from a selection of samples",
        check=copies_answer,
        explains="summary",
        advice=("check fragility (markovlm perturb): an answer without reasoning is a code, not an explanation",),
        doubt="no reasoning",
    ),
)  # fmt: skip
