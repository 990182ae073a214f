"""Rewards by their parts: what is paid, and where the fall is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from markovlm.health.case import Case
from markovlm.health.levels import surely_above, window_of
from markovlm.health.rule import Finding, Rule
from markovlm.health.series import Course, smooth, window_means
from markovlm.health.trend import trend
from markovlm.logs.schema import COMPONENT, SOURCE, components, label


def reward_hacking(case: Case) -> Iterable[Finding]:
    """One part of the reward, or the share of right answers, falls while another rises and the total does not fall."""
    if case.outcome_lost:
        return
    falling = [f for key in (*_functions(case), "accuracy", "answer_correct_fraction") if (f := _falls(case, key)) is not None]
    if not falling:
        return
    worst = max(falling, key=lambda f: f.share)
    total = case.course("reward_mean")
    rising = [
        (key, gained) for key in _functions(case) if key != worst.key and (gained := _gain_since(case, key, worst.since)) > 0.0
    ]
    paid, gained = max(rising, key=lambda pair: pair[1], default=("", 0.0))
    in_all = _gain_since(case, "reward_mean", worst.since)
    if paid and gained >= 0.5 * worst.lost and (total is None or in_all > -0.2 * worst.lost):
        rose, name = paid, label(paid)
    elif worst.key not in _functions(case) and total is not None and in_all > 0.0 and (t := trend(total)) and t.low > 0.0:
        rose, name = "reward_mean", "the reward"
    else:
        return
    yield Finding(
        "reward_hacking",
        f"{name} rose {_from_to(case, rose, worst.since)} while {label(worst.key)} fell from {worst.before:.3g} to {worst.after:.3g}, "
        f"from step {worst.since:,} on",
        "high" if worst.share > 0.5 else "medium",
        "problem",
        worst.since,
    )


def _functions(case: Case) -> list[str]:
    return [key for key in components(case.run.metrics.columns) if key.startswith(COMPONENT)]


@dataclass(frozen=True, slots=True)
class _Fall:
    key: str
    since: int  # first step after its best window
    before: float
    after: float

    @property
    def lost(self) -> float:
        return self.before - self.after

    @property
    def share(self) -> float:
        return self.lost / max(abs(self.before), 1e-9)


def _falls(case: Case, key: str) -> _Fall | None:
    """A part that surely fell and stayed down: from its best window to its last, a third of that level at least, and more than noise."""
    c = case.course(key)
    if c is None or len(c) < 20:
        return None
    window = window_of(len(c))
    at = int(np.argmax(window_means(c.values, window)))
    best, end = c.values[at : at + window], c.values[-max(window, (len(c) - at) // 4) :]
    lost = float(best.mean() - end.mean())
    if len(c) - at < 12 or lost <= 0.0 or lost < 0.3 * abs(best.mean()) or not surely_above(c, best, end):
        return None
    left = np.flatnonzero(smooth(c.values, max(3, window // 2))[at:] < best.mean() - 0.15 * lost)
    return _Fall(
        key, int(c.steps[min(at + (int(left[0]) if len(left) else 0), len(c) - 1)]), float(best.mean()), float(end.mean())
    )


def _gain_since(case: Case, key: str, step: int) -> float:
    """How much a part gained from the rows around a step to the last; 0 within noise."""
    c = case.course(key)
    if c is None:
        return 0.0
    before, after = _around(c, step)
    if len(before) < 3 or len(after) < 3:
        return 0.0
    gained = float(after.mean() - before.mean())
    return gained if surely_above(c, max(before, after, key=np.mean), min(before, after, key=np.mean)) else 0.0


def _around(c: Course, step: int) -> tuple[np.ndarray, np.ndarray]:
    """(the rows before a step, at most a tenth or ten; the last rows, as many)."""
    at = int(np.searchsorted(c.steps, step))
    window = max(5, min(window_of(len(c)), len(c) // 4))
    return c.values[max(0, at - window) : max(at, min(window, len(c) // 4))], c.values[-window:]


def _from_to(case: Case, key: str, step: int) -> str:
    c = case.course(key)
    if c is None:
        return ""
    before, after = _around(c, step)
    return f"from {float(before.mean()):.3g} to {float(after.mean()):.3g}"


def part_fell(case: Case) -> Iterable[Finding]:
    """Where a reward that fell has lost: in which of its functions, or on which data."""
    fell = [e for e in case.verdict.signals if e.kind in ("reward_crash", "accuracy_crash", "decay") and not e.recovered]
    if not fell:
        return
    onset = min(fell, key=lambda e: e.step).step
    for prefix, what in ((SOURCE, "data"), (COMPONENT, "reward function")):
        parts = []
        for key in (key for key in case.run.metrics.columns if key.startswith(prefix)):
            c = case.course(key)
            if c is None or len(c) < 8:
                continue
            before, after = c.values[c.steps < onset][-10:], c.values[c.steps >= onset][-10:]
            if len(before) >= 2 and len(after) >= 2:
                parts.append((key.removeprefix(prefix), float(before.mean()), float(after.mean())))
        lost = [part for part in parts if part[1] - part[2] > 0.3 * abs(part[1]) and part[1] - part[2] > 0.0]
        kept = [part for part in parts if part not in lost]
        if len(parts) < 2 or not lost:
            continue
        lost.sort(key=lambda part: part[2] - part[1])
        said = ", ".join(f"{name} ({was:.3g} to {now:.3g})" for name, was, now in lost[:3])
        not_in = ", ".join(f"{name} ({was:.3g} to {now:.3g})" for name, was, now in kept[:3])
        yield Finding(
            "part_fell",
            f"broken down by {what}, the fall is in {said}" + (f", not in {not_in}" if kept else ": in all of them"),
            "high",
            "caution" if kept else "note",
            onset,
            (f"look at {lost[0][0]} first: its completions around step {onset:,}, its share of the data and its reward",)
            if kept
            else (),
        )


RULES = (
    Rule(
        "reward_hacking",
        "suspected: the reward pays for something other than what is wanted",
        "parts of the reward, right answers, the total",
        "one measurably falls by a third while another gains half of that, and the total does not fall",
        "high if over half is lost",
        check=reward_hacking,
        explains="mechanism",
        advice=(
            "read the completions with the highest rewards: what are they rewarded for?",
            "give the part that fell more weight, or pay the other part only where the first is earned too",
            "evaluate on held-out questions with another reward",
            "kl",
        ),
        doubt="reward misleads",
        plural="are rewarded for something other than what is wanted",
        warns="medium",
        seen=("https://github.com/OpenRLHF/OpenRLHF/issues/1263",),
    ),
    Rule(
        "part_fell",
        "the fall is in one part of the reward",
        "reward by function and by data source",
        "a part lost 30 % since the onset",
        "high: measured",
        check=part_fell,
        plural="lost one part of their reward",
    ),
)  # fmt: skip
