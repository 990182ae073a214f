"""Texts of your own with questions about them, read in chunks: a JSON or JSONL file, one text per row.

    {"id": "moby", "chunks": ["Call me …", "There now is …"], "questions": [{"question": "Who speaks?", "answer": "Ishmael", "fact": 1}]}

`text` instead of `chunks`: its paragraphs are the chunks. A question is asked after the last chunk, or after chunk `after` (from 1);
`fact` says which chunk holds its answer, for accuracy by distance. Without questions the texts are for chain.kind=notes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast, get_args

from markovlm.errors import UserError
from markovlm.tasks.base import ANSWER_TOKENS, DEFAULT_EXTRACTORS, AnswerType, Example
from markovlm.tasks.chain import Query, chain_example
from markovlm.tasks.rows import DataRow, RowError, plain_text, text_list
from markovlm.tasks.sources import Dataset

_PARAGRAPH = re.compile(r"\n\s*\n")


def parse(row: DataRow) -> Example:
    """One text."""
    if row.get("chunks") is not None:
        chunks = text_list(row.get("chunks"), "chunks")
    else:
        chunks = tuple(piece.strip() for piece in _PARAGRAPH.split(row.text("text")) if piece.strip())
    asked = row.get("questions") or []
    if not isinstance(asked, list):
        raise RowError(f"'questions' is {type(asked).__name__}, expected a list of objects")
    queries = tuple(_query(item, i, len(chunks)) for i, item in enumerate(cast("list[Any]", asked)))
    try:
        return chain_example(str(row.get("id") or ""), chunks, queries, "\n\n", str(row.get("start") or ""))
    except ValueError as error:
        raise RowError(str(error)) from None


def _query(item: Any, number: int, chunks: int) -> Query:
    name = f"questions[{number}]"
    if not isinstance(item, Mapping):
        raise RowError(f"{name} is {type(item).__name__}, expected an object with question and answer")
    values = cast("Mapping[str, Any]", item)
    after, fact = values.get("after", chunks), values.get("fact")
    for key, value in (("after", after), ("fact", fact)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise RowError(f"{name}.{key} is {value!r}, expected the number of a chunk, from 1")
    question, answer = (plain_text(values.get(key), f"{name}.{key}") for key in ("question", "answer"))
    return Query(question, answer, after, fact)


def _adapt(dataset: Dataset, options: Mapping[str, Any]) -> Dataset:
    kind = str(options.get("answer_type", "text"))
    if kind not in ("number", "text"):
        raise UserError(f"task documents: option answer_type is {kind!r}; it must be number or text")
    assert kind in get_args(AnswerType)
    answer_type = cast(AnswerType, kind)
    return replace(
        dataset, answer_type=answer_type, extractors=DEFAULT_EXTRACTORS[answer_type], max_answer_tokens=ANSWER_TOKENS[answer_type]
    )


TASK = Dataset(
    name="documents",
    summary="your own texts in chunks, with questions about them: --data FILE (needs chain.kind)",
    prompt_kind="reasoning",
    answer_type="text",
    default_cot_tokens=100,
    max_answer_tokens=ANSWER_TOKENS["text"],
    extractors=DEFAULT_EXTRACTORS["text"],
    hub=None,
    licence="yours",
    parse=parse,
    option_help={"answer_type": "number or text; default text"},
    adapt=_adapt,
)
