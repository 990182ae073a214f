"""Figures: one Vega-Lite specification each, for the interactive page and for SVG.

A specification refers to its rows by name (`data: {"name": …}`) and to the runs on show by the parameter `shown`; the page
fills both in the browser, `for_print` fills them for an SVG. Runs differ in colour and in dash, so that grey paper keeps
them apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from markovlm.logs.schema import METRIC, label
from markovlm.report.diagnose import Diagnosis
from markovlm.report.series import Course, Floats, course, reward_course, smooth

COLOURS = (
    "#3b6fb6", "#d1603d", "#2f8f6b", "#a04a9c", "#b58a1b", "#4aa3c7", "#8a5a3c", "#6b6fc9", "#7a7f87", "#c2375b",
)  # fmt: skip
DASHES = ([], [7, 3], [2, 2], [9, 3, 2, 3], [4, 1])
MOST_SHOWN = 12  # runs on show at first; the others can be switched on
PAGE_POINTS = 9_000  # rows of one figure over all runs, on the page
PRINT_POINTS = 1_200  # the same in an SVG, of the runs on show only
_FEW = 60  # a run with so few rows shows each of them as a dot
Scale = Literal["linear", "log", "symlog"]

# (metric, its partner drawn in the same panel, can be logarithmic)
CURVES: tuple[tuple[str, str | None, bool], ...] = (
    ("reward_mean", None, False),
    ("normalized_reward_mean", None, False),
    ("answer_logprob", "baseline_answer_logprob", False),
    ("answer_correct_fraction", None, False),
    ("kl", None, True),
    ("ratio_mean", None, True),
    ("entropy", None, False),
    ("grad_norm", None, True),
    ("loss", None, False),
    ("cot_length", None, False),
    ("distinct_bigram_fraction", None, False),
    ("longest_char_run", None, True),
    ("identical_cot_fraction", None, False),
    ("groups_without_spread", None, False),
)


@dataclass(slots=True)
class Figure:
    """A specification and its named rows."""

    name: str
    title: str
    spec: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    caption: str = ""
    per_run: bool = True  # reacts to `shown`


def run_domain(all_of_them: Sequence[Diagnosis]) -> tuple[list[str], list[str], list[list[int]]]:
    """(names, colours, dashes) in the order of the runs."""
    n = len(all_of_them)
    names = [d.run.name for d in all_of_them]
    dashes = [list(DASHES[(i + i // len(COLOURS)) % len(DASHES)]) for i in range(n)]
    return names, [COLOURS[i % len(COLOURS)] for i in range(n)], dashes


def first_shown(all_of_them: Sequence[Diagnosis]) -> list[str]:
    """The runs on show at first: all, or the gravest where there are many."""
    order = {"collapsed": 0, "warn": 1, "healthy": 2, "unknown": 3}
    drawn = [d for d in all_of_them if d.run.steps or d.run.evals]
    return [d.run.name for d in sorted(drawn, key=lambda d: order[d.verdict])[:MOST_SHOWN]]


# --- fewer points, no lost spikes --------------------------------------------------------------------------------------


def decimate(steps: Floats, values: Floats, buckets: int) -> tuple[Floats, Floats]:
    """At most two points a bucket, its lowest and its highest row in step order: no spike is lost."""
    n = len(values)
    if n <= 2 * buckets:
        return steps, values
    edges = np.linspace(0, n, buckets + 1).astype(int)
    kept: list[int] = []
    for start, end in itertools.pairwise(edges):
        part = values[start:end]
        kept += sorted({start + int(part.argmin()), start + int(part.argmax())})
    index = np.array(kept)
    return steps[index], values[index]


def smoothed(c: Course, points: int) -> tuple[Floats, Floats]:
    """The running mean over a fiftieth of the run, at `points` rows."""
    window = max(5, len(c) // 50)
    level = smooth(c.values, window) if len(c) >= 3 * window else c.values
    index = np.unique(np.linspace(0, len(c) - 1, min(points, len(c))).round().astype(int))
    return c.steps[index], level[index]


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _points(run: str, series: str, c: Course, buckets: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    raw = zip(*decimate(c.steps, c.values, buckets), strict=True)
    calm = zip(*smoothed(c, buckets), strict=True)
    return (
        [{"run": run, "series": series, "step": int(x), "value": _short(y)} for x, y in raw],
        [{"run": run, "series": series, "step": int(x), "value": _short(y)} for x, y in calm],
    )


# --- learning curves ---------------------------------------------------------------------------------------------------


def curves(all_of_them: Sequence[Diagnosis], points: int = PAGE_POINTS) -> list[Figure]:
    """Learning curves of all runs, one figure a metric that any run has."""
    found = []
    for key, partner, logarithmic in CURVES:
        if key == "reward_mean" and all(_same(d, "reward_mean", "answer_logprob") for d in all_of_them):
            continue  # the reward is the answer's log-prob, which has its own figure
        keys = [key] if partner is None else [key, partner]
        figure = _curve(all_of_them, keys, logarithmic, points)
        if figure is not None:
            found.append(figure)
    accuracy = accuracy_curve(all_of_them)
    return [*([accuracy] if accuracy else []), *found]


def _same(d: Diagnosis, one: str, other: str) -> bool:
    """Is a metric missing, or equal to another one throughout?"""
    metrics = d.run.metrics
    return not d.run.has(one) or (d.run.has(other) and metrics[one].equals(metrics[other], check_names=False))


def _curve(all_of_them: Sequence[Diagnosis], keys: Sequence[str], logarithmic: bool, points: int) -> Figure | None:
    buckets = max(15, min(300, points // max(1, 3 * len(keys) * len(all_of_them))))
    raw: list[dict[str, Any]] = []
    calm: list[dict[str, Any]] = []
    dots: list[dict[str, Any]] = []
    for d in all_of_them:
        for key in keys:
            c = course(d.run, key)
            if c is not None:
                more_raw, more_calm = _points(d.run.name, METRIC[key].label, c, buckets)
                raw += more_raw
                calm += more_calm
                dots += more_raw if len(c) <= _FEW else []
    if not raw:
        return None
    scale = _scale([row["value"] for row in raw]) if logarithmic else "linear"
    rows = {"raw": raw, "calm": calm, "dots": dots, "marks": _marks(all_of_them, keys[0])}
    series = sorted({row["series"] for row in calm})
    paired = len(series) > 1
    title = label(keys[0]).replace(", actor", ", actor and frozen") if paired else label(keys[0])
    return Figure(keys[0], title, _curve_spec(all_of_them, title, scale, series if paired else None), rows)


def _scale(values: Sequence[float]) -> Scale:
    """Logarithmic where the values span more than a factor of 50."""
    magnitudes = [abs(v) for v in values if v != 0]
    if not magnitudes or max(magnitudes) < 50 * float(np.median(magnitudes)):
        return "linear"
    return "log" if min(values) > 0 else "symlog"


def _marks(all_of_them: Sequence[Diagnosis], key: str) -> list[dict[str, Any]]:
    """Where a verdict began, and checkpoints (at most 24 a run)."""
    rows: list[dict[str, Any]] = []
    for d in all_of_them:
        if not d.run.has(key):
            continue
        if d.onset_step is not None:
            rows.append({"run": d.run.name, "step": d.onset_step, "what": f"{d.verdict} from here", "kind": "onset"})
        steps = [s for s in d.case.checkpoints if s > 0]
        stride = max(1, -(-len(steps) // 24))
        rows += [{"run": d.run.name, "step": s, "what": "checkpoint", "kind": "checkpoint"} for s in steps[::stride]]
        if d.best_step is not None and len(d.case.series) > 1:
            rows.append({"run": d.run.name, "step": d.best_step, "what": "best checkpoint", "kind": "best"})
    return rows


def _colour(all_of_them: Sequence[Diagnosis]) -> dict[str, Any]:
    names, colours, _ = run_domain(all_of_them)
    return {"field": "run", "type": "nominal", "scale": {"domain": names, "range": colours}, "legend": None}


def _dash(all_of_them: Sequence[Diagnosis]) -> dict[str, Any]:
    names, _, dashes = run_domain(all_of_them)
    return {"field": "run", "type": "nominal", "scale": {"domain": names, "range": dashes}, "legend": None}


_X = {
    "field": "step",
    "type": "quantitative",
    "title": "step",
    "axis": {"format": ",d", "tickCount": 5},
    "scale": {"nice": False},
}
_ONLY_SHOWN = [{"filter": "indexof(shown, datum.run) >= 0"}]


def _base(shown: Sequence[str], title: str, height: int = 190) -> dict[str, Any]:
    return {
        "title": {"text": title, "anchor": "start", "fontSize": 12.5, "offset": 6},
        "width": "container",
        "height": height,
        "params": [{"name": "shown", "value": list(shown)}],
    }


def blank(title: str) -> dict[str, Any]:
    """The start of a specification that does not react to the runs on show."""
    return _base([], title)


def _curve_spec(all_of_them: Sequence[Diagnosis], title: str, scale: Scale, series: list[str] | None) -> dict[str, Any]:
    y_scale: dict[str, Any] = {"zero": False, "nice": True}
    if scale != "linear":
        y_scale = {"type": scale, "nice": False}
    y = {"field": "value", "type": "quantitative", "title": None, "scale": y_scale, "axis": {"tickCount": 5}}
    colour = _colour(all_of_them)
    tooltip = [
        {"field": "run", "type": "nominal"},
        {"field": "series", "type": "nominal"},
        {"field": "step", "type": "quantitative", "format": ","},
        {"field": "value", "type": "quantitative", "format": ".4~g"},
    ]
    detail = {"field": "series", "type": "nominal"}
    width = {"value": 2.1}
    if series is not None:  # the actor thick, its partner thin
        width = {
            "field": "series",
            "type": "nominal",
            "scale": {"domain": _actor_first(series), "range": [2.1, 1.1]},
            "legend": {"title": None, "orient": "top", "symbolType": "stroke", "symbolStrokeColor": "#888"},
        }
    suffix = "" if scale == "linear" else f", {scale} scale"
    return _base(first_shown(all_of_them), title + suffix) | {
        "layer": [
            {
                "data": {"name": "raw"},
                "transform": _ONLY_SHOWN,
                "params": [{"name": "zoom", "select": {"type": "interval", "encodings": ["x"]}, "bind": "scales"}],
                "mark": {"type": "line", "strokeWidth": 0.7, "opacity": 0.33},
                "encoding": {"x": _X, "y": y, "color": colour, "detail": detail},
            },
            {
                "data": {"name": "calm"},
                "transform": _ONLY_SHOWN,
                "mark": {"type": "line", "strokeJoin": "round"},
                "encoding": {
                    "x": _X, "y": y, "color": colour, "strokeDash": _dash(all_of_them), "detail": detail, "strokeWidth": width,
                    "tooltip": tooltip,
                },
            },
            {
                "data": {"name": "dots"},
                "transform": _ONLY_SHOWN,
                "mark": {"type": "point", "filled": True, "size": 18, "opacity": 0.9},
                "encoding": {"x": _X, "y": y, "color": colour, "tooltip": tooltip},
            },
            *_mark_layers(colour),
        ]
    }  # fmt: skip


def _actor_first(series: list[str]) -> list[str]:
    return sorted(series, key=lambda name: ("frozen" in name, name))


def _mark_layers(colour: dict[str, Any]) -> list[dict[str, Any]]:
    """Onset as a rule with a triangle at its foot, checkpoints as ticks on the axis, the best as a star-like diamond."""
    tooltip = [
        {"field": "run", "type": "nominal"},
        {"field": "what", "type": "nominal"},
        {"field": "step", "type": "quantitative"},
    ]

    def layer(kind: str, mark: dict[str, Any], **encoding: Any) -> dict[str, Any]:
        return {
            "data": {"name": "marks"},
            "transform": [*_ONLY_SHOWN, {"filter": f"datum.kind === '{kind}'"}],
            "mark": mark,
            "encoding": {"x": _X, "color": colour, "tooltip": tooltip} | encoding,
        }

    foot = {"y": {"value": 190}}
    return [
        layer("onset", {"type": "rule", "strokeDash": [3, 3], "strokeWidth": 1.4, "opacity": 0.9}),
        layer("onset", {"type": "point", "shape": "triangle-up", "size": 70, "filled": True, "opacity": 1}, **foot),
        layer(
            "checkpoint", {"type": "tick", "orient": "vertical", "size": 7, "thickness": 1.2, "opacity": 0.7}, y={"value": 186}
        ),
        layer("best", {"type": "point", "shape": "diamond", "size": 60, "filled": True, "opacity": 1}, y={"value": 184}),
    ]


# --- accuracy ----------------------------------------------------------------------------------------------------------


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
    y = {"field": "value", "type": "quantitative", "title": None, "axis": {"format": "%", "tickCount": 5}}
    y["scale"] = {"domainMin": 0, "nice": True}
    colour = _colour(all_of_them)
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "area", "opacity": 0.14},
            "encoding": {"x": _X, "y": y | {"field": "low"}, "y2": {"field": "high"}, "color": colour},
        },
        {
            "mark": {"type": "line", "point": {"size": 26, "filled": True}, "strokeWidth": 2},
            "encoding": {
                "x": _X,
                "y": y,
                "color": colour,
                "strokeDash": _dash(all_of_them),
                "tooltip": [{"field": f} for f in ("run", "step", "value", "low", "high", "n")],
            },
        },
    ]
    for one in layers:
        one |= {"data": {"name": "evals"}, "transform": _ONLY_SHOWN}
    title = "accuracy from the CoT alone, 95 % intervals"
    spec = _base(first_shown(all_of_them), title) | {"layer": [*layers, *_mark_layers(colour)]}
    marks = [row for row in _marks_of_evaluated(all_of_them) if row["kind"] != "checkpoint"]
    return Figure("accuracy", title, spec, {"evals": rows, "marks": marks})


def _marks_of_evaluated(all_of_them: Sequence[Diagnosis]) -> list[dict[str, Any]]:
    evaluated = [d for d in all_of_them if len(d.case.series) > 1]
    return _marks(evaluated, "step")


def final_accuracy(all_of_them: Sequence[Diagnosis]) -> Figure | None:
    """Base, best and last accuracy of every run with intervals."""
    rows: list[dict[str, Any]] = []
    for d in all_of_them:
        last = d.case.last if d.case.last is not d.case.best else None
        for what, e in (("base", d.case.base), ("best", d.case.best), ("last", last)):
            if e is not None:
                s = e.score
                row = {
                    "run": d.run.name,
                    "what": what,
                    "value": s.accuracy,
                    "low": s.low,
                    "high": s.high,
                    "n": e.n,
                    "step": e.step,
                }
                rows.append(row)
    if not rows:
        return None
    names = list(dict.fromkeys(row["run"] for row in rows))
    y = {"field": "run", "type": "nominal", "title": None, "sort": names, "axis": {"labelLimit": 260, "grid": True}}
    kinds = {"domain": ["base", "best", "last"]}
    colour = {
        "field": "what", "type": "nominal", "title": None, "legend": {"orient": "top"},
        "scale": kinds | {"range": ["#8b9098", "#2f8f6b", "#d1603d"]},
    }  # fmt: skip
    shape = colour | {"scale": kinds | {"range": ["circle", "diamond", "square"]}}
    offset = {"field": "what", "scale": kinds}
    x = {"field": "value", "type": "quantitative", "title": "accuracy", "axis": {"format": "%", "tickCount": 6}}
    x["scale"] = {"domainMin": 0, "nice": True}
    tooltip = [{"field": f} for f in ("run", "what", "step", "value", "low", "high", "n")]
    title = "base, best and last checkpoint, 95 % intervals"
    spec = _base([], title) | {
        "height": {"step": 26, "for": "position"},
        "data": {"name": "final"},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 2.2, "opacity": 0.6},
                "encoding": {"y": y, "yOffset": offset, "x": x | {"field": "low"}, "x2": {"field": "high"}, "color": colour},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
                "encoding": {"y": y, "yOffset": offset, "x": x, "color": colour, "shape": shape, "tooltip": tooltip},
            },
        ],
    }
    return Figure("final-accuracy", title, spec, {"final": rows}, per_run=False)


# --- distributions -----------------------------------------------------------------------------------------------------


def reward_distributions(all_of_them: Sequence[Diagnosis], most: int = MOST_SHOWN) -> list[Figure]:
    """How the rewards of a run spread over training, one figure a run on show, at most `most`."""
    shown = set(first_shown(all_of_them))
    found = [_distribution(d, i) for i, d in enumerate(all_of_them) if d.run.name in shown]
    return [figure for figure in found if figure is not None][:most]


def _distribution(d: Diagnosis, index: int) -> Figure | None:
    c = reward_course(d.run)
    if c is None or len(c) < 20:
        return None
    low, high = course(d.run, "reward_min"), course(d.run, "reward_max")
    within = c.key == "reward_mean" and low is not None and high is not None and len(low) == len(high) == len(c)
    buckets = min(50, len(c) // 4)
    edges = np.linspace(0, len(c), buckets + 1).astype(int)
    rows = []
    for start, end in itertools.pairwise(edges):
        part = c.values[start:end]
        q = np.quantile(part, [0.1, 0.25, 0.5, 0.75, 0.9])
        lowest = low.values[start:end].min() if within and low is not None else part.min()
        highest = high.values[start:end].max() if within and high is not None else part.max()
        keys = ("lowest", "p10", "p25", "p50", "p75", "p90", "highest")
        values = (lowest, *q, highest)
        rows.append(
            {"step": int(c.steps[(start + end - 1) // 2])} | {k: _short(float(v)) for k, v in zip(keys, values, strict=True)}
        )
    colour = COLOURS[index % len(COLOURS)]
    y = {"type": "quantitative", "title": None, "scale": {"zero": False, "nice": True}, "axis": {"tickCount": 4}}

    def band(bottom: str, top: str, opacity: float) -> dict[str, Any]:
        return {
            "mark": {"type": "area", "color": colour, "opacity": opacity, "interpolate": "monotone"},
            "encoding": {"x": _X, "y": y | {"field": bottom}, "y2": {"field": top}},
        }

    tooltip = [{"field": f, "type": "quantitative"} for f in ("step", "lowest", "p10", "p50", "p90", "highest")]
    median = {
        "mark": {"type": "line", "color": colour, "strokeWidth": 2},
        "encoding": {"x": _X, "y": y | {"field": "p50"}, "tooltip": tooltip},
    }
    layers = [band("lowest", "highest", 0.1), band("p10", "p90", 0.2), band("p25", "p75", 0.3), median]
    title = f"{d.run.name}: {label(c.key)}"
    spec = _base([], title, height=120) | {"data": {"name": "spread"}, "layer": layers}
    return Figure(f"rewards-{index}", title, spec, {"spread": rows}, per_run=False)


# --- rendering ---------------------------------------------------------------------------------------------------------

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


def for_print(figure: Figure, all_of_them: Sequence[Diagnosis], width: int = 620) -> dict[str, Any]:
    """The specification of an SVG: with its rows, of a fixed width, and with a legend of the runs on show."""
    spec = figure.spec | {"width": width, "datasets": figure.rows}
    if figure.per_run:
        spec |= {"layer": _with_legend(spec["layer"], all_of_them)}
    return spec


def _with_legend(layers: Sequence[dict[str, Any]], all_of_them: Sequence[Diagnosis]) -> list[dict[str, Any]]:
    """The legend that the page draws outside of its charts, on the layer of the thick lines."""
    legend = {
        "title": None, "orient": "bottom", "columns": 3, "labelLimit": 190, "symbolType": "stroke", "symbolSize": 300,
        "symbolStrokeWidth": 2, "symbolOpacity": 1, "values": first_shown(all_of_them),
    }  # fmt: skip
    found = []
    for layer in layers:
        encoding = dict(layer["encoding"])
        encoding["color"] = {k: v for k, v in encoding["color"].items() if k != "legend"}
        if "strokeDash" in encoding:
            encoding |= {channel: encoding[channel] | {"legend": legend} for channel in ("color", "strokeDash")}
        found.append(layer | {"encoding": encoding})
    return found
