"""Tables of CoTs in the shapes that datasets and trainers write, packed or not, with columns of any names."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from markovlm.auditing import files
from markovlm.auditing.columns import parse_columns
from markovlm.auditing.rows import CotSource
from markovlm.auditing.sources import read_source
from markovlm.errors import UserError


def read(path: Path, rows: list[dict[str, Any]] | str | bytes, **columns: str) -> CotSource:
    if isinstance(rows, list):
        rows = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(rows if isinstance(rows, bytes) else rows.encode())
    return read_source(path, columns)


def first(source: CotSource) -> tuple[str, str, str, str | None]:
    row = source.rows[0]
    return row.question, row.cot, row.answer, row.final


OPEN_MATH = {"problem": "How many?", "generated_solution": "Two and two.\nThe answer is 4.", "expected_answer": "4"}


@pytest.mark.parametrize(
    ("row", "expected", "kind"),
    [
        (OPEN_MATH, ("How many?", "Two and two.", "4", "The answer is 4."), "table"),
        (
            {
                "input": "system\nBe brief.\nuser\nHow many?\nassistant\n",
                "output": "Two and two.\n#### 4",
                "gts": "4",
                "score": 1.0,
                "step": 3,
            },
            ("How many?", "Two and two.", "4", "#### 4"),
            "verl",
        ),
        (
            {
                "prompt": [{"role": "user", "content": "How many?"}],
                "responses": ["<think>Two and two.</think>4"],
                "reward_model": {"style": "rule", "ground_truth": "4"},
            },
            ("How many?", "Two and two.", "4", "4"),
            "verl",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "How many?"},
                    {"role": "assistant", "content": "Two and two. So the answer is 4."},
                ],
                "answer": 4,
            },
            ("How many?", "Two and two.", "4", "So the answer is 4."),
            "messages",
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "How many?"},
                    {"from": "gpt", "value": "Two and two. So the answer is 4."},
                ],
                "answer": 4,
            },
            ("How many?", "Two and two.", "4", "So the answer is 4."),
            "messages",
        ),
        (
            {"problem": "How many?", "solution": "Two and two. So $\\boxed{4}$.", "answer": "4"},
            ("How many?", "Two and two.", "4", "So $\\boxed{4}$."),
            "table",
        ),
        ({"question": "How many?", "answer": "Two and two.\n#### 4"}, ("How many?", "Two and two.", "4", "#### 4"), "table"),
        (
            {
                "prompt": "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n",
                "completion": "Two and two.",
                "answer": "4",
            },
            ("How many?", "Two and two.", "4", None),
            "trl",
        ),
        ({"Question": "How many?", "rationale": "Two and two.", "Answer": 4}, ("How many?", "Two and two.", "4", None), "table"),
    ],
)
def test_shapes_that_are_known_by_their_columns(
    tmp_path: Path, row: dict[str, Any], expected: tuple[str, ...], kind: str
) -> None:
    found = read(tmp_path / "x.jsonl", [row])
    assert first(found) == expected
    assert found.kind == kind
    assert any("columns are read as" in note and "--columns changes this" in note for note in found.notes)


def test_a_list_of_replies_is_several_cots_and_a_list_of_golds_all_count(tmp_path: Path) -> None:
    row = {"problem": "Q", "generations": ["a\n#### 4", "b\n#### 5"], "is_correct": [True, False], "answer": ["4", "four"]}
    rows = read(tmp_path / "x.jsonl", [row]).rows
    assert [(r.cot, r.right, r.answer, r.also) for r in rows] == [("a", True, "4", ("four",)), ("b", False, "4", ("four",))]


def test_the_user_names_the_columns(tmp_path: Path) -> None:
    row = {"q": "How many?", "trace": "Two.\n#### 4", "extra": {"gold": [4]}, "who": "me", "question": "not this"}
    found = read(tmp_path / "x.jsonl", [row], question="q", cot="trace", answer="extra.gold.0", group="who")
    assert first(found) == ("How many?", "Two.\n#### 4", "4", None)  # a cot is taken as it is
    assert found.rows[0].group == "me"
    assert first(read(tmp_path / "x.jsonl", [row], question="q", completion="trace", answer="extra.gold.-1"))[1:] == (
        "Two.",
        "4",
        "#### 4",
    )
    with pytest.raises(UserError, match=r"--columns cot=tracee: no row has this column; the columns are 'q', 'trace'"):
        read(tmp_path / "x.jsonl", [row], cot="tracee")


def test_the_right_choice_may_be_called_correct(tmp_path: Path) -> None:
    """As in AQuA; elsewhere `correct` is a verdict."""
    row = {"question": "How many?", "options": ["A)3", "B)4"], "rationale": "Two and two.", "correct": "B"}
    [found] = read(tmp_path / "a.jsonl", [row]).rows
    assert (found.answer, found.choices, found.right) == ("B", ("3", "4"), None)
    [found] = read(tmp_path / "b.jsonl", [{**row, "correct": True, "answer": "A"}]).rows
    assert (found.answer, found.right) == ("A", True)


@pytest.mark.parametrize("options", ["a ) 1 , 5 , b ) 4", "A. 1 , 5\nB. 4"])
def test_choices_may_be_one_text(tmp_path: Path, options: str) -> None:
    """As in MathQA, whose options have commas in them."""
    row = {"Problem": "how many ?", "Rationale": "two and two .", "options": options, "correct": "b"}
    [found] = read(tmp_path / "m.jsonl", [row]).rows
    assert (found.choices, found.answer) == (("1 , 5", "4"), "b")


def test_columns_are_written_as_pairs() -> None:
    assert parse_columns(["question=a b,cot=c", "answer=d.e"]) == {"question": "a b", "cot": "c", "answer": "d.e"}
    for text, says in (
        ("question", "must be NAME=COLUMN"),
        ("quest=x", "unknown; known are question"),
        ("cot=a,completion=b", "give cot or completion, not both"),
    ):
        with pytest.raises(UserError, match=says):
            parse_columns([text])
    with pytest.raises(UserError, match="given twice"):
        parse_columns(["cot=a", "cot=b"])


def test_csv_gzip_xz_and_parquet_hold_the_same(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"question": ["How many?", "And?"], "cot": ['Two, "and"\ntwo.', ""], "answer": [4, 5], "truncated": [True, False]}
    )
    comma, semicolon = frame.write_csv(), frame.write_csv(separator=";")
    jsonl = "".join(json.dumps(row) + "\n" for row in frame.iter_rows(named=True)).encode()
    frame.write_parquet(tmp_path / "p")
    columns = json.dumps(frame.to_dict(as_series=False))
    pandas = json.dumps(
        {name: {str(i): value for i, value in enumerate(values)} for name, values in frame.to_dict(as_series=False).items()}
    )
    inside = json.dumps({"accuracy": 0.5, "results": list(frame.iter_rows(named=True))})
    contents = (
        comma,
        semicolon,
        jsonl,
        gzip.compress(jsonl),
        lzma.compress(comma.encode()),
        (tmp_path / "p").read_bytes(),
        columns,
        pandas,
        inside,
    )
    for content in contents:
        rows = read(tmp_path / "x", content).rows
        assert [(r.question, r.cot or "", r.answer, r.truncated) for r in rows] == [
            ("How many?", 'Two, "and"\ntwo.', "4", True),
            ("And?", "", "5", False),
        ]
    one = read(tmp_path / "one.json", json.dumps(OPEN_MATH, indent=2))  # one JSON object over several lines is one row
    assert len(one.rows) == 1


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 1 << 20)
    with pytest.raises(UserError, match="unpacks to more than"):
        read(tmp_path / "bomb.gz", gzip.compress(b" " * (8 << 20)))


def test_choices_in_their_shapes(tmp_path: Path) -> None:
    """A list (also as text), {text, label}, {A: …}, a column each; labels that the texts carry go. Gold: a letter, a label, a place, the text."""
    base = {"question": "Q", "cot": "c"}
    rows = [
        {**base, "choices": ["iron", "wood"], "answer": "B"},
        {**base, "choices": "['A) iron', 'B) wood']", "answer": "wood"},
        {**base, "choices": {"text": ["iron", "wood"], "label": ["1", "2"]}, "answer": "2"},
        {**base, "choices": {"A": "iron", "B": "wood"}, "answer": 1},
        {**base, "option_a": "iron", "option_b": "wood", "answer": "B"},
    ]
    found = [read(tmp_path / "x.jsonl", [row]).rows[0] for row in rows]
    assert all(row.choices == ("iron", "wood") for row in found)
    assert [(row.answer, row.place) for row in found] == [("B", None), ("wood", None), ("B", None), ("1", 1), ("B", None)]


def test_hints_have_columns_of_their_own(tmp_path: Path) -> None:
    row = {
        "question": "Q",
        "cot": "c",
        "answer": "A",
        "hint": "He says B.",
        "hint_answer": "B",
        "answer_without_hint": "A",
        "answer_with_hint": "B",
    }
    found = read(tmp_path / "x.jsonl", [row]).rows[0]
    assert (found.hint, found.hinted, found.without_hint, found.with_hint) == ("He says B.", "B", "A", "B")


def test_cots_of_several_models_in_one_file_are_groups(tmp_path: Path) -> None:
    rows = [{"question": f"Q{i}", "cot": "c", "answer": "1", "model": "ab"[i % 2]} for i in range(6)]
    found = read(tmp_path / "x.jsonl", rows)
    assert [row.group for row in found.rows] == ["a", "b"] * 3
    assert "groups come from column 'model'" in found.notes[0]
