"""Compact rows of a study's runs: what its tables and figures are made of, so that they can be rebuilt without the runs.

One JSON line a run in `studies/results/NAME.jsonl`: its values and seed, what it came to, its dev evaluations, the guard's words, and the
course of the columns that the studies look at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study_measures import measure

from markovlm.health.diagnose import diagnose_paths
from markovlm.runs.rows import read_rows, replace_whole
from markovlm.sweeps.cells import Cell
from markovlm.sweeps.compare import Outcome
from markovlm.sweeps.outcomes import outcomes_of, run_paths
from markovlm.sweeps.run import Sweep, open_sweep, statuses_of
from markovlm.sweeps.spec import StudyDesign
from markovlm.sweeps.state import last_event

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ROOT / "studies"
RESULTS = STUDIES / "results"
COURSE = (
    "reward_mean", "reward_std", "kl", "entropy", "grad_norm", "answer_logprob", "answer_correct_fraction", "answer_run_on_fraction",
    "reader_calibration", "cot_length",
    "cot_contains_answer", "distinct_bigram_fraction", "longest_char_run", "identical_cot_fraction", "groups_without_spread",
)  # fmt: skip

Row = dict[str, Any]


def study_files() -> list[Path]:
    """The studies, by name."""
    return sorted(path for path in STUDIES.glob("*.yaml") if not path.name.endswith(".base.yaml"))


def study_of(sweep: Sweep) -> StudyDesign:
    if sweep.spec.study is None:
        raise SystemExit(f"{sweep.path}: has no `study`: question, design, decides")
    return sweep.spec.study


def collect(path: Path, runs: Path) -> list[Row] | None:
    """Rows of the finished runs in the sweep directory `runs`; None where nothing was run there."""
    if not (runs / "cells").is_dir():
        return None
    sweep = open_sweep(path, runs)
    statuses = statuses_of(sweep)
    statuses |= {cell.name: "failed" for cell in sweep.cells if broke_off(sweep, cell)}
    over = [cell for cell in sweep.cells if statuses[cell.name] in ("done", "stopped")]
    paths = run_paths(sweep)
    diagnoses = diagnose_paths(paths) if paths else []
    outcomes, _ = outcomes_of(sweep, statuses, diagnoses)
    by_name = {o.name: o for o in outcomes}
    measured = {cell.name: {name: measure(name, cell, sweep) for name in study_of(sweep).measures} for cell in over}
    told = [cell for cell in sweep.cells if statuses[cell.name] in ("done", "stopped", "failed")]
    return [_row(sweep, cell, by_name[cell.name], measured.get(cell.name)) for cell in told]


def broke_off(sweep: Sweep, cell: Cell) -> bool:
    """Did the run end with an error of its own, such as a loss that is not finite? It is a result, without a score."""
    return last_event(sweep.layout.run(cell)) == "failed"


def _row(sweep: Sweep, cell: Cell, outcome: Outcome, measured: Mapping[str, Any] | None) -> Row:
    run = sweep.layout.run(cell)
    events = read_rows(run / "events.jsonl")
    spoken = [e for e in events if e["kind"] == "verdict" and e["verdict"] == "collapsed"]
    rows = read_rows(run / "metrics.jsonl")
    return {
        "name": cell.name,
        "group": cell.group,
        "values": cell.values,
        "seed": cell.seed,
        "status": outcome.status,
        "ended": next((e["message"] for e in events if e["kind"] in ("stopped", "failed")), None),
        "score": outcome.score,
        "n": outcome.n,
        "where": outcome.where,
        "curve": [list(point) for point in outcome.curve] or _curve(run),
        "verdict": outcome.verdict,
        "collapsed_at": spoken[0]["step"] if spoken else None,
        "seconds": _rounded(outcome.seconds),
        "steps": outcome.steps,
        "course": {
            key: [_rounded(row.get(key)) for row in rows] for key in COURSE if any(row.get(key) is not None for row in rows)
        },
        "measures": measured or {},
    }


def _curve(run: Path) -> list[list[float]]:
    """Dev evaluations of a run that broke off."""
    return [[row["step"], row["accuracy"]] for row in read_rows(run / "evals.jsonl") if row["role"] == "dev"]


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def write(name: str, rows: Sequence[Row]) -> None:
    """Rows that were there and are not among `rows` stay: a part of a study can be rerun alone."""

    def cell(row: Row) -> tuple[str, int]:
        return row["group"], row["seed"]  # its directory's name depends on where plug-ins lie

    kept = {cell(row): row for row in read(name)} | {cell(row): row for row in rows}
    RESULTS.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(kept[key], ensure_ascii=False, separators=(",", ":"), allow_nan=False) for key in sorted(kept)]
    replace_whole(RESULTS / f"{name}.jsonl", "".join(line + "\n" for line in lines).encode())


def read(name: str) -> list[Row]:
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def outcomes(sweep: Sweep, rows: Sequence[Row]) -> list[Outcome]:
    """In the sweep's order; cells without a row are there, without a score. A run that broke off counts as one that is never right."""
    by_key = {(row["group"], row["seed"]): row for row in rows}
    made = []
    for cell in sweep.cells:
        row = by_key.get((cell.group, cell.seed))
        if row is None:
            made.append(Outcome(cell.name, cell.group, cell.values, cell.seed, "pending"))
            continue
        curve = tuple((int(step), float(value)) for step, value in row["curve"])
        best = max((value for _, value in curve), default=None)
        score = 0.0 if row["status"] == "failed" else row["score"]
        marks = row["measures"].get("ends", {}).get("correct")
        answers = {str(i): float(mark) for i, mark in enumerate(marks)} if marks else None
        made.append(
            Outcome(
                cell.name, cell.group, cell.values, cell.seed, row["status"], score, row["n"], row["where"], curve, best,
                row["verdict"], row["seconds"], row["steps"], answers,
            )
        )  # fmt: skip
    return made
