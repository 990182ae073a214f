"""The table of runs as the page shows it: columns in groups, what runs can be grouped by, and the folds of many runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markovlm.health.diagnose import Diagnosis
from markovlm.health.levels import Level
from markovlm.intervals import MISSING
from markovlm.logs.records import LoggedEvaluation
from markovlm.logs.schema import METRIC
from markovlm.present.table import Source
from markovlm.report.run_rows import SIGNALS, RunRow, run_rows
from markovlm.report.settings import split_settings
from markovlm.report.tables import accuracy_cell, by_gravity, level_texts, row_source

FEW_RUNS = 12  # up to so many runs are shown one by one
_MOST_GROUPINGS = 12
_MOST_VALUES = 30  # of a setting that runs can be grouped by


@dataclass(frozen=True, slots=True)
class Shown:
    """One cell: `text`, what is below it, the number to sort by, where it was read."""

    value: float | None
    text: str
    small: str = ""
    hint: str = ""
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class OverviewRow:
    """One run: a cell for each column of `Overview.groups`."""

    d: Diagnosis
    row: RunRow
    cells: tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """Groups of columns (name, its columns) and the runs, the gravest first."""

    groups: tuple[tuple[str, tuple[str, ...]], ...]
    rows: tuple[OverviewRow, ...]


_NONE = Shown(None, MISSING)
_WHEN = ("start", "best", "end")


def overview(all_of_them: Sequence[Diagnosis]) -> Overview:
    """All runs. A reward that is the answer's log-prob everywhere has no columns of its own."""
    ordered = by_gravity(all_of_them)
    rows = run_rows(ordered)
    keys = [key for key in SIGNALS if any(key in row.signals for row in rows)]
    if all(row.signals.get("reward_mean") in (None, row.signals.get("answer_logprob")) for row in rows):
        keys = [key for key in keys if key != "reward_mean"]
    evaluated = any(row.base or row.best or row.last for row in rows)
    groups = [("accuracy", ("base", "best", "last"))] if evaluated else []
    groups += [(METRIC[key].label if key in METRIC else key, _WHEN) for key in keys]
    shown = []
    for d, row in zip(ordered, rows, strict=True):
        cells = [_score(d, e) for e in (row.base, row.best, row.last)] if evaluated else []
        cells += [_level(d, row, key, when) for key in keys for when in _WHEN]
        shown.append(OverviewRow(d, row, tuple(cells)))
    return Overview(tuple(groups), tuple(shown))


def _level(d: Diagnosis, row: RunRow, key: str, when: str) -> Shown:
    if key not in row.signals:
        return _NONE
    found: Level = getattr(row.signals[key], when)
    text, error = level_texts(found)
    small = (f"±{error}" if error else "", f"@ {found.first_step:,}" if when == "best" else "")
    hint = f"mean of {found.rows:,} rows, steps {found.first_step:,} to {found.last_step:,}"
    return Shown(found.mean, text, " ".join(filter(None, small)), hint, row_source(d.run, found.first_step))


def _score(d: Diagnosis, e: LoggedEvaluation | None) -> Shown:
    if e is None:
        return _NONE
    cell = accuracy_cell(d.run, e)
    accuracy, _, interval = cell.text.partition(" [")
    hint = f"{e.split}, n = {e.n:,}, {e.main}, step {e.step:,}"
    return Shown(e.score.accuracy, accuracy, f"[{interval}" if interval else f"n = {e.n:,}", hint, cell.source)


def groupings(all_of_them: Sequence[Diagnosis]) -> dict[str, dict[str, str | None]]:
    """What runs can be grouped by: name -> (run -> value, None if it is not said)."""
    found: dict[str, dict[str, str | None]] = {
        "task": {d.run.name: d.run.task for d in all_of_them},
        "verdict": {d.run.name: d.verdict for d in all_of_them},
    }
    for name in split_settings([d.run for d in all_of_them]).differ:
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
