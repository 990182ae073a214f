"""SVAMP: one-step word problems, varied so that shallow cues mislead (Patel et al. 2021, arXiv 2103.07191).

The original is one file of 1,000 problems without splits; the Hub's copy has 700 and 300. `chal-680` contradicts its
own equation: the answer field is what counts, here as there.
"""

from __future__ import annotations

from markovlm.tasks.base import DEFAULT_EXTRACTORS, Example, HubSource
from markovlm.tasks.numbers import normalize_number
from markovlm.tasks.rows import DataRow, RowError
from markovlm.tasks.sources import Dataset


def parse(row: DataRow) -> Example:
    """Body and question, joined by a comma where the body is an unfinished sentence ("If there are 3 left")."""
    question = row.text("question", "question_concat")
    if row.get("body"):
        body = row.text("body")
        question = f"{body}{'' if body[-1] in '.?!,;:' else ','} {question}"
    raw = row.text("answer")
    answer = normalize_number(raw)
    if answer is None:
        raise RowError(f"'answer' is {raw[:30]!r}, expected a number")
    return Example(str(row.get("id") or ""), question, answer)


TASK = Dataset(
    name="svamp",
    summary="one-step math word problems with misleading variations, answer a number",
    prompt_kind="reasoning",
    answer_type="number",
    default_cot_tokens=50,
    max_answer_tokens=10,
    extractors=DEFAULT_EXTRACTORS["number"],
    hub=HubSource("ChilleD/SVAMP", None, {"train": "train", "test": "test"}),
    licence="MIT",
    parse=parse,
)
