"""Files of CoTs, recognised by content: Inspect logs, lm-evaluation-harness, our samples.jsonl, and any table with the columns that are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from markovlm.auditing.columns import columns_of, read_table
from markovlm.auditing.files import Record, Records, read_records, rows_inside
from markovlm.auditing.harness import is_harness, read_harness
from markovlm.auditing.inspect_log import is_inspect_json, read_inspect_value, read_inspect_zip
from markovlm.auditing.rows import CotSource
from markovlm.auditing.samples import is_samples, read_samples
from markovlm.content import check_regular
from markovlm.errors import UserError
from markovlm.tasks.rows import at_path

_KNOWN = (
    "Inspect logs, samples of lm-evaluation-harness, samples.jsonl of a run, and any JSON, JSON Lines, CSV or Parquet (also compressed) with "
    "a question, a CoT or completion, and a gold answer: name its columns with --columns question=…,cot=…,answer=…"
)


def read_source(path: Path, columns: Mapping[str, str] | None = None) -> CotSource:
    """The CoTs of one file; `columns` as `columns.parse_columns` reads them. Raises UserError in one line if it holds none."""
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path}: is a directory; name the files in it")
    try:
        check_regular(path)
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if magic == b"PK\x03\x04":
        _refuse_columns(path, columns)
        found = read_inspect_zip(path)
    else:
        found = _read(path, dict(columns or {}))
    if not found.rows:
        first = f"; the first of {len(found.skipped)}: {found.skipped[0]}" if found.skipped else ""
        raise UserError(f"{path}: no row has a CoT, a question and an answer ({found.kind}){first}")
    return found


def _read(path: Path, columns: Mapping[str, str]) -> CotSource:
    records = read_records(path, _KNOWN)
    if is_inspect_json(records.whole):
        _refuse_columns(path, columns)
        return read_inspect_value(path, records.whole)
    note = ""
    if isinstance(records.whole, Mapping):
        inside, note = rows_inside(records.whole)
        if inside and (
            not note or not _fits(records.rows, columns)
        ):  # a row may have a list of objects in it, such as its choices
            records.rows = inside
        else:
            note = ""
    found = _recognised(path, records, columns)
    found.notes += [f"{path.name}: {note}"] if note else []
    found.skipped = records.broken + found.skipped
    return found


def _fits(rows: Sequence[Record], columns: Mapping[str, str]) -> bool:
    first = rows[0][1] if rows else {}
    named = bool(columns) and all(at_path(first, path) is not None for path in columns.values())
    return named or is_samples(first) or is_harness(first) or not columns_of(rows, {}).missing


def _recognised(path: Path, records: Records, columns: Mapping[str, str]) -> CotSource:
    """Raises UserError if question, CoT or gold answer is missing."""
    rows = records.rows
    if not rows:
        raise UserError(f"{path}: holds no JSON object; audit reads {_KNOWN}")
    first = rows[0][1]
    if not columns and is_samples(first):
        return read_samples(path.name, rows)
    if not columns and is_harness(first):
        return read_harness(path.name, rows)
    found = columns_of(rows, columns)
    if found.missing:
        there = ", ".join(map(repr, list(first)[:20])) or "nothing"
        known = ", ".join(f"{name}={column}" for name, column in found.paths.items())
        raise UserError(
            f"{path}: no column found for {', '.join(found.missing)}; the columns are {there}"
            + (f" (read as {known})" if known else "")
            + f"; audit reads {_KNOWN}"
        )
    return read_table(path.name, rows, found)


def _refuse_columns(path: Path, columns: Mapping[str, str] | None) -> None:
    if columns:
        raise UserError(f"--columns: {path} is an Inspect log, which has no columns to name")
