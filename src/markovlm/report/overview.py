"""The table of runs at the top of the page: levels of each signal, sortable, groupable, what cannot be judged last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markovlm.report.diagnose import Diagnosis
from markovlm.report.series import course, smooth
from markovlm.report.tables import by_gravity, number_text, split_settings

FEW_RUNS = 12  # up to so many runs are shown one by one
_MOST_GROUPINGS = 12
_MOST_VALUES = 30  # of a setting that runs can be grouped by


@dataclass(frozen=True, slots=True)
class Level:
    """A level as shown: `text`, what stands below it, and the number to sort by."""

    value: float | None
    text: str
    small: str = ""


@dataclass(frozen=True, slots=True)
class OverviewRow:
    """One run: a level for each column of `Overview.columns`."""

    d: Diagnosis
    levels: tuple[Level, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """Groups of columns ((name, unit), its columns) and the runs."""

    groups: tuple[tuple[str, tuple[str, ...]], ...]
    rows: tuple[OverviewRow, ...]


_SIGNALS = (
    ("normalized_reward_mean", "normalised reward"),
    ("answer_logprob", "answer log-prob"),
    ("cot_contains_answer", "CoT has answer"),
)
_NONE = Level(None, "—")


def runs_table(all_of_them: Sequence[Diagnosis]) -> Overview:
    """All runs, the gravest first."""
    signals = [(key, name) for key, name in _SIGNALS if any(d.run.has(key) for d in all_of_them)]
    evaluated = any(d.case.best or d.case.last or d.case.base for d in all_of_them)
    groups = [(name, ("start", "best", "end")) for _, name in signals]
    if evaluated:
        groups.append(("accuracy", ("base", "best", "last")))
    rows = []
    for d in by_gravity(all_of_them):
        levels = [level for key, _ in signals for level in _levels(d, key)]
        if evaluated:
            levels += [_score(e) for e in (d.case.base, d.case.best, d.case.last)]
        rows.append(OverviewRow(d, tuple(levels)))
    return Overview(tuple(groups), tuple(rows))


def _levels(d: Diagnosis, key: str) -> list[Level]:
    c = course(d.run, key)
    if c is None:
        return [_NONE] * 3
    window = max(1, len(c) // 10)
    spread = float(c.values.std()) / math.sqrt(window)
    level = smooth(c.values, window)[window // 2 : max(window // 2 + 1, len(c) - window // 2)]
    best = int(level.argmax())
    found = [
        (float(c.values[:window].mean()), ""),
        (float(level[best]), f" @ {int(c.steps[best + window // 2]):,}"),
        (float(c.values[-window:].mean()), ""),
    ]
    return [Level(value, number_text(value), f"±{number_text(float(f'{spread:.1g}'))}{at}") for value, at in found]


def _score(e: object) -> Level:
    from markovlm.logs.records import Evaluation

    if not isinstance(e, Evaluation):
        return _NONE
    s = e.score
    interval = f"[{100 * s.low:.1f}, {100 * s.high:.1f}]" if s.low is not None and s.high is not None else f"n = {e.n:,}"
    return Level(s.accuracy, f"{100 * s.accuracy:.1f} %", interval)


def groupings(all_of_them: Sequence[Diagnosis]) -> dict[str, dict[str, str | None]]:
    """What runs can be grouped by: name -> (run -> value, None where it is not said)."""
    found: dict[str, dict[str, str | None]] = {
        "task": {d.run.name: d.run.task for d in all_of_them},
        "verdict": {d.run.name: d.verdict for d in all_of_them},
    }
    differ, _ = split_settings([d.run for d in all_of_them])
    for name in differ:
        values = {d.run.name: _text(d.run.config.get(name)) for d in all_of_them}
        several = {value for value in values.values() if value is not None}
        if 1 < len(several) <= _MOST_VALUES and len(found) < _MOST_GROUPINGS and name != "task":
            found[name] = values
    return found


def _text(value: object) -> str | None:
    return None if value is None else str(value)[:60]


def folded(all_of_them: Sequence[Diagnosis]) -> list[tuple[str, list[Diagnosis], bool]]:
    """(heading, runs, open at first): one list of few runs, a fold for each verdict of many."""
    ordered = by_gravity(all_of_them)
    if len(ordered) <= FEW_RUNS:
        return [("", ordered, True)]
    names = {"collapsed": "collapsed", "warn": "to look at", "healthy": "healthy", "unknown": "that cannot be judged"}
    groups = ((name, [d for d in ordered if d.verdict == verdict]) for verdict, name in names.items())
    return [
        (f"{len(runs)} run{'' if len(runs) == 1 else 's'} {name}", runs, len(runs) <= FEW_RUNS and name == "collapsed")
        for name, runs in groups
        if runs
    ]
