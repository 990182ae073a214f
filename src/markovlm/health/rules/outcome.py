"""What the run is for: reward, right answers, log-prob. Crashes, decay, learning that stopped or never began."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from markovlm.health.advice import BEFORE, OUR_GUARD
from markovlm.health.case import Case, percent, scored
from markovlm.health.levels import levels
from markovlm.health.rule import Confidence, Finding, Rule
from markovlm.health.series import Course, best_evaluation, difference_z, halves_gain, largest_jump, last_evaluation, noise
from markovlm.health.thresholds import Threshold
from markovlm.health.tracks import Watched
from markovlm.health.trend import Direction, Trend, claimed, trend
from markovlm.intervals import estimate_text, percent_text
from markovlm.logs.schema import label

_LEAST_JUMP = {
    "answer_correct_fraction": 0.2,
    "cot_contains_answer": 0.3,
    "answer_logprob": 0.7,
    "normalized_reward_mean": 0.7,
    "reward_mean": 0.7,
}


def change_point(case: Case) -> Iterable[Finding]:
    for key, least in _LEAST_JUMP.items():
        c = case.course(key)
        jump = largest_jump(c, least) if c is not None else None
        if jump is not None:
            down = jump.after < jump.before
            text = (
                f"{label(key)} {'fell' if down else 'rose'} from {jump.before:.3g} to {jump.after:.3g} around step {jump.step:,}"
            )
            yield Finding("change_point", text, "high" if jump.z > 15 else "medium", "caution" if down else "note", jump.step)


def decay(case: Case) -> Iterable[Finding]:
    yield from _decay_of_accuracy(case)
    yield from _decay_of_signals(case)


def _decay_of_accuracy(case: Case) -> Iterable[Finding]:
    best, last = best_evaluation(case.series), last_evaluation(case.series)
    if best is None or last is None or best.step == last.step:
        return
    lost = best.score.accuracy - last.score.accuracy
    z = difference_z(best, last)
    if lost <= 0 or (z < 1.64 and lost < 0.05):
        return
    sure: Confidence = "high" if z > 2.6 else "medium" if z > 1.64 else "low"
    yield Finding(
        "decay_after_peak",
        f"the best checkpoint is step {best.step:,} ({scored(best)}); the last, step {last.step:,}, is "
        f"{100 * lost:.1f} points lower ({scored(last)})",
        sure,
        "note" if sure == "low" else "caution",
        best.step,
        (
            f"use the checkpoint at step {best.step:,}, not the last",
            "lower the learning rate over training, or stop earlier",
        ),
    )


def _decay_of_signals(case: Case) -> Iterable[Finding]:
    """Reward, log-prob and answers in the CoT, each judged by the share of its gain that is gone, in window means."""
    if len({e.step for e in case.series if e.of_actor and e.step > 0}) > 1 or case.collapsed:
        return
    falls = [fall for key in LEAST_CHANGE if (c := case.course(key)) is not None and (fall := _fall(c, least_change(c)))]
    if not falls:
        return
    falls.sort(key=lambda fall: (fall.sure != "high", -fall.z))
    worst, others = falls[0], [fall for fall in falls[1:] if fall.sure in ("high", "medium")]
    also = "".join(f"; {fall.told}" for fall in others[:2])
    step = case.safe_step(worst.step)
    advice = (
        (f"evaluate the checkpoint {_nearest_checkpoint(case, step)}; it may be better than the last",)
        if step is not None
        else ()
    )
    yield Finding("decay_after_peak", f"{worst.told}{also}", worst.sure, "caution", worst.step, advice)


@dataclass(frozen=True, slots=True)
class _Fall:
    step: int
    z: float
    sure: Confidence
    told: str


_LEAST_SHARE = 0.25  # of what had been gained


def _fall(c: Course, least: float) -> _Fall | None:
    """How far the end of a course lies under its best window, where that is more than noise and luck."""
    if len(c) < 40:
        return None
    found = levels(c)
    lost, gained = found.best.mean - found.end.mean, found.best.mean - found.start.mean
    error = math.hypot(found.best.error or 0.0, found.end.error or 0.0)
    z = lost / error if error > 0 else math.inf if lost > 0 else 0.0
    share = lost / gained if gained > least else math.inf
    if lost < least or z < 3.5 or share < _LEAST_SHARE or found.best.last_step >= found.end.first_step:
        return None
    middle = (found.best.first_step + found.best.last_step) // 2
    how = (
        f", {percent_text(share)} of what had been gained"
        if share <= 1
        else ", to below where it began"
        if share < math.inf
        else ""
    )
    told = f"{label(c.key)} was best around step {middle:,} ({found.best.mean:.3g}) and ended at {found.end.mean:.3g}: {lost:.2g} lost{how}"
    return _Fall(middle, z, "high" if z > 5 and share >= 0.5 else "medium", told)


def answer_gone(case: Case) -> Iterable[Finding]:
    """The reward is higher than at the start while the CoTs have stopped to hold the answer."""
    held, paid = case.course("cot_contains_answer"), case.reward
    if held is None or paid is None or len(held) < 40 or len(paid) < 40:
        return
    answers, reward = levels(held), levels(paid)
    before = max(answers.start, answers.best, key=lambda level: level.mean)
    lost, gained = before.mean - answers.end.mean, reward.end.mean - reward.start.mean
    if lost < max(0.15, 3.5 * math.hypot(before.error or 0.0, answers.end.error or 0.0)) or answers.end.mean > before.mean / 2:
        return
    if gained < max(0.2, 3.0 * math.hypot(reward.start.error or 0.0, reward.end.error or 0.0)):
        return
    yield Finding(
        "answer_gone",
        f"{label(paid.key)} rose from {reward.start.mean:.3g} to {reward.end.mean:.3g}, but CoTs that contain the answer fell from "
        f"{percent(before.mean)} to {percent(answers.end.mean)}",
        "high",
        "problem",
        answers.end.first_step,
    )


def _nearest_checkpoint(case: Case, step: int) -> str:
    safe = [s for s in case.checkpoints if case.safe_step(s) == s]
    if safe:
        nearest = min(safe, key=lambda s: (abs(s - step), s))
        return f"at step {nearest:,}"
    return f"closest to step {step:,}"


# --- did it learn? -----------------------------------------------------------------------------------------------------

_CLAIMED_Z = 2.576  # of evaluations: 99 %, as of trends
# The least change over a whole run that would matter: nats, or a fraction.
LEAST_CHANGE = {
    "normalized_reward_mean": 0.3, "reward_mean": 0.3, "answer_logprob": 0.3,
    "cot_contains_answer": 0.1, "answer_correct_fraction": 0.1, "accuracy": 0.1,
}  # fmt: skip


def least_change(c: Course) -> float:
    """`LEAST_CHANGE`, of a reward between 0 and 1 that of a fraction."""
    least = LEAST_CHANGE[c.key]
    return min(least, 0.1) if c.key == "reward_mean" and c.is_share else least


def trends(case: Case) -> list[tuple[Trend, Direction]]:
    """The trend of every signal of success over the whole course, the surest first; a rise or fall is claimed at 99 %."""
    found = []
    for key in LEAST_CHANGE:
        c = case.course(key)
        t = trend(c) if c is not None and len(c) >= 20 else None
        if c is None or t is None:
            continue
        said = t.direction(least_change(c))
        doubted = said in ("rises", "falls") and not claimed(t)
        found.append((t, "cannot tell" if doubted else said))
    return sorted(found, key=lambda pair: -abs(pair[0].z))


def _told(t: Trend) -> str:
    """As a slope: over the whole run, the straight line of a course that levels off leaves the range that a fraction has."""
    return f"{label(t.key)} {estimate_text(t.change / 10, t.low / 10, t.high / 10, signed=True)} per tenth of its {t.n:,} rows"


def learning(case: Case) -> Iterable[Finding]:
    """Learning, unlearning, nothing, or not enough rows to tell."""
    found = trends(case)
    if not found or case.collapsed:
        return
    said = {direction for _, direction in found}
    moved = [(t, direction) for t, direction in found if direction in ("rises", "falls")]
    if moved:
        up = [t for t, direction in moved if direction == "rises"]
        down = [t for t, direction in moved if direction == "falls"]
        if up:
            yield Finding("trend", "learns throughout: " + "; ".join(_told(t) for t in up[:3]), "high")
        if down and (not up or abs(down[0].z) > abs(up[0].z)):
            yield Finding("trend", "falls throughout: " + "; ".join(_told(t) for t in down[:3]), "high", "caution")
        return
    e, base = case.best or case.last, case.base
    if e is not None and base is not None and e is not base and difference_z(e, base) > _CLAIMED_Z:
        yield Finding("trend", f"learns, by its evaluations: {scored(base)} for its base, {scored(e)} at step {e.step:,}", "high")
        return
    if any(_rose_on_the_way(c, least_change(c)) for t, _ in found if (c := case.course(t.key)) is not None) or _solved(case):
        return
    t = found[0][0]
    if said == {"level"} and t.n >= 40:
        yield Finding(
            "no_learning",
            f"no measure of success changed: {'; '.join(_told(t) for t, _ in found[:3])}",
            "medium",
            "caution",
        )
    elif "cannot tell" in said:
        t = next(t for t, direction in found if direction == "cannot tell")
        yield Finding(
            "cannot_tell",
            f"too little to say whether it learns: {_told(t)} (95 %; a rise or fall is claimed at 99 %)",
            "high",
        )


def _rose_on_the_way(c: Course, least: float) -> bool:
    """Was the run better in between than at its start?"""
    found = levels(c)
    gained = found.best.mean - found.start.mean
    return gained > max(least, 3.5 * math.hypot(found.best.error or 0.0, found.start.error or 0.0))


def _solved(case: Case) -> bool:
    shares = [c for key in ("answer_correct_fraction", "accuracy", "reward_mean") if (c := case.course(key)) is not None]
    return any(c.is_share and levels(c).end.mean > 0.75 for c in shares)


def plateau(case: Case) -> Iterable[Finding]:
    c = case.reward
    if c is None or len(c) < 100 or case.collapsed:
        return
    first, middle, last = halves_gain(c)
    error = noise(c.values) * math.sqrt(2.0 / max(1, len(c) // 10))
    if last - first > max(0.1, 2.5 * error) and abs(last - middle) < max(0.05, 2.0 * error):
        yield Finding(
            "plateau",
            f"{label(c.key)} gained {middle - first:.3g} in the first half of training and {last - middle:+.2g} in the second",
            "medium",
        )


_DRIFTING = {
    "ratio_explosion", "gradient_blow_up", "drift", "logprob_crash", "reward_crash", "accuracy_crash", "repeated_character", "repetition",
}  # fmt: skip


def high_rate(case: Case) -> Iterable[Finding]:
    if not case.collapsed or not _DRIFTING & {e.kind for e in case.verdict.signals if e.level == "collapsed"}:
        return
    too_high = None
    if case.run.native:
        from markovlm.models.registry import lr_above_tried  # slow to import, and logs of others have no use for it

        too_high = lr_above_tried(str(case.setting("model")), case.setting("training.lr"))
    said = "nothing else moved before the outcome fell"
    if too_high:
        said = f"training.lr is up to {too_high[0]:g}; the highest that worked on this model is {too_high[1]:g}"
    yield Finding("learning_rate_too_high", said, "medium" if too_high else "low", "problem")


def unexplained(case: Case) -> Iterable[Finding]:
    if case.collapsed:
        yield Finding("unknown_collapse", "live tests fired, but no rule says why", "low", "problem")


_CRASH = (BEFORE, "rate", "kl", OUR_GUARD)
RULES = (
    Rule(
        "logprob_crash",
        "the answer's log-probability crashed",
        live=(
            Watched("answer_logprob", "nats", 0.1),
            Threshold(
                "answer_logprob", "below_early", "below", 1.0, 2.0, 1, 1,
                "Nats per answer token below the run's early level, with noise taken into account. 2 nats: the gold "
                "answer became 7 times less likely per token than before training.",
            ),
        ),
    ),
    Rule(
        "reward_crash",
        "the reward crashed",
        live=(
            Watched("reward_mean", "reward", 0.04),
            Watched("normalized_reward_mean", "nats", 0.1),
            Threshold(
                "reward_mean", "below_early", "below", 1.0, 2.0, 1, 1,
                "The same for a log-prob reward (scaled up if the reward is a sum over tokens).",
            ),
            Threshold(
                "normalized_reward_mean", "below_early", "below", 1.0, 2.0, 1, 1,
                "The same for the reward minus the frozen model's: below zero and falling, the CoT is worse than "
                "without training.",
            ),
            Threshold(
                "reward_mean", "fraction_of_best", "below", None, 0.2, 1, 1,
                "For a run that learns and breaks within its first twenty rows, before there is noise to test against: "
                "four fifths of the best median of ten rows are gone. The best must be at least 0.3, a row must rest on "
                "16 samples or more, and rows this low must have been rare before (if a row is one question, its share "
                "is often 0 or 1).",
            ),
        ),
    ),
    Rule(
        "accuracy_crash",
        "the share of right answers crashed",
        live=(
            Watched("answer_correct_fraction", "share", 0.03),
            Watched("accuracy", "share", 0.03),
            Threshold("answer_correct_fraction", "fraction_of_best", "below", None, 0.2, 1, 1, "The same for the share of right answers."),
        ),
    ),
    Rule(
        "decay",
        "what was learned decays",
        live=(
            Threshold(
                "answer_logprob", "below_best", "below", 2.0, None, 1, 1,
                "2 nats per answer token below the run's best level: what was learned is being lost; the text may still "
                "be fluent.",
            ),
            Threshold("normalized_reward_mean", "below_best", "below", 2.0, None, 1, 1, "The same for the normalised reward."),
        ),
    ),
    Rule("evaluation_fell", "accuracy in evaluations fell"),
    Rule(
        "change_point",
        "a sharp change of level",
        "reward, answer log-prob, right answers",
        "a sharp change of level, of 0.7 nats (0.2 for a fraction)",
        "high over 15 standard errors, medium over 8",
        check=change_point,
    ),
    Rule(
        "decay_after_peak",
        "the run got better and then worse",
        "evaluations; if there were none during training: reward, log-prob, answers in the CoT",
        "the best checkpoint beats the last; or the best window beats the last by 0.3 nats (0.1 for a fraction), 3.5 "
        "standard errors and a quarter of the gain",
        "evaluations: high for z > 2.6, medium for z > 1.6, low for 5 points; rows: high over 5 standard errors and "
        "half of the gain",
        check=decay,
        explains="summary",
        cause="trained_past_its_best",
        plural="got better and then worse",
        warns="high",
    ),
    Rule(
        "answer_gone",
        "the reward rises while answers vanish from the CoT",
        "reward, answers in the CoT",
        "the reward ends above its start while CoTs with the answer fell by half",
        "high: 3 standard errors of both",
        check=answer_gone,
        explains="summary",
        advice=(
            "read the late samples: what does the reward pay for, if the answer is not in the CoT?",
            "keep the reader from learning the answers themselves: objective.reader=frozen or ema, with "
            "objective.actor_reward_weight=0 (docs/findings.md, Fluent garbage)",
        ),
        doubt="answer gone",
        plural="earn more reward while the answer vanishes from the CoT",
        warns="high",
    ),
    Rule(
        "trend",
        "the course of learning",
        "reward, log-prob, answers in the CoT, right answers",
        "Theil-Sen change over the whole course, Mann-Kendall test at 99 % with autocorrelation; else best evaluation and base at 99 %",
        "high",
        check=learning,
    ),
    Rule(
        "no_learning",
        "nothing was learned",
        "the same",
        "no measure of success changed in 40 rows or more",
        "medium",
        explains="summary",
        advice=("check that the adapter trains (gradient norm, KL above 0) and that groups have a spread of rewards",),
        doubt="nothing learned",
        plural="learned nothing",
    ),
    Rule(
        "cannot_tell",
        "too few rows to say whether it learns",
        "the same",
        "the interval allows both a change that would matter and none",
        "high",
        advice=("more rows, or more samples per row, are needed before a trend shows",),
        plural="are too noisy or short to say whether they learn",
    ),
    Rule(
        "plateau",
        "the second half added little",
        "reward",
        "no gain beyond noise in the second half",
        "medium",
        check=plateau,
        advice=("the second half added little: stop earlier, or change what limits it (CoT length, group size, temperature)",),
    ),
    Rule(
        "learning_rate_too_high",
        "the policy drifted away within a few steps, as it does when the learning rate is too high",
        "training.lr, the collapse",
        "a collapse with a rate above the highest one known to work, or with nothing that moved before it",
        "medium for a rate above that one, else low",
        check=high_rate,
        explains="fallback",
        advice=_CRASH,
    ),
    Rule(
        "unknown_collapse",
        "the signals show a collapse but not why",
        "the live tests",
        "a collapse that no other rule explains",
        "low",
        check=unexplained,
        explains="fallback",
        advice=(*_CRASH, "read the samples around the onset"),
    ),
)  # fmt: skip
