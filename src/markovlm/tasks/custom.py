"""Your own questions: a JSON, JSONL or CSV file, and which columns of it mean what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, cast, get_args

from markovlm.errors import UserError
from markovlm.tasks.base import ANSWER_TOKENS, DEFAULT_EXTRACTORS, LETTERS, AnswerType, Example, HubSource, LoadRequest
from markovlm.tasks.folds import WHOLE, normalized
from markovlm.tasks.numbers import normalize_number
from markovlm.tasks.rows import DataRow, RowError, answer_letter, check_choices, plain_text, text_list, without_labels
from markovlm.tasks.sources import Dataset, DataSource, Files, find_files, open_source

_LOOKED_AT = 200  # rows by which the kind of the answers is chosen
_MOSTLY = 0.9  # of them are of a kind; the others are then left out, with a count


@dataclass(frozen=True, slots=True)
class Kind:
    """What kind the answers of a source are, and one line that says so and how to override it."""

    answer_type: AnswerType
    note: str


def parse(row: DataRow, question: str, answer: str, choices: str, answer_type: AnswerType) -> Example:
    """One row, read by the names of its columns."""
    identity = str(row.get("id") or "")
    text = row.text(question)
    if answer_type == "letter":
        labels, texts = _choices(row, choices)
        return Example(identity, text, _letter(row.require(answer), labels, texts), texts)
    gold = row.text(answer)
    if answer_type == "text":
        return Example(identity, text, gold)
    number = normalize_number(gold)
    if number is None:
        raise RowError(f"{answer!r} is {gold[:30]!r}, expected a number (or set data.answer_kind=text)")
    return Example(identity, text, number)


def _choices(row: DataRow, columns: str) -> tuple[Sequence[str], tuple[str, ...]]:
    """Labels and texts, from one column with a list (or `{text, label}`), or from one column a choice: `A,B,C,D`."""
    names = [name.strip() for name in columns.split(",")]
    if len(names) > 1:
        texts = tuple(row.text(name) for name in names)
        return names, check_choices(texts)
    value = row.require(columns)
    if isinstance(value, Mapping):
        table = cast(Mapping[str, Any], value)
        labels = text_list(table.get("label"), f"{columns}.label")
        texts = check_choices(text_list(table.get("text"), f"{columns}.text"))
        if len(labels) != len(texts):
            raise RowError(f"{columns!r} has {len(labels)} labels for {len(texts)} texts")
        return labels, texts
    texts = check_choices(without_labels(text_list(value, columns)))
    return LETTERS[: len(texts)], texts


def _letter(value: Any, labels: Sequence[str], texts: tuple[str, ...]) -> str:
    """An answer key, or the text of the right choice."""
    try:
        return answer_letter(value, labels)
    except RowError:
        spoken = normalized(plain_text(value, "answer"))
        same = [letter for letter, text in zip(LETTERS, texts, strict=False) if normalized(text) == spoken]
        if len(same) == 1:
            return same[0]
        raise


def _adapt(dataset: Dataset, options: Mapping[str, Any]) -> Dataset:
    kind = str(options.get("answer_type", "number"))
    if kind not in get_args(AnswerType):
        raise UserError(f"task custom: option answer_type is {kind!r}; it must be number, letter or text")
    answer_type = cast(AnswerType, kind)
    columns = {name: str(options.get(name, default)) for name, default in _COLUMNS.items()}
    return replace(
        dataset,
        parse=partial(parse, **columns, answer_type=answer_type),
        answer_type=answer_type,
        prompt_kind="multiple_choice" if kind == "letter" else "reasoning",
        extractors=DEFAULT_EXTRACTORS[answer_type],
        max_answer_tokens=ANSWER_TOKENS[answer_type],
    )


def kind_of_answers(data: Path | HubSource, options: Mapping[str, Any]) -> Kind | None:
    """The kind of the first answers in a file, a directory or a dataset: letters if they select from choices, else numbers, else texts.

    `options`: those of the task, with the names of its columns. None if no file can be read: loading then says why. Raises UserError if
    the Hub can't be read, so that it is waited for only once.
    """
    answer, choices = (str(options.get(name, _COLUMNS[name])) for name in ("answer", "choices"))
    if isinstance(data, HubSource):
        return _kind_on_hub(data.path, data.name, answer, choices)
    try:
        stat = data.stat()
        return _kind_in_files(data, (stat.st_mtime_ns, stat.st_size), answer, choices)
    except (OSError, UserError):
        return None


@lru_cache(maxsize=32)
def _kind_on_hub(path: str, name: str | None, answer: str, choices: str) -> Kind | None:
    return _kind(open_source(TASK, LoadRequest("train", hub=HubSource(path, name))), answer, choices)


@lru_cache(maxsize=32)
def _kind_in_files(data: Path, _changed: tuple[int, int], answer: str, choices: str) -> Kind | None:
    return _kind(find_files(data, TASK) if data.is_dir() else Files(str(data), {WHOLE: (data,)}, TASK.read_file), answer, choices)


def _kind(source: DataSource, answer: str, choices: str) -> Kind | None:
    split = next(name for name in (*TASK.splits, WHOLE) if name in source.available)
    rows = [row for row in islice(source.rows(split), _LOOKED_AT) if isinstance(row, DataRow) and row.get(answer) is not None]
    if not rows:
        return None
    fits = {"letter": _count(rows, lambda row: _letter(row.require(answer), *_choices(row, choices)))}
    fits["number"] = _count(rows, lambda row: normalize_number(row.text(answer)))
    found = next((kind for kind, n in fits.items() if n >= _MOSTLY * len(rows)), "text")
    because = (
        f"{fits[found]} of the first {len(rows)} answers are {'one of their choices' if found == 'letter' else 'numbers'}"
        if found in fits
        else f"of the first {len(rows)} answers {fits['number']} are numbers and {fits['letter']} one of their choices"
    )
    return Kind(cast(AnswerType, found), f"answers are read as kind {found!r}: {because} (data.answer_kind overrides this)")


def _count(rows: Sequence[DataRow], read: Callable[[DataRow], object]) -> int:
    """Rows that can be read so."""
    n = 0
    for row in rows:
        with suppress(RowError):
            n += read(row) is not None
    return n


_COLUMNS = {"question": "question", "answer": "answer", "choices": "choices"}

TASK = Dataset(
    name="custom",
    summary="your own questions: --data FILE, with columns mapped to question, answer and choices",
    prompt_kind="reasoning",
    answer_type="number",
    default_cot_tokens=100,
    max_answer_tokens=ANSWER_TOKENS["number"],
    extractors=DEFAULT_EXTRACTORS["number"],
    hub=None,
    licence="yours",
    parse=partial(parse, **_COLUMNS, answer_type="number"),
    option_help={
        "question": "column of the question",
        "answer": "column of the gold answer",
        "choices": "column of the choices, or one column for each: A,B,C,D",
        "answer_type": "number, letter or text",
    },
    adapt=_adapt,
)
