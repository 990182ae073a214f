"""Verdicts on runs and logs, ours or another framework's, and the report on any number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markovlm.api.arguments import PATH, listed
from markovlm.api.results import Diagnoses
from markovlm.errors import UserError

if TYPE_CHECKING:
    from markovlm.logs.find import Skipped
    from markovlm.report import ReportResult


def diagnose(
    what: str | Path | Sequence[str | Path] | Sequence[Mapping[str, Any]],
    columns: Mapping[str, str] | Sequence[str] | str | Path | None = None,
    *,
    skipped: list[Skipped] | None = None,
) -> Diagnoses:
    """A verdict on each run or log; or on one run given as metric rows, dicts in step order (docs/metrics.md names the keys).

    `columns` maps our names to a table's columns ({"reward": "train/reward"}), or names a file that does. Files in directories that are
    not runs are added to `skipped`. Raises UserError for a path that does not exist.

        rows = [{"step": s, "reward_mean": -1.0 if s < 50 else -9.0} for s in range(1, 101)]
        markovlm.diagnose(rows)[0].verdict
    """
    from markovlm.health.diagnose import diagnose_paths, diagnose_run
    from markovlm.logs.native import run_of_rows

    if isinstance(what, str | Path):
        return Diagnoses(diagnose_paths([what], skipped, _mapping(columns)))
    given = listed("diagnose", what, (*PATH, Mapping), "paths, or of metric rows")
    if not given:
        raise UserError("diagnose: nothing to judge; give paths, or metric rows")
    if all(isinstance(one, Mapping) for one in given):
        rows: Any = given
        return Diagnoses([diagnose_run(run_of_rows(rows))])
    paths = listed("diagnose", given, PATH, "paths alone, or of metric rows alone")
    return Diagnoses(diagnose_paths(paths, skipped, _mapping(columns)))


def _mapping(columns: Mapping[str, str] | Sequence[str] | str | Path | None) -> Any:
    from markovlm.logs.mapping import read_mapping

    if columns is None:
        return None
    if isinstance(columns, str | Path):
        return read_mapping([str(columns)])
    if isinstance(columns, Mapping):
        return read_mapping([f"{ours}={theirs}" for ours, theirs in columns.items()])
    return read_mapping(listed("columns", columns, str, "strings such as 'reward=train/reward'"))


def write_report(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    columns: Mapping[str, str] | Sequence[str] | str | Path | None = None,
) -> ReportResult:
    """Write report.html, report.md and tables on any number of runs and logs to the directory `out`. `columns` as in `diagnose`."""
    from markovlm.report import write_report as write

    named = [paths] if isinstance(paths, str | Path) else listed("write_report", paths, PATH, "paths")
    if not named:
        raise UserError("write_report: nothing to report on; give paths of runs or logs")
    return write(named, out, _mapping(columns))
