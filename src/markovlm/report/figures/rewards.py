"""How the rewards of a run spread over training."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from markovlm.health.diagnose import Diagnosis
from markovlm.health.series import course, reward_course
from markovlm.logs.schema import label
from markovlm.report.figures.base import COLOURS, MOST_SHOWN, Figure, blank, first_shown, short

_X = {
    "field": "step", "type": "quantitative", "title": "step", "axis": {"format": ",d", "tickCount": 5}, "scale": {"nice": False}
}  # fmt: skip


def reward_distributions(all_of_them: Sequence[Diagnosis], most: int = MOST_SHOWN) -> list[Figure]:
    """One figure a run that is on show at first, at most `most`."""
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
            {"step": int(c.steps[(start + end - 1) // 2])} | {k: short(float(v)) for k, v in zip(keys, values, strict=True)}
        )
    hue = COLOURS[index % len(COLOURS)]
    y: dict[str, Any] = {"type": "quantitative", "title": None, "axis": {"tickCount": 4}}
    lowest, highest = min(row["lowest"] for row in rows), max(row["highest"] for row in rows)
    y["scale"] = {"zero": False, "nice": True}
    if lowest == highest:  # a constant, in the middle of an axis of its own size
        y["scale"] = {"domain": [lowest - (0.1 * abs(lowest) or 0.1), highest + (0.1 * abs(highest) or 0.1)]}

    def band(bottom: str, top: str, opacity: float) -> dict[str, Any]:
        return {
            "mark": {"type": "area", "color": hue, "opacity": opacity, "interpolate": "monotone"},
            "encoding": {"x": _X, "y": y | {"field": bottom}, "y2": {"field": top}},
        }

    tooltip = [{"field": f, "type": "quantitative"} for f in ("step", "lowest", "p10", "p50", "p90", "highest")]
    median = {
        "mark": {"type": "line", "color": hue, "strokeWidth": 2},
        "encoding": {"x": _X, "y": y | {"field": "p50"}, "tooltip": tooltip},
    }
    layers = [band("lowest", "highest", 0.1), band("p10", "p90", 0.2), band("p25", "p75", 0.3), median]
    title = f"{d.run.name}: {label(c.key)}"
    spec = blank(title, height=170) | {"data": {"name": "spread"}, "layer": layers}
    return Figure(f"rewards-{index}", title, spec, {"spread": rows}, per_run=False, run=d.run.name)
