"""What a collapse cost, and what was paid for groups that could teach nothing.

Since the onset: steps, time, and the share of both. Where a log has no times, tokens stand for compute: completions that grow to their limit
cost more than their share of the steps. Groups without spread (all rewards of a question equal) have no advantage between their CoTs; of a
collapsed run those before the onset are counted, as all that came later is counted already.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from markovlm.intervals import percent_text
from markovlm.logs.records import RunData, training_rows

_TOLD_FROM = 0.05  # share of groups without spread from which it is said
_MOST_MISSING = 0.5  # share of rows without a time, or length, beyond which nothing is concluded
_EQUAL = 1e-9  # a standard deviation of rewards below it is none

Array = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class SinceOnset:
    """What was spent from the onset on. `of_…`: in the whole run. None if the log does not say."""

    onset_step: int
    steps: int
    of_steps: int
    seconds: float | None = None
    of_seconds: float | None = None
    token_share: float | None = None  # of all sampled tokens

    @property
    def share(self) -> float:
        """Of the compute: by time, else by tokens, else by steps."""
        if self.seconds is not None and self.of_seconds:
            return self.seconds / self.of_seconds
        return self.token_share if self.token_share is not None else self.steps / self.of_steps

    @property
    def share_of(self) -> str:
        return "time" if self.seconds is not None and self.of_seconds else "tokens" if self.token_share is not None else "steps"

    @property
    def line(self) -> str:
        """`661 of 1,000 steps since step 340: 5.2 of 7.9 hours, 66 % of the time`"""
        steps = f"{self.steps:,} of {self.of_steps:,} steps since step {self.onset_step:,}"
        spent = f"{_time(self.seconds, self.of_seconds)}, " if self.seconds is not None and self.of_seconds else ""
        return f"{steps}: {spent}{percent_text(self.share)} of the {self.share_of}"


@dataclass(frozen=True, slots=True)
class IdleGroups:
    """Groups whose rewards were all equal: shares of all groups. `all_right`, `all_wrong`: all answers were; None if the log does not
    say.
    """

    share: float
    all_right: float | None
    all_wrong: float | None
    cots: int | None  # in them; None where the log does not say how many there are
    before_step: int | None  # the onset, before which they were counted

    @property
    def line(self) -> str:
        """`31 % of the groups had one reward for all CoTs (19 % all right, 12 % all wrong): paid for, and no advantage to learn from`"""
        when = "" if self.before_step is None else f" before step {self.before_step:,}"
        shares = (("right", self.all_right), ("wrong", self.all_wrong))
        parts = [f"{percent_text(part)} all {name}" for name, part in shares if part is not None]
        split = f" ({', '.join(parts)})" if parts else ""
        cots = "" if self.cots is None else f"{self.cots:,} CoTs "
        return f"{percent_text(self.share)} of the groups{when} had one reward for all CoTs{split}: {cots}paid for, and no advantage to learn from"


@dataclass(frozen=True, slots=True)
class Cost:
    """What was paid for nothing."""

    since_onset: SinceOnset | None
    idle_groups: IdleGroups | None

    @property
    def lines(self) -> tuple[str, ...]:
        idle = self.idle_groups
        told = idle.line if idle is not None and idle.share >= _TOLD_FROM else None
        since = self.since_onset.line if self.since_onset is not None else None
        return tuple(line for line in (since, told) if line is not None)

    def as_json(self) -> dict[str, Any]:
        since, idle = self.since_onset, self.idle_groups
        return {
            "since_onset": since and {**asdict(since), "share": since.share, "share_of": since.share_of},
            "groups_without_spread": idle and asdict(idle),
            "lines": list(self.lines),
        }


def cost_of(run: RunData, onset: int | None) -> Cost:
    """What a run paid for nothing; `onset` is the first step of its collapse, None if it did not collapse."""
    rows = training_rows(run)
    if not rows.height:
        return Cost(None, None)
    return Cost(None if onset is None else _since(rows, onset), _idle(rows, onset))


def _since(rows: pl.DataFrame, onset: int) -> SinceOnset | None:
    steps = rows["step"].to_numpy()
    late = steps >= onset
    if not late.any():
        return None
    spans = _spans(steps)
    seconds, tokens = _whole(rows, "step_seconds"), _whole(rows, "cot_length")
    count, all_of_them = int(spans[late].sum()), int(spans.sum())
    spent = None if seconds is None else seconds * spans
    written = None if tokens is None else tokens * spans * _samples(rows)
    return SinceOnset(
        onset,
        count,
        all_of_them,
        None if spent is None else float(spent[late].sum()),
        None if spent is None else float(spent.sum()),
        None if written is None or not written.sum() else float(written[late].sum() / written.sum()),
    )


def _spans(steps: Array) -> Array:
    """Steps that each row stands for: those since the row before; a gap far above the usual one is a part that was not logged."""
    if len(steps) < 2:
        return np.ones(len(steps))
    gaps = np.diff(steps).clip(min=1)
    usual = max(1.0, float(np.median(gaps)))
    first = min(usual, max(1.0, float(steps[0])))
    return np.concatenate([[first], gaps.clip(max=2 * usual)]).round()


def _column(rows: pl.DataFrame, key: str) -> Array:
    return rows[key].cast(pl.Float64).to_numpy().astype(float)


def _whole(rows: pl.DataFrame, key: str) -> Array | None:
    """A column without gaps (the median stands in), or None where too much of it is missing."""
    if key not in rows.columns:
        return None
    values = _column(rows, key)
    there = np.isfinite(values) & (values >= 0)
    if not there.any() or (~there).mean() > _MOST_MISSING:
        return None
    return np.where(there, values, np.median(values[there]))


def _samples(rows: pl.DataFrame) -> Array:
    """CoTs of each step; 1 where the log does not say."""
    found = _whole(rows, "samples")
    return np.ones(rows.height) if found is None else found


def _idle(rows: pl.DataFrame, onset: int | None) -> IdleGroups | None:
    early = rows if onset is None else rows.filter(pl.col("step") < onset)
    if not early.height:
        return None
    share = _share_idle(early)
    if share is None:
        return None
    spans, samples = _spans(early["step"].to_numpy()), _whole(early, "samples")
    there = np.isfinite(share)
    weight = (spans * (np.ones(early.height) if samples is None else samples))[there]
    right, wrong = _parts(early, share)

    def mean(values: Array | None) -> float | None:
        if values is None or not (known := np.isfinite(values[there])).any():
            return None
        return float(np.average(values[there][known], weights=weight[known]))

    cots = None if samples is None else round(float((share[there] * weight).sum()))
    return IdleGroups(mean(share) or 0.0, mean(right), mean(wrong), cots, onset)


def _share_idle(rows: pl.DataFrame) -> Array | None:
    """Share of each step's groups without spread, NaN where not known. Without a count of groups: steps in which no reward differed at all."""
    if "groups_without_spread" in rows.columns and rows["groups_without_spread"].is_finite().fill_null(False).any():
        return _column(rows, "groups_without_spread").clip(0.0, 1.0)
    if "reward_std" in rows.columns and rows["reward_std"].is_finite().fill_null(False).any():
        std = _column(rows, "reward_std")
        return np.where(np.isfinite(std), (std < _EQUAL).astype(float), np.nan)
    return None


def _parts(rows: pl.DataFrame, share: Array) -> tuple[Array | None, Array | None]:
    """All right, all wrong, as shares of all groups: as logged, else of the steps where every group is without spread, if all others have none."""
    if {"groups_all_right", "groups_all_wrong"} <= set(rows.columns):
        return _column(rows, "groups_all_right"), _column(rows, "groups_all_wrong")
    known = np.isfinite(share)
    if not np.isin(share[known], (0.0, 1.0)).all():
        return None, None
    for key in ("accuracy", "answer_correct_fraction"):
        if key in rows.columns:
            correct = _column(rows, key)
            return share * (correct >= 1.0), share * (correct <= 0.0)
    return None, None


def _time(part: float, whole: float) -> str:
    """`5.2 of 7.9 hours`"""
    for unit, seconds in (("hours", 3600.0), ("minutes", 60.0)):
        if whole >= 1.5 * seconds:
            return f"{part / seconds:,.1f} of {whole / seconds:,.1f} {unit}"
    return f"{part:,.0f} of {whole:,.0f} seconds"
