"""The page of an audit: one self-contained HTML file, everything from the audited text escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markovlm.analysis.render import card_of, cots_page
from markovlm.auditing.listing import MOST_LISTED, listed
from markovlm.auditing.plan import AuditRequest
from markovlm.auditing.reading import ReaderRead
from markovlm.auditing.result import PAGE
from markovlm.auditing.tables import tables_of
from markovlm.runs.rows import clean, replace_whole

COTS = "cots.jsonl"


def write_page(request: AuditRequest, result: Mapping[str, Any], reads: Sequence[ReaderRead]) -> Path:
    """Write `audit.html` and `cots.jsonl` (all CoTs with what was read from them) beside the results."""
    path = request.out / PAGE
    title = ", ".join(file.name for file in request.files[:3]) + (" and more" if len(request.files) > 3 else "")
    rows = listed(request.material, reads)
    lines = "".join(json.dumps(clean(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    replace_whole(request.out / COTS, lines.encode("utf-8", "replace"))
    replace_whole(path, audit_html(result, reads, rows, title).encode("utf-8", "replace"))
    return path


def audit_html(result: Mapping[str, Any], reads: Sequence[ReaderRead], rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """The page as HTML: no scripts, nothing loaded from outside."""
    cards, number = [], 0
    for group, own in reads[0].groups.items() if reads else ():
        for one in own.shown:
            number += 1
            cards.append({**card_of(number, [one]), "group": group})
    shown = _list(rows, result)
    return cots_page(
        "audit.html",
        "markovlm.auditing",
        title=title,
        result=result,
        cards=cards,
        tables=tables_of(result),
        choices=any("with_choices" in one for group in result["groups"] for one in group["readers"]),
        listed=shown,
        filters=_filters([group["group"] for group in result["groups"]]),
        sections=_sections(result),
    )


def _list(rows: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> dict[str, Any]:
    """The CoTs as the first reader reads them, and how many are left out."""
    reader = result["readers"][0]["reader"] if result["readers"] else None
    names = [group["group"] for group in result["groups"]]
    shown: list[dict[str, Any]] = []
    for row in rows[:MOST_LISTED]:
        own = [one for one in row["readings"] if one["reader"] == reader]
        first = next((one for one in own if one["sees"] == "CoT and choices"), own[0] if own else None)
        verdict = _verdict(first)
        place = row["stated_at"]
        shown.append(
            {
                **row,
                "group_number": names.index(row["group"]) if row["group"] in names else 0,
                "verdict": verdict,
                "said": _VERDICTS[verdict],
                "answer": first["extracted"] if first is not None and first["correct"] is not None else first and first["reply"],
                "before": None if place is None else row["cot"][:place],
                "behind": None if place is None else row["cot"][place:],
            }
        )
    return {"reader": reader, "rows": shown, "left_out": max(0, len(rows) - MOST_LISTED)}


_VERDICTS = {"right": "✓ right", "wrong": "✗ wrong", "none": "✗ no answer", "unknown": "not judged"}


def _verdict(first: Mapping[str, Any] | None) -> str:
    if first is None or first["correct"] is None:
        return "unknown"
    return "right" if first["correct"] else "none" if first["extracted"] is None else "wrong"


def _filters(groups: Sequence[str]) -> dict[str, Any]:
    """Radio buttons that hide rows of the list, without scripts: (id, name, label, checked), and what each hides."""
    radios = [("v-all", "verdict", "all", True)]
    radios += [(f"v-{verdict}", "verdict", label, False) for verdict, label in _VERDICTS.items() if verdict != "unknown"]
    radios += [("g-all", "group", "all", True), *((f"g-{n}", "group", group, False) for n, group in enumerate(groups))]
    hides = [(f"v-{verdict}", f":not(.{verdict})") for verdict in ("right", "wrong", "none")]
    hides += [(f"g-{n}", f":not(.g{n})") for n in range(len(groups))]
    return {"radios": radios, "hides": hides, "ids": [name for name, *_ in radios]}


def _sections(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    studies = result["studies"]
    found = [
        ("follows", "does the answer follow"),
        ("hints", "hints"),
        ("compared", "groups compared"),
        ("cots", "the chains"),
        ("texts", "the texts"),
    ]
    found += [("bypass", "bypass"), ("leak", "leak"), ("damage", "damage"), ("agreement", "agreement"), ("load", "load")]
    shown = {"compared": "comparison"}
    here = [(anchor, name) for anchor, name in found if studies.get(shown.get(anchor, anchor), True)]
    return here if result["readers"] else [pair for pair in here if pair[0] != "follows"]
