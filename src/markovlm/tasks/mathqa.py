"""MathQA: math word problems with five choices (Amini et al. 2019, arXiv 1905.13319)."""

from __future__ import annotations

import re
from typing import Any

from markovlm.tasks.base import DEFAULT_EXTRACTORS, LETTERS, Example, HubSource
from markovlm.tasks.rows import DataRow, RowError, answer_letter, check_choices, text_list, without_labels
from markovlm.tasks.sources import Dataset

_NEXT_OPTION = re.compile(r"\s*,\s*(?=[a-e]\s*\)\s)")  # options hold commas themselves: `1 minute , 12 seconds`


def options(value: Any) -> tuple[str, ...]:
    """Choices from `a ) 38 , b ) 27.675 , …`, from the text of a Python list, or from a list."""
    if isinstance(value, str) and not value.strip().startswith("["):
        parts = tuple(part.strip() for part in _NEXT_OPTION.split(value.strip()))
        starts = [re.match(rf"{letter.lower()}\s*\)", part) for letter, part in zip(LETTERS, parts, strict=False)]
        if len(starts) < len(parts) or not all(starts):
            raise RowError(f"'options' is not a list `a ) … , b ) …`: {value[:60]!r}")
    else:
        parts = text_list(value, "options")
    return check_choices(without_labels(parts))


def parse(row: DataRow) -> Example:
    choices = options(row.require("options", "choices"))
    letter = answer_letter(row.require("correct", "answer"), LETTERS[: len(choices)])
    return Example("", row.text("problem", "question"), letter, choices)


TASK = Dataset(
    name="mathqa",
    summary="math word problems, five choices",
    prompt_kind="multiple_choice",
    answer_type="letter",
    choices=5,
    default_cot_tokens=150,
    max_answer_tokens=10,
    extractors=DEFAULT_EXTRACTORS["letter"],
    # allenai/math_qa is a loading script, which `datasets` 4 and later refuse; this is the same data as Parquet.
    hub=HubSource("regisss/math_qa", None, {"train": "train", "dev": "validation", "test": "test"}),
    licence="Apache-2.0",
    parse=parse,
)
