"""Rules about courses: change points, decay, learning that stopped or never began."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from markovlm.health.levels import levels
from markovlm.health.rules.case import Case, Confidence, Finding, percent, scored
from markovlm.health.series import (
    Course,
    best_evaluation,
    difference_z,
    halves_gain,
    largest_jump,
    last_evaluation,
    noise,
)
from markovlm.health.trend import Direction, Trend, claimed, trend
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


def decay_of_accuracy(case: Case) -> Iterable[Finding]:
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


def decay_of_signals(case: Case) -> Iterable[Finding]:
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
    how = f", {100 * share:.0f} % of what had been gained" if share <= 1 else ", under where it began" if share < math.inf else ""
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
        (
            "read the late samples: what does the reward pay for, if the answer is not in the CoT?",
            "keep the reader from learning the answers by themselves: objective.reader=frozen or ema, with objective.actor_reward_weight=0 "
            "(docs/findings.md, Fluent garbage)",
        ),
    )


def _nearest_checkpoint(case: Case, step: int) -> str:
    safe = [s for s in case.checkpoints if case.safe_step(s) == s]
    if safe:
        nearest = min(safe, key=lambda s: (abs(s - step), s))
        return f"at step {nearest:,}"
    return f"closest to step {step:,}"


# --- did it learn? -----------------------------------------------------------------------------------------------------

# The least change over a whole run that would matter: nats, or a fraction.
LEAST_CHANGE = {
    "normalized_reward_mean": 0.3, "reward_mean": 0.3, "answer_logprob": 0.3,
    "cot_contains_answer": 0.1, "answer_correct_fraction": 0.1, "accuracy": 0.1,
}  # fmt: skip


def least_change(c: Course) -> float:
    """`LEAST_CHANGE`, of a reward between 0 and 1 that of a fraction."""
    least = LEAST_CHANGE[c.key]
    return min(least, 0.1) if c.key == "reward_mean" and c.values.min() >= 0.0 and c.values.max() <= 1.0 else least


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
    return f"{label(t.key)} {t.change / 10:+.3g} [{t.low / 10:+.3g}, {t.high / 10:+.3g}] in each tenth of its {t.n:,} rows"


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
            yield Finding("trend", "learns over the whole course: " + "; ".join(_told(t) for t in up[:3]), "high")
        if down and (not up or abs(down[0].z) > abs(up[0].z)):
            yield Finding("trend", "falls over the whole course: " + "; ".join(_told(t) for t in down[:3]), "high", "caution")
        return
    if any(_rose_on_the_way(c, least_change(c)) for t, _ in found if (c := case.course(t.key)) is not None) or _solved(case):
        return
    t = found[0][0]
    if said == {"level"} and t.n >= 40:
        yield Finding(
            "no_learning",
            f"no signal of success moved: {'; '.join(_told(t) for t, _ in found[:3])}",
            "medium",
            "caution",
            advice=("check that the adapter trains (gradient norm, KL above 0) and that groups have a spread of rewards",),
        )
    elif "cannot tell" in said:
        t = next(t for t, direction in found if direction == "cannot tell")
        yield Finding(
            "cannot_tell",
            f"whether it learns cannot be told: {_told(t)}, and anything in that interval is possible",
            "high",
            advice=("more rows, or more samples a row, are needed before a trend shows",),
        )


def _rose_on_the_way(c: Course, least: float) -> bool:
    """Was the run better in between than at its start?"""
    found = levels(c)
    gained = found.best.mean - found.start.mean
    return gained > max(least, 3.5 * math.hypot(found.best.error or 0.0, found.start.error or 0.0))


def _solved(case: Case) -> bool:
    shares = [c for key in ("answer_correct_fraction", "accuracy", "reward_mean") if (c := case.course(key)) is not None]
    return any(c.values.min() >= 0.0 and c.values.max() <= 1.0 and levels(c).end.mean > 0.75 for c in shares)


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
            advice=(
                "the second half added little: stop earlier, or change what limits it (CoT length, group size, temperature)",
            ),
        )


def length_saturation(case: Case) -> Iterable[Finding]:
    c = case.course("cot_length_saturated_fraction")
    if c is None or len(c) < 10 or case.setting("rollouts.fixed_length") is True:
        return
    tenth = max(1, len(c) // 10)
    first, last = float(c.values[:tenth].mean()), float(c.values[-tenth:].mean())
    if last > 0.8 and last - first > 0.2:
        yield Finding(
            "cot_length_saturation",
            f"CoTs that use the whole budget rose from {percent(first)} to {percent(last)}",
            "high",
            "caution",
            advice=("raise rollouts.max_cot_tokens: reasoning is being cut off",),
        )
