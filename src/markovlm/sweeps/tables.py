"""The tables of a sweep: readable ones for its page and the terminal, and flat ones with full values as CSV."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from markovlm.present.table import Cell, Columns, Table, decimal_cell, estimate_cell, p_cell, table_of
from markovlm.statistics import Estimate
from markovlm.sweeps.compare import Comparison, Outcome


def _estimate(found: Estimate) -> Cell:
    return estimate_cell(*found, places=3)


def _decimal(value: float | None) -> Cell:
    return decimal_cell(value, 3 if abs(value or 0) < 100 else 0)


def readable(outcomes: Sequence[Outcome], found: Comparison, metric: str) -> list[Table]:
    """Cells over their seeds, against the reference, one factor at a time, and all runs; those that have rows."""
    return [table for table in (*compared(found, metric), _factors(found), _runs(outcomes, metric)) if table.rows]


def compared(found: Comparison, metric: str) -> list[Table]:
    """Cells over their seeds, and against the reference."""
    groups: Columns = {
        "cell": lambda g: f"{g.group} (reference)" if g.group == found.reference else g.group,
        "seeds": lambda g: f"{len(g.seeds)}/{g.planned}",
        metric: lambda g: _estimate(g.score),
        "over": "over",
        "sd": lambda g: _decimal(g.spread),
        "lowest": lambda g: _decimal(g.lowest),
        "highest": lambda g: _decimal(g.highest),
        "best dev": lambda g: _decimal(_or_none(g.best.mean)),
        "verdicts": lambda g: ", ".join(f"{count} {verdict}" for verdict, count in g.verdicts.items()),
        "s per run": lambda g: _decimal(g.seconds),
    }
    differences: Columns = {
        "cell": "group",
        "seeds": "seeds",
        "difference": lambda d: _estimate(d.difference),
        "over": "over",
        "p": lambda d: p_cell(d.p),
        "p (Holm)": lambda d: p_cell(d.p_adjusted),
        "p unpaired": lambda d: p_cell(d.p_unpaired),
    }
    tables = [
        table_of("cells_groups", "Cells: mean over their seeds, 95 % interval", found.groups, groups),
        table_of("cells_differences", f"Against {found.reference}, seed by seed", found.differences, differences),
    ]
    return [table.with_known() for table in tables if table.rows]


def _factors(found: Comparison) -> Table:
    columns: Columns = {
        "key": "key",
        "value": lambda f: str(f.value),
        "against": lambda f: str(f.reference),
        "pairs": "pairs",
        "seeds": "seeds",
        "difference": lambda f: _estimate(f.difference),
        "over": "over",
        "p": lambda f: p_cell(f.p),
        "p (Holm)": lambda f: p_cell(f.p_adjusted),
    }
    return table_of("cells_factors", "One factor at a time, everything else equal", found.factors, columns)


def _runs(outcomes: Sequence[Outcome], metric: str) -> Table:
    columns: Columns = {
        "run": "name",
        "cell": "group",
        "seed": lambda o: Cell(o.seed, str(o.seed), None, "number"),
        "status": "status",
        metric: lambda o: _decimal(o.score),
        "n": lambda o: o.n or None,
        "evaluated": "where",
        "best dev": lambda o: _decimal(o.best),
        "verdict": "verdict",
        "steps": "steps",
        "seconds": lambda o: _decimal(o.seconds),
    }
    return table_of("cells_runs", "All runs", outcomes, columns)


def flat(outcomes: Sequence[Outcome], found: Comparison, metric: str) -> list[Table]:
    """`cells_groups`, `cells_differences`, `cells_factors`, `cells_runs`: one number per column, unrounded."""

    def three(name: str, of: Callable[[Any], Estimate]) -> Columns:
        return {
            name: lambda x: _or_none(of(x).mean),
            "low": lambda x: _or_none(of(x).low),
            "high": lambda x: _or_none(of(x).high),
        }

    groups: Columns = {
        "cell": "group", "seeds": lambda g: len(g.seeds), "planned": "planned", **three(metric, lambda g: g.score),
        "over": "over", "sd": "spread", "lowest": "lowest", "highest": "highest",
        "best_dev": lambda g: _or_none(g.best.mean), "collapsed": lambda g: g.verdicts.get("collapsed", 0),
        "warn": lambda g: g.verdicts.get("warn", 0), "seconds": "seconds",
    }  # fmt: skip
    differences: Columns = {
        "cell": "group", "against": "reference", "seeds": "seeds", **three("difference", lambda d: d.difference),
        "over": "over", "p": "p", "p_holm": "p_adjusted", "p_unpaired": "p_unpaired",
    }  # fmt: skip
    factors: Columns = {
        "key": "key", "value": lambda f: _plain(f.value), "against": lambda f: _plain(f.reference), "pairs": "pairs",
        "seeds": "seeds", **three("difference", lambda f: f.difference), "over": "over", "p": "p",
        "p_holm": "p_adjusted",
    }  # fmt: skip
    runs: Columns = {
        "run": "name", "cell": "group", "seed": "seed", "status": "status", metric: lambda o: o.score,
        "n": lambda o: o.n or None, "evaluated": "where", "best_dev": "best", "verdict": "verdict",
        "steps": "steps", "seconds": "seconds",
    }  # fmt: skip
    return [
        table_of("cells_groups", "", found.groups, groups),
        table_of("cells_differences", "", found.differences, differences),
        table_of("cells_factors", "", found.factors, factors),
        table_of("cells_runs", "", outcomes, runs),
    ]


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
