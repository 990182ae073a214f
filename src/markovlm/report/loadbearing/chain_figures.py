"""Figures of chains: facts that enter the states, stay and leave; answers by age of their fact; damage by lag."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markovlm.report.figures import COLOURS, Figure, blank
from markovlm.report.figures.base import line_with_intervals, numbers
from markovlm.studies.chains import Chains, Fact, chief_damage, known_by
from markovlm.studies.words import severity_text

MOST_FACTS = 24  # questions of the picture; the study's own page has more
_PAPER, _KNOWN = "#f4f6f9", "#1f5fa8"
_MARKS = 20  # chunks up to which right and wrong are marked
_TICKS = 12


def chain_figures(name: str, run: str, found: Chains) -> list[Figure | None]:
    return [_facts(f"{name}-facts", run, found), _known(f"{name}-known", run, found), _damage(f"{name}-lags", run, found)]


def _facts(name: str, run: str, found: Chains) -> Figure | None:
    """Questions down, states across; the darker, the likelier the answer. Framed: the chunk that the fact stands in."""
    shown = found.facts.read[:MOST_FACTS]
    labels = [_label(i, fact, found.thinks) for i, fact in enumerate(shown, 1)]
    rows = [
        {
            "fact": label,
            "t": cell.t,
            "p": math.exp(min(cell.logprob, 0.0)),
            "mark": "" if cell.correct is None else "✓" if cell.correct else "×",
            "here": cell.t == fact.fact,
            "text": fact.text,
        }
        for label, fact in zip(labels, shown, strict=True)
        for cell in fact.known
        if cell.logprob is not None
    ]
    if not rows:
        return None
    across = sorted({int(row["t"]) for row in rows})
    title = f"{run}: " + ("when the answer can be read" if found.thinks else "facts that enter the notes, stay and leave")
    if len(found.facts.read) > len(shown):
        title += f" ({len(shown)} of {len(found.facts.read)} questions)"
    x: dict[str, Any] = {"field": "t", "type": "ordinal", "sort": across, "title": "piece" if found.thinks else "after chunk"}
    x["axis"] = {"labelAngle": 0, "orient": "top", "ticks": False, "domain": False}
    y = {"field": "fact", "type": "nominal", "sort": labels, "title": None, "axis": {"labelLimit": 230, "ticks": False}}
    colour = {
        "field": "p", "type": "quantitative", "scale": {"domain": [0, 1], "range": [_PAPER, _KNOWN], "interpolate": "rgb"},
        "legend": {"title": "p", "gradientLength": 90, "tickCount": 3, "format": ".0%"},
    }  # fmt: skip
    tooltip = [{"field": f} for f in ("fact", "t", "text")] + [
        {"field": "p", "format": ".3f"},
        {"field": "mark", "title": "read"},
    ]
    ink = {"condition": {"test": "datum.p > 0.6", "value": "#ffffff"}, "value": "#1a1c1f"}
    layers: list[dict[str, Any]] = [
        {"mark": {"type": "rect", "tooltip": True}, "encoding": {"color": colour, "tooltip": tooltip}},
        {
            "transform": [{"filter": "datum.here"}],
            "mark": {"type": "rect", "filled": False, "stroke": "#1a1c1f", "strokeWidth": 1.8},
        },
    ]
    if len(across) <= _MARKS:
        layers.append(
            {"mark": {"type": "text", "fontSize": 11}, "encoding": {"text": {"field": "mark"}, "color": ink, "tooltip": tooltip}}
        )
    spec = blank(title, 95 + 20 * len(labels)) | {"data": {"name": "cells"}, "encoding": {"x": x, "y": y}, "layer": layers}
    return Figure(name, title, spec, {"cells": rows}, per_run=False)


def _counted(field: str, title: str, values: Sequence[int]) -> dict[str, Any]:
    """An axis of counts: ticks at whole numbers that are there, from the first to the last."""
    whole = sorted(set(values))
    every = -(-len(whole) // _TICKS)
    scale = {"domain": [whole[0], whole[-1]], "padding": 14, "nice": False, "zero": False}
    axis = {"format": "d", "values": whole[::every]}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": axis}


def _label(number: int, fact: Fact, thinks: bool) -> str:
    """Numbered, so that no two are the same."""
    return f"{number}. {fact.question} {fact.answer}" if not thinks else f"{number}. {fact.question} = {fact.answer}"


def _known(name: str, run: str, found: Chains) -> Figure | None:
    """Accuracy with its interval by the age of the fact, or by piece."""
    by, known = known_by(found)
    rows = [{"at": k.at, "n": k.n} | numbers(k.accuracy) for k in known if k.accuracy.mean is not None]
    if not rows:
        return None
    title = f"{run}: share of right answers read from the states"
    x = _counted("at", by, [k.at for k in known])
    y: dict[str, Any] = {
        "field": "value",
        "type": "quantitative",
        "title": None,
        "scale": {"domain": [0, 1]},
        "axis": {"format": ".0%"},
    }
    tooltip = [{"field": f} for f in ("at", "value", "low", "high", "n")]
    spec = blank(title) | {"data": {"name": "known"}, "layer": line_with_intervals(x, y, tooltip, color=COLOURS[0])}
    return Figure(name, title, spec, {"known": rows}, per_run=False)


def _damage(name: str, run: str, found: Chains) -> Figure | None:
    """A line a perturbation, at one severity, of answers where there are any."""
    chief = chief_damage(found)
    predicted = next((key[1] for key in chief), None)
    rows = [
        {"damage": f"{key[0]} {severity_text(row.severity)}", "lag": row.lag, "n": row.n} | numbers(row.drop_logprob)
        for key, own in chief.items()
        if key[1] == predicted
        for row in own
        if row.drop_logprob.mean is not None
    ]
    if not rows:
        return None
    names = list(dict.fromkeys(str(row["damage"]) for row in rows))
    what = "the answer" if predicted == "answer" else "what is predicted"
    title = f"{run}: perturbing a {'piece' if found.thinks else 'state'}, drop of {what}, nats per token"
    colour = {
        "field": "damage", "type": "nominal", "title": None,
        "scale": {"domain": names, "range": [COLOURS[i % len(COLOURS)] for i in range(len(names))]},
        "legend": {"orient": "top", "symbolType": "stroke", "symbolStrokeWidth": 3, "symbolOpacity": 1, "labelLimit": 240},
    }  # fmt: skip
    since = "pieces written since" if found.thinks else "chunks read since"
    x = _counted("lag", since, [int(row["lag"] or 0) for row in rows])
    y: dict[str, Any] = {"field": "value", "type": "quantitative", "title": None, "axis": {"tickCount": 5}}
    tooltip = [{"field": f} for f in ("damage", "lag", "value", "low", "high", "n")]
    layers = line_with_intervals(x, y, tooltip)
    spec = blank(title, 270) | {"data": {"name": "lags"}, "encoding": {"color": colour}, "layer": layers}
    return Figure(name, title, spec, {"lags": rows}, per_run=False)
