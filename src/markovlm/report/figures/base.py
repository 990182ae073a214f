"""What every figure is made of: a specification, its data, and how runs are distinguished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from markovlm.health.diagnose import Diagnosis

COLOURS = (
    "#3b6fb6", "#d1603d", "#2f8f6b", "#a04a9c", "#b58a1b", "#4aa3c7", "#8a5a3c", "#6b6fc9", "#7a7f87", "#c2375b",
)  # fmt: skip
DASHES = ([], [7, 3], [2, 2], [9, 3, 2, 3], [4, 1])
MOST_SHOWN = 12  # runs on show at first; the others can be switched on
Scale = Literal["linear", "log", "symlog"]
_ORDER: Mapping[str, int] = {"collapsed": 0, "warn": 1, "healthy": 2, "unknown": 3}


@dataclass(frozen=True, slots=True)
class Line:
    """One metric of one run: means of stretches of equal numbers of rows, and its thinned rows.

    `raw` is None where each stretch is one row, so that the means are the rows.
    """

    run: str
    series: str
    steps: tuple[int, ...]
    means: tuple[float, ...]
    raw: tuple[tuple[int, ...], tuple[float, ...]] | None = None


@dataclass(slots=True)
class Figure:
    """A specification and its data.

    `rows` are named tables of the specification. Learning curves have `lines` instead, of which the page and the SVG make
    the rows, smoothed as wished. `per_run` figures show the runs on show; `run` is set where a figure is of one run.
    """

    name: str
    title: str
    spec: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    caption: str = ""
    per_run: bool = True
    run: str | None = None
    group: str = ""
    lines: tuple[Line, ...] = ()
    limits: tuple[tuple[str, float], ...] = ()  # (run, value): a level that the metric cannot pass
    scale: Scale = "linear"
    bounds: tuple[float, float] | None = None  # that the metric cannot leave

    @property
    def height(self) -> int:
        """Pixels, title and axes included: what the page reserves before it draws."""
        return int(self.spec["height"])


def run_domain(all_of_them: Sequence[Diagnosis]) -> tuple[list[str], list[str], list[list[int]]]:
    """(names, colours, dashes) in the order of the runs."""
    n = len(all_of_them)
    names = [d.run.name for d in all_of_them]
    dashes = [list(DASHES[(i + i // len(COLOURS)) % len(DASHES)]) for i in range(n)]
    return names, [COLOURS[i % len(COLOURS)] for i in range(n)], dashes


def first_shown(all_of_them: Sequence[Diagnosis]) -> list[str]:
    """The runs on show at first: all, or where there are many the gravest in at most half of the places and the longest."""
    drawn = [d for d in all_of_them if d.run.steps or d.run.evals]
    ordered = sorted(drawn, key=lambda d: (_ORDER.get(d.verdict, 3), -d.run.steps))
    grave = [d for d in ordered if _ORDER.get(d.verdict, 3) < 2]
    others = [d for d in ordered if _ORDER.get(d.verdict, 3) >= 2]
    chosen = grave[: max(MOST_SHOWN // 2, MOST_SHOWN - len(others))]
    return [d.run.name for d in [*chosen, *others][:MOST_SHOWN]]


def blank(title: str, height: int = 230) -> dict[str, Any]:
    """The start of a specification; `height` is that of the whole figure."""
    return {
        "title": {"text": title, "anchor": "start", "fontSize": 12.5, "offset": 6},
        "width": "container",
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
    }


def line_with_intervals(
    x: Mapping[str, Any], y: Mapping[str, Any], tooltip: Sequence[Mapping[str, Any]], **both: Any
) -> list[dict[str, Any]]:
    """Layers: an interval (`low`, `high`) where both bounds are there, and the line with its points. `both`: of either mark."""
    sure = {"filter": "isValid(datum.low) && isValid(datum.high)"}
    return [
        {
            "transform": [sure],
            "mark": {"type": "rule", "strokeWidth": 1.4, "opacity": 0.6, **both},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
        },
        {
            "mark": {"type": "line", "point": {"size": 36, "filled": True}, "strokeWidth": 2, **both},
            "encoding": {"x": x, "y": y, "tooltip": tooltip},
        },
    ]


def numbers(found: Any) -> dict[str, float | None]:
    """An estimate as columns of a figure's rows."""
    return {"value": found.mean, "low": found.low, "high": found.high}


def colour() -> dict[str, Any]:
    """Colour by run; the page and `for_print` know the runs, so that they are in the page once and not in every figure."""
    return {"field": "run", "type": "nominal", "scale": {"domain": "@names", "range": "@colours"}, "legend": None}


def dash() -> dict[str, Any]:
    """Dash by run, so that grey paper keeps runs apart."""
    return {"field": "run", "type": "nominal", "scale": {"domain": "@names", "range": "@dashes"}, "legend": None}


def with_runs(part: Any, known: Mapping[str, Any]) -> Any:
    """A specification with `@names`, `@colours`, `@dashes` filled in."""
    if isinstance(part, dict):
        return {key: with_runs(value, known) for key, value in part.items()}
    if isinstance(part, list):
        return [with_runs(value, known) for value in part]
    return known[part] if isinstance(part, str) and part in known else part


def short(value: float) -> float:
    """Four significant digits: what a figure can show."""
    return float(f"{value:.4g}")
