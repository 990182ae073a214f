"""Learning curves: one figure for each row of `charts.CHARTS` that any run has, and accuracy over training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markovlm.health.diagnose import Diagnosis
from markovlm.health.series import course
from markovlm.report.figures.base import Figure, Scale, blank, colour, dash
from markovlm.report.figures.charts import CHARTS, Chart, series_name
from markovlm.report.figures.thin import line, scale_of

PAGE_POINTS = 9_000  # stretches of one figure over all runs, on the page
PRINT_POINTS = 1_200  # the same in an SVG, of the runs on show only
HEIGHT = 236
_X = {
    "field": "step",
    "type": "quantitative",
    "title": "step",
    "axis": {"format": ",d", "tickCount": 5},
    "scale": {"domain": [{"expr": "x0"}, {"expr": "x1"}], "nice": False},
}
_IN_FRONT = {"condition": {"test": "focus === '' || focus === datum.run", "value": 1}, "value": 0.14}
# Domains of both axes, the run that was brought forward; filled by the page and by `for_print`.
_PARAMS = [
    {"name": "x0", "value": 0}, {"name": "x1", "value": 1}, {"name": "y0", "value": 0}, {"name": "y1", "value": 1},
    {"name": "focus", "value": ""},
]  # fmt: skip


def curves(all_of_them: Sequence[Diagnosis], points: int = PAGE_POINTS) -> list[Figure]:
    """Learning curves of all runs."""
    known = list(dict.fromkeys(name for d in all_of_them for name in d.run.metrics.columns))
    found = [figure for chart in CHARTS if (figure := _curve(all_of_them, chart, known, points)) is not None]
    accuracy = accuracy_curve(all_of_them)
    return [*([accuracy] if accuracy else []), *found]


def _curve(all_of_them: Sequence[Diagnosis], chart: Chart, known: Sequence[str], points: int) -> Figure | None:
    columns = chart.present(known)
    same = chart.unless_same_as
    if not columns or (same is not None and len(columns) == 1 and all(_same(d, columns[0], same) for d in all_of_them)):
        return None
    buckets = max(15, min(300, points // max(1, 3 * len(columns) * len(all_of_them))))
    lines = tuple(
        line(d.run.name, series_name(name), c, buckets)
        for d in all_of_them
        for name in columns
        if (c := course(d.run, name)) is not None
    )
    if not lines:
        return None
    scale = scale_of(lines) if chart.log else "linear"
    with_values = [name for name in columns if any(found.series == series_name(name) for found in lines)]
    title = chart.heading(with_values) + ("" if scale == "linear" else f", {scale} scale")
    series = list(dict.fromkeys(found.series for found in lines))
    return Figure(
        chart.name,
        title,
        _spec(title, scale, series),
        group=chart.group,
        lines=lines,
        limits=_limits(all_of_them, chart.limit),
        scale=scale,
        bounds=chart.bounds,
    )


def _same(d: Diagnosis, one: str, other: str) -> bool:
    """Is a metric missing, or equal to another one throughout?"""
    metrics = d.run.metrics
    return not d.run.has(one) or (d.run.has(other) and metrics[one].equals(metrics[other], check_names=False))


def _limits(all_of_them: Sequence[Diagnosis], setting: str | None) -> tuple[tuple[str, float], ...]:
    if setting is None:
        return ()
    values = ((d.run.name, d.run.config.get(setting)) for d in all_of_them)
    return tuple((name, float(v)) for name, v in values if isinstance(v, int | float) and not isinstance(v, bool))


def _y(scale: Scale) -> dict[str, Any]:
    found: dict[str, Any] = {"domain": [{"expr": "y0"}, {"expr": "y1"}], "nice": False}
    if scale != "linear":
        found |= {"type": scale}
    return {"field": "value", "type": "quantitative", "title": None, "scale": found, "axis": {"tickCount": 5}}


def _spec(title: str, scale: Scale, series: list[str]) -> dict[str, Any]:
    y = _y(scale)
    detail = {"field": "series", "type": "nominal"}
    width: dict[str, Any] = {"value": 2.1}
    width_in_front: dict[str, Any] = {"value": 3}
    style = dash()
    if len(series) == 2:  # the second thin
        thin = {"field": "series", "equal": series[1]}
        width = {"condition": {"test": thin, "value": 1}, "value": 2.1}
        width_in_front = {"condition": {"test": thin, "value": 1.3}, "value": 3.2}
    elif len(series) > 2:  # dashes tell series apart, not runs
        legend = {"title": None, "orient": "bottom", "symbolType": "stroke", "symbolSize": 300, "labelLimit": 180, "columns": 2}
        dashes = [[], [6, 3], [2, 2], [9, 3, 2, 3], [4, 1], [1, 3]]
        known = {"domain": series, "range": [dashes[i % len(dashes)] for i in range(len(series))]}
        style = {"field": "series", "type": "nominal", "scale": known, "legend": legend}
    shared = {"x": _X, "y": y, "color": colour(), "detail": detail}
    return blank(title, HEIGHT) | {
        "params": _PARAMS,
        "layer": [
            {
                "data": {"name": "raw"},
                "mark": {"type": "line", "strokeWidth": 0.7, "clip": True},
                "encoding": shared | {"opacity": _faint(0.38)},
            },
            {
                "data": {"name": "limits"},
                "mark": {"type": "rule", "strokeDash": [1, 3], "strokeWidth": 1.3, "clip": True},
                "encoding": {"y": y, "color": colour(), "opacity": _IN_FRONT},
            },
            {
                "data": {"name": "calm"},
                "mark": {"type": "line", "strokeJoin": "round", "clip": True},
                "encoding": shared | {"strokeDash": style, "strokeWidth": width, "opacity": _IN_FRONT},
            },
            {
                "data": {"name": "front"},
                "mark": {"type": "line", "strokeJoin": "round", "clip": True},
                "encoding": shared | {"strokeDash": style, "strokeWidth": width_in_front},
            },
            {
                "data": {"name": "dots"},
                "mark": {"type": "point", "filled": True, "size": 18, "clip": True},
                "encoding": {"x": _X, "y": y, "color": colour(), "opacity": _IN_FRONT},
            },
            *_mark_layers(),
        ],
    }


def _faint(opacity: float) -> dict[str, Any]:
    return {"condition": {"test": "focus === '' || focus === datum.run", "value": opacity}, "value": 0.05}


def _mark_layers() -> list[dict[str, Any]]:
    """Onset as a rule with a triangle at its foot, checkpoints as ticks on the axis, the best as a flag above the frame."""

    def layer(data: str, mark: dict[str, Any], **encoding: Any) -> dict[str, Any]:
        shared = {"x": _X, "color": colour(), "opacity": _IN_FRONT}
        return {"data": {"name": data}, "mark": mark, "encoding": shared | encoding}

    at_foot, at_head = {"y": {"value": {"expr": "height"}}}, {"y": {"value": -5}}
    return [
        layer("onsets", {"type": "rule", "strokeDash": [3, 3], "strokeWidth": 1.4, "clip": True}),
        layer("onsets", {"type": "point", "shape": "triangle-up", "size": 70, "filled": True}, **at_foot),
        layer(
            "checkpoints",
            {"type": "tick", "orient": "vertical", "size": 7, "thickness": 1.2, "clip": True},
            y={"value": {"expr": "height - 4"}},
        ),
        layer("bests", {"type": "point", "shape": "triangle-down", "size": 48, "filled": False, "strokeWidth": 1.8}, **at_head),
    ]


def accuracy_curve(all_of_them: Sequence[Diagnosis]) -> Figure | None:
    """Accuracy over training with its interval; None unless a run was evaluated twice."""
    rows = [
        {"run": d.run.name, "step": e.step, "value": s.accuracy, "low": s.low, "high": s.high, "n": e.n, "series": e.main}
        for d in all_of_them
        if len(d.case.series) > 1
        for e in d.case.series
        for s in [e.score]
    ]
    if not rows:
        return None
    y = _y("linear")
    y |= {"axis": {"format": "%", "tickCount": 5}}
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "area", "clip": True},
            "encoding": {"x": _X, "y": y | {"field": "low"}, "y2": {"field": "high"}, "color": colour(), "opacity": _faint(0.14)},
        },
        {
            "mark": {"type": "line", "strokeWidth": 2, "clip": True},
            "encoding": {"x": _X, "y": y, "color": colour(), "strokeDash": dash(), "opacity": _IN_FRONT},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 26, "clip": True},
            "encoding": {"x": _X, "y": y, "color": colour(), "opacity": _IN_FRONT},
        },
    ]
    title = "accuracy from the CoT alone, 95 % intervals"
    spec = blank(title, HEIGHT) | {
        "params": _PARAMS,
        "layer": [*(one | {"data": {"name": "evals"}} for one in layers), *_mark_layers()],
    }
    return Figure("accuracy", title, spec, {"evals": rows}, group=CHARTS[0].group, bounds=(0.0, 1.0))
