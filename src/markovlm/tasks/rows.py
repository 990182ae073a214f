"""One row of a data file or of the Hub, and its fields as texts, lists and letters. Nothing in a row is ever evaluated."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from markovlm.tasks.base import LETTERS

MAX_LIST_CHARACTERS = 20_000  # of a list written as text inside one field; real ones have a few hundred
_ANY_LABEL = re.compile(r"[a-j]\s*\)\s+", re.IGNORECASE)  # behind the own label: `e ) d ) 36`
_NUMBERED = re.compile(r"(?:choice|option)[ _]?(\d|[a-j])")
_SURROGATE = re.compile("[\ud800-\udfff]")
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)


class RowError(Exception):
    """This row does not fit the task; the message says why. Caught by the loader, which adds file and line."""


@dataclass(frozen=True, slots=True)
class DataRow:
    """One record: `DataRow("test.jsonl:18", 17, "test", {"question": …})`."""

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
        """Like `get`, but raises RowError if there is no such value."""
        value = self.get(*names)
        if value is None:
            raise RowError(f"no {names[0]!r}; the row has {', '.join(map(repr, list(self.values)[:12])) or 'nothing'}")
        return value

    def text(self, *names: str) -> str:
        """Like `require`, as stripped text. Raises RowError if it is empty or not text."""
        return plain_text(self.require(*names), names[0])


@dataclass(frozen=True, slots=True)
class BadRow:
    """A record that could not be read or does not fit."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def at_path(row: Mapping[str, Any], path: str) -> Any:
    """A column, or `extra_info.answer` inside one; None if it does not exist. A column of exactly that name comes first."""
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        value = decoded(value) if isinstance(value, str) else value
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, Sequence) and not isinstance(value, str) and re.fullmatch(r"-?\d{1,6}", part):
            value = value[int(part)] if -len(value) <= int(part) < len(value) else None
        else:
            return None
    return value


def decoded(text: str) -> Any:
    """The value of a cell that holds JSON; the text itself if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def plain_text(value: Any, name: str) -> str:
    """`value` as stripped text. Raises RowError if it is empty, not a string or number, or not encodable."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(f"{name!r} is {type(value).__name__}, expected text")
    text = str(value).strip()
    if not text:
        raise RowError(f"{name!r} is empty")
    if _SURROGATE.search(text):
        raise RowError(f"{name!r} contains half of a surrogate pair, which is not text")
    return text


def text_list(value: Any, name: str) -> tuple[str, ...]:
    """A list of texts, given as a list or as the text of a JSON, Python or numpy list (`['a' 'b']`)."""
    if isinstance(value, str):
        value = _parse_list(value, name)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise RowError(f"{name!r} is {type(value).__name__}, expected a list")
    return tuple(plain_text(item, f"{name}[{i}]") for i, item in enumerate(cast(Sequence[Any], value)))


def answer_letter(value: Any, labels: Sequence[str]) -> str:
    """The letter A, B, … of an answer key: `("3", ("1", "2", "3"))` -> `C`. Raises RowError if no label fits.

    A label of the row comes first, then a letter, then an integer counted from 0 (an `int`, as in the Hub's MMLU).
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
    raise RowError(f"answer {key[:20]!r} is not one of {', '.join(upper)}")


def numbered_choices(row: DataRow) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """(labels, texts) of a row with one column per choice: `choice0 … choice3`, `option_a …`; None if there are none.

    The labels are the columns' numbers, so that an answer `1` means the column `choice1`.
    """
    found = [(match[1], row.values[key]) for key in row.values if (match := _NUMBERED.fullmatch(key.strip().lower()))]
    found = [(label, text) for label, text in found if text is not None and str(text).strip()]
    if len(found) < 2:
        return None
    return tuple(label.upper() for label, _ in found), tuple(plain_text(text, f"choice {label}") for label, text in found)


def check_choices(choices: tuple[str, ...]) -> tuple[str, ...]:
    """`choices` if there are 2 to 10. Raises RowError otherwise."""
    if not 2 <= len(choices) <= len(LETTERS):
        raise RowError(f"{len(choices)} choices, expected 2 to {len(LETTERS)}")
    return choices


def without_labels(options: Sequence[str]) -> tuple[str, ...]:
    """Options without the labels they carry: `("A)30", "B)B) 59")` -> `("30", "59")`.

    Labels are removed only if every option begins with its own, so an unlabelled `A. Smith` stays as it is.
    """
    patterns = [re.compile(rf"\(?\s*{letter}\s*[).:]\s*", re.IGNORECASE) for letter in LETTERS[: len(options)]]
    stripped = [option.strip() for option in options]
    if len(patterns) < len(stripped) or not all(p.match(o) for p, o in zip(patterns, stripped, strict=True)):
        return tuple(stripped)
    return tuple(_strip_all(p, o) for p, o in zip(patterns, stripped, strict=True))


def _parse_list(text: str, name: str) -> Any:
    stripped = text.strip()
    if len(stripped) > MAX_LIST_CHARACTERS:
        raise RowError(f"{name!r} has {len(stripped)} characters, too many for a list of choices")
    if not (stripped.startswith("[") and stripped.endswith("]")):
        raise RowError(f"{name!r} is text, expected a list: {stripped[:40]!r}")
    try:
        return json.loads(stripped)
    except (ValueError, RecursionError):
        pass  # not JSON: perhaps the text of a Python list, or of a numpy one, which has no commas
    if _QUOTED.sub("", stripped[1:-1]).strip(", \t\r\n"):
        raise RowError(f"{name!r} is not a list of quoted strings: {stripped[:40]!r}")
    try:
        return [ast.literal_eval(item) for item in _QUOTED.findall(stripped)]
    except (ValueError, SyntaxError, MemoryError) as error:
        raise RowError(f"{name!r} is not a readable list: {first_line(error)}") from error


def _strip_all(pattern: re.Pattern[str], option: str) -> str:
    """`A ) a ) 2` -> `2`, but a label with nothing behind it stays: `b )` is the option's text then."""
    while (match := pattern.match(option) or _ANY_LABEL.match(option)) and match.end() < len(option):
        option = option[match.end() :]
    return option


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]
