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
    NOTHING,
    Cell,
    Source,
    Table,
    estimate_cell,
    found_cell,
    number_cell,
    p_cell,
    percent_cell,
    table_of,
)
from markovlm.terminal.console import show, table

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
        (percent_cell(0.554), "55 %", "number"),
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


def test_columns_of_which_nothing_is_known_go() -> None:
    known = TABLE.with_known()
    assert known.columns == ("what", "share")
    assert [len(row) for row in known.rows] == [2, 2]
    assert TABLE.headings == [("what", ""), ("share", "number"), ("unknown", "")]
    assert Table("x", "y", ("a",), ((NOTHING,),)).with_known().columns == ()


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
    console = Console(file=out, width=100)
    show(console, table_of("x", "[bold]title", ["[red]cell"], {"[dim]head": lambda text: text}, "[u]note"))
    console.print(table("[bold]title", ["[dim]head"], [["[red]cell"]]))
    assert [out.getvalue().count(text) for text in ("[bold]title", "[dim]head", "[red]cell", "[u]note")] == [2, 2, 2, 1]
