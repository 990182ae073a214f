"""The same questions in every kind of file, gzipped or not, whatever their columns are called; and torn ones."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import polars
import pytest

from markovlm.config import build_config, load_recorded
from markovlm.errors import UserError
from markovlm.runs.asking import chosen_kind, task_of, with_kind
from markovlm.runs.setup import load_examples
from markovlm.tasks import get_task
from markovlm.tasks.base import Loaded, LoadRequest

ROWS = [{"ask": f"What is {i}+1?", "gold": str(i + 1)} for i in range(20)]
COLUMNS = {"question": "ask", "answer": "gold"}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    kind, text = path.name.split(".", 1)[1].removesuffix(".gz"), io.StringIO()
    if kind == "parquet":
        data = io.BytesIO()
        polars.DataFrame(rows).write_parquet(data)
        content = data.getvalue()
    else:
        if kind in ("csv", "tsv"):
            writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
        else:
            text.write(json.dumps(rows) if kind == "json" else "".join(json.dumps(row) + "\n" for row in rows))
        content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def loaded(path: Path | None, split: str = "test", task: str = "custom", **data: Any) -> Loaded:
    config = build_config({"task": task, "data": {"path": None if path is None else str(path), **data}})
    return load_examples(config, task_of(config), split, disjoint=False)


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet", "csv.gz", "jsonl.gz", "json.gz", "parquet.gz"])
def test_every_kind_of_file_gives_the_same_questions(tmp_path: Path, kind: str) -> None:
    found = loaded(written(tmp_path / f"q.{kind}", ROWS), columns=COLUMNS)
    assert [(e.question, e.answer) for e in found.examples] == [(row["ask"], row["gold"]) for row in ROWS]
    assert not found.skipped


def test_a_directory_of_gzipped_splits(tmp_path: Path) -> None:
    written(tmp_path / "train.csv.gz", ROWS[:15])
    written(tmp_path / "validation.parquet", ROWS[15:])
    sizes = [len(loaded(tmp_path, split, columns=COLUMNS).examples) for split in ("train", "dev")]
    assert sizes == [15, 5]


def test_parquet_lists_and_structs_are_choices(tmp_path: Path) -> None:
    rows = [{"q": "Which?", "a": "2", "c": {"text": ["iron", "wood"], "label": ["1", "2"]}}]
    path = written(tmp_path / "q.parquet", rows)
    (example,) = loaded(path, columns={"question": "q", "answer": "a", "choices": "c"}, answer_kind="letter").examples
    assert (example.answer, example.choices) == ("B", ("iron", "wood"))


def test_columns_of_a_built_in_task(tmp_path: Path) -> None:
    path = written(tmp_path / "q.csv", [{"ask": "Both?", "gold": "2", "x": "iron", "y": "wood", "z": "tin"}])
    columns = {"question": "ask", "answer": "gold", "choices": "x,y,z"}
    (example,) = loaded(path, task="mmlu", columns=columns).examples
    assert (example.question, example.answer, example.choices) == ("Both?", "C", ("iron", "wood", "tin"))
    missing = loaded(written(tmp_path / "r.jsonl", [*ROWS, {"ask": "no gold"}]), task="gsm8k", columns=COLUMNS)
    assert missing.skipped == (f"{tmp_path}/r.jsonl:21: data.columns.answer: no 'gold'; the row has 'ask'",)


@pytest.mark.parametrize(
    ("header", "cells", "letter"),
    [
        ("question,choice0,choice1,choice2,choice3,answer", "Q,w,x,y,z,0", "A"),
        ("question,choice0,choice1,choice2,choice3,answer", "Q,w,x,y,z,3", "D"),
        ("question,choice_1,choice_2,choice_3,choice_4,answer", "Q,w,x,y,z,1", "A"),
        ("question,subject,option_a,option_b,option_c,option_d,answer", "Q,anatomy,w,x,y,z,C", "C"),
        ("question,choice0,choice1,choice2,choice3,answer", "Q,w,x,y,z,B", "B"),
    ],
)
def test_mmlu_with_a_header_row(tmp_path: Path, header: str, cells: str, letter: str) -> None:
    (tmp_path / "anatomy_test.csv").write_text(f"{header}\n{cells}\n")
    (example,) = get_task("mmlu").load(LoadRequest("test", tmp_path)).examples
    assert (example.answer, example.choices, example.id) == (letter, tuple("wxyz"), "mmlu/test/anatomy/0")


@pytest.mark.parametrize("name", ["q.csv.gz", "q.parquet", "q.jsonl.gz", "q.parquet.gz"])
def test_a_torn_file_is_one_line(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, ROWS)
    whole = path.read_bytes()
    for content in (whole[:-20], b"", b"junk"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=name) as caught:
            loaded(path, columns=COLUMNS)
        assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path / "q.csv", ROWS)
    with pytest.raises(UserError, match=r"answer_kind is only for task custom"):
        loaded(path, task="gsm8k", answer_kind="number")
    with pytest.raises(UserError, match=r"data: path and hub are two sources"):
        loaded(path, hub="org/name")
    with pytest.raises(UserError, match=r"hub_subset names a subset of data.hub"):
        loaded(path, hub_subset="main")
    config = build_config({"task": "custom", "task_options": {"question": "x"}, "data": {"columns": {"question": "y"}}})
    with pytest.raises(UserError, match=r"task_options.question is 'x', but data.columns.question is 'y'"):
        task_of(config)
    with pytest.raises(UserError, match=r"20 rows do not fit, the first: .*q.csv:2: no 'question'; the row has 'ask', 'gold'"):
        loaded(path)


KINDS = {
    "number": [{"question": f"{i}?", "answer": f"${i},000"} for i in range(20)],
    "letter": [{"question": f"{i}?", "answer": "xyz"[i % 3], "choices": ["x", "y", "z"]} for i in range(20)],
    "text": [{"question": f"{i}?", "answer": f"city {i}" if i % 5 else "7"} for i in range(20)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_of_answers_is_chosen_by_looking_and_said(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "q.jsonl", KINDS[kind])
    config = build_config({"task": "custom", "data": {"path": str(path)}})
    assert task_of(config).answer_type == kind
    found = loaded(path)
    assert len(found.examples) == 20
    (note,) = (line for line in found.notes if "answers are read as" in line)
    assert f"kind {kind!r}" in note
    assert "data.answer_kind" in note
    assert with_kind(config).data.answer_kind == kind  # what a run records, and does not choose again
    assert chosen_kind(with_kind(config)) is None
    mixed = build_config({"tasks": {"arithmetic": 1, "custom": {"path": str(path)}}})
    assert with_kind(mixed).tasks["custom"].answer_kind == kind


def test_one_answer_in_ten_may_be_of_another_kind_and_what_is_said_wins(tmp_path: Path) -> None:
    rows = [{"question": f"{i}?", "answer": "many" if i in (3, 4) else str(i)} for i in range(20)]
    path = written(tmp_path / "q.csv", rows)
    assert [len(part) for part in (loaded(path).examples, loaded(path).skipped)] == [18, 2]
    assert loaded(path, answer_kind="text").examples[0].answer == "0"
    assert not any("answers are read as" in note for note in loaded(path, answer_kind="text").notes)
    written(tmp_path / "q.csv", [{**row, "answer": "many" if i < 3 else str(i)} for i, row in enumerate(rows)])
    assert task_of(build_config({"task": "custom", "data": {"path": str(path)}})).answer_type == "text"  # 17 of 20 are too few


def test_a_record_without_a_kind_is_of_numbers(tmp_path: Path) -> None:
    """As it was when it was written, whatever the file would be taken for now."""
    path, record = written(tmp_path / "q.jsonl", KINDS["text"]), tmp_path / "config.yaml"
    for given, wanted in ((None, "number"), ("letter", "letter")):
        record.write_text(json.dumps({"task": "custom", "data": {"path": str(path), "answer_kind": given}}))
        assert task_of(build_config(load_recorded(record))).answer_type == wanted
    record.write_text(json.dumps({"task": "custom", "task_options": {"answer_type": "text"}, "data": {"path": str(path)}}))
    assert task_of(build_config(load_recorded(record))).answer_type == "text"
    record.write_text(json.dumps({"tasks": {"arithmetic": 1, "custom": {"weight": 1, "path": str(path)}}}))
    assert build_config(load_recorded(record)).tasks["custom"].answer_kind == "number"
