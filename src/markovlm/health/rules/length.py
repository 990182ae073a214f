"""Lengths: cut off from the start, a lost end token, growth into the limit, completions of nothing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from markovlm.health.advice import BEFORE
from markovlm.health.case import Case, percent
from markovlm.health.moves import Move, fall, left_at, rise
from markovlm.health.rule import Finding, Rule
from markovlm.health.series import Course
from markovlm.health.thresholds import Threshold
from markovlm.health.tracks import Watched
from markovlm.health.trend import trend
from markovlm.intervals import percent_text

_ALL = 0.9  # of completions: nearly all


def cut_fraction(case: Case) -> Course | None:
    """Share of completions at the limit; where it is not logged, 1 in rows whose mean length is that of the longest, row for row the same."""
    c = case.course("cot_length_saturated_fraction")
    if c is not None:
        return c
    length = case.course("cot_length")
    if length is None or len(length) < 5 or case.run.native:
        return None
    top = float(length.values.max())
    full = (length.values == top) & (top == np.round(top)) & (top >= 16)
    return Course("cot_length_saturated_fraction", length.steps, full.astype(float)) if full.mean() >= _ALL else None


def truncated_from_start(case: Case) -> Iterable[Finding]:
    c = cut_fraction(case)
    if (
        c is None
        or len(c) < 3
        or case.setting("rollouts.fixed_length") is True
        or (c.values[:10] < _ALL).any()
        or np.median(c.values) < _ALL
    ):
        return
    outcome = case.outcome
    if outcome is None:
        return
    values = outcome.values
    lowest = float(np.ptp(values)) < 1e-9 or (values.min() >= 0.0 and float(np.median(values)) <= 0.02)
    limit = f" ({case.length_limit:,.0f} tokens)" if case.length_limit else ""
    if lowest:
        yield Finding(
            "truncated_from_start",
            f"{percent(float(np.median(c.values)))} of completions are cut off at the limit{limit} from the first row on, the reward is "
            f"{float(np.median(outcome.values)):.3g}: none reaches its answer",
            "high",
            "problem",
            int(c.steps[0]),
        )
    elif case.run.has("cot_length_saturated_fraction") and not case.run.native:
        yield Finding(
            "truncated_from_start",
            f"{percent(float(np.median(c.values)))} of completions reach the limit{limit} from the first row on, although the reward is earned: "
            "they do not end after their answer",
            "medium",
            "note",
            int(c.steps[0]),
        )


def _to_the_limit(case: Case) -> tuple[Move, bool] | None:
    """(where completions came to run into the limit, is the outcome kept after it?)."""
    move = rise(case.course("cot_length_saturated_fraction"), by=0.4, least=0.8)
    if move is None:
        return None
    outcome = case.outcome
    if outcome is None:
        return move, False
    begun = _begun(case, move)  # the level before completions began to run into it, against that while all of them do
    before, after = outcome.values[outcome.steps < begun], outcome.values[outcome.steps >= move.step][:20]
    if not len(before) or not len(after):
        return move, False
    was, now = float(np.median(before[-10:])), float(np.median(after))
    return move, (now >= 0.7 * was > 0.1 if outcome.values.min() >= 0.0 else now >= was - 0.5 * max(float(np.ptp(before)), 0.1))


def _begun(case: Case, move: Move) -> int:
    """The step from which more completions than early ran into the limit."""
    c = case.course("cot_length_saturated_fraction")
    return move.step if c is None else left_at(c, move, move.before + 0.1)


def end_token_lost(case: Case) -> Iterable[Finding]:
    found = _to_the_limit(case)
    if found is None or not found[1] or case.run.native:  # our CoTs need no end: the reader answers from what there is
        return
    move, length = found[0], case.course("cot_length")
    grew = (
        ""
        if length is None
        else f", lengths from {float(np.median(length.values[:8])):.0f} to {float(np.median(length.values[-5:])):.0f} tokens"
    )
    yield Finding(
        "end_token_lost",
        f"completions at the limit from {percent_text(move.before)} to {percent_text(move.after)} at step {move.step:,}{grew}, and the reward is "
        "earned as before: the answer is there, the completion does not end after it",
        "high",
        "problem",
        _onset_of_cut(case, move),
    )


def _onset_of_cut(case: Case, move: Move) -> int:
    """Lengths grow before they reach the limit."""
    c = case.course("cot_length")
    grown = rise(c, factor=1.3)
    return move.step if c is None or grown is None else min(left_at(c, grown, 1.15 * grown.before), move.step)


def truncated_to_zero(case: Case) -> Iterable[Finding]:
    found = _to_the_limit(case)
    if found is None or found[1] or not case.outcome_lost:
        return
    move, begun = found[0], _begun(case, found[0])
    before = _lost_before(case, begun)  # what was lost while completions still ended was not lost by cutting them off
    yield Finding(
        "truncation" if before else "truncated_to_zero",
        f"{percent_text(move.after)} of completions at the length limit from step {move.step:,} on ({percent_text(move.before)} before), "
        + ("after the outcome was lost" if before else "the outcome lost"),
        "medium",
        "note" if before else "problem",
        begun,
    )


def _lost_before(case: Case, step: int) -> bool:
    """Was over half of the outcome gone in the last row before a step?"""
    c = case.outcome
    if c is None or c.values.min() < 0.0:
        return False
    before = c.values[c.steps < step]
    return len(before) > 3 and float(before[-1]) < 0.5 * float(np.median(before[-12:-2]))


def truncation_spiral(case: Case) -> Iterable[Finding]:
    first = case.spoken("truncation")
    if first is None or case.outcome_lost or any(end_token_lost(case)):
        return
    cut, was = case.now("cot_length_saturated_fraction"), case.early("cot_length_saturated_fraction")
    if cut is None or was is None or cut <= 0.4:
        return
    yield Finding(
        "truncation",
        f"{percent_text(cut)} of completions at the length limit ({percent_text(was)} early)",
        "medium",
        "caution",
        first.step,
    )


def saturation(case: Case) -> Iterable[Finding]:
    c = case.course("cot_length_saturated_fraction")
    if c is None or len(c) < 10 or case.setting("rollouts.fixed_length") is True or any(end_token_lost(case)):
        return
    tenth = max(1, len(c) // 10)
    first, last = float(c.values[:tenth].mean()), float(c.values[-tenth:].mean())
    if last > 0.8 and last - first > 0.2:
        move = rise(c, by=0.2, least=0.5)
        yield Finding(
            "cot_length_saturation",
            f"CoTs that use the whole budget rose from {percent(first)} to {percent(last)}",
            "high",
            "caution",
            None if move is None else move.step,
        )


def completions_collapsed(case: Case) -> Iterable[Finding]:
    move = fall(case.course("cot_length"), factor=0.15, most=20.0)
    spoken = case.spoken("empty_cot")
    if move is None and spoken is None:
        return
    step = move.step if move is not None else spoken.step if spoken is not None else None
    was, now = case.early("cot_length") or 0.0, move.after if move is not None else spoken.value if spoken is not None else 0.0
    yield Finding(
        "completions_collapsed",
        f"completions fell from {was:.0f} to {now:.3g} tokens at step {step:,}{_trigger(case, step)}",
        "high" if case.outcome_lost else "medium",
        "problem" if case.collapsed or case.outcome_lost else "caution",
        step,
    )


def _trigger(case: Case, step: int | None) -> str:
    """A gradient far beyond the usual one in the rows right before."""
    c = case.course("grad_norm")
    if c is None or step is None:
        return ""
    before = c.values[c.steps < step]
    if len(before) < 4:
        return ""
    usual, last = float(np.median(before)), before[-2:]
    return f", after a gradient of {last.max():.3g} ({usual:.3g} before)" if usual > 0 and last.max() > 6.0 * usual else ""


def length_inflation(case: Case) -> Iterable[Finding]:
    c = case.course("cot_length")
    move = rise(c, factor=2.0)
    if c is None or move is None or case.outcome_lost or any(end_token_lost(case)):
        return
    now = case.now("cot_length") or 0.0
    outcome = case.outcome
    if now < 2.0 * move.before or outcome is None:
        return
    t = trend(outcome)
    scale = 1.0 if outcome.is_share else float(np.ptp(outcome.values)) or 1.0
    if t is None or t.change > 0.1 * scale or t.z > 2.6:
        return
    cut = case.now("cot_length_saturated_fraction")
    yield Finding(
        "length_inflation",
        f"completions grew from {move.before:.0f} to {now:.0f} tokens" + (f", {percent_text(cut)} of them at the limit" if cut else "")
        + f", and the reward did not rise (from {float(np.median(outcome.values[:8])):.3g} to {float(np.median(outcome.values[-5:])):.3g})",
        "medium",
        "caution",
        move.step,
    )  # fmt: skip


RULES = (
    Rule(
        "completions_collapsed",
        "completions collapsed to nothing: the policy ends them at once",
        "length",
        "under 0.15 of the early length and under 20 tokens",
        "high if the outcome is lost too",
        check=completions_collapsed,
        explains="mechanism",
        advice=(BEFORE, "rate", "clip", "kl", "check the reward of an empty completion: ending at once must not be the "
                                              "best policy"),
        plural="ended with empty completions",
        warns="medium",
        seen=("https://github.com/huggingface/trl/issues/3452",),
    ),
    Rule(
        "end_token_lost",
        "completions stop ending: the end token is lost",
        "completions at the limit, reward",
        "from under half to over four fifths at the limit, with the reward unchanged",
        "high: a completion cut off before its answer would earn nothing",
        check=end_token_lost,
        explains="mechanism",
        advice=(
            "stop",
            "read the end of some completions: what follows the answer?",
            "truncated",
            "raise the limit only after that: completions that do not end fill any limit",
        ),
        doubt="never ends",
        plural="lost their end token",
        warns="medium",
        seen=("https://github.com/verl-project/verl/issues/2736", "https://github.com/huggingface/trl/pull/3248"),
    ),
    Rule(
        "truncated_from_start",
        "completions are cut off before they answer, from the first row on",
        "completions at the limit, reward",
        "nine of ten in each of the first ten rows, with no reward",
        "high: a count",
        check=truncated_from_start,
        explains="mechanism",
        advice=("limit", "ask for shorter answers in the prompt, or start from a model that ends its answers", "stop"),
        doubt="cut off",
        plural="were cut off from the start",
        warns="high",
        seen=("https://github.com/modelscope/ms-swift/issues/4950",),
    ),
    Rule(
        "truncated_to_zero",
        "completions run into the length limit before they answer, so all rewards are zero",
        "completions at the limit, outcomes",
        "0.4 more than early and over 0.8, with the outcome lost",
        "medium: why they grew is open",
        check=truncated_to_zero,
        explains="mechanism",
        advice=(BEFORE, "rate", "kl", "limit", "truncated"),
        plural="ran into the length limit and lost all reward",
        seen=(
            "https://github.com/greyhaven-ai/autocontext/pull/1067",
            "https://github.com/modelscope/ms-swift/issues/4950",
            "https://github.com/huggingface/open-r1/issues/257",
        ),
    ),
    Rule(
        "truncation",
        "completions run into the length limit",
        "completions at the limit",
        "risen by 0.4 to over 0.5, with the outcome kept",
        "medium: a count",
        live=(Watched("cot_length_saturated_fraction", "rise", 0.03, 0.4, 0.5),),
        check=truncation_spiral,
        explains="mechanism",
        cause="truncation_spiral",
        advice=("truncated", "limit", "kl"),
        doubt="runs into its limit",
        plural="run into the limit more and more often",
        seen=(
            "https://github.com/verl-project/verl/issues/2736",
            "https://github.com/huggingface/trl/pull/3248",
            "https://github.com/huggingface/trl/pull/3138",
        ),
    ),
    Rule(
        "length_inflation",
        "suspected: completions get longer without getting better",
        "length, reward",
        "twice as long, with the reward level",
        "medium",
        check=length_inflation,
        explains="mechanism",
        advice=("truncated", "kl", "penalise length, or normalise the loss by a constant length"),
        doubt="longer, not better",
        plural="got longer without getting better",
        warns="medium",
        seen=("https://github.com/OpenRLHF/OpenRLHF/issues/236", "https://github.com/huggingface/trl/pull/3138"),
    ),
    Rule(
        "cot_length_saturation",
        "the CoT budget cuts off reasoning",
        "cot_length_saturated_fraction",
        "rises by 0.2 to over 0.8",
        "high: a count",
        check=saturation,
        explains="summary",
        cause="cot_too_short",
        advice=("limit",),
        doubt="CoT cut off",
        plural="run into the CoT limit",
    ),
    Rule(
        "empty_cot",
        "the CoT is empty",
        live=(
            Threshold(
                "cot_length", "value", "below", 2.0, 1.0, 4, 5,
                "Tokens. A CoT of less than one token on average is no CoT at all.",
                solved_excuses=True,
            ),
        ),
    ),
)  # fmt: skip
