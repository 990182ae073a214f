"""Results in a notebook: a table, intervals as a small picture. Text is escaped; nothing is loaded or run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from markovlm.present.table import plain

_WIDTH, _ROW, _LABEL = 420, 22, 140  # pixels


def html_table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; values read as those of a `Table` do."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(plain(value).text)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def intervals_svg(rows: Sequence[tuple[str, float, float, float]], low: float = 0.0, high: float = 1.0) -> str:
    """One `(label, value, lower, upper)` per row: a dot and its interval on an axis from `low` to `high`."""

    def x(value: float) -> float:
        return _LABEL + (min(max(value, low), high) - low) / (high - low) * (_WIDTH - _LABEL - 10)

    height = _ROW * len(rows) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="12" fill="currentColor">'
    ]
    for number, (label, value, lower, upper) in enumerate(rows):
        y = _ROW * number + _ROW / 2
        parts.append(f'<text x="0" y="{y + 4:.0f}">{escape(label[:22])}</text>')
        parts.append(
            f'<line x1="{x(lower):.1f}" x2="{x(upper):.1f}" y1="{y}" y2="{y}" stroke="currentColor" stroke-width="2" opacity="0.5"/>'
        )
        parts.append(f'<circle cx="{x(value):.1f}" cy="{y}" r="4"/>')
    y = _ROW * len(rows)
    parts.append(f'<line x1="{x(low)}" x2="{x(high)}" y1="{y}" y2="{y}" stroke="currentColor" opacity="0.4"/>')
    parts += [f'<text x="{x(at):.0f}" y="{y + 14}" text-anchor="middle">{at:g}</text>' for at in (low, (low + high) / 2, high)]
    return "".join(parts) + "</svg>"


def curve_svg(values: Sequence[float | None], label: str) -> str:
    """A line over the rows; numbers that are missing or not finite leave a gap."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    span = high - low or 1.0
    height, width, runs = 100, _WIDTH - 60, [[]]
    for number, value in enumerate(values):
        if value is None or not math.isfinite(value):
            runs.append([])
            continue
        runs[-1].append(f"{50 + number / (len(values) - 1) * width:.1f},{height - (value - low) / span * (height - 10):.1f}")
    lines = "".join(
        f'<polyline points="{" ".join(points)}" fill="none" stroke="currentColor" stroke-width="1.5"/>'
        for points in runs
        if points
    )
    texts = f'<text x="0" y="14">{high:.3g}</text><text x="0" y="{height}">{low:.3g}</text><text x="50" y="{height + 16}">{escape(label)}</text>'
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height + 22}" font-family="sans-serif" font-size="12"'
    )
    return f'{start} fill="currentColor">{lines}{texts}</svg>'
