"""The comparison of a sweep as a page, as Markdown and as CSV, beside the report on all its runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from markovlm.pages import page_environment
from markovlm.present.markdown import escaped
from markovlm.present.markdown import table as markdown
from markovlm.present.spreadsheet import to_csv
from markovlm.present.table import Table
from markovlm.report import write_report
from markovlm.report.draw import Drawers, DrawingFailed
from markovlm.report.figures import COLOURS
from markovlm.runs.rows import replace_whole
from markovlm.statistics import Estimate
from markovlm.sweeps.compare import Comparison, Outcome, compare
from markovlm.sweeps.outcomes import outcomes_of, run_paths
from markovlm.sweeps.run import Sweep
from markovlm.sweeps.tables import flat, readable

_VIEW = {"background": None, "font": "Helvetica, Arial, sans-serif", "view": {"stroke": "#9aa0a655"}}
_AXIS = {
    "gridColor": "#9aa0a633",
    "domainColor": "#9aa0a6",
    "tickColor": "#9aa0a6",
    "labelColor": "#737b85",
    "titleColor": "#737b85",
}
CONFIG: Mapping[str, Any] = {
    **_VIEW, "axis": {**_AXIS, "labelLimit": 420}, "title": {"color": "#737b85"}, "legend": {"labelColor": "#737b85", "labelLimit": 420},
}  # fmt: skip
_METHOD = (
    "Means over seeds with 95 % intervals. Over seeds and questions: two-way random effects, for other seeds and other questions; over "
    "seeds: Student's t, which leaves the questions out (all seeds answer the same ones). Differences are taken seed by seed and question "
    "by question, p adjusted by Holm's method within a table; p unpaired is Welch's t test over seeds: where training is chaotic, two runs "
    "of one seed have no more in common than any two. One seed has no interval: it says nothing about what another seed would do; neither have "
    "seeds with equal results. A run stopped by its guard counts with what it had reached."
)
MOST_CURVES = 12  # combinations whose learning curves are drawn


@dataclass(frozen=True, slots=True)
class WrittenPage:
    """Files of a finished sweep."""

    page: Path
    runs_report: Path | None
    comparison: Comparison
    metric: str
    notes: tuple[str, ...] = ()  # what a reader of the comparison must know


def write_comparison(sweep: Sweep, statuses: Mapping[str, str]) -> WrittenPage:
    """The report on all runs (`report/report.html`) and the page that compares cells (`report/cells.html`, .md, CSV files)."""
    out = sweep.layout.report
    paths = run_paths(sweep)
    report = write_report(paths, out) if paths else None
    out.mkdir(parents=True, exist_ok=True)
    outcomes, metric = outcomes_of(sweep, statuses, report.diagnoses if report else ())
    found = compare(outcomes, sweep.reference, metric)
    for table in flat(outcomes, found, metric):
        name = f"{table.name}.csv"
        replace_whole(out / "tables" / name if report else out / name, to_csv(table).encode())
    tables = readable(outcomes, found, metric)
    with Drawers() as drawers:
        drawings = [(title, drawers.svg(spec, CONFIG)) for title, spec in figures_of(outcomes, found, metric)]
        svgs = [(title, svg) for title, drawing in drawings if (svg := _drawn(drawing)) is not None]
    about = _about(sweep, outcomes, metric)
    runs_href = report.html.name if report else None
    page = out / "cells.html"
    replace_whole(page, _html(about, tables, svgs, runs_href).encode("utf-8", errors="replace"))
    replace_whole(out / "cells.md", _markdown(about, tables).encode("utf-8", errors="replace"))
    return WrittenPage(page, report.html if report else None, found, metric, tuple(about["notes"]))


def _drawn(drawing: Future[str]) -> str | None:
    try:
        return drawing.result()
    except DrawingFailed:
        return None  # the numbers are in the tables


def _about(sweep: Sweep, outcomes: Sequence[Outcome], metric: str) -> dict[str, Any]:
    done = sum(o.score is not None for o in outcomes)
    failed = [o for o in outcomes if o.status == "failed"]
    left = [o for o in outcomes if o.status in ("pending", "unfinished", "running")]
    wheres = sorted({o.where.partition(",")[0] for o in outcomes if o.where})
    ns = sorted({o.n for o in outcomes if o.n})
    name = "accuracy from the CoT alone" if metric == "accuracy" else "ln pi(answer | CoT) per answer token"
    return {
        "title": sweep.path.stem,
        "sentence": f"{done} of {len(outcomes)} runs compared by {name}"
        + (f" on {', '.join(wheres)} questions (n = {', '.join(map(str, ns))} per run)" if wheres else ""),
        "failed": [(o.name, sweep.messages.get(o.name, "")) for o in failed],
        "left": [o.name for o in left],
        "notes": [text] if (text := evaluated_apart(outcomes)) else [],
        "method": _METHOD,
    }


def evaluated_apart(outcomes: Sequence[Outcome]) -> str | None:
    """How the evaluations of cells differ, so that their scores compare two things at once; None if they do not."""
    hows = [o.how for o in outcomes if o.score is not None and o.how]
    keys = [
        key
        for key in dict.fromkeys(key for how in hows for key in how)
        if key not in ("seed", "conditioning", "reader", "cot_tokens")
    ]
    apart = {key: list(dict.fromkeys(str(how.get(key)) for how in hows)) for key in keys}
    told = [f"{key} ({', '.join(values)})" for key, values in apart.items() if len(values) > 1]
    if not told:
        return None
    return (
        f"cells are evaluated differently: they differ in {'; '.join(told)}. Set these keys once, in the base "
        "(evaluation.decoding, evaluation.temperature, …)."
    )


def _markdown(about: Mapping[str, Any], tables: Sequence[Table]) -> str:
    parts = [f"# {escaped(about['title'])}", escaped(about["sentence"]) + ".", about["method"]]
    parts += [f"Failed: {escaped(name)}: {escaped(message)}" for name, message in about["failed"]]
    parts += [f"Note: {escaped(note)}" for note in about["notes"]]
    if about["left"]:
        parts.append(f"Not finished: {len(about['left'])} runs.")
    return "\n\n".join([*parts, *(f"## {escaped(table.title)}\n\n{markdown(table)}" for table in tables)]) + "\n"


def _html(about: Mapping[str, Any], tables: Sequence[Table], svgs: Sequence[tuple[str, str]], runs_href: str | None) -> str:
    template = page_environment("markovlm.sweeps").get_template("cells.html")
    drawn = [(title, Markup(svg)) for title, svg in svgs]
    return template.render(about=about, tables=tables, svgs=drawn, runs_href=runs_href)


# ----------------------------------------------------------------------------------------------------------------- figures


def figures_of(outcomes: Sequence[Outcome], found: Comparison, metric: str) -> list[tuple[str, dict[str, Any]]]:
    """(title, Vega-Lite specification): scores by cell, and learning curves."""
    made = [_forest(outcomes, found, metric)] if any(o.score is not None for o in outcomes) else []
    curves = _curves(outcomes, found, metric)
    return [*made, *([curves] if curves else [])]


def _forest(outcomes: Sequence[Outcome], found: Comparison, metric: str) -> tuple[str, dict[str, Any]]:
    order = [g.group for g in found.groups]
    means = [{"cell": g.group, **_bounds(g.score)} for g in found.groups if not math.isnan(g.score.mean)]
    dots = [{"cell": o.group, "score": o.score, "seed": o.seed} for o in outcomes if o.score is not None]
    y = {"field": "cell", "type": "nominal", "sort": order, "title": None}
    x_title = "accuracy" if metric == "accuracy" else "nats per answer token"
    scale = {"zero": False, "nice": True} if metric != "accuracy" else {"domain": [0, 1]}
    score = {"field": "score", "type": "quantitative", "title": x_title, "scale": scale}
    rule = {"type": "rule", "strokeWidth": 2.4, "color": COLOURS[0], "clip": True}
    diamond = {"type": "point", "filled": True, "size": 90, "shape": "diamond", "color": COLOURS[0], "opacity": 1}
    layers = [
        _layer({"type": "circle", "size": 34, "opacity": 0.45, "color": "#8a929b"}, dots, x=score, y=y),
        _layer(rule, [m for m in means if m["low"] is not None], x=_number("low"), x2={"field": "high"}, y=y),
        _layer(diamond, means, x=_number("mean"), y=y),
    ]
    room = 6 + 2 * max(map(len, order))  # a reader's font may be wider than the one that was measured
    spec: dict[str, Any] = {
        "width": 520,
        "height": {"step": 24},
        "padding": {"left": room, "right": 12, "top": 5, "bottom": 5},
        "layer": layers,
    }
    return "Every seed (grey), the mean over seeds and its 95 % interval", spec


def _layer(mark: dict[str, Any], rows: Sequence[Any], **encoding: Any) -> dict[str, Any]:
    return {"data": {"values": list(rows)}, "mark": mark, "encoding": encoding}


def _number(field: str) -> dict[str, Any]:
    return {"field": field, "type": "quantitative"}


def _bounds(estimate: Estimate) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in estimate._asdict().items()}


def _curves(outcomes: Sequence[Outcome], found: Comparison, metric: str) -> tuple[str, dict[str, Any]] | None:
    """Means over the seeds that were evaluated at a step."""
    groups = [g.group for g in found.groups][:MOST_CURVES]
    rows: list[dict[str, Any]] = []
    for group in groups:
        at: dict[int, list[float]] = {}
        for o in outcomes:
            for step, value in o.curve if o.group == group else ():
                at.setdefault(step, []).append(value)
        rows += [
            {"cell": group, "step": s, "score": float(np.mean(v)), "low": min(v), "high": max(v)} for s, v in sorted(at.items())
        ]
    if not rows:
        return None
    colour = {
        "field": "cell", "type": "nominal", "sort": groups, "title": None,
        "scale": {"domain": groups, "range": [COLOURS[i % len(COLOURS)] for i in range(len(groups))]},
        "legend": {"orient": "bottom", "columns": 1},
    }  # fmt: skip
    x = {"field": "step", "type": "quantitative"}
    title = "dev accuracy" if metric == "accuracy" else "dev, nats per answer token"
    low = _number("low") | {"title": title, "scale": {"zero": False}}
    layers = [
        _layer({"type": "area", "opacity": 0.13}, rows, x=x, y=low, y2={"field": "high"}, color=colour),
        _layer({"type": "line", "strokeWidth": 2}, rows, x=x, y=_number("score"), color=colour),
    ]
    spec: dict[str, Any] = {"width": 520, "height": 260, "layer": layers}
    more = f" (the first {MOST_CURVES} cells)" if len(found.groups) > MOST_CURVES else ""
    return f"Learning curves: mean over seeds, from the lowest to the highest seed{more}", spec
