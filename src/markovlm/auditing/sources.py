"""Files of CoTs, told by content: rows of our own shape, Inspect logs, lm-evaluation-harness, TRL completions, our samples.jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markovlm.auditing.harness import is_harness, read_harness
from markovlm.auditing.inspect_log import is_inspect_json, read_inspect_value, read_inspect_zip
from markovlm.auditing.rows import AuditRow, Source, Unfit, plain, text_of
from markovlm.auditing.tables import is_completions, is_samples, read_completions, read_parquet, read_samples
from markovlm.errors import UserError
from markovlm.tasks.base import LETTERS

SUFFIXES = (".jsonl", ".json", ".eval", ".parquet", ".ndjson")
_KNOWN = (
    "rows with question, cot and answer; Inspect logs; samples of lm-evaluation-harness; completions of TRL with a column of gold "
    "answers; samples.jsonl of a run"
)


def read_source(path: Path) -> Source:
    """The CoTs of one file. UserError in one line where it holds none."""
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path}: is a directory; name the files in it")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"PK\x03\x04":
        found = read_inspect_zip(path)
    elif magic == b"PAR1":
        found = read_parquet(path)
    else:
        found = _read_text(path)
    if not found.rows:
        first = f"; the first of {len(found.skipped)}: {found.skipped[0]}" if found.skipped else ""
        raise UserError(f"{path}: no CoT with a question and an answer in it ({found.kind}){first}")
    return found


def _read_text(path: Path) -> Source:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no text in UTF-8 (byte {error.start}); audit reads {_KNOWN}") from None
    if not text.strip():
        raise UserError(f"{path}: is empty; audit reads {_KNOWN}")
    whole = _whole(text)
    if is_inspect_json(whole):
        return read_inspect_value(path, whole)
    objects = list(enumerate(whole, 1)) if isinstance(whole, list) else list(_lines(text))
    rows = [(line, row) for line, row in objects if isinstance(row, Mapping)]
    broken = [f"{path.name}:{line}: no JSON object" for line, row in objects if not isinstance(row, Mapping)]
    first = rows[0][1] if rows else {}
    if is_samples(first):
        found = read_samples(path.name, rows)
    elif is_harness(first):
        found = read_harness(path.name, rows)
    elif is_completions(first):
        found = read_completions(path.name, rows)
    elif "question" in first and "cot" in first:
        found = _read_rows(path.name, rows)
    else:
        there = ", ".join(map(repr, list(first)[:8])) or "no JSON object"
        raise UserError(f"{path}: holds {there}; audit reads {_KNOWN}")
    found.skipped = broken + found.skipped
    return found


def _whole(text: str) -> Any:
    """The value of a file that is one JSON value and not lines of them."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _lines(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, None


def _read_rows(name: str, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> Source:
    found = Source("rows")
    for line, row in rows:
        where = f"{name}:{line}"
        try:
            found.rows.append(_row(row, where))
        except Unfit as error:
            found.skipped.append(f"{where}: {error}")
    return found


def _row(row: Mapping[str, Any], where: str) -> AuditRow:
    choices = row.get("choices")
    if choices is not None and not (isinstance(choices, list) and all(isinstance(c, str) for c in choices)):
        raise Unfit("'choices' must be a list of texts")
    if choices and not 2 <= len(choices) <= len(LETTERS):
        raise Unfit(f"{len(choices)} choices, expected 2 to {len(LETTERS)}")
    group = row.get("group")
    if group is not None and not isinstance(group, str | int):
        raise Unfit(f"'group' is {type(group).__name__}, not text")
    return AuditRow(
        question=text_of(row, "question").strip(),
        cot=text_of(row, "cot", empty=True),
        answer=text_of(row, "answer").strip(),
        choices=tuple(map(plain, choices or ())),
        group="" if group is None else plain(str(group)),
        truncated=row["truncated"] if isinstance(row.get("truncated"), bool) else None,
        right=row["correct"] if isinstance(row.get("correct"), bool) else None,
        where=where,
    )
