"""GSM8K: grade-school word problems (Cobbe et al. 2021, arXiv 2110.14168)."""

from __future__ import annotations

from markovlm.tasks.base import DEFAULT_EXTRACTORS, Example, HubSource
from markovlm.tasks.numbers import normalize_number
from markovlm.tasks.rows import DataRow, RowError
from markovlm.tasks.sources import Dataset


def parse(row: DataRow) -> Example:
    """The gold answer is after the last `#### `, sometimes with commas; some copies hold it alone."""
    raw = row.text("answer", "final_answer")
    answer = normalize_number(raw.rpartition("####")[2])
    if answer is None:
        raise RowError(f"'answer' ends in {raw[-30:]!r}, expected '#### ' and a number")
    return Example("", row.text("question", "problem", "input"), answer)


TASK = Dataset(
    name="gsm8k",
    summary="grade-school math word problems, answer a number",
    prompt_kind="reasoning",
    answer_type="number",
    default_cot_tokens=100,
    max_answer_tokens=10,
    extractors=DEFAULT_EXTRACTORS["number"],
    hub=HubSource("openai/gsm8k", "main", {"train": "train", "test": "test"}),
    licence="MIT",
    parse=parse,
)
