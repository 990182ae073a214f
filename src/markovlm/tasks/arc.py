"""ARC: science exam questions, Challenge and Easy (Clark et al. 2018, arXiv 1803.05457)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from markovlm.errors import UserError
from markovlm.tasks.base import DEFAULT_EXTRACTORS, Example, HubSource
from markovlm.tasks.rows import DataRow, RowError, answer_letter, check_choices, plain_text, text_list
from markovlm.tasks.sources import Dataset

_LABEL_IN_TEXT = re.compile(r"\(([A-J1-9])\)\s+")
# pandas writes the Hub's choices into CSV as {'text': array(['a', 'b'], dtype=object), 'label': array(['A', 'B'], …)}
_PRINTED = re.compile(r"\{'text':\s*(?:array\()?(\[.*\])(?:,\s*dtype=object\))?,\s*'label':\s*(?:array\()?(\[.*?\])", re.DOTALL)

Labelled = tuple[tuple[str, ...], tuple[str, ...]]  # labels, texts


def parse(row: DataRow) -> Example:
    """Original (`question{stem, choices[{text, label}]}`), Hub (`choices{text, label}`) and CSV rows.

    Labels are letters or 1-4; the example's letters go by position.
    """
    stem, (labels, texts) = _parts(row)
    return Example(str(row.get("id", "questionid") or ""), stem, answer_letter(row.require("answerkey", "answer"), labels), texts)


def _parts(row: DataRow) -> tuple[str, Labelled]:
    question = row.require("question")
    if isinstance(question, Mapping):
        inner = {str(key).lower(): value for key, value in cast(Mapping[Any, Any], question).items()}
        return plain_text(inner.get("stem", ""), "question.stem"), _labelled(inner.get("choices"))
    text = plain_text(question, "question")
    if row.get("choices") is not None:
        return text, _labelled(row.get("choices"))
    return _split_text(text)


def _labelled(choices: Any) -> Labelled:
    if isinstance(choices, str) and (printed := _PRINTED.match(choices.strip())):
        choices = {"text": printed[1], "label": printed[2]}
    if isinstance(choices, Mapping):
        columns = cast(Mapping[str, Any], choices)
        texts, labels = text_list(columns.get("text"), "choices.text"), text_list(columns.get("label"), "choices.label")
    elif isinstance(choices, list) and all(isinstance(item, Mapping) for item in cast(list[Any], choices)):
        items = cast(list[Mapping[str, Any]], choices)
        texts = tuple(plain_text(item.get("text", ""), "choices.text") for item in items)
        labels = tuple(plain_text(item.get("label", ""), "choices.label") for item in items)
    else:
        raise RowError("'choices' is neither a list of {text, label} nor an object of the lists text and label")
    if len(labels) != len(texts) or len(set(labels)) < len(labels):
        raise RowError(f"{len(texts)} choices with the labels {', '.join(labels)}")
    return labels, check_choices(texts)


def _split_text(text: str) -> tuple[str, Labelled]:
    """The original CSV has the choices in the question: `Which …? (A) iron (B) wood`."""
    stem, *rest = _LABEL_IN_TEXT.split(text)
    if not rest:
        raise RowError("no 'choices', and the question does not list them as (A) … (B) …")
    texts = tuple(plain_text(part, "choice") for part in rest[1::2])
    return plain_text(stem, "question"), (tuple(rest[::2]), check_choices(texts))


def _adapt(dataset: Dataset, options: Mapping[str, Any]) -> Dataset:
    subset = str(options["subset"]).lower()
    if subset not in ("challenge", "easy"):
        raise UserError(f"task {dataset.name}: option subset is {subset!r}; it must be challenge or easy")
    return EASY if subset == "easy" else CHALLENGE


CHALLENGE = Dataset(
    name="arc",
    summary="science exam questions that simple methods get wrong (ARC-Challenge), mostly four choices",
    prompt_kind="multiple_choice",
    answer_type="letter",
    choices=4,
    default_cot_tokens=50,
    max_answer_tokens=10,
    extractors=DEFAULT_EXTRACTORS["letter"],
    hub=HubSource("allenai/ai2_arc", "ARC-Challenge", {"train": "train", "dev": "validation", "test": "test"}),
    licence="CC BY-SA 4.0",
    parse=parse,
    option_help={"subset": "challenge or easy"},
    adapt=_adapt,
    other_words=frozenset({"easy"}),
)
EASY = replace(
    CHALLENGE,
    name="arc_easy",
    summary="science exam questions (ARC-Easy), mostly four choices",
    hub=HubSource("allenai/ai2_arc", "ARC-Easy", {"train": "train", "dev": "validation", "test": "test"}),
    other_words=frozenset({"challenge"}),
)
