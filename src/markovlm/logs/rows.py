"""Reading JSONL that may be truncated, foreign or hostile: read what can be read, count what could not."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from markovlm.content import read_content
from markovlm.statistics import wilson

MOST_SMALL = 8 << 20  # bytes of a small JSON file
MAX_TEXT = 8_000  # characters of one text a report keeps
_MISSING_TEXTS = ("", "nan", "none", "null", "n/a", "na")


@dataclass(slots=True)
class Problems:
    """What could not be read, one line a kind, with the first line number and a count."""

    _found: dict[str, list[int]] = field(default_factory=dict)  # message -> [count, first line]
    plain: list[str] = field(default_factory=list)

    def add(self, message: str, line: int) -> None:
        entry = self._found.setdefault(message, [0, line])
        entry[0] += 1

    def note(self, message: str) -> None:
        self.plain.append(message)

    def lines(self, name: str) -> list[str]:
        """The problems as sentences, the most frequent first."""
        ordered = sorted(self._found.items(), key=lambda item: -item[1][0])
        counted_lines = [
            f"{name}: {message}: {count} rows, the first in line {line}" if count > 1 else f"{name}: {message}: line {line}"
            for message, (count, line) in ordered[:20]
        ]
        if len(ordered) > 20:
            counted_lines.append(f"{name}: {len(ordered) - 20} more kinds of problems")
        return [f"{name}: {message}" for message in self.plain] + counted_lines


def parse(raw: bytes) -> Any:
    """A JSON value. Raises ValueError for anything else (also where it is nested too deep to parse)."""
    try:
        return json.loads(raw)
    except UnicodeDecodeError:
        return json.loads(raw.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deep") from None


def objects(lines: Iterable[bytes], problems: Problems) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(line number, byte offset, object) of every line that is a JSON object; other lines become problems."""
    offset = 0
    bad: int | None = None
    number = 0
    for number, raw in enumerate(lines, 1):
        start, offset = offset, offset + len(raw)
        if bad is not None:
            problems.add("not a JSON object", bad)
            bad = None
        if not raw.strip():
            continue
        try:
            value = parse(raw)
        except ValueError:
            bad = number
            continue
        if isinstance(value, dict):
            yield number, start, value
        else:
            problems.add("not a JSON object", number)
    if bad is not None:
        problems.note(f"line {bad}, the last, is incomplete or not JSON" if bad == number else f"line {bad} is not JSON")


def number(value: Any, key: str, line: int, problems: Problems) -> float | None:
    """A float (possibly not finite), or None if there is no number."""
    if value is None:
        return None
    if isinstance(value, (bool, int, float)):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str):
        return _number_in_text(value, key, line, problems)
    problems.add(f"{key}: {type(value).__name__} instead of a number, treated as missing", line)
    return None


def _number_in_text(value: str, key: str, line: int, problems: Problems) -> float | None:
    text = value.strip()
    if text.lower() in _MISSING_TEXTS:
        return None
    try:
        found = float(text)
    except ValueError:
        problems.add(f"{key}: text {text[:40]!r} instead of a number, treated as missing", line)
        return None
    problems.add(f"{key}: a number written as text", line)
    return found


def integer(value: Any) -> int | None:
    """A step or count; None if it is none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    if isinstance(value, float) and math.isfinite(value) and abs(value) < 2**53:
        return int(value)
    return None


def interval_of(accuracy: float, n: int) -> tuple[float | None, float | None]:
    """95 % Wilson interval of an accuracy over n questions; (None, None) where n is not known."""
    if n < 1:
        return None, None
    low, high = wilson(round(accuracy * n), n)
    return low, high


def text(value: Any, line: int, source: str) -> str:
    """A text of bounded length, with a note of what is cut."""
    if value is None:
        return ""
    value = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if len(value) > MAX_TEXT:
        value = f"{value[:MAX_TEXT]} … [{len(value) - MAX_TEXT:,} more characters: {source}, line {line}]"
    return value.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate would break every output


def order_by_step(steps: Sequence[int | None], *, what: str, problems: Problems, start: int) -> list[tuple[int, int]]:
    """(step, index) in step order, one per step: a later row replaces an earlier one (a resumed run writes steps again).

    Numbers that say nothing (mostly missing, or one number in all of more than three rows) are replaced by the row number, from
    `start`.
    """
    known = [s for s in steps if s is not None]
    if len(steps) > 1 and (2 * len(known) < len(steps) or (len(steps) > 3 and len(set(known)) < 2)):
        problems.note(f"{what} is missing or constant; rows are numbered from {start} instead")
        return [(start + i, i) for i in range(len(steps))]
    last: dict[int, int] = {s: i for i, s in enumerate(steps) if s is not None}
    if len(last) < len(known):
        problems.note(f"{len(known) - len(last)} rows repeat a {what}; the last row of each is used")
    if len(known) < len(steps):
        problems.note(f"{len(steps) - len(known)} rows without a {what} are left out")
    return sorted(last.items())


def frame(columns: Mapping[str, Sequence[float | None]], steps: Sequence[int]) -> pl.DataFrame:
    """A metrics frame: `step` and every column that has a value."""
    data = {"step": pl.Series("step", steps, dtype=pl.Int64)}
    for key, values in columns.items():
        series = pl.Series(key, values, dtype=pl.Float64)
        if key != "step" and series.null_count() < len(series):
            data[key] = series
    return pl.DataFrame(data)


def read_numbers_fast(data: bytes) -> pl.DataFrame | None:
    """A clean JSONL of flat numbers as a frame; None if anything at all is unusual (then rows are read one by one)."""
    keys = _keys_of_some_rows(data)
    if not keys or "step" not in keys or len(keys) > 1_000:
        return None
    schema: dict[str, Any] = dict.fromkeys(keys, pl.Float64) | {"step": pl.Int64}
    try:
        found = pl.read_ndjson(io.BytesIO(data), schema=schema)
    except (pl.exceptions.PolarsError, ValueError):
        return None
    steps = found["step"]
    if steps.null_count() or not (steps.diff().drop_nulls() > 0).all():
        return None
    return found.select("step", *[c for c in found.columns if c != "step" and found[c].null_count() < found.height])


def _keys_of_some_rows(data: bytes) -> dict[str, None]:
    """Keys of rows at the start, the end and in between, in order."""
    keys: dict[str, None] = {}
    step = max(1, len(data) // 16)
    for at in range(0, len(data), step):
        start = 0 if at == 0 else data.find(b"\n", at) + 1
        end = data.find(b"\n", start)
        try:
            row = parse(data[start : end if end > 0 else None])
        except ValueError:
            continue
        if isinstance(row, dict):
            keys |= dict.fromkeys(row)
    return keys


def read_small_json(path: Path, problems: list[str]) -> Any:
    """A small JSON file; None with a problem where it cannot be read."""
    try:
        return parse(read_content(path, MOST_SMALL))
    except (OSError, ValueError) as error:
        problems.append(f"{path.name}: {_why(error)}")
        return None


def _why(error: Exception) -> str:
    return error.strerror or "cannot be read" if isinstance(error, OSError) else "not valid JSON"
