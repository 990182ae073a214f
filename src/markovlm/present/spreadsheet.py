"""Tables as CSV, in which no text becomes a formula."""

from __future__ import annotations

import csv
import io
import os
from functools import cache
from pathlib import Path
from typing import Any

from markovlm.present.table import Table, sources_of

_FORMULA = tuple("=+-@＝＋－＠")


def to_csv(table: Table, out: Path | None = None) -> str:
    """The table with full values; a `source` column where cells have sources, relative to the report's directory `out`.

    Text cannot become a spreadsheet formula.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    sourced = any(cell.source for row in table.rows for cell in row)
    writer.writerow([*table.columns, *(["source"] if sourced else [])])
    for row in table.rows:
        line = [csv_value(cell.value) for cell in row]
        if sourced:
            line.append(csv_value("; ".join(dict.fromkeys(f"{_relative(s.path, out)}:{s.line or ''}" for s in sources_of(row)))))
        writer.writerow(line)
    return buffer.getvalue()


@cache
def _relative(path: Path, out: Path | None) -> str:
    if out is None:
        return str(path)
    try:
        return Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
    except (OSError, ValueError):
        return str(path)


def csv_value(value: Any) -> Any:
    """The text of a cell. A text that a spreadsheet would take for a formula gets an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, str):
        value = value.replace("\x00", "")
        return "'" + value if value.lstrip()[:1] in _FORMULA else value
    return value
