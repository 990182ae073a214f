"""MMLU: exam questions of 57 subjects (Hendrycks et al. 2021, arXiv 2009.03300).

There is no training split of its own: `train` is the validation split (1,531 questions), as in the research code, less
the questions that are also in test. `dev` is the original's five questions a subject.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from markovlm.errors import UserError
from markovlm.tasks.base import DEFAULT_EXTRACTORS, LETTERS, Example, HubSource, Loaded, LoadRequest
from markovlm.tasks.files import read_rows
from markovlm.tasks.rows import BadRow, DataRow, answer_letter, check_choices, numbered_choices, text_list
from markovlm.tasks.sources import Dataset, close_match

_SUBJECT_NAMES = """
    abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
    college_computer_science college_mathematics college_medicine college_physics computer_security
    conceptual_physics econometrics electrical_engineering elementary_mathematics formal_logic global_facts
    high_school_biology high_school_chemistry high_school_computer_science high_school_european_history
    high_school_geography high_school_government_and_politics high_school_macroeconomics high_school_mathematics
    high_school_microeconomics high_school_physics high_school_psychology high_school_statistics
    high_school_us_history high_school_world_history human_aging human_sexuality international_law jurisprudence
    logical_fallacies machine_learning management marketing medical_genetics miscellaneous moral_disputes
    moral_scenarios nutrition philosophy prehistory professional_accounting professional_law professional_medicine
    professional_psychology public_relations security_studies sociology us_foreign_policy virology world_religions
"""
SUBJECTS = tuple(_SUBJECT_NAMES.split())
_COLUMNS = ("question", "a", "b", "c", "d", "answer")
_SPLIT_SUFFIX = re.compile(r"_(dev|val|validation|test|train)$")


def parse(row: DataRow, only: str | None = None) -> Example | None:
    """CSV cells, columns A-D or choice0-choice3, or the Hub's list of choices; answers as letters, or as indices from 0."""
    subject = str(row.get("subject") or _SPLIT_SUFFIX.sub("", row.stem))
    if only is not None and subject != only:
        return None
    listed = row.get("choices", "options")
    numbered = numbered_choices(row) if listed is None else None
    if numbered is not None:
        labels, choices = numbered
    else:
        choices = tuple(row.text(letter) for letter in "abcd") if listed is None else text_list(listed, "choices")
        labels = tuple(LETTERS[: len(choices)])
    check_choices(choices)
    letter = answer_letter(row.require("answer", "target"), labels)
    return Example(f"{subject}/{row.index}", row.text("question", "input"), letter, choices)


def _read(path: Path) -> Iterator[DataRow | BadRow]:
    return read_rows(path, _COLUMNS)


def _by_turns(examples: list[Example], _: LoadRequest) -> Loaded:
    """One question of each subject in turn, so that a limit takes from all of them."""
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[example.id.split("/")[-2]].append(example)
    rounds = chain.from_iterable(zip_longest(*(groups[subject] for subject in sorted(groups))))
    return Loaded([example for example in rounds if example is not None])


def _adapt(dataset: Dataset, options: Mapping[str, Any]) -> Dataset:
    subject = str(options["subject"]).strip().lower().replace(" ", "_")
    if subject == "all":
        return TASK
    if subject not in SUBJECTS:
        raise UserError(f"task mmlu: no subject {subject!r}{close_match(subject, SUBJECTS)}; all, or one of MMLU's 57 subjects")
    assert dataset.hub is not None
    return replace(dataset, parse=partial(parse, only=subject), hub=replace(dataset.hub, name=subject))


TASK = Dataset(
    name="mmlu",
    summary="exam questions of 57 subjects, four choices",
    prompt_kind="multiple_choice",
    answer_type="letter",
    choices=4,
    default_cot_tokens=150,
    max_answer_tokens=10,
    extractors=DEFAULT_EXTRACTORS["letter"],
    hub=HubSource("cais/mmlu", "all", {"train": "validation", "dev": "dev", "val": "validation", "test": "test"}),
    licence="MIT",
    parse=parse,
    splits=("train", "dev", "val", "test"),
    option_help={"subject": "one subject, such as anatomy; default all"},
    adapt=_adapt,
    split_words={
        "train": ("val", "valid", "validation"),
        "dev": ("dev",),
        "val": ("val", "valid", "validation"),
        "test": ("test",),
    },
    read_file=_read,
    finish=_by_turns,
)
