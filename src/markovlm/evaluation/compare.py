"""Comparisons of evaluations: paired differences, the best checkpoint, the power of n, gaps to others' numbers.

Pure functions: evaluations in, JSON values out. Two evaluations are only ever paired on the questions that both answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from markovlm.evaluation.evaluate import AnswerReading, Evaluation, How
from markovlm.runs.rows import clean
from markovlm.runs.targets import score
from markovlm.statistics import (
    Estimate,
    cluster_mean_ci,
    mcnemar_exact,
    minimum_detectable_difference,
    sample_size_for_difference,
)
from markovlm.tasks.reference import HOW_PAPER, Reference, lookup

POWER = 0.8
LEVEL = 0.05
DIFFERENCE = 0.05  # of accuracy, that n is asked to show unless somebody says otherwise

# CoT tokens of the paper's runs (configs/paper/), with prompts and decoding as reference.HOW_PAPER says.
_PAPER_COT = {"gsm8k": 100, "mmlu": 150, "aqua": 50, "svamp": 50, "arc": 50, "mathqa": 150, "wiki": 50, "arithmetic": 150}


def paired(ours: Evaluation, theirs: Evaluation, seed: int) -> dict[str, Any]:
    """Difference ours - theirs on common questions: accuracy (bootstrap interval, exact McNemar p) and log-likelihood. The accuracy
    part is null if answers are not extracted; bounds are null for a single question, which has no spread.
    """
    pairs = _common(ours, theirs)
    logprob = cluster_mean_ci([a.logprob - b.logprob for a, b in pairs], None, seed)
    row: dict[str, Any] = {"n": len(pairs), "extractor": None, "accuracy": None, "ci95": None, "mcnemar_p": None}
    row |= {"gained": None, "lost": None}
    if ours.extractors:
        method = ours.extractors[0]
        right = [(a.correct[method], b.correct[method]) for a, b in pairs]
        gained, lost = sum(a and not b for a, b in right), sum(b and not a for a, b in right)
        difference = cluster_mean_ci([float(a) - float(b) for a, b in right], None, seed)
        row |= {"extractor": method, "accuracy": difference.mean, "ci95": _bounds(difference)}
        row |= {"mcnemar_p": mcnemar_exact(gained, lost), "gained": gained, "lost": lost}
    return clean(row | {"logprob": logprob.mean, "logprob_ci95": _bounds(logprob)})


def logprob_interval(done: Evaluation, seed: int) -> list[float | None]:
    """95 % bootstrap interval of the mean log-likelihood over questions."""
    return clean(_bounds(cluster_mean_ci([reading.logprob for reading in _in_order(done)], None, seed)))


def _common(ours: Evaluation, theirs: Evaluation) -> list[tuple[AnswerReading, AnswerReading]]:
    other = {reading.id: reading for reading in theirs.readings}
    return [(reading, other[reading.id]) for reading in _in_order(ours) if reading.id in other]


def _in_order(done: Evaluation) -> list[AnswerReading]:
    """By id, so that a seeded interval is the same whatever order readings were kept in."""
    return sorted(done.readings, key=lambda reading: reading.id)


def _bounds(estimate: Estimate) -> list[float]:
    return [estimate.low, estimate.high]


# -------------------------------------------------------------------------------------------------------- selection


@dataclass(frozen=True, slots=True)
class Selection:
    """Which checkpoint is best, on which questions that was decided, and how certain it is."""

    checkpoint: str
    split: str  # on whose questions it was chosen
    n: int
    source: str  # "training": evaluated while training; "now": on the spot; "reported": on the questions of the table
    optimistic: bool  # chosen on the very questions that are reported
    among: int  # checkpoints
    second: str | None
    difference: dict[str, Any] | None  # best - second on the reported questions, paired
    told_apart: bool | None  # whether that difference is significant (5 %, McNemar or the interval); None: nothing to tell

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def select(
    reported: Mapping[str, Evaluation],
    chosen_by: Mapping[str, Mapping[str, Any]],
    split: str,
    source: str,
    optimistic: bool,
    seed: int,
) -> Selection:
    """The best of the `reported` checkpoints by the summaries `chosen_by`, one per checkpoint; earlier ones win ties."""
    order = sorted(reported, key=lambda name: score(chosen_by[name]), reverse=True)
    best, second = order[0], order[1] if len(order) > 1 else None
    difference = paired(reported[best], reported[second], seed) if second else None
    n = chosen_by[best]["n"]
    return Selection(
        best, split, n, source, optimistic, len(order), second, difference, None if difference is None else differs(difference)
    )


def differs(difference: Mapping[str, Any]) -> bool:
    """Whether a paired difference is significant at 5 %: by McNemar's test, for log-likelihoods by its interval."""
    if difference["mcnemar_p"] is not None:
        return difference["mcnemar_p"] < LEVEL
    low, high = difference["logprob_ci95"]
    return low is not None and (low > 0 or high < 0)


# ------------------------------------------------------------------------------------------------------------ power


def power(base: Evaluation, difference: float) -> dict[str, Any] | None:
    """Whether n paired questions can show a `difference` of accuracy from `base`, how many would, and what this n can show.

    Assumes that the two err independently, which is cautious: fewer questions are enough if they err on the same ones. None if no
    accuracy is measured.
    """
    if not base.extractors:
        return None
    n, accuracy = base.n, base.right() / base.n
    other = accuracy + difference if accuracy <= 0.5 else accuracy - difference
    needed = sample_size_for_difference(accuracy, other, POWER, paired=True)
    return {
        "n": n,
        "accuracy": accuracy,
        "difference": difference,
        "needed": needed,
        "detectable": minimum_detectable_difference(n, accuracy, POWER, paired=True),
        "power": POWER,
        "enough": n >= needed,
    }


def needed_for(difference: Mapping[str, Any], base: Evaluation) -> int | None:
    """How many questions would make the observed paired difference to `base` significant; None if no number would."""
    gap = abs(difference["accuracy"] or 0.0)
    if gap == 0 or not base.extractors:
        return None
    accuracy = base.right() / base.n
    other = min(1.0, max(0.0, accuracy + difference["accuracy"]))
    discordant = min(1.0, max((difference["gained"] + difference["lost"]) / difference["n"], abs(other - accuracy)))
    return sample_size_for_difference(accuracy, other, POWER, paired=True, discordant=discordant) if other != accuracy else None


# ------------------------------------------------------------------------------------------------------- references


def reference_rows(task: str, model: str, base: Evaluation | None, best: tuple[str, Evaluation] | None) -> list[dict[str, Any]]:
    """Published and earlier numbers for this task and model beside ours: the base's, and those of trained models. The gap is ours minus
    theirs; its interval is that of our number alone (theirs is taken as exact).
    """
    rows: list[dict[str, Any]] = []
    for reference in lookup(task, model) or lookup(task, PurePath(model).name):
        ours = (base and ("base", base)) if reference.setting == "base" else best
        row = _gap(reference, *ours) if ours else None
        rows += [row] if row else []
    return rows


def _gap(reference: Reference, checkpoint: str, done: Evaluation) -> dict[str, Any] | None:
    summary = done.summary()
    if reference.metric == "accuracy":
        extractor = reference.extractor or (done.extractors[0] if done.extractors else "")
        if extractor not in summary["extractors"]:
            return None
        value, interval = summary["extractors"][extractor]["accuracy"], summary["extractors"][extractor]["ci95"]
    else:
        extractor, value, interval = "", summary["logprob"], logprob_interval(done, 0)
    return {
        "setting": reference.setting,
        "metric": reference.metric,
        "value": reference.value,
        "n": reference.n,
        "source": reference.source,
        "how": reference.how,
        "checkpoint": checkpoint,
        "extractor": extractor,
        "extractor_stated": bool(reference.extractor),
        "gap": value - reference.value,
        "gap_ci95": [None if bound is None else bound - reference.value for bound in interval],
        "differs_in": departures(reference, done.how),
    }


def departures(reference: Reference, how: How) -> list[str]:
    """How our evaluation differs from the one that the reference's source describes."""
    if reference.how != HOW_PAPER:
        return []
    ours = "no" if how.cot_tokens == 0 else str(how.cot_tokens)
    paper = _PAPER_COT.get(reference.task)
    non_markovian = reference.setting == "non_markovian"
    checks = (
        (how.decoding != "sampled", "greedy CoT, theirs sampled"),
        (how.prompt_style != "plain", f"{how.prompt_style} prompt, theirs plain"),
        (paper is not None and how.cot_tokens != paper, f"{ours} CoT tokens, theirs {paper}"),
        (how.cot_tokens > 0 and not how.fixed_length, "CoTs end by themselves, theirs have a fixed length"),
        ((how.conditioning == "non_markovian") != non_markovian, f"{how.conditioning.replace('_', '-')} reader"),
        ((how.answer_header or "") != " Answer: ", "another answer header"),
    )
    return [text for differs_here, text in checks if differs_here]
