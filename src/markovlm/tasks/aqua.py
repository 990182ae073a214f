"""AQuA-RAT: algebra word problems with five choices (Ling et al. 2017, arXiv 1705.04146)."""

from __future__ import annotations

from markovlm.tasks.base import DEFAULT_EXTRACTORS, LETTERS, Example, HubSource
from markovlm.tasks.rows import DataRow, answer_letter, check_choices, text_list, without_labels
from markovlm.tasks.sources import Dataset


def parse(row: DataRow) -> Example:
    """Options carry their labels, sometimes twice (`A)A)59`); equal options are kept apart by position."""
    choices = check_choices(without_labels(text_list(row.require("options", "choices"), "options")))
    letter = answer_letter(row.require("correct", "answer"), LETTERS[: len(choices)])
    return Example("", row.text("question", "problem"), letter, choices)


TASK = Dataset(
    name="aqua",
    summary="algebra word problems, five choices",
    prompt_kind="multiple_choice",
    answer_type="letter",
    choices=5,
    default_cot_tokens=50,
    max_answer_tokens=10,
    extractors=DEFAULT_EXTRACTORS["letter"],
    hub=HubSource("deepmind/aqua_rat", "raw", {"train": "train", "dev": "validation", "test": "test"}),
    licence="Apache-2.0",
    parse=parse,
)
