"""Markdown in which foreign text stays text."""

from __future__ import annotations

import re

from markovlm.present.table import Table, sources_of

MOST_TEXT = 700  # characters of a code block
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!$&])")


def escaped(text: str) -> str:
    """Text that Markdown shows literally, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def fenced(text: str, most: int = MOST_TEXT) -> str:
    """A code block that its text cannot end."""
    if len(text) > most:
        text = f"{text[:most]} … [{len(text) - most:,} more characters]"
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def table(found: Table) -> str:
    """A pipe table with the sources of its numbers in the last column."""
    if not found.rows:
        return ""
    sourced = any(cell.source for row in found.rows for cell in row)
    columns = [*found.columns, *(["source"] if sourced else [])]
    lines = ["| " + " | ".join(escaped(c) for c in columns) + " |", "|" + " --- |" * len(columns)]
    for row in found.rows:
        cells = [escaped(cell.text) for cell in row]
        if sourced:
            cells.append(escaped("; ".join(map(str, sources_of(row)))))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
