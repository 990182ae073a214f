"""One table: cells, columns of which nothing is known, and how it becomes Markdown, CSV, HTML and text on a terminal."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from markovlm.pages import page_environment
from markovlm.present.markdown import table as markdown
from markovlm.present.spreadsheet import to_csv
from markovlm.present.table import (
    BLANK,
    NOTHING,
    Cell,
    Source,
    Table,
    decimal_cell,
    estimate_cell,
    found_cell,
    number_cell,
    p_cell,
    percent_cell,
    scored_cell,
    table_of,
)
from markovlm.terminal.console import show

FOUND = [("<b>", 0.5, None), ("=1+1", 0.25, None)]
TABLE = table_of(
    "name",
    "A | title",
    FOUND,
    {
        "what": lambda row: row[0],
        "share": lambda row: estimate_cell(
            row[1], row[1] - 0.3, row[1] + 0.3, source=Source(Path("a/file.json"), 3), judged=True
        ),
        "unknown": lambda row: row[2],
    },
    "A note.",
)


@pytest.mark.parametrize(
    ("cell", "text", "kind"),
    [
        (number_cell(None), "—", "missing number"),
        (number_cell(1234567), "1,234,567", "number"),
        (number_cell(0.123456), "0.1235", "number"),
        (decimal_cell(0.5), "0.500", "number"),
        (decimal_cell(0.5, 2, signed=True), "+0.50", "number"),
        (decimal_cell(None), "—", "missing number"),
        (percent_cell(0.554), "55 %", "number"),
        (percent_cell(0.554, 0.521, 0.579, places=1), "55.4 % [52.1, 57.9]", "number"),
        (scored_cell({"accuracy": 0.5, "ci95": [0.25, 0.75]}, "accuracy"), "0.500 [0.250, 0.750]", "number"),
        (scored_cell({"gap": 0.5, "gap_ci95": None}, "gap", signed=True), "+0.500 [—]", "number"),
        (scored_cell(None, "accuracy"), "—", "missing number"),
        (p_cell(0.0004, "***"), "< 0.001 ***", "number"),
        (p_cell(0.0123), "0.012", "number"),
        (estimate_cell(math.nan), "—", "missing number"),
        (estimate_cell(0.5, 0.25, 0.75), "0.50 [0.25, 0.75]", "number"),
        (estimate_cell(0.5, -0.25, 0.75, judged=True), "0.50 [-0.25, 0.75]", "number null"),
        (estimate_cell(0.5, judged=True), "0.50 [—]", "number null"),
        (estimate_cell(0.5, 0.25, 0.75, scale=100, places=0), "50 [25, 75]", "number"),
        (found_cell({"mean": 0.5, "ci95": [0.25, 0.75], "n": 3}), "0.50 [0.25, 0.75]", "number"),
        (found_cell(None), "—", "missing number"),
    ],
)
def test_cells(cell: Cell, text: str, kind: str) -> None:
    assert (cell.text, cell.kind) == (text, kind)


def test_values_become_cells_by_what_they_are() -> None:
    columns = {name: name for name in ("text", "count", "share", "found", "none")} | {"made": lambda item: item["count"] + 1}
    items = [{"text": "a", "count": 1234, "share": 0.5, "found": {"mean": 1.0, "ci95": [0.5, 1.5]}, "none": None}]
    found = table_of("x", "y", [*items, {**items[0], "found": None}], columns)
    assert [cell.text for cell in found.rows[0]] == ["a", "1,234", "0.5", "1.00 [0.50, 1.50]", "—", "1,235"]
    assert [kind for _, kind in found.headings] == [
        "",
        "number",
        "number",
        "number",
        "",
        "number",
    ]  # a missing number changes nothing
    assert table_of("x", "y", [Source(Path("a"), 3)], {"line": "line"}).rows[0][0].value == 3  # attributes as well as keys


def test_columns_of_which_nothing_is_known_go() -> None:
    known = TABLE.with_known()
    assert known.columns == ("what", "share")
    assert [len(row) for row in known.rows] == [2, 2]
    assert TABLE.headings == [("what", ""), ("share", "number"), ("unknown", "")]
    assert Table("x", "y", ("a", "b"), ((NOTHING, BLANK),)).with_known().columns == ()


def test_markdown_and_csv_have_the_sources_and_no_formula() -> None:
    assert markdown(TABLE).splitlines()[2] == r"| \<b\> | 0.50 \[0.20, 0.80\] | — | file.json, line 3 |"
    assert to_csv(TABLE).splitlines() == ["what,share,unknown,source", "<b>,0.5,,a/file.json:3", "'=1+1,0.25,,a/file.json:3"]


def test_html_escapes_and_links() -> None:
    source = '{% from "table.html" import grid with context %}{{ grid(table, stacked=stacked) }}'
    template = page_environment().from_string(source)
    html = template.render(table=TABLE, href=lambda source: source.path.as_posix(), stacked=False)
    assert '<td class="">&lt;b&gt;</td>' in html
    assert '<a class="src" href="a/file.json" title="file.json, line 3">0.50 [0.20, 0.80]</a>' in html
    assert '<td class="number null">' in html
    assert '<p class="note">A note.</p>' in html
    stacked = template.render(table=TABLE, stacked=True)
    assert '<td class="number" data-label="share">0.50 <small>[0.20, 0.80]</small></td>' in stacked


def test_the_terminal_shows_title_rows_and_note() -> None:
    out = io.StringIO()
    show(Console(file=out, width=100), TABLE)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines[0] == "A | title"
    assert [cell.strip() for cell in lines[3].split("│")] == ["<b>", "0.50 [0.20, 0.80]", "—"]
    assert lines[-1] == "A note."


def test_texts_on_the_terminal_are_never_markup() -> None:
    out = io.StringIO()
    show(Console(file=out, width=100), table_of("x", "[bold]title", ["[red]cell"], {"[dim]head": str}, "[u]note"))
    assert all(text in out.getvalue() for text in ("[bold]title", "[dim]head", "[red]cell", "[u]note"))
