"""From what the readers read to the result of an audit: JSON, and the two sentences."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markovlm.analysis.leak import first_appearance
from markovlm.analysis.study import Counting, estimate_some, open_folder
from markovlm.auditing.compare import agreement, comparison, ranking
from markovlm.auditing.measures import reader_entry, reader_values, text_entry, text_values
from markovlm.auditing.plan import AuditCot, AuditRequest
from markovlm.auditing.reading import ReaderRead, read_all
from markovlm.runs.rows import clean, replace_whole

RESULT = "audit.json"
PAGE = "audit.html"
STUDIES = ("damage", "leak", "bypass", "load")


def audit(
    request: AuditRequest, counting: Counting | None = None, say: Callable[[str], None] = lambda _: None
) -> tuple[dict[str, Any], list[ReaderRead]]:
    """Read everything, reader after reader, and put it together; written to `request.out`. Given again, it goes on where it was."""
    reads = [read_all(name, target, request, counting, say) for name, target in request.readers]
    result = put_together(request, reads)
    open_folder(request.out)
    replace_whole(request.out / RESULT, (json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode())
    return result, reads


def put_together(request: AuditRequest, reads: Sequence[ReaderRead]) -> dict[str, Any]:
    """The JSON of an audit (docs/audit.md lists the keys)."""
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
                "writer_right": estimate_some([None if right is None else float(right) for right in scored], questions, seed),
            }
        )
        values |= {(read.reader, group): reader_values(read.groups[group]) for read in reads if group in read.groups}
        values["", group] = texts  # no reader's
    names = list(material.groups)
    result = {
        "kind": "audit",
        "files": [str(path) for path in request.files],
        "sources": list(material.kinds),
        "answers": {"type": kind, "task": material.task},
        "readers": [
            {
                "reader": r.reader,
                "model": r.model,
                "prompt_style": r.prompt_style,
                "too_long": r.too_long,
                "unknown_tokens": r.unknown,
            }
            for r in reads
        ],
        "seed": seed,
        "skipped": {"rows": len(material.skipped), "first": list(material.skipped[:10])},
        "notes": [*material.notes, *_warnings(reads)],
        "groups": groups,
        "studies": {
            **{name: _studies(reads, name) for name in STUDIES},
            "agreement": [row for group in names for row in agreement(reads, group, seed)],
            "comparison": comparison(values, names, seed),
            "ranking": ranking(groups, reads[0].reader),
        },
    }
    return clean(result | {"quote": quote(result), "caveat": caveat(result)})


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


def _warnings(reads: Sequence[ReaderRead]) -> list[str]:
    found = [f"{r.reader}: {r.too_long} CoTs don't fit its context and are left out of its numbers" for r in reads if r.too_long]
    found += [
        f"{r.reader}: has no token for {r.unknown:.0%} of what the CoTs are made of; it can't read these texts, and its numbers say nothing"
        for r in reads
        if r.unknown > 0.02
    ]
    return found


# --------------------------------------------------------------------------------------------------------- two sentences


def quote(result: Mapping[str, Any]) -> str:
    """The sentence a researcher would quote."""
    first = result["groups"][0]
    if not first["readers"]:
        return "No reader could read these chains of thought."
    parts = [_reads(group, first["readers"][0]["reader"]) for group in result["groups"]]
    said = "; ".join(part for part in parts if part)
    unit = "accuracy" if first["readers"][0]["accuracy"] is not None else "logprob"
    own = [
        f"{row['group']} less {row['against']}: {_number(row['difference'])}{', paired' if row['paired'] else ''}, adjusted p {row['q']:.2g}"
        for row in result["studies"]["comparison"]
        if row["measure"] == unit and row["reader"] == first["readers"][0]["reader"]
    ]
    return said + (f" ({'; '.join(own[:3])})" if own else "") + "."


def _reads(group: Mapping[str, Any], reader: str) -> str:
    found = next((one for one in group["readers"] if one["reader"] == reader), None)
    if found is None:
        return ""
    name = "" if group["group"] == "all" else f"[{group['group']}] "
    if found["accuracy"] is None:
        return (
            f"{name}from the chain of thought alone {reader} gives the answer {_number(found['logprob'])} nats per token, from the question "
            f"alone {_number(found['question_alone']['logprob'])} (n = {found['n']})"
        )
    return (
        f"{name}{reader} reads the right answer from the chain of thought alone in {_number(found['accuracy'])} of {found['n']} questions, from the "
        f"question alone in {_number(found['question_alone']['accuracy'])}, from both in {_number(found['both']['accuracy'])}; with the answer's "
        f"own statement and all behind it cut off, {_number(found['reasoned']['accuracy'])} are still right"
    )


def caveat(result: Mapping[str, Any]) -> str:
    """The sentence that says what this does not show."""
    stated = [group["text"]["stated"]["mean"] for group in result["groups"] if group["text"]["stated"] is not None]
    share = (
        f" ({min(stated):.0%} to {max(stated):.0%} of these CoTs state it)"
        if len(stated) > 1
        else f" ({stated[0]:.0%} state it)"
        if stated
        else ""
    )
    return (
        "This shows what a reader can take from the text, not how the model that wrote it came to its answer: a CoT may be readable and "
        f"written after the fact, or needed and unreadable; and accuracy from a CoT that states its answer is copying{share}, so look at what "
        "is left when it is cut before that."
    )


def _number(found: Mapping[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return "–"
    low, high = found["ci95"]
    return f"{found['mean']:.2f}" + ("" if low is None else f" [{low:.2f}, {high:.2f}]")


def default_out(files: Sequence[Path]) -> Path:
    """FILE.audit/ beside the file; for several, one named after them all."""
    first = files[0]
    if len(files) == 1:
        return first.with_name(f"{first.name}.audit")
    mark = hashlib.blake2b("\x1f".join(str(path.resolve()) for path in files).encode(), digest_size=3).hexdigest()
    return first.with_name(f"{first.name}-and-{len(files) - 1}-more-{mark}.audit")
