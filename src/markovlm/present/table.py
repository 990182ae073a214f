"""One table for all outputs: the same rows become HTML, Markdown, CSV and text on a terminal, each number with its source."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markovlm.intervals import MISSING, decimal_texts, estimate_text, p_text, percent_text


@dataclass(frozen=True, slots=True)
class Source:
    """Where a number was read: a file and, where it has one, a line."""

    path: Path
    line: int | None = None

    def __str__(self) -> str:
        return self.path.name if self.line is None else f"{self.path.name}, line {self.line:,}"


@dataclass(frozen=True, slots=True)
class Cell:
    """A value, its text, and its source. `kind` is a class for styling (a verdict, "number", …)."""

    value: Any
    text: str
    source: Source | None = None
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A named table. `name` is its file name as CSV."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    @property
    def headings(self) -> list[tuple[str, str]]:
        """(column, "number" if all its cells are numbers or missing)."""
        known = ([row[i].kind for row in self.rows if row[i].text not in ("", MISSING)] for i in range(len(self.columns)))
        numeric = (kinds and all("number" in kind for kind in kinds) for kinds in known)
        return [(name, "number" if is_numeric else "") for name, is_numeric in zip(self.columns, numeric, strict=True)]

    def without(self, column: str) -> Table:
        """The table minus one column."""
        at = self.columns.index(column)
        rows = tuple((*row[:at], *row[at + 1 :]) for row in self.rows)
        return replace(self, columns=(*self.columns[:at], *self.columns[at + 1 :]), rows=rows)

    def with_known(self) -> Table:
        """The table minus the columns without any known value."""
        known = [i for i in range(len(self.columns)) if any(row[i].text not in ("", MISSING) for row in self.rows)]
        return replace(
            self, columns=tuple(self.columns[i] for i in known), rows=tuple(tuple(r[i] for i in known) for r in self.rows)
        )


_Column = str | Callable[[Any], Any]  # a key or attribute of an item, or what makes a cell, or its value, of it
Columns = dict[str, _Column]  # by their headings


def table_of(name: str, title: str, items: Iterable[Any], columns: Mapping[str, _Column], note: str = "") -> Table:
    """One row per item. Values become cells by type: numbers, `{"mean", "ci95"}`, everything else text."""
    rows = tuple(tuple(_cell_of(item, make) for make in columns.values()) for item in items)
    return Table(name, title, tuple(columns), rows, note)


def _cell_of(item: Any, make: _Column) -> Cell:
    value = make(item) if callable(make) else item[make] if isinstance(item, Mapping) else getattr(item, make)
    if isinstance(value, Cell):
        return value
    if value is None:
        return plain(None, "missing")
    if isinstance(value, Mapping):
        return found_cell(value)  # pyright: ignore[reportUnknownArgumentType]
    return number_cell(value) if isinstance(value, int | float) and not isinstance(value, bool) else plain(value)


# --- cells -------------------------------------------------------------------------------------------------------------


def plain(value: Any, kind: str = "") -> Cell:
    """A cell without a source."""
    return Cell(value, MISSING if value is None or value == "" else readable(value), None, kind)


def readable(value: Any) -> str:
    """A value as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number_text(value)
    return str(value)


def number_text(value: float) -> str:
    """Four significant digits; large and small numbers as powers of ten."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    return f"{value:.3g}"


NOTHING = plain(None, "missing number")
BLANK = Cell(None, "", None, "missing number")  # what has its number in another row


def number_cell(value: float | None, text: str | None = None, source: Source | None = None) -> Cell:
    """A number, which may be missing; `text` where it reads otherwise than with four digits."""
    return NOTHING if value is None else Cell(value, readable(value) if text is None else text, source, "number")


def decimal_cell(value: float | None, places: int = 3, *, signed: bool = False, source: Source | None = None) -> Cell:
    """`0.932`, `+0.932`"""
    return NOTHING if value is None else number_cell(value, decimal_texts([value], places, signed=signed)[0], source)


def percent_cell(
    share: float | None, low: float | None = None, high: float | None = None, *, places: int = 0, source: Source | None = None
) -> Cell:
    """`55 %` for .55, with `places` and an interval `55.0 % [52.1, 57.9]`."""
    return NOTHING if share is None else Cell(share, percent_text(share, low, high, places=places), source, "number")


def p_cell(p: float | None, after: str = "") -> Cell:
    """`0.012`, `< 0.001`; `after` follows it (stars)."""
    return NOTHING if p is None else Cell(p, f"{p_text(p)} {after}".strip(), None, "number")


def estimate_cell(
    mean: float | None, low: float | None = None, high: float | None = None, *, source: Source | None = None, scale: float = 1.0,
    places: int = 2, signed: bool = False, judged: bool = False,
) -> Cell:  # fmt: skip
    """`1.20 [0.90, 1.50]`; where it is `judged`, muted if the interval holds 0 or is missing."""
    if mean is None or math.isnan(mean):
        return NOTHING
    scaled = [None if v is None else scale * v for v in (mean, low, high)]
    sure = low is not None and high is not None and (low > 0 or high < 0)
    kind = "number null" if judged and not sure else "number"
    return Cell(scale * mean, estimate_text(*scaled, places=places, signed=signed), source, kind)


def found_cell(found: Mapping[str, Any] | None, places: int = 2) -> Cell:
    """The same for `{"mean": 1.2, "ci95": [0.9, 1.5]}`, as studies store it."""
    return NOTHING if found is None else estimate_cell(found["mean"], *found["ci95"], places=places)


def scored_cell(row: Mapping[str, Any] | None, name: str, signed: bool = False) -> Cell:
    """The same for `{"accuracy": 0.5, "ci95": [0.4, 0.6], "logprob": -1.2, "logprob_ci95": [-1.5, -0.9]}`, as evaluations store it."""
    if row is None:
        return NOTHING
    bounds = row["ci95" if name == "accuracy" else f"{name}_ci95"] or (None, None)
    return estimate_cell(row[name], *bounds, places=3, signed=signed)


def sources_of(row: Sequence[Cell]) -> list[Source]:
    """The sources of a row's numbers, each once."""
    return list(dict.fromkeys(cell.source for cell in row if cell.source))
