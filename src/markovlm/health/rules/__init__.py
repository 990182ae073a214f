"""The rules: one record each, one file per family, and the tables that are made from them.

Their order counts where two things moved at once: of mechanisms that began in the same row the first in `RULES` is the cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from markovlm.health.case import Case, percent, scored
from markovlm.health.rule import GRAVE, Confidence, Finding, Rule, Weight
from markovlm.health.rules import (
    drift,
    ends,
    entropy,
    evaluations,
    groups,
    length,
    notes,
    numbers,
    outcome,
    rewards,
    settings,
    texts,
)
from markovlm.health.rules.ends import UNEXPLAINED_TESTS
from markovlm.health.rules.evaluations import reference_of
from markovlm.health.thresholds import Threshold
from markovlm.health.tracks import Watched

__all__ = [
    "RULE",
    "RULES",
    "THRESHOLDS",
    "UNEXPLAINED_TESTS",
    "WATCHES",
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

RULES: tuple[Rule, ...] = (
    *numbers.RULES[:1],  # values that are not finite
    *entropy.RULES[:2],
    *drift.RULES,
    *numbers.RULES[1:],
    *length.RULES,
    *texts.RULES,
    *entropy.RULES[2:],
    *groups.RULES,
    *rewards.RULES,
    *notes.RULES,
    *outcome.RULES,
    *evaluations.RULES[1:],
    *ends.RULES,
    *evaluations.RULES[:1],  # far below a published number: what explains it comes first
    *settings.RULES,
)
RULE: Mapping[str, Rule] = {rule.name: rule for rule in RULES}
assert len(RULE) == len(RULES), "two rules of one name"
THRESHOLDS: tuple[Threshold, ...] = tuple(
    replace(test, kind=rule.name, says=rule.sentence) for rule in RULES for test in rule.live if isinstance(test, Threshold)
)
WATCHES: tuple[Watched, ...] = tuple(
    replace(test, kind=rule.name, says=rule.sentence) for rule in RULES for test in rule.live if isinstance(test, Watched)
)


def findings(case: Case) -> list[Finding]:
    """Everything the rules find, problems first."""
    found = [finding for rule in RULES if rule.check is not None for finding in rule.check(case)]
    return sorted(found, key=lambda f: GRAVE[f.weight])


def rules_table() -> list[dict[str, str]]:
    """The rules of hindsight as plain rows, for documentation and reports."""
    return [
        {"rule": r.name, "looks at": r.looks_at, "fires when": r.fires, "confidence": r.confidence, "means": r.sentence}
        for r in RULES
        if r.fires
    ]
