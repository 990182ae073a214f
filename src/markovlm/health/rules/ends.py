"""Likelihood against accuracy: is the gold answer likely, and does the reply end there?

A reward that stops at the gold answer's last token is the likelihood of a prefix of the reply; accuracy decodes on. Where the reader
learns along, its replies come to run on: `85+5=94` for 85 (docs/likelihood-gap.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from markovlm.health.case import Case, percent, scored
from markovlm.health.rule import Finding, Rule
from markovlm.health.thresholds import Threshold

RUN_ON = 0.1  # share of replies from which likelihood and accuracy are said to part
PROMISED = 0.3  # accuracy that the log-prob promises beyond the interval of what was found
MOST_ANSWER_TOKENS = 4  # numbers and letters; a cautious exponent

ADVICE = (
    "train with objective.answer_end: scored: the end of the reply is then the last token of the gold answer",
    "read the replies that the evaluation kept: do right ones run on (1500 for 150, 85+5=94 for 85)?",
)
UNEXPLAINED_TESTS = (
    "evaluate the untrained base with the same command: if it scores higher, evaluation or loading is at fault",
    "check that the evaluated checkpoint is the trained one: KL to the base above 0, answer log-prob as in training",
    "evaluate with the reader of training (actor or frozen) and compare",
    "run every extractor on the stored outputs and read 20 on which none agrees with the gold answer (commas, units, early "
    "numbers)",
    "evaluate on training questions: a high score there means overfitting, a low one a different prompt or decoding",
    "use the prompt, CoT length, temperature and answer header of training in evaluation",
    "evaluate earlier checkpoints: the last need not be the best",
)
SUSPECTED = (
    *ADVICE,
    "count them: of the replies that begin with the gold answer, how many end there? Where they do end, suspect evaluation, loading or extraction:",
    *UNEXPLAINED_TESTS,
)


@dataclass(frozen=True, slots=True)
class Ends:
    """What was seen of the ends of replies, at the end of the run."""

    likeliest: float  # share that begin with all gold tokens
    run_on: float  # share that begin with them and go on
    where: str
    step: int


@dataclass(frozen=True, slots=True)
class Promise:
    """Accuracy that the answer's log-prob in training promises, against what evaluation found."""

    evidence: str
    excess: float  # over the upper end of the interval of what was found
    step: int


def likelihood_accuracy_gap(case: Case) -> Iterable[Finding]:
    seen = ends_seen(case)
    if seen is not None:
        if seen.run_on >= RUN_ON:
            yield Finding(
                "likelihood_accuracy_gap",
                f"{seen.where}, {percent(seen.likeliest)} of replies begin with all gold tokens and {percent(seen.run_on)} begin with them and "
                "run on",
                "high",
                "problem",
                seen.step,
                ADVICE,
            )
        return
    found = promise(case)
    if found is not None and not end_is_scored(case):
        sure = "high" if found.excess > 0.5 else "medium"  # of the gap; what explains it is open
        yield Finding("likelihood_accuracy_gap", found.evidence, sure, "problem", found.step, SUSPECTED)


def ends_seen(case: Case) -> Ends | None:
    """Of the last evaluation that looked, else of the last tenth of the rows; None if nothing did."""
    e = case.last
    if e is not None and e.likeliest is not None and e.run_on is not None:
        return Ends(e.likeliest, e.run_on, f"in the evaluation of step {e.step:,} (n = {e.n:,})", e.step)
    on, likeliest = case.course("answer_run_on_fraction"), case.course("answer_correct_fraction")
    if on is None or likeliest is None:
        return None
    late = max(1, len(on) // 10)
    where = f"over the last {late:,} logged steps (teacher-forced)"
    return Ends(float(likeliest.values[-late:].mean()), float(on.values[-late:].mean()), where, int(on.steps[-1]))


def end_is_scored(case: Case) -> bool:
    """Whether the run says that its reward ends where the reply ends."""
    return case.setting("objective.answer_end") == "scored"


def promise(case: Case) -> Promise | None:
    """None if the log-prob at the end of training promises no more than evaluation found, or one of them is not there."""
    c, e = case.course("answer_logprob"), case.last
    if c is None or e is None or case.collapsed:
        return None
    level = float(c.values[-max(1, len(c) // 10) :].mean())
    promised = math.exp(MOST_ANSWER_TOKENS * min(level, 0.0))
    high = e.score.high if e.score.high is not None else e.score.accuracy
    if promised - high <= PROMISED:
        return None
    evidence = (
        f"training ended with ln pi(answer | CoT) = {level:.3g} per token, a right answer in about {percent(promised)} of cases or more; "
        f"evaluation found {scored(e)}"
    )
    return Promise(evidence, promised - high, e.step)


def unexplained_accuracy(case: Case) -> Iterable[Finding]:
    """Stable training whose answer log-prob promises much more than evaluation finds, though the end of the reply was scored or seen."""
    found = promise(case)
    if found is not None and (end_is_scored(case) or ends_seen(case) is not None):
        sure = "high" if found.excess > 0.5 else "medium"
        yield Finding("unexplained_accuracy", found.evidence, sure, "problem", found.step, UNEXPLAINED_TESTS)


RULES = (
    Rule(
        "answers_run_on",
        "the reply gives the gold answer and then runs on",
        live=(
            Threshold(
                "answer_run_on_fraction", "value", "above", 0.1, None, 4, 5,
                "For one CoT in ten, the reader's most likely tokens are the gold answer but not the end of the reply: "
                "the reward is high and the reply is wrong (`85+5=94` for 85). When the end of the reply is scored, the "
                "share stays under 0.01; a study of both: docs/likelihood-gap.md.",
            ),
        ),
    ),
    Rule(
        "likelihood_accuracy_gap",
        "likelihood and accuracy diverge: nothing shows that the reward makes the reply end where the answer ends, so "
        "answers run on, or are lost between model and extractor",
        "replies that begin with the gold answer and do not end there; else answer log-prob in training and last accuracy",
        "one in ten runs on; or, if the end of the reply was not scored, the log-prob promises 30 points more than the "
        "interval's upper end",
        "high if the ends were seen, or over 50 points (what explains the gap is then open)",
        check=likelihood_accuracy_gap,
        explains="summary",
        doubt="answers run on",
        plural="have answers that are likely but run on",
    ),
    Rule(
        "unexplained_accuracy",
        "unexplained accuracy: the run's own log-probs promise much more than evaluation found, so suspect "
        "evaluation, loading or extraction before training",
        "answer log-prob in training, last accuracy",
        "the log-prob promises 30 points more than the interval's upper end, and the end of the reply was scored or seen",
        "high over 50 points",
        check=unexplained_accuracy,
        explains="summary",
        doubt="accuracy unexplained",
        plural="have log-probs that promise far more than evaluation found",
    ),
)  # fmt: skip
