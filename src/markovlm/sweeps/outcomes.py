"""From runs on disk to what is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markovlm.health.diagnose import Diagnosis
from markovlm.logs.records import LoggedEvaluation
from markovlm.runs.rows import read_rows
from markovlm.sweeps.cells import Cell
from markovlm.sweeps.compare import Outcome
from markovlm.sweeps.run import Sweep
from markovlm.sweeps.state import read_evaluation


def outcomes_of(sweep: Sweep, statuses: Mapping[str, str], diagnoses: Sequence[Diagnosis]) -> tuple[list[Outcome], str]:
    """(an outcome a cell, the metric). Unfinished and failed runs are included without a score, not silently dropped."""
    judged = {d.run.path.resolve(): d for d in diagnoses}
    metric = _metric(sweep, list(judged.values()))
    return [
        _outcome(sweep, cell, statuses[cell.name], judged.get(sweep.layout.run(cell).resolve()), metric) for cell in sweep.cells
    ], metric


def _metric(sweep: Sweep, diagnoses: Sequence[Diagnosis]) -> str:
    if sweep.spec.metric != "auto":
        return sweep.spec.metric
    evals = [e for d in diagnoses for e in d.run.evals]
    return "accuracy" if not evals or all(e.scores for e in evals) else "logprob"


def _outcome(sweep: Sweep, cell: Cell, status: str, judged: Diagnosis | None, metric: str) -> Outcome:
    if judged is None or status not in ("done", "stopped"):
        return Outcome(cell.name, cell.group, cell.values, cell.seed, status)
    run = judged.run
    dev = [e for e in run.evals if e.of_actor and e.split == cell.config.data.dev_split and _score(e, metric) is not None]
    curve = tuple(sorted({e.step: _score(e, metric) or 0.0 for e in dev}.items()))
    score, n, where, how, answers = _final(sweep, cell, metric) or (*_last(dev, metric), None)
    times = run.metrics["step_seconds"].drop_nulls() if run.has("step_seconds") else None
    return Outcome(
        cell.name,
        cell.group,
        cell.values,
        cell.seed,
        status,
        score,
        n,
        where,
        curve,
        max((value for _, value in curve), default=None),
        judged.verdict,
        None if times is None else float(times.sum()),
        run.last_step or 0,
        answers,
        how,
    )


def _score(e: LoggedEvaluation, metric: str) -> float | None:
    if metric == "logprob":
        return e.logprob
    return e.scores[e.main].accuracy if e.main in e.scores else None


def _last(dev: Sequence[LoggedEvaluation], metric: str) -> tuple[float | None, int, str, Mapping[str, Any] | None]:
    if not dev:
        return None, 0, "", None
    last = max(dev, key=lambda e: e.step)
    return _score(last, metric), last.n, f"{last.split}, step {last.step}", last.how


_Final = tuple[float, int, str, Mapping[str, Any] | None, Mapping[str, float] | None]


def _final(sweep: Sweep, cell: Cell, metric: str) -> _Final | None:
    """Of the evaluation that the sweep asked for."""
    report = read_evaluation(sweep.layout.evaluation(cell)) if sweep.spec.evaluate else None
    rows: list[dict[str, Any]] = [row for row in (report or {}).get("results", []) if row["checkpoint"] != "base"]
    if not rows:
        return None
    row = rows[-1]
    extractors = list(row["extractors"].values())
    value = row["logprob"] if metric == "logprob" else (extractors[0]["accuracy"] if extractors else None)
    if value is None:
        return None
    answers = _answers(sweep.layout.run(cell) / "evaluations", row, metric)
    return float(value), int(row["n"]), f"{row['split']}, {row['checkpoint']}", row.get("how"), answers


def _answers(folder: Path, row: Mapping[str, Any], metric: str) -> dict[str, float] | None:
    """Question by question what the value of an evaluation's row is the mean of; None if its readings are not kept, or are others."""
    for path in sorted(folder.glob(f"{row['checkpoint']}-{row['split']}-*.jsonl")):
        header, *readings = read_rows(path)
        if header.get("how") != row.get("how"):
            continue
        first = next(iter(row["extractors"]), None)
        found = {r["id"]: float(r["logprob"] if metric == "logprob" else r["correct"][first]) for r in readings}
        return found if len(found) == row["n"] else None
    return None


def run_paths(sweep: Sweep) -> list[Path]:
    """Directories with something to read."""
    paths = [sweep.layout.run(cell) for cell in sweep.cells]
    return [path for path in paths if (path / "metrics.jsonl").exists()]
