"""What hindsight sees in a run: rules as data, each with the evidence it found and how sure it is.

`RULES` is the table; `rules_table()` prints it. A rule's check is a small function of a `Case` (one run with its verdict and its
evaluations) that returns findings, usually none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from markovlm.health.rules.accuracy import (
    against_base,
    against_chance,
    extractors_disagree,
    no_evaluation,
    reference_gap,
    reference_of,
    reward_without_accuracy,
    small_evaluation,
    unexplained_accuracy,
)
from markovlm.health.rules.case import Case, Confidence, Finding, Weight, percent, scored
from markovlm.health.rules.courses import (
    answer_gone,
    change_point,
    decay_of_accuracy,
    decay_of_signals,
    learning,
    length_saturation,
    plateau,
)
from markovlm.health.rules.ends import UNEXPLAINED_TESTS, likelihood_accuracy_gap
from markovlm.health.rules.optimiser import idle_groups, idle_ratio, known_faults, no_gradient, stopped_early, term_balance
from markovlm.health.rules.texts import copies_answer, copies_question, ignores_question

__all__ = [
    "RULES",
    "UNEXPLAINED_TESTS",
    "Case",
    "Confidence",
    "Finding",
    "Rule",
    "Weight",
    "findings",
    "percent",
    "reference_of",
    "rules_table",
    "scored",
]


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: what is looked at, when it fires, and where its confidence comes from."""

    name: str
    looks_at: str
    fires: str
    confidence: str
    check: Callable[[Case], Iterable[Finding]]


RULES: tuple[Rule, ...] = (
    Rule(
        "change_point",
        "reward, answer log-prob, right answers",
        "a sharp change of level of 0.7 nats (0.2 of a fraction)",
        "high over 15, medium over 8 standard errors",
        change_point,
    ),
    Rule(
        "decay_after_peak",
        "evaluations",
        "the best checkpoint beats the last",
        "high z > 2.6, medium z > 1.6, low for 5 points",
        decay_of_accuracy,
    ),
    Rule(
        "decay_after_peak",
        "reward, log-prob, answers in the CoT, where nothing was evaluated on the way",
        "best window over the last by 0.3 nats (0.1 of a fraction), 3.5 standard errors and a quarter of the gain",
        "high over 5 standard errors and half of the gain",
        decay_of_signals,
    ),
    Rule(
        "answer_gone",
        "reward, answers in the CoT",
        "the reward ends above its start while CoTs with the answer fell by half",
        "high: 3 standard errors of both",
        answer_gone,
    ),
    Rule(
        "trend / no_learning / cannot_tell",
        "reward, log-prob, answers in the CoT, right answers",
        "Theil-Sen change over the whole course, Mann-Kendall at 99 % with autocorrelation; or too few rows to say",
        "high for a trend, medium for none",
        learning,
    ),
    Rule("plateau", "reward", "second half without a gain beyond noise", "medium", plateau),
    Rule(
        "cot_length_saturation", "cot_length_saturated_fraction", "rises by 0.2 to over 0.8", "high: a count", length_saturation
    ),
    Rule("idle_groups", "groups_without_spread", "over half in the last fifth, task not solved", "high: a count", idle_groups),
    Rule(
        "term_balance",
        "gradient norms by loss term",
        "actor-reward over 10 times, or under a hundredth of, the policy term",
        "high: measured",
        term_balance,
    ),
    Rule(
        "extractors_disagree",
        "extractors of one evaluation",
        "3 points apart and outside the interval",
        "high over 10 points",
        extractors_disagree,
    ),
    Rule(
        "reward_without_accuracy",
        "reward and evaluations",
        "reward gains 0.3 nats and 5 standard errors, accuracy does not (z < 1)",
        "high from 200 questions",
        reward_without_accuracy,
    ),
    Rule(
        "below_chance / at_chance",
        "best accuracy, choices of the task",
        "the interval is not wholly above guessing",
        "high: Wilson interval",
        against_chance,
    ),
    Rule(
        "below_base / not_above_base", "best accuracy, base", "under, or not above, the base (z of 1.96)", "high: z", against_base
    ),
    Rule("no_evaluation_during_training", "evaluations", "fewer than two steps evaluated", "high: a count", no_evaluation),
    Rule("evaluation_too_small", "evaluations", "under 200 questions", "high: Wilson interval", small_evaluation),
    Rule(
        "gap_to_reference",
        "best accuracy, published number",
        "10 points under and outside the interval",
        "high for the gap; what explains it is open",
        reference_gap,
    ),
    Rule(
        "likelihood_accuracy_gap",
        "replies that begin with the gold answer and do not end there; else answer log-prob in training and last accuracy",
        "one in ten runs on; or, where the end of the reply was not scored, the log-prob promises 30 points more than the interval's upper end",
        "high where the ends were seen, or over 50 points (what explains the gap is then open)",
        likelihood_accuracy_gap,
    ),
    Rule(
        "unexplained_accuracy",
        "answer log-prob in training, last accuracy",
        "the log-prob promises 30 points more than the interval's upper end, and the end of the reply was scored or seen",
        "high over 50 points",
        unexplained_accuracy,
    ),
    Rule(
        "copies_answer",
        "late samples",
        "over half are little more than the answer",
        "medium: from a choice of samples",
        copies_answer,
    ),
    Rule(
        "copies_question",
        "numbers and n-grams of the question in its CoT",
        "to the end over half of the CoTs restate their question, lack the answer and add little",
        "high over four fifths",
        copies_question,
    ),
    Rule(
        "ignores_question",
        "numbers and words of the own and of another question",
        "to the end CoTs hold no more of their own question than of another, and not the answer",
        "high where it was different at the start",
        ignores_question,
    ),
    Rule("no_gradient", "gradient norm", "0 in every row", "high: a count", no_gradient),
    Rule("idle_ratio", "PPO ratio, gradient norm", "exactly 1 in every row with a gradient", "high from ten rows", idle_ratio),
    Rule(
        "dead_actor_reward / frozen_anchor",
        "research code's settings",
        "settings known to do something else than they say",
        "high: read in that code",
        known_faults,
    ),
    Rule("not_finished", "planned and logged steps", "fewer steps than planned and no end event", "high: a count", stopped_early),
)


def findings(case: Case) -> list[Finding]:
    """Everything the rules find, problems first."""
    order = {"problem": 0, "caution": 1, "note": 2}
    found = [finding for rule in RULES for finding in rule.check(case)]
    return sorted(found, key=lambda f: order[f.weight])


def rules_table() -> list[dict[str, str]]:
    """The rules as plain rows, for documentation and reports."""
    table = [{"rule": r.name, "looks at": r.looks_at, "fires when": r.fires, "confidence": r.confidence} for r in RULES]
    shared = "a setting that every collapsed run has and no other run"
    table.append(
        {
            "rule": "only_collapsed_runs_share",
            "looks at": "settings of all runs",
            "fires when": shared,
            "confidence": "low: association",
        }
    )
    return table
