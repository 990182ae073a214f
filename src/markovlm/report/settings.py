"""Settings of runs side by side. A setting that a log does not give is not a difference: it is listed apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markovlm.logs.records import RunData
from markovlm.present.table import Cell, Source, Table, number_text, plain

_MISSING = object()


@dataclass(frozen=True, slots=True)
class Split:
    """Names of settings in order of first appearance: with several values, with one value that some runs do not say, shared."""

    differ: tuple[str, ...]
    partial: tuple[str, ...]
    common: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """`differ`: a row per run, a column per setting. `partial`: a row per setting that not all runs give. `common`: a row per setting.

    `whole` is `differ` with the columns of `partial`, for CSV.
    """

    differ: Table
    partial: Table
    common: Table
    whole: Table


def split_settings(runs: Sequence[RunData]) -> Split:
    """Which settings differ. Runs without any configuration say nothing and are left out."""
    configured = [run for run in runs if run.config]
    names = dict.fromkeys(name for run in configured for name in run.config)
    differ, partial, common = [], [], []
    for name in names:
        said = [repr(run.config[name]) for run in configured if name in run.config]
        where = differ if len(set(said)) > 1 else partial if len(said) < len(configured) else common
        where.append(name)
    return Split(tuple(differ), tuple(partial), tuple(common))


def settings(runs: Sequence[RunData]) -> Settings:
    """The tables of settings."""
    split = split_settings(runs)
    common = [(plain(name), *_told(runs, name)[:1]) for name in split.common]
    partial = [(plain(name), *_told(runs, name)) for name in split.partial]
    return Settings(
        _by_run("Settings that differ", runs, split.differ),
        Table("settings-partial", "Settings that only some logs record", ("setting", "value", "named by"), tuple(partial)),
        Table("settings-common", "Settings in common", ("setting", "value"), tuple(common)),
        _by_run("Settings that differ", runs, (*split.differ, *split.partial)),
    )


def _by_run(title: str, runs: Sequence[RunData], names: Sequence[str]) -> Table:
    rows = []
    for run in runs:
        source = _config_source(run)
        rows.append((plain(run.name, "run"), plain(run.kind), *(_setting(run.config.get(n, _MISSING), source) for n in names)))
    return Table("settings", title, ("run", "log", *names), tuple(rows))


def _told(runs: Sequence[RunData], name: str) -> tuple[Cell, Cell]:
    """(the value, who says so) of a setting with one value."""
    named = [run for run in runs if name in run.config]
    who = f"{len(named)} of {len(runs)} runs" if len(named) > 2 else ", ".join(run.name for run in named)
    return _setting(named[0].config[name], _config_source(named[0])), plain(who)


def _config_source(run: RunData) -> Source | None:
    path = run.files.get("config", run.files.get("metrics"))
    return None if path is None else Source(path, None if "config" in run.files else 1)


def _setting(value: Any, source: Source | None) -> Cell:
    if value is _MISSING:
        return plain(None, "missing")
    if value is None or isinstance(value, bool):
        return Cell(value, {None: "null", True: "true", False: "false"}[value], source)
    text = number_text(value) if isinstance(value, float) else str(value)
    return Cell(value, text if len(text) <= 60 else text[:59] + "…", source)
