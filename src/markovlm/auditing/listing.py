"""Every CoT with each reader's results: `cots.jsonl`, and the list on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markovlm.analysis.leak import first_appearance
from markovlm.auditing.plan import AuditCot, Material
from markovlm.auditing.reading import GroupRead, ReaderRead

MOST_LISTED = 400  # CoTs on the page; all are in the file
_SEES = (
    ("alone", "CoT alone"),
    ("with_choices", "CoT and choices"),
    ("cut", "CoT cut before its answer"),
    ("both", "question and CoT"),
    ("question", "question alone"),
    ("choices_alone", "choices alone"),
    ("nothing", "neither"),
)


def listed(material: Material, reads: Sequence[ReaderRead]) -> list[dict[str, Any]]:
    """One row per CoT, in the order of the groups, with the results of every reader whose context it fits."""
    places = {
        (read.reader, group): {cot.key: number for number, cot in enumerate(own.cots)}
        for read in reads
        for group, own in read.groups.items()
    }
    rows: list[dict[str, Any]] = []
    for group, cots in material.groups.items():
        for cot in cots:
            readings: list[dict[str, Any]] = []
            for read in reads:
                place = places.get((read.reader, group), {}).get((cot.example.id, cot.number))
                if place is not None:
                    readings += _readings(read.reader, read.groups[group], place)
            rows.append(_row(group, cot, material, readings))
    return rows


def _row(group: str, cot: AuditCot, material: Material, readings: list[dict[str, Any]]) -> dict[str, Any]:
    example = cot.example
    return {
        "group": group,
        "id": example.id,
        "cot_number": cot.number,
        "where": cot.row.where,
        "question": example.question,
        "choices": list(example.choices),
        "gold": example.answer,
        "cot": cot.text,
        "final": cot.row.final,
        "stated_at": first_appearance(cot.text, example.answer, material.answer_type, example.choices),
        "writer_right": cot.row.right,
        "readings": readings,
    }


def _readings(reader: str, own: GroupRead, place: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for key, sees in _SEES:
        scored = getattr(own, key)
        if scored:
            one = scored[place]
            found.append(
                {
                    "reader": reader,
                    "sees": sees,
                    "reply": one.answer or "",
                    "extracted": one.extracted,
                    "correct": one.correct,
                    "logprob": one.logprob,
                }
            )
    return found
