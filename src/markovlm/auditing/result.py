"""From what the readers read to the result of an audit, as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markovlm.analysis.leak import first_appearance
from markovlm.analysis.study import RATE, Counting, estimate_some, open_folder
from markovlm.auditing.budget import within_minutes
from markovlm.auditing.compare import agreement, comparison, ranking
from markovlm.auditing.hints import Hinted, hint_rows, hinted
from markovlm.auditing.judge import judge_all
from markovlm.auditing.measures import is_bare, reader_entry, reader_values, text_entry, text_values
from markovlm.auditing.plan import AuditCot, AuditRequest
from markovlm.auditing.reading import ReaderRead, read_all
from markovlm.auditing.sentences import cautions, caveat, quote
from markovlm.auditing.server import open_reader
from markovlm.runs.rows import clean, replace_whole

RESULT = "audit.json"
PAGE = "audit.html"
STUDIES = ("damage", "leak", "bypass", "load")


def audit(
    request: AuditRequest, counting: Counting | None = None, say: Callable[[str], None] = lambda _: None
) -> tuple[dict[str, Any], list[ReaderRead], AuditRequest]:
    """Read everything, reader after reader, and write the result to `request.out`. The same call again continues.

    Returns the request as it was carried out: with limited time, with the questions that were read.
    """
    if request.minutes is not None:
        request = within_minutes(request, counting, say)
    reads: list[ReaderRead] = []
    for name, target in request.readers:
        opened = open_reader(name, target, request, counting)
        reads.append(read_all(opened, request, counting, say))
        del opened
    found, notes = hinted(request.material) if "hints" in request.parts else ({}, [])
    judged = _judged(request, found, counting) if found and request.judge is not None else {}
    result = put_together(request, reads, hint_rows(found, judged, request.judge and request.judge[0], request.seed), notes)
    open_folder(request.out)
    replace_whole(request.out / RESULT, (json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode())
    return result, reads, request


def _judged(request: AuditRequest, found: Mapping[str, Sequence[Hinted]], counting: Counting | None) -> dict[str, list[float]]:
    """Of every CoT with a hint what the judge says, by group."""
    assert request.judge is not None
    opened = open_reader(*request.judge, request, counting, "--judge")
    asked = [one for own in found.values() for one in own]
    values = iter(judge_all(opened, asked, request.out, counting))
    return {group: [next(values) for _ in own] for group, own in found.items()}


def put_together(
    request: AuditRequest, reads: Sequence[ReaderRead], hints: Sequence[Mapping[str, Any]] = (), notes: Sequence[str] = ()
) -> dict[str, Any]:
    """The JSON of an audit (docs/audit.md lists the keys). `hints`: rows about them, `notes`: about what they leave out."""
    material, seed = request.material, request.seed
    kind = material.answer_type

    def stated(cot: AuditCot) -> bool:
        return first_appearance(cot.text, cot.example.answer, kind, cot.example.choices) is not None

    groups: list[dict[str, Any]] = []
    values: dict[tuple[str, str], dict[str, Any]] = {}
    for group, cots in material.groups.items():
        texts = text_values(cots, stated)
        scored = [cot.row.right for cot in cots]
        questions = [cot.example.id for cot in cots]
        groups.append(
            {
                "group": group,
                "n": len(set(questions)),
                "cots": len(cots),
                "readers": [reader_entry(read, group, seed) for read in reads if group in read.groups],
                "text": text_entry(texts, seed),
                "writer_right": estimate_some(
                    [None if right is None else float(right) for right in scored], questions, seed, RATE
                ),
            }
        )
        values |= {(read.reader, group): reader_values(read.groups[group]) for read in reads if group in read.groups}
        values["", group] = texts  # no reader's
    names = list(material.groups)
    readers = [_reader(read, seed) for read in reads]
    order = ranking(groups, reads[0].reader, values, seed) if reads else []
    result = {
        "kind": "audit",
        "files": [str(path) for path in request.files],
        "sources": list(material.kinds),
        "answers": {"type": kind, "task": material.task},
        "readers": readers,
        "seed": seed,
        "skipped": {"rows": len(material.skipped), "first": list(material.skipped[:10])},
        "notes": [*material.notes, *notes, *(cautions(groups, readers, order) if reads else ())],
        "groups": groups,
        "studies": {
            **{name: _studies(reads, name) for name in STUDIES},
            "agreement": [row for group in names for row in agreement(reads, group, seed)],
            "comparison": comparison(values, names, seed),
            "ranking": order,
            "hints": list(hints),
        },
    }
    return clean(result | {"quote": quote(result), "caveat": caveat(result)})


def _reader(read: ReaderRead, seed: int) -> dict[str, Any]:
    """Of one reader: what it is, and whether it can read CoTs that state the right answer."""
    checked = [
        (one.right, cot.example.id)
        for own in read.groups.values()
        for cot, one, stated in zip(own.cots, own.as_read, own.stated, strict=True)
        if stated and not is_bare(cot.text, cot.example.answer)
    ]
    found = estimate_some([right for right, _ in checked], [question for _, question in checked], seed, RATE)
    judged = [one for own in read.groups.values() for one in own.as_read if one.correct is not None]
    unchecked = {"mean": None, "ci95": [None, None]} if judged else None  # of texts nothing is extracted
    return {
        "reader": read.reader,
        "model": read.model,
        "prompt_style": read.prompt_style,
        "too_long": read.too_long,
        "unknown_tokens": read.unknown,
        "reads_stated": (found or unchecked) and {**(found or unchecked or {}), "n": len({question for _, question in checked})},
        "no_answer": sum(one.extracted is None for one in judged) / len(judged) if judged else None,
    }


def _studies(reads: Sequence[ReaderRead], name: str) -> list[dict[str, Any]]:
    return [
        {
            "group": group,
            "reader": read.reader,
            **{k: v for k, v in own.studies[name].items() if k not in ("run", "checkpoint", "step")},
        }
        for read in reads
        for group, own in read.groups.items()
        if name in own.studies
    ]


def default_out(files: Sequence[Path]) -> Path:
    """FILE.audit/ beside the file; for several, one named after them all."""
    first = files[0]
    if len(files) == 1:
        return first.with_name(f"{first.name}.audit")
    mark = hashlib.blake2b("\x1f".join(str(path.resolve()) for path in files).encode(), digest_size=3).hexdigest()
    return first.with_name(f"{first.name}-and-{len(files) - 1}-more-{mark}.audit")
