"""Numbers that run away: not finite, losses and gradients that explode, ratios that leave the clip range, spikes that heal."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from markovlm.health.advice import BEFORE
from markovlm.health.case import Case
from markovlm.health.moves import rise
from markovlm.health.rule import Finding, Rule
from markovlm.health.series import Course
from markovlm.health.thresholds import Threshold
from markovlm.intervals import percent_text


def not_finite(case: Case) -> Iterable[Finding]:
    bad = next((e for e in case.verdict.signals if e.kind == "non_finite"), None)
    if bad is None:
        return
    grave = bad.level == "collapsed"
    yield Finding(
        "non_finite",
        f"values that are not finite {'from' if grave else 'at'} step {bad.step:,}{' on' if grave else ''}",
        "high" if grave else "medium",
        "problem" if grave else "caution",
        bad.step,
    )


def loss_explosion(case: Case) -> Iterable[Finding]:
    for key in ("loss", "loss_policy", "loss_value"):
        c = case.course(key)
        if c is None:
            continue
        sizes = Course(key, c.steps, np.abs(c.values))
        usual = float(np.median(sizes.values))
        move = rise(sizes, factor=100.0, least=100.0)
        if move is not None:
            yield Finding(
                "loss_explosion",
                f"the {key.replace('_', ' of the ')} rose {move.told()} at step {move.step:,}",
                "high",
                "problem",
                move.step,
            )
        elif sizes.values.max() >= 1e4 and sizes.values.max() > 1e4 * max(usual, 1e-3):
            at = int(np.argmax(sizes.values))
            yield Finding(
                "loss_explosion",
                f"the {key.replace('_', ' of the ')} was {sizes.values[at]:.3g} in one row (step {int(c.steps[at]):,}), {usual:.3g} otherwise",
                "medium",
                "caution",
                int(c.steps[at]),
            )


def gradient_blow_up(case: Case) -> Iterable[Finding]:
    spoken = case.spoken("gradient_blow_up")
    if spoken is None:
        return
    c = case.course("grad_norm")
    early = case.early("grad_norm")
    usual = "" if early is None else f" ({early:.3g} early)"
    top = "" if c is None else f", up to {float(c.values[c.steps >= spoken.step].max()):.3g}"
    yield Finding(
        "gradient_blow_up",
        f"the gradient norm is {spoken.value:.3g}{usual} from step {spoken.step:,} on{top}",
        "medium",
        "problem" if spoken.level == "collapsed" or case.outcome_lost else "caution",
        spoken.step,
    )


def clipped(case: Case) -> Iterable[Finding]:
    c = case.course("ratio_clipped_fraction")
    if c is None or len(c) < 5:
        return
    tail = c.values[-max(5, len(c) // 5) :]
    level = float(np.median(tail))
    if level <= 0.3 or "ratio_explosion" in case.kinds:
        return
    move = rise(c, by=0.1, least=0.3)
    step = move.step if move is not None else int(c.steps[0])
    yield Finding(
        "clip_fraction",
        f"{percent_text(level)} of ratios are clipped{f' (from step {step:,} on)' if move is not None else ' from the first row on'}: "
        "much of each batch contributes no gradient",
        "high",
        "caution",
        step,
    )


def healed_spike(case: Case) -> Iterable[Finding]:
    """One or two rows far beyond all others, and the same level after them."""
    if case.collapsed:
        return
    for key, least in (("grad_norm", 10.0), ("kl", 2.0), ("loss", 10.0)):
        c = case.course(key)
        if c is None or len(c) < 12:
            continue
        values = np.abs(c.values)
        usual, at = float(np.median(values)), int(np.argmax(values))
        after = values[at + 1 : at + 6]
        if (
            values[at] >= least
            and values[at] > 20.0 * max(usual, 1e-6)
            and len(after)
            and np.median(after) < 3.0 * max(usual, 1e-6)
        ):
            yield Finding(
                "healed_spike",
                f"{key} {values[at]:.3g} at step {int(c.steps[at]):,}, {usual:.3g} otherwise; the run then continued as before",
                "medium",
                "note",
                int(c.steps[at]),
            )
            return


RULES = (
    Rule(
        "non_finite",
        "values that are not finite",
        "loss, reward, log-prob, gradient",
        "one row is a warning, three in a row a collapse",
        "high: a count",
        live=(
            Threshold(
                "non_finite", "value", "above", 0, None, 1, 1,
                "A value that is not finite in loss, reward or gradient: a single one may be an overflow that was skipped.",
            ),
            Threshold(
                "non_finite", "value", "above", None, 0, 3, 3,
                "Three rows in a row: the weights themselves are no longer finite.",
            ),
        ),
        check=not_finite,
        explains="mechanism",
        cause="numbers_overflowed",
        advice=("dtype", "rate", BEFORE, "check the samples of the onset step"),
        plural="had values that are not finite",
        seen=(
            "https://github.com/modelscope/ms-swift/issues/3136",
            "https://github.com/verl-project/verl/issues/3025",
            "https://github.com/vllm-project/vllm/issues/22881",
        ),
    ),
    Rule(
        "loss_explosion",
        "the loss exploded",
        "loss",
        "a hundred times the early size and over 100, for three rows; one row of ten thousand times is a caution",
        "high if it stays",
        check=loss_explosion,
        explains="mechanism",
        advice=(BEFORE, "rate", "clip", "kl"),
        plural="saw the loss explode",
        warns="high",
        seen=("https://github.com/huggingface/trl/issues/2980",),
    ),
    Rule(
        "gradient_blow_up",
        "the gradient blew up",
        "gradient norm",
        "30 times the early median is a warning, 300 times a collapse",
        "medium: a size, not its cause",
        live=(
            Threshold(
                "grad_norm", "times_early", "above", 30.0, 300.0, 3, 5,
                "Before clipping, relative to the early median of steps that trained. Clipping limits the size of a "
                "step, not its direction: at 300 times the usual norm, one sample decides the direction.",
                floor=1.0 / 3.0, gain_excuses=True, solved_excuses=True,
            ),
        ),
        check=gradient_blow_up,
        explains="mechanism",
        advice=(BEFORE, "rate", "clip"),
        plural="saw gradients blow up",
    ),
    Rule(
        "ratio_explosion",
        "the policy ratio exploded",
        live=(
            Threshold(
                "ratio", "value", "above", 3.0, 5.0, 3, 3,
                "The clip range ends at 1.2. A mean ratio of 5 (or 1/5) is 1.6 nats of drift; in every token, if the "
                "ratio is of mean log-probs. It shows drift, not its cause, so with a gain in reward it is only a "
                "warning.",
                gain_excuses=True, solved_excuses=True,
            ),
            Threshold(
                "ratio_max", "value", "above", 100.0, 10_000.0, 4, 5,
                "The largest of thousands of token ratios may reach tens by chance; 10,000 in most steps means lost importance weights.",
                gain_excuses=True, solved_excuses=True,
            ),
            Threshold(
                "ratio_clipped_fraction", "value", "above", 0.9, None, 9, 10,
                "Nine of ten ratios are outside the clip range: hardly any sample still contributes a gradient.",
            ),
        ),
    ),
    Rule(
        "clip_fraction",
        "much of each batch is clipped away",
        "clipped ratios",
        "over 0.3 in the last fifth",
        "high: a count",
        check=clipped,
        explains="summary",
        advice=("rate", "passes"),
        doubt="much clipped",
        plural="clip much of each batch away",
        warns="high",
    ),
    Rule(
        "healed_spike",
        "a spike that recovered",
        "gradient norm, KL, loss",
        "one row over twenty times the usual, the next five back to normal",
        "medium: nothing to do; if it recurs, clip gradients more strongly",
        check=healed_spike,
        seen=("https://github.com/huggingface/trl/issues/2980", "https://github.com/XueZeyue/DanceGRPO/issues/55"),
    ),
)  # fmt: skip
