"""The same figures for an SVG: rows filled in, smoothed, with a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from markovlm.health.diagnose import Diagnosis
from markovlm.report.figures.base import Figure, first_shown, run_domain, with_runs
from markovlm.report.figures.thin import calm, domain

ROWS_OF = 3  # up to so many runs are drawn with their single rows
MOST_CHECKPOINTS = 24  # ticks of one run
PLOT = 190  # pixels between the axes
_FEW = 60  # a run with so few rows shows each of them as a dot

PRINT_CONFIG: Mapping[str, Any] = {
    "background": "#ffffff",
    "font": "Helvetica, Arial, sans-serif",
    "view": {"stroke": "#d7dadd"},
    "axis": {
        "gridColor": "#eceef0",
        "domainColor": "#9aa0a6",
        "tickColor": "#9aa0a6",
        "labelColor": "#3c4043",
        "titleColor": "#3c4043",
    },
}


def checkpoints_of(d: Diagnosis) -> list[int]:
    """The checkpoints that get a tick."""
    steps = [step for step in d.case.checkpoints if step > 0]
    return steps[:: max(1, -(-len(steps) // MOST_CHECKPOINTS))]


def best_of(d: Diagnosis) -> int | None:
    """The best checkpoint, where there was a choice."""
    return d.best_step if len(d.case.series) > 1 else None


def for_print(figure: Figure, all_of_them: Sequence[Diagnosis], width: int = 620) -> dict[str, Any]:
    """The specification of an SVG: with its rows, of a fixed width, and with a legend of the runs on show."""
    names, colours, dashes = run_domain(all_of_them)
    spec = with_runs(figure.spec, {"@names": names, "@colours": colours, "@dashes": dashes}) | {"width": width}
    if not figure.per_run:
        return spec | {"datasets": figure.rows}
    shown = set(first_shown(all_of_them))
    rows, extent = _rows(figure, [d for d in all_of_them if d.run.name in shown])
    spec |= {"autosize": {"type": "pad"}, "height": PLOT}
    params = [param | {"value": extent.get(param["name"], param["value"])} for param in spec["params"]]
    layers = [layer for layer in spec["layer"] if rows.get(layer["data"]["name"])] or spec["layer"][:1]
    drawn = {row["run"] for name in ("calm", "evals") for row in rows.get(name, [])}
    return spec | {"datasets": rows, "params": params, "layer": _with_legend(layers, sorted(drawn, key=names.index))}


def _rows(figure: Figure, drawn: Sequence[Diagnosis]) -> tuple[dict[str, list[dict[str, Any]]], dict[str, float]]:
    """(named rows, ends of the axes)."""
    here = {d.run.name for d in drawn}
    lines = [line for line in figure.lines if line.run in here]
    rows = {name: [row for row in found if row["run"] in here] for name, found in figure.rows.items()}
    with_rows = len({line.run for line in lines}) <= ROWS_OF
    rows |= {"calm": [], "raw": [], "dots": []}
    for line in lines:
        shared = {"run": line.run, "series": line.series}
        rows["calm"] += [shared | {"step": x, "value": float(y)} for x, y in zip(line.steps, calm(line), strict=True)]
        raw = line.raw or (line.steps, line.means)
        points = [shared | {"step": x, "value": y} for x, y in zip(*raw, strict=True)]
        rows["raw"] += points if with_rows else []
        rows["dots"] += points if len(points) <= _FEW and (with_rows or len(points) <= 20) else []
    rows["limits"] = [{"run": run, "value": value} for run, value in figure.limits if run in here]
    with_data = {line.run for line in lines} | {row["run"] for row in rows.get("evals", [])}
    there = [d for d in drawn if d.run.name in with_data]
    rows["onsets"] = [{"run": d.run.name, "step": d.onset_step} for d in there if d.onset_step is not None]
    rows["bests"] = [{"run": d.run.name, "step": best_of(d)} for d in there if best_of(d) is not None]
    rows["checkpoints"] = [{"run": d.run.name, "step": step} for d in there for step in checkpoints_of(d)]
    return rows, _extent(figure, rows)


def _extent(figure: Figure, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    evals = rows.get("evals", [])
    steps = [row["step"] for name in ("calm", "evals") for row in rows.get(name, [])] or [0, 1]
    means = [row["value"] for row in rows["calm"]]
    means += [v for row in evals for v in (row["low"], row["high"], row["value"]) if v is not None]
    raw = [row["value"] for row in rows["raw"]]
    levels = [row["value"] for row in rows["limits"]]
    low, high = domain(np.array(means, dtype=float), raw, levels, figure.scale, figure.bounds)
    return {"x0": min(steps), "x1": max(max(steps), min(steps) + 1), "y0": low, "y1": high}


def _with_legend(layers: Sequence[dict[str, Any]], shown: Sequence[str]) -> list[dict[str, Any]]:
    """The legend that the page draws outside of its charts, on the layer of the thick lines."""
    legend = {
        "title": None, "orient": "bottom", "columns": 3, "labelLimit": 190, "symbolType": "stroke", "symbolSize": 300,
        "symbolStrokeWidth": 2, "symbolOpacity": 1, "values": list(shown),
    }  # fmt: skip
    found = []
    for layer in layers:
        encoding = dict(layer["encoding"])
        if len(shown) > 1:  # one run needs no telling apart
            encoding["color"] = {k: v for k, v in encoding["color"].items() if k != "legend"}
        if "opacity" in encoding:  # nobody brings a run of an SVG forward
            encoding["opacity"] = {"value": encoding["opacity"]["condition"]["value"]}
        if "strokeDash" in encoding and len(shown) > 1:
            by_run = [channel for channel in ("color", "strokeDash") if encoding[channel]["field"] == "run"]
            encoding |= {channel: encoding[channel] | {"legend": legend} for channel in by_run}
        found.append(layer | {"encoding": encoding})
    return found
