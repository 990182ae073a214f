"""Rows of data files: JSON, JSONL, CSV (each gzipped or not) and Parquet, each row with the file and line it came from.

A file that cannot be read at all is a UserError. A single malformed row is a `BadRow`, which the caller counts or
makes fatal. Nothing found in a file is ever evaluated.
"""

from __future__ import annotations

import ast
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from markovlm.errors import UserError
from markovlm.tasks.base import LETTERS

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
GZIPPED = ".gz"
MAX_LIST_CHARACTERS = 20_000  # of a list written as text inside one field; real ones have a few hundred
_HEADER_WORDS = frozenset({"question", "problem", "input", "prompt", "body", "stem"})
_ANY_LABEL = re.compile(r"[a-j]\s*\)\s+", re.IGNORECASE)  # behind the own label: `e ) d ) 36`
_NUMBERED = re.compile(r"(?:choice|option)[ _]?(\d|[a-j])")
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)


class RowError(Exception):
    """This row does not fit the task; the message says why. Caught by the loader, which adds file and line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record: `Row("test.jsonl:18", 17, "test", {"question": …})`."""

    where: str  # file:line, or Hub dataset[split]:row
    index: int  # position in its source, from 0
    stem: str  # file name without suffix, or the Hub's configuration name
    values: Mapping[str, Any]

    def get(self, *names: str) -> Any:
        """The first value that is present (not null) under one of `names`, in any case; or None."""
        for name in names:
            for key, value in self.values.items():
                if value is not None and key.lower() == name.lower():
                    return value
        return None

    def require(self, *names: str) -> Any:
        """Like `get`. RowError where none is there."""
        value = self.get(*names)
        if value is None:
            raise RowError(f"no {names[0]!r}; the row has {', '.join(map(repr, list(self.values)[:12])) or 'nothing'}")
        return value

    def text(self, *names: str) -> str:
        """Like `require`, as stripped text. RowError where it is empty or not text."""
        return plain_text(self.require(*names), names[0])


@dataclass(frozen=True, slots=True)
class BadRow:
    """A record that could not be read or does not fit."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def plain_text(value: Any, name: str) -> str:
    """`value` as stripped text. RowError where it is empty, not a string or number, or not encodable."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(f"{name!r} is {type(value).__name__}, expected text")
    text = str(value).strip()
    if not text:
        raise RowError(f"{name!r} is empty")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise RowError(f"{name!r} holds half of a surrogate pair, which is not text")
    return text


def text_list(value: Any, name: str) -> tuple[str, ...]:
    """A list of texts, given as a list or as the text of a JSON, Python or numpy list (`['a' 'b']`)."""
    if isinstance(value, str):
        value = _parse_list(value, name)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise RowError(f"{name!r} is {type(value).__name__}, expected a list")
    return tuple(plain_text(item, f"{name}[{i}]") for i, item in enumerate(cast(Sequence[Any], value)))


def answer_letter(value: Any, labels: Sequence[str]) -> str:
    """The letter A, B, … of an answer key: `("3", ("1", "2", "3"))` -> `C`. RowError where no label fits.

    A label of the row wins; then a letter; then an integer counted from 0 (an `int`, as the Hub's MMLU has it).
    """
    key = plain_text(value, "answer").strip("().").upper()
    upper = [label.upper() for label in labels]
    letters = LETTERS[: len(labels)]
    if key in upper:
        return letters[upper.index(key)]
    if len(key) == 1 and key in letters:
        return key
    if re.fullmatch(r"\d+(\.0)?", key, re.ASCII) and float(key) < len(labels):
        return letters[int(float(key))]
    raise RowError(f"answer {key[:20]!r} is none of {', '.join(upper)}")


def numbered_choices(row: Row) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """(labels, texts) of a row with a column a choice: `choice0 … choice3`, `option_a …`; None where there are none.

    The labels are what the columns are numbered by, so that an answer `1` beside `choice1` means that one.
    """
    found = [(match[1], row.values[key]) for key in row.values if (match := _NUMBERED.fullmatch(key.strip().lower()))]
    found = [(label, text) for label, text in found if text is not None and str(text).strip()]
    if len(found) < 2:
        return None
    return tuple(label.upper() for label, _ in found), tuple(plain_text(text, f"choice {label}") for label, text in found)


def check_choices(choices: tuple[str, ...]) -> tuple[str, ...]:
    """`choices` if there are 2 to 10. RowError otherwise."""
    if not 2 <= len(choices) <= len(LETTERS):
        raise RowError(f"{len(choices)} choices, expected 2 to {len(LETTERS)}")
    return choices


def without_labels(options: Sequence[str]) -> tuple[str, ...]:
    """Options without the labels they carry: `("A)30", "B)B) 59")` -> `("30", "59")`.

    Labels are taken off only where every option begins with its own, so an unlabelled `A. Smith` stays whole.
    """
    patterns = [re.compile(rf"\(?\s*{letter}\s*[).:]\s*", re.IGNORECASE) for letter in LETTERS[: len(options)]]
    stripped = [option.strip() for option in options]
    if len(patterns) < len(stripped) or not all(p.match(o) for p, o in zip(patterns, stripped, strict=True)):
        return tuple(stripped)
    return tuple(_strip_all(p, o) for p, o in zip(patterns, stripped, strict=True))


def read_rows(path: Path, headerless: Sequence[str] = ()) -> Iterator[Row | BadRow]:
    """Every row of a file, in order.

    `headerless` names the columns of a CSV file that has no header. UserError where the file is missing, not UTF-8,
    of an unknown kind, or broken beyond single rows.
    """
    suffix = data_suffix(path)
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown kind of data file; expected one of {', '.join(SUFFIXES)}, also gzipped (.csv.gz)")
    if suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    text = read_text(path)
    if suffix in (".csv", ".tsv"):
        yield from _csv_rows(path, text, "\t" if suffix == ".tsv" else ",", headerless)
    elif suffix == ".json":
        yield from _json_rows(path, text)
    else:
        yield from _jsonl_rows(path, text)


def data_suffix(path: Path) -> str:
    """What kind of file it is, gzipped or not: `train.csv.gz` -> `.csv`."""
    return (path.with_suffix("") if path.suffix.lower() == GZIPPED else path).suffix.lower()


def data_stem(path: Path) -> str:
    """The name without its suffixes: `train.csv.gz` -> `train`."""
    return (path.with_suffix("") if path.suffix.lower() == GZIPPED else path).stem


def read_text(path: Path) -> str:
    """The whole of a UTF-8 file, gzipped or not, without byte-order mark, line ends as they are. UserError where it cannot be read."""
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix.lower() == GZIPPED else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8 text (byte {error.start}); convert the file to UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:  # a torn gzip file is any of these
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _parquet_rows(path: Path) -> Iterator[Row | BadRow]:
    """Row 1 is the first. Lists and structs come as lists and dicts."""
    import polars

    try:
        data = io.BytesIO(gzip.decompress(path.read_bytes())) if path.suffix.lower() == GZIPPED else path
        table = polars.read_parquet(data)
    except (OSError, EOFError, zlib.error, polars.exceptions.PolarsError) as error:
        reason = getattr(error, "strerror", None) or _first_line(error)
        raise UserError(f"{path}: cannot be read as Parquet: {reason:.160}") from error
    for index, values in enumerate(table.iter_rows(named=True)):
        yield _record(path, index + 1, index, values)


def _record(path: Path, line: int, index: int, value: Any) -> Row | BadRow:
    if not isinstance(value, Mapping):
        return BadRow(f"{path}:{line}", f"expected an object with named fields, found {type(value).__name__}")
    values = {str(key).strip(): item for key, item in cast(Mapping[Any, Any], value).items()}
    return Row(f"{path}:{line}", index, data_stem(path), values)


def _jsonl_rows(path: Path, text: str) -> Iterator[Row | BadRow]:
    index = 0
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: U+2028 may stand inside a string
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield BadRow(f"{path}:{number}", f"not valid JSON: {_first_line(error)}")
        else:
            yield _record(path, number, index, value)
        index += 1


def _json_rows(path: Path, text: str) -> Iterator[Row | BadRow]:
    """An array of objects, an object that holds one, or (some files named .json) JSON lines."""
    start = len(text) - len(text.lstrip())
    if text[start : start + 1] == "[":
        yield from _array_rows(path, text, start)
        return
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        yield from _jsonl_rows(path, text)
        return
    table = _table_in(document)
    if table is None:
        yield _record(path, 1, 0, document)
        return
    for index, value in enumerate(table):
        yield _record(path, 1, index, value)


def _table_in(document: Any) -> list[Any] | None:
    """The first list of objects in an object such as `{"data": [{…}, …]}`."""
    if not isinstance(document, Mapping):
        return None
    for value in cast(Mapping[str, Any], document).values():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            return cast(list[Any], value)
    return None


def _array_rows(path: Path, text: str, start: int) -> Iterator[Row | BadRow]:
    """Elements of the array that opens at `text[start]`, decoded one by one so that each has its line."""
    decoder = json.JSONDecoder()
    position, line, counted, index = start + 1, 1, 0, 0
    while True:
        position = _skip_separators(text, position)
        line, counted = line + text.count("\n", counted, position), position
        if text[position : position + 1] == "]":
            return
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{line}: not valid JSON: {_first_line(error)}; repair the file") from error
        yield _record(path, line, index, value)
        position, index = end, index + 1


def _skip_separators(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t", "\r", "\n", ","):
        position += 1
    return position


def _csv_rows(path: Path, text: str, delimiter: str, headerless: Sequence[str]) -> Iterator[Row | BadRow]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header: list[str] | None = None
    line, index = 1, 0
    try:
        for cells in reader:
            first_line, line = line, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                is_header = not headerless or _looks_like_header(cells)
                header = cells if is_header else list(headerless)
                if is_header:
                    continue
            if len(cells) != len(header):
                yield BadRow(f"{path}:{first_line}", f"{len(cells)} cells, expected {len(header)}")
            else:
                yield _record(path, first_line, index, dict(zip(header, cells, strict=True)))
            index += 1
    except csv.Error as error:
        raise UserError(f"{path}:{line}: not valid CSV: {error}") from error


def _looks_like_header(cells: Sequence[str]) -> bool:
    """A data row ends in its answer letter; a header names a question column."""
    names = {cell.strip().lower() for cell in cells}
    return bool(names & _HEADER_WORDS) and cells[-1].strip().upper() not in tuple(LETTERS)


def _parse_list(text: str, name: str) -> Any:
    stripped = text.strip()
    if len(stripped) > MAX_LIST_CHARACTERS:
        raise RowError(f"{name!r} has {len(stripped)} characters, more than any list of choices")
    if not (stripped.startswith("[") and stripped.endswith("]")):
        raise RowError(f"{name!r} is text, expected a list: {stripped[:40]!r}")
    try:
        return json.loads(stripped)
    except (ValueError, RecursionError):
        pass  # not JSON: perhaps the text of a Python list, or of a numpy one, which has no commas
    if _QUOTED.sub("", stripped[1:-1]).strip(", \t\r\n"):
        raise RowError(f"{name!r} is not a list of quoted texts: {stripped[:40]!r}")
    try:
        return [ast.literal_eval(item) for item in _QUOTED.findall(stripped)]
    except (ValueError, SyntaxError, MemoryError) as error:
        raise RowError(f"{name!r} is not a readable list: {_first_line(error)}") from error


def _strip_all(pattern: re.Pattern[str], option: str) -> str:
    """`A ) a ) 2` -> `2`, but a label with nothing behind it stays: `b )` is the option's text then."""
    while (match := pattern.match(option) or _ANY_LABEL.match(option)) and match.end() < len(option):
        option = option[match.end() :]
    return option


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
