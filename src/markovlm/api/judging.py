"""Verdicts on runs and logs, ours or not, and the report on any pile of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markovlm.errors import UserError

if TYPE_CHECKING:
    from markovlm.logs.find import Skipped
    from markovlm.report import Diagnosis, ReportResult


def diagnose(
    what: str | Path | Sequence[str | Path] | Sequence[Mapping[str, Any]], *, skipped: list[Skipped] | None = None
) -> list[Diagnosis]:
    """A verdict on each run or log; or on one run given as metric rows, dicts in step order (docs/metrics.md names the keys).

    Files of directories that are no runs are added to `skipped`. Raises UserError for a path that is not there.

        rows = [{"step": s, "reward_mean": -1.0 if s < 50 else -9.0} for s in range(1, 101)]
        markovlm.diagnose(rows)[0].verdict
    """
    from markovlm.logs.native import run_of_rows
    from markovlm.report.diagnose import diagnose_paths, diagnose_run

    if isinstance(what, str | Path):
        return diagnose_paths([what], skipped)
    given = list(what)
    if not given:
        raise UserError("diagnose: nothing to judge; give paths, or metric rows")
    if all(isinstance(one, Mapping) for one in given):
        rows: Any = given
        return [diagnose_run(run_of_rows(rows))]
    paths: Any = given
    return diagnose_paths(paths, skipped)


def write_report(paths: str | Path | Sequence[str | Path], out: str | Path) -> ReportResult:
    """report.html, report.md and tables on any pile of runs and logs, in the directory `out`."""
    from markovlm.report import write_report as write

    return write([paths] if isinstance(paths, str | Path) else paths, out)
