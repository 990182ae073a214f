"""The tables of an audit, from a result as a command printed it."""

from __future__ import annotations

import json
from typing import Any

from markovlm.auditing.tables import tables_of
from support.golden import FOLDER


def whole(value: Any) -> Any:
    """Less the entries that say how many a golden list leaves out."""
    if isinstance(value, dict):
        return {key: whole(one) for key, one in value.items()}
    return [whole(one) for one in value if not str(one).endswith(" in all>")] if isinstance(value, list) else value


def test_every_section_has_its_tables_and_the_numbers_of_the_result() -> None:
    result = whole(json.loads((FOLDER / "json" / "audit.json").read_text(encoding="utf-8")))
    found = tables_of(result)
    assert {section: len(tables) for section, tables in found.items()} == {
        "follows": 2, "hints": 0, "compared": 0, "texts": 2, "bypass": 0 if _unjudged(result) else 1,
        "leak": 1, "damage": 1, "agreement": 0, "load": 1,
    }  # fmt: skip
    assert all(len(row) == len(table.columns) for tables in found.values() for table in tables for row in table.rows)
    right, likely = found["follows"]
    one = result["groups"][0]["readers"][0]
    assert right.columns == (
        "group",
        "reader",
        "n",
        "CoT alone",
        "CoT cut before its answer",
        "question alone",
        "both",
        "neither",
    )
    assert [cell.value for cell in right.rows[0]][2:5] == [one["n"], one["accuracy"]["mean"], one["reasoned"]["accuracy"]["mean"]]
    assert likely.rows[0][-1].value == one["nothing"]["logprob"]["mean"]
    texts = {row[0].text: row[1].value for row in found["texts"][0].rows}
    assert texts["the answer is stated"] == result["groups"][0]["text"]["stated"]["mean"]
    assert "share of non-words" not in texts or result["groups"][0]["text"]["nonwords"] is not None
    [load] = found["load"]
    assert [row[0].text for row in load.rows][:2] == ["all", "0 to 10 % of the CoT"]


def _unjudged(result: Any) -> bool:
    return all(row["accuracy"] is None for one in result["studies"]["bypass"] for row in one["rows"])
