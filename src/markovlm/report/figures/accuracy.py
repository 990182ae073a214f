"""Base, best and last accuracy of every run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markovlm.health.diagnose import Diagnosis
from markovlm.report.figures.base import Figure, blank

MOST_RUNS = 40  # of one figure; the table has all
_ROW = 34  # pixels of a run


def final_accuracy(all_of_them: Sequence[Diagnosis]) -> Figure | None:
    """Base, best and last accuracy of the runs with intervals; of many the most accurate."""
    evaluated = [d for d in all_of_them if d.case.best or d.case.last or d.case.base]
    chosen = evaluated if len(evaluated) <= MOST_RUNS else sorted(evaluated, key=lambda d: -_accuracy(d))[:MOST_RUNS]
    rows = [row for d in chosen for row in _rows(d)]
    if not rows:
        return None
    names = list(dict.fromkeys(row["run"] for row in rows))
    y = {
        "field": "run", "type": "nominal", "title": None, "sort": names, "scale": {"paddingInner": 0.25},
        "axis": {"labelLimit": 260, "grid": False, "ticks": False},
    }  # fmt: skip
    kinds = {"domain": ["base", "best", "last"]}
    hue = {
        "field": "what", "type": "nominal", "title": None, "legend": {"orient": "top"},
        "scale": kinds | {"range": ["#8b9098", "#2f8f6b", "#d1603d"]},
    }  # fmt: skip
    shape = hue | {"scale": kinds | {"range": ["circle", "diamond", "square"]}}
    offset = {"field": "what", "scale": kinds}
    x = {"field": "value", "type": "quantitative", "title": "accuracy", "axis": {"format": "%", "tickCount": 6}}
    x["scale"] = {"domainMin": 0, "nice": True}
    tooltip = [{"field": f} for f in ("run", "what", "step", "value", "low", "high", "n")]
    title = "base, best and last checkpoint, 95 % intervals"
    if len(evaluated) > MOST_RUNS:
        title += f": the {MOST_RUNS} most accurate of {len(evaluated)} runs"
    spec = blank(title, 110 + _ROW * len(names)) | {
        "data": {"name": "final"},
        "layer": [
            {
                "transform": [{"filter": "isValid(datum.low) && isValid(datum.high)"}],
                "mark": {"type": "rule", "strokeWidth": 2.2, "opacity": 0.6},
                "encoding": {"y": y, "yOffset": offset, "x": x | {"field": "low"}, "x2": {"field": "high"}, "color": hue},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
                "encoding": {"y": y, "yOffset": offset, "x": x, "color": hue, "shape": shape, "tooltip": tooltip},
            },
        ],
    }
    return Figure("final-accuracy", title, spec, {"final": rows}, per_run=False)


def _accuracy(d: Diagnosis) -> float:
    found = d.case.best or d.case.last or d.case.base
    return found.score.accuracy if found else -1.0


def _rows(d: Diagnosis) -> list[dict[str, Any]]:
    last = d.case.last if d.case.last is not d.case.best else None
    return [
        {"run": d.run.name, "what": what, "value": s.accuracy, "low": s.low, "high": s.high, "n": e.n, "step": e.step}
        for what, e in (("base", d.case.base), ("best", d.case.best), ("last", last))
        if e is not None
        for s in [e.score]
    ]
