"""Figures of the section: heat maps of damage, curves of readers, bars of load. One specification each, as in report.figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from markovlm.intervals import decimal_texts
from markovlm.report.figures import COLOURS, Figure, blank
from markovlm.report.figures.base import line_with_intervals, numbers
from markovlm.report.loadbearing.chain_figures import chain_figures
from markovlm.studies.chains import Chains
from markovlm.studies.fields import Estimate
from markovlm.studies.records import ACTOR, BASE, Damage, Explain, Perturb, Point, Resample, Study, Transfer
from markovlm.studies.tables import severities
from markovlm.studies.words import cell_text, severity_text

MOST_CELLS = 400
_WHITE, _COSTS, _HELPS = "#f7f4ef", "#b5402a", "#2a62a8"
_DARK_TEXT, _LIGHT_TEXT = "#1a1c1f", "#ffffff"


def figures(name: str, run: str, study: Study) -> list[Figure]:
    """The figures of one study; `name` begins their names, `run` their titles."""
    found = study
    made: list[Figure | None] = []
    if isinstance(found, Perturb):
        made = [
            _heat(f"{name}-fragility", f"{run}: fragility, nats per answer token", found.rows, lambda r: r.fragility),
            _heat(f"{name}-drop", f"{run}: drop of ln pi(a|CoT), nats per answer token", found.rows, lambda r: r.drop_logprob),
        ]
    elif isinstance(found, Transfer):
        made = [
            _curves(f"{name}-transfer", f"{run}: ln pi(a|CoT), nats per answer token", found, lambda p: p.logprob, ".3~g"),
            _curves(f"{name}-transfer-accuracy", f"{run}: accuracy of readers", found, lambda p: p.accuracy, ".0%"),
        ]
    elif isinstance(found, Explain):
        made = [_kinds(f"{name}-kinds", run, found), _positions(f"{name}-positions", run, found)]
    elif isinstance(found, Chains):
        made = chain_figures(name, run, found)
    elif isinstance(found, Resample):
        made = [_causes(f"{name}-causes", run, found)]
    return [figure for figure in made if figure is not None]


# --- heat map ----------------------------------------------------------------------------------------------------------


def _heat(name: str, title: str, damages: Sequence[Damage], of: Callable[[Damage], Estimate]) -> Figure | None:
    """Perturbations down, severities across; a number in brackets has an interval that holds 0."""
    drawn = [row for row in damages if row.severity != 0 and of(row).mean is not None][:MOST_CELLS]
    if not drawn:
        return None
    means = [of(row).mean or 0.0 for row in drawn]
    most = max(abs(v) for v in means) or 1.0
    rows = [
        {
            "damage": row.label,
            "at": severity_text(row.severity),
            "text": _short(of(row)),
            "reads": cell_text(of(row)),
            "n": row.n,
            "light": abs(of(row).mean or 0.0) > 0.65 * most,
        }
        | numbers(of(row))
        for row in drawn
    ]
    down = list(dict.fromkeys(row.label for row in drawn))
    across = [severity_text(s) for s in severities(drawn)]
    spec = blank(title, 95 + 25 * len(down)) | {
        "data": {"name": "cells"},
        "encoding": {
            "x": {
                "field": "at", "type": "ordinal", "sort": across, "title": "severity",
                "axis": {"labelAngle": 0, "orient": "top", "ticks": False, "domain": False},
            },
            "y": {"field": "damage", "type": "nominal", "sort": down, "title": None, "axis": {"labelLimit": 230, "ticks": False}},
        },
        "layer": _heat_layers(most, diverging="fragility" in name or min(means) < 0),
    }  # fmt: skip
    return Figure(name, title, spec, {"cells": rows}, per_run=False)


def _short(e: Estimate) -> str:
    text = decimal_texts([e.mean or 0.0], 2)[0]
    return text if e.sign else f"({text})"


def _heat_layers(most: float, diverging: bool) -> list[dict[str, Any]]:
    scale = {"domain": [-most, 0, most], "range": [_HELPS, _WHITE, _COSTS], "interpolate": "rgb"} if diverging else None
    colour = {
        "field": "value", "type": "quantitative", "scale": scale or {"domain": [0, most], "range": [_WHITE, _COSTS], "interpolate": "rgb"},
        "legend": {"title": None, "gradientLength": 110, "tickCount": 3, "format": ".2~g"},
    }  # fmt: skip
    ink = {"condition": {"test": "datum.light", "value": _LIGHT_TEXT}, "value": _DARK_TEXT}
    tooltip = [{"field": "damage"}, {"field": "at", "title": "severity"}, {"field": "reads", "title": "95 %"}, {"field": "n"}]
    return [
        {"mark": {"type": "rect", "tooltip": True}, "encoding": {"color": colour, "tooltip": tooltip}},
        {"mark": {"type": "text", "fontSize": 11}, "encoding": {"text": {"field": "text"}, "color": ink, "tooltip": tooltip}},
    ]


# --- readers over training ---------------------------------------------------------------------------------------------


def _curves(name: str, title: str, found: Transfer, of: Callable[[Point], Estimate], format: str) -> Figure | None:
    """One line a reader with its intervals; dashed: the same reader on the base model's CoTs."""
    rows = [{"reader": p.reader, "step": p.step, "n": p.n, "base": p.checkpoint == BASE} | numbers(of(p)) for p in found.points]
    rows = [row for row in rows if row["value"] is not None]
    trained = [row for row in rows if not row["base"]]
    if not trained:
        return None
    readers = sorted({str(row["reader"]) for row in rows}, key=lambda reader: (reader != ACTOR, reader))
    colour = {
        "field": "reader", "type": "nominal", "title": None,
        "scale": {"domain": readers, "range": [COLOURS[i % len(COLOURS)] for i in range(len(readers))]},
        "legend": {"orient": "top", "symbolType": "stroke", "symbolStrokeWidth": 3, "labelLimit": 240},
    }  # fmt: skip
    x = {"field": "step", "type": "quantitative", "title": "step", "axis": {"format": ",d", "tickCount": 5, "tickMinStep": 1}}
    y: dict[str, Any] = {"field": "value", "type": "quantitative", "title": None, "axis": {"tickCount": 5, "format": format}}
    y["scale"] = {"zero": False, "nice": True}
    tooltip = [{"field": f} for f in ("reader", "step", "value", "low", "high", "n")]
    spec = blank(title, 270) | {
        "encoding": {"color": colour},
        "layer": [
            {
                "data": {"name": "base"},
                "mark": {"type": "rule", "strokeDash": [5, 4], "strokeWidth": 1.2, "opacity": 0.75},
                "encoding": {"y": y, "tooltip": tooltip},
            },
            *({"data": {"name": "trained"}, **layer} for layer in line_with_intervals(x, y, tooltip)),
        ],
    }
    return Figure(name, title, spec, {"trained": trained, "base": [row for row in rows if row["base"]]}, per_run=False)


# --- which words, where ------------------------------------------------------------------------------------------------


def _kinds(name: str, run: str, found: Explain) -> Figure | None:
    rows = [{"kind": k.kind, "units": k.units} | numbers(k.drop) for k in found.by_kind if k.drop.mean is not None]
    if not rows:
        return None
    rows.sort(key=lambda row: -float(row["value"] or 0.0))
    title = f"{run}: drop when one {found.unit} is {found.done}, nats per answer token"
    y = {"field": "kind", "type": "nominal", "sort": [row["kind"] for row in rows], "title": None, "axis": {"labelLimit": 160}}
    x = {"field": "value", "type": "quantitative", "title": None, "axis": {"tickCount": 6}}
    tooltip = [{"field": f} for f in ("kind", "value", "low", "high", "units")]
    layers = _bars(
        {"y": y, "x": x | {"stack": None}, "tooltip": tooltip}, {"y": y, "x": x | {"field": "low"}, "x2": {"field": "high"}}
    )
    spec = blank(title, 75 + 26 * len(rows)) | {"data": {"name": "bars"}, "layer": layers}
    return Figure(name, title, spec, {"bars": rows}, per_run=False)


def _along_the_cot() -> dict[str, Any]:
    """The x axis of what is shown by position in the CoT."""
    axis = {"format": ".0%", "values": [0, 0.2, 0.4, 0.6, 0.8, 1]}
    return {
        "field": "from",
        "type": "quantitative",
        "title": "position, start to end of the CoT",
        "scale": {"domain": [0, 1]},
        "axis": axis,
    }


def _positions(name: str, run: str, found: Explain) -> Figure | None:
    rows = [
        {"from": p.start, "to": p.end, "middle": (p.start + p.end) / 2, "units": p.units} | numbers(p.drop)
        for p in found.by_position
        if p.drop.mean is not None
    ]
    if not rows:
        return None
    title = f"{run}: drop by position in the CoT, nats per answer token"
    x = _along_the_cot()
    y = {"field": "value", "type": "quantitative", "title": None, "axis": {"tickCount": 5}}
    tooltip = [{"field": f} for f in ("from", "to", "value", "low", "high", "units")]
    bar = {"x": x, "x2": {"field": "to"}, "y": y | {"stack": None}, "y2": {"datum": 0}, "tooltip": tooltip}
    layers = _bars(bar, {"x": x | {"field": "middle"}, "y": y | {"field": "low"}, "y2": {"field": "high"}})
    spec = blank(title) | {"data": {"name": "bars"}, "layer": layers}
    return Figure(name, title, spec, {"bars": rows}, per_run=False)


def _causes(name: str, run: str, found: Resample) -> Figure | None:
    """What sentences cause by place, beside what is seen by chance."""
    rows = [
        {"from": p.start, "to": p.end, "middle": (p.start + p.end) / 2, "sentences": p.sentences, "chance": p.chance.mean}
        | numbers(p.tv)
        for p in found.by_position
        if p.tv.mean is not None
    ]
    if not rows:
        return None
    title = f"{run}: what sentences cause, by position (TV; dashed: by chance)"
    x = _along_the_cot()
    y = {"field": "value", "type": "quantitative", "title": None, "axis": {"tickCount": 5}, "scale": {"domain": [0, 1]}}
    tooltip = [{"field": f} for f in ("from", "to", "value", "low", "high", "chance", "sentences")]
    bar = {"x": x, "x2": {"field": "to"}, "y": y | {"stack": None}, "y2": {"datum": 0}, "tooltip": tooltip}
    layers = _bars(bar, {"x": x | {"field": "middle"}, "y": y | {"field": "low"}, "y2": {"field": "high"}})
    layers.append(
        {
            "transform": [{"filter": "isValid(datum.chance)"}],
            "mark": {"type": "rule", "strokeDash": [5, 4], "strokeWidth": 1.6, "color": _DARK_TEXT},
            "encoding": {"x": x, "x2": {"field": "to"}, "y": y | {"field": "chance"}},
        }
    )
    return Figure(name, title, blank(title) | {"data": {"name": "bars"}, "layer": layers}, {"bars": rows}, per_run=False)


def _bars(bar: dict[str, Any], whisker: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"mark": {"type": "bar", "color": COLOURS[0], "opacity": 0.75, "binSpacing": 1}, "encoding": bar},
        {
            "transform": [{"filter": "isValid(datum.low) && isValid(datum.high)"}],
            "mark": {"type": "rule", "strokeWidth": 1.6, "color": "#7a7f87"},
            "encoding": whisker,
        },
    ]
