"""What a sweep will do, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from markovlm.runs.rows import read_rows
from markovlm.sweeps.cells import Cell
from markovlm.sweeps.checks import doubts
from markovlm.sweeps.engines import build_engine
from markovlm.sweeps.run import Sweep, statuses_of
from markovlm.sweeps.state import ended
from markovlm.training.plan import plan


def plan_sweep(sweep: Sweep) -> dict[str, Any]:
    """`{"cells": [...], "runs", "to_run", "steps", "tokens", "memory_bytes", "seconds_per_step", "seconds", "lines"}`.

    Tokens and memory are those of `markovlm train --dry-run`, summed or the largest. Time is measured, not guessed: from runs
    that are finished here; None if there are none yet. Evaluations come on top.
    """
    statuses = statuses_of(sweep)
    waiting = [cell for cell in sweep.cells if statuses[cell.name] not in ("done", "stopped")]
    to_train = [cell for cell in waiting if not ended(sweep.layout.run(cell))]
    plans = {cell.name: found for cell, found in _plans(waiting)}
    steps = sum(cell.config.training.steps for cell in to_train)
    tokens = sum(plans[cell.name]["tokens_per_step"]["total"] * plans[cell.name]["steps"] for cell in to_train)
    peaks = [found["memory"]["estimate"]["peak"] for found in plans.values() if found["memory"]["estimate"]]
    pace = _pace(sweep)
    at_once = _at_once(sweep)
    seconds = None if pace is None else pace * steps / at_once
    evaluated = f" ({len(waiting) - len(to_train)} only to evaluate)" if len(to_train) < len(waiting) else ""
    lines = [
        f"{len(sweep.cells)} runs, {len(waiting)} to run{evaluated}; {steps:,} steps, at most {tokens:,} tokens; {at_once} at a time on this machine",
        f"memory: at most about {max(peaks) / 1e9:.2g} GB per run (estimate)"
        if peaks
        else "memory: no estimate (the model is not on this machine)",
        "time: unknown until the first run is finished here"
        if seconds is None or pace is None
        else f"time: about {seconds / 60:,.0f} minutes of training ({pace:.2f} s per step, measured on finished runs), plus evaluations",
        *doubts(sweep.spec, sweep.cells),
    ]
    return {
        "cells": [
            {"name": c.name, "status": statuses[c.name], "run": str(sweep.layout.run(c)), "values": c.to_json()}
            for c in sweep.cells
        ],
        "runs": len(sweep.cells),
        "to_run": len(waiting),
        "steps": steps,
        "tokens": tokens,
        "memory_bytes": max(peaks, default=None),
        "seconds_per_step": pace,
        "seconds": seconds,
        "lines": lines,
    }


def _plans(cells: Sequence[Cell]) -> list[tuple[Cell, dict[str, Any]]]:
    """One plan for cells that differ in their seed alone."""
    made: dict[str, dict[str, Any]] = {}
    for cell in cells:
        if cell.group not in made:
            made[cell.group] = plan(cell.config)
    return [(cell, made[cell.group]) for cell in cells]


def _pace(sweep: Sweep) -> float | None:
    """Median seconds a step over everything that was run here."""
    times = [row["step_seconds"] for cell in sweep.cells for row in _rows(sweep.layout.run(cell)) if row.get("step_seconds")]
    return median(times) if times else None


def _rows(run: Path) -> list[dict[str, Any]]:
    return read_rows(run / "metrics.jsonl")


def _at_once(sweep: Sweep) -> int:
    engine: Any = build_engine("local", sweep.spec.resources.model_copy(update={"gpus": 0.0}), None)
    return min(engine.most, len(sweep.cells))
