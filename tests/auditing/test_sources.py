"""CoTs are found in what the tools that write them really write, and hostile files are refused in one line."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from markovlm.auditing import inspect_zip
from markovlm.auditing.legibility import legibility
from markovlm.auditing.measures import is_bare
from markovlm.auditing.sources import read_source
from markovlm.errors import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "audit"
ROOT = Path(__file__).parents[2]


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_of_our_own_shape_with_what_is_wrong_in_them_said(tmp_path: Path) -> None:
    good = {"question": "Q", "cot": "", "answer": 42, "choices": ["a", "b"], "group": "base", "truncated": True}
    found = read_source(
        lines(
            tmp_path / "c.jsonl",
            [good, {"question": "Q", "answer": 1}, "{torn", {**good, "choices": "a,b"}, {**good, "answer": True}],
        )
    )
    row = found.rows[0]
    assert (row.question, row.cot, row.answer, row.choices, row.group, row.truncated) == ("Q", "", "42", ("a", "b"), "base", True)
    assert len(found.rows) == 1
    assert [line.partition(": ")[0] for line in found.skipped] == ["c.jsonl:3", "c.jsonl:2", "c.jsonl:4", "c.jsonl:5"]
    assert "no 'cot'; the row has 'question', 'answer'" in found.skipped[1]


def test_an_inspect_log_made_by_inspect_itself_as_zip() -> None:
    """Three sums in two epochs; the third reply was cut off by its budget and has no answer line."""
    found = read_source(FIXTURES / "inspect.eval")
    assert found.kind == "inspect"
    assert found.skipped == []
    first = found.rows[0]
    assert (first.question, first.answer, first.cot, first.group) == (
        "17+4+79",
        "100",
        "17+4=21. Then 21+79=100.",
        "mockllm/model",
    )
    assert [row.question for row in found.rows] == ["17+4+79", "5+6+7", "30+41+2"] * 2
    assert [(row.right, row.truncated, row.cut) for row in found.rows[:3]] == [
        (True, False, True),
        (True, False, True),
        (True, True, False),
    ]


def test_an_inspect_log_as_json_with_a_reasoning_block_and_an_encrypted_one() -> None:
    found = read_source(FIXTURES / "inspect.json")
    [row] = found.rows
    assert row.question == "Which of these is attracted by a magnet?"
    assert (row.cot, row.choices, row.answer) == ("Copper and wood are not magnetic, iron is.", ("copper", "iron", "wood"), "B")
    assert found.skipped == ["inspect.json:samples[1]: its reasoning is encrypted and has no summary"]


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("inspect_ai") is None, reason="inspect_ai is not installed")
def test_the_inspect_logs_can_be_made_again(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts" / "make_inspect_fixture.py"), str(tmp_path)], check=True, timeout=300)
    for name in ("inspect.eval", "inspect.json", "shuffled.eval", "turns.eval"):
        again, kept = read_source(tmp_path / name), read_source(FIXTURES / name)
        assert (again.rows, again.skipped) == (kept.rows, kept.skipped)


def test_shuffled_choices_are_those_that_the_model_saw() -> None:
    """The log's output says `ANSWER: B` and nothing else, in the original order; what the model wrote and saw stands in an event."""
    found = read_source(FIXTURES / "shuffled.eval")
    [row] = found.rows
    assert (row.cot, row.final) == ("The first one conducts and the others do not.", "ANSWER: A")
    assert (row.choices, row.answer, row.right) == (("iron", "glass", "wood"), "A", True)
    assert "the choices were shuffled" in found.notes[0]
    assert "1 of 1 samples" in found.notes[0]


def test_several_replies_a_conversation_and_several_targets() -> None:
    found = read_source(FIXTURES / "turns.eval")
    [row] = found.rows
    assert (row.question, row.cot, row.final) == ("And times two?", "11*2=22.\n\nYes.", "The answer is 22.")
    assert (row.answer, row.also) == ("22", ("a score and two",))
    assert [note.partition(": ")[2].partition(" (")[0] for note in found.notes] == [
        "the CoT is everything that the model wrote after the question, joined",
        "the question is the last user message of a conversation",
        "there are several targets",
    ]


def test_a_question_with_several_right_choices_and_one_shuffled_no_one_knows_how(tmp_path: Path) -> None:
    def several(sample: dict[str, Any]) -> None:
        sample["target"] = ["A", "C"]

    def unknown(sample: dict[str, Any]) -> None:
        sample["events"] = [
            e | {"input": [], "input_refs": [], "call": None} if e["event"] == "model" else e for e in sample["events"]
        ]
        sample["scores"] = {}

    for change, says in (
        (several, "several choices are right (A, C)"),
        (unknown, "its choices were shuffled, but the log does not say how"),
    ):

        def changed(members: dict[str, bytes], change: Any = change) -> None:
            sample = json.loads(members["samples/0_epoch_1.json"])
            change(sample)
            members["samples/0_epoch_1.json"] = json.dumps(sample).encode()

        with pytest.raises(UserError) as caught:
            read_source(rezipped(tmp_path / "x.eval", zipfile.ZIP_DEFLATED, changed, "shuffled.eval"))
        assert says in str(caught.value)


def test_an_inspect_log_without_samples_is_said_to_be_one(tmp_path: Path) -> None:
    def without(members: dict[str, bytes]) -> None:
        del members["samples/0_epoch_1.json"]

    header = json.loads(inspect_members("shuffled.eval")["header.json"])
    path = tmp_path / "header.json"
    path.write_text(json.dumps(header), encoding="utf-8")
    for file in (path, rezipped(tmp_path / "x.eval", zipfile.ZIP_DEFLATED, without, "shuffled.eval")):
        with pytest.raises(UserError, match="an Inspect log without samples"):
            read_source(file)


def rezipped(path: Path, compression: int, change: Any = None, name: str = "inspect.eval") -> Path:
    """The log of the fixture, or with members changed, as older versions wrote it."""
    members = inspect_members(name)
    if change is not None:
        change(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def inspect_members(name: str = "inspect.eval") -> dict[str, bytes]:
    source = FIXTURES / name
    with zipfile.ZipFile(source) as archive:
        unpacked = inspect_zip.Unpacker(source, archive)
        return {m.filename: json.dumps(unpacked.value(m)).encode() for m in archive.infolist()}


def test_older_inspect_logs_and_unfinished_ones(tmp_path: Path) -> None:
    whole = read_source(FIXTURES / "inspect.eval").rows
    assert read_source(rezipped(tmp_path / "old.eval", zipfile.ZIP_DEFLATED)).rows == [
        replace(row, where=row.where.replace("inspect", "old")) for row in whole
    ]
    unfinished = rezipped(tmp_path / "cut.eval", zipfile.ZIP_DEFLATED, lambda members: members.pop("header.json"))
    assert [row.group for row in read_source(unfinished).rows] == ["mockllm/model"] * 6


def test_long_texts_of_inspect_logs_are_kept_once_and_put_back(tmp_path: Path) -> None:
    def attach(members: dict[str, bytes]) -> None:
        sample = json.loads(members["samples/sum-0_epoch_1.json"])
        sample["attachments"] = {"abc": sample["output"]["choices"][0]["message"]["content"]}
        sample["output"]["choices"][0]["message"]["content"] = "attachment://abc"
        members["samples/sum-0_epoch_1.json"] = json.dumps(sample).encode()

    assert read_source(rezipped(tmp_path / "a.eval", zipfile.ZIP_STORED, attach)).rows[0].cot == "17+4=21. Then 21+79=100."


def test_a_zip_bomb_and_other_zips_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect_zip, "MOST_MEMBER", 1 << 20)
    bomb = rezipped(
        tmp_path / "b.eval", zipfile.ZIP_DEFLATED, lambda m: m.update({"samples/x_epoch_1.json": b"[" + b" " * (8 << 20)})
    )
    with pytest.raises(UserError, match=r"samples/x_epoch_1.json unpacks to more than 1 MB"):
        read_source(bomb)
    other = tmp_path / "o.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(UserError, match="not an Inspect log"):
        read_source(other)
    other.write_bytes(other.read_bytes()[:40])
    with pytest.raises(UserError, match="broken zip"):
        read_source(other)
    torn = rezipped(tmp_path / "t.eval", zipfile.ZIP_DEFLATED, lambda m: m.update({"samples/x_epoch_1.json": b"{"}))
    with pytest.raises(UserError, match=r"samples/x_epoch_1.json cannot be read"):
        read_source(torn)


HARNESS = {
    "doc_id": 0,
    "doc": {"question": "How many?", "answer": "16-3-4=9 and 9*2=18\n#### 18"},
    "target": "16-3-4=9 and 9*2=18\n#### 18",
    "arguments": {"gen_args_0": {"arg_0": "Question: How many?\nAnswer:", "arg_1": {"until": ["\n\n"]}}},
    "resps": [["She has 16-7=9 eggs. So 9*2=18.\n#### 18"]],
    "filtered_resps": ["18"],
    "filter": "strict-match",
    "metrics": ["exact_match"],
    "doc_hash": "d",
    "exact_match": 1.0,
}


def test_samples_of_the_harness_once_though_each_filter_writes_them(tmp_path: Path) -> None:
    choices = {"text": ["iron", "wood"], "label": ["A", "B"]}
    letter = {
        **HARNESS,
        "doc_id": 1,
        "doc": {"question": "Which?", "choices": choices},
        "target": "(A)",
        "resps": [["It is metal.\nThe answer is A."]],
    }
    likelihoods = {**HARNESS, "doc_id": 2, "resps": [[[-3.2, False]]]}
    found = read_source(
        lines(tmp_path / "samples_gsm8k_x.jsonl", [HARNESS, {**HARNESS, "filter": "flexible"}, letter, likelihoods])
    )
    assert found.kind == "lm-eval"
    assert [(r.question, r.cot, r.answer, r.choices) for r in found.rows] == [
        ("How many?", "She has 16-7=9 eggs. So 9*2=18.", "18", ()),
        ("Which?", "It is metal.", "A", ("iron", "wood")),
    ]
    assert found.rows[0].right is True
    assert "likelihoods" in found.skipped[0]


def test_samples_that_lm_eval_itself_wrote() -> None:
    """lm_eval 0.4.13, a tiny model that knows two replies by heart: a choice's number is text, each filter has its own score."""
    letters = read_source(FIXTURES / "samples_tiny_letters.jsonl")  # doc_to_target is the number of a choice; two repeats each
    assert [(r.question, r.answer, r.cot, r.cut) for r in letters.rows[:2]] == [
        ("Which is a metal?", "A", "Iron is a metal, wood is not.", True)
    ] * 2
    assert [r.answer for r in letters.rows] == ["A", "A", "B", "B"]
    sums = read_source(FIXTURES / "samples_tiny_sums.jsonl")  # two filters
    assert [(r.question, r.answer, r.cot, r.right) for r in sums.rows] == [
        ("What is 17+4+79?", "100", "17+4=21. 21+79=100.", False),
        ("What is 5+6+7?", "18", "17+4=21. 21+79=100.", False),
    ]


def test_targets_of_the_harness_with_choices(tmp_path: Path) -> None:
    """By number, by label, by text; a number that is itself a choice is that choice."""
    asked = [
        ({"text": ["iron", "wood"], "label": ["1", "2"]}, "2", "B"),
        (["iron", "wood"], 0, "A"),
        (["5", "1"], "1", "1"),
        (["iron", "wood"], "wood", "wood"),
    ]
    rows = [{**HARNESS, "doc_id": i, "doc": {"question": "Q", "choices": c}, "target": t} for i, (c, t, _) in enumerate(asked)]
    wrong_then_right = [{**HARNESS, "doc_id": 9, "exact_match": share} for share in (0.0, 1.0)]
    found = read_source(lines(tmp_path / "samples_x.jsonl", [*rows, *wrong_then_right]))
    assert [row.answer for row in found.rows] == [*(letter for _, _, letter in asked), "18"]
    assert found.rows[-1].right is True  # one filter found the answer, the first one did not


def test_a_table_that_trl_itself_wrote() -> None:
    """TRL 1.16 and Qwen3's chat template: the reasoning is a key of the message, the gold answer stands in a box."""
    found = read_source(FIXTURES / "trl_completions.parquet")
    assert [(r.question, r.answer, r.cot, r.cut) for r in found.rows] == [
        ("What is 17+4+79?", "100", "17+4=21. 21+79=100.", True)
    ] * 4


def test_messages_of_parts_and_completions_whose_thought_began_in_the_prompt(tmp_path: Path) -> None:
    rows = [
        {"prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Q"}]}], "completion": "so\n</think>7",
         "answer": "$\\boxed{\\frac{1}{2}}$"},
        {"prompt": "Q", "completion": [{"role": "assistant", "reasoning_content": None, "content": "We add. The answer is 7."}],
         "answer": "\\boxed{7"},
        {"prompt": "Q", "completion": [{"role": "tool", "content": "x"}], "answer": "7"},
    ]  # fmt: skip
    found = read_source(lines(tmp_path / "c.jsonl", rows))
    assert [(r.question, r.cot, r.answer, r.cut) for r in found.rows] == [
        ("Q", "so", r"\frac{1}{2}", True),
        ("Q", "We add.", r"\boxed{7", True),
    ]
    assert "neither text nor a list of messages" in found.skipped[0]


def test_completions_of_trl_as_text_and_as_conversations(tmp_path: Path) -> None:
    path = tmp_path / "completions_00001.parquet"
    pl.DataFrame(
        {
            "step": [1, 1],
            "prompt": [[{"role": "user", "content": "17+4?"}], [{"role": "user", "content": "5+6?"}]],
            "completion": [
                [{"role": "assistant", "content": "<think>17 and 4 are 21</think>21"}],
                [{"role": "assistant", "content": "<think>five and six and"}],
            ],
            "answer": ["21", "11"],
        }
    ).write_parquet(path)
    found = read_source(path)
    assert found.kind == "trl"
    assert [(r.question, r.cot, r.answer, r.cut) for r in found.rows] == [
        ("17+4?", "17 and 4 are 21", "21", True),
        ("5+6?", "five and six and", "11", False),
    ]
    rows = [{"prompt": "Q", "completion": "C. Done", "solution": "x #### 7"}, {"prompt": "Q", "completion": "C"}]
    plain = read_source(lines(tmp_path / "c.jsonl", rows))
    assert plain.rows[0].answer == "7"
    assert "no 'solution'" in plain.skipped[0]


def test_samples_of_a_run_and_the_base_beside_them(tmp_path: Path) -> None:
    row = {
        "step": 1,
        "question_id": "q",
        "sample": 0,
        "question": "1+2",
        "cot": "1+2=3",
        "baseline_cot": "some",
        "answer": "3",
        "correct": True,
    }
    found = read_source(lines(tmp_path / "samples.jsonl", [row, {**row, "sample": 1, "cot": "3"}]))
    assert [(r.group, r.cot, r.right) for r in found.rows] == [
        ("trained", "1+2=3", True),
        ("base", "some", None),
        ("trained", "3", True),
    ]


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    for content, says in (
        (b"", "is empty"),
        (b"\xff\xfe\x00x", "is not UTF-8 text"),
        (b"hello\n", "neither a JSON object nor a table"),
        (b'{"a": 1}\n', r"no column found for question, cot \(or completion\), answer; the columns are 'a'"),
        (b'{"question": 1, "answer": 2}\n', r"no column found for cot .*read as question=question, answer=answer"),
        (b"\x1f\x8b broken", "a broken gzip file"),
        (b"PAR1 broken", "cannot be read as Parquet"),
    ):
        path = tmp_path / "x"
        path.write_bytes(content)
        with pytest.raises(UserError, match=says) as caught:
            read_source(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        read_source(tmp_path / "none")


def test_bare_answers() -> None:
    assert all(is_bare(text, "1080") for text in ("1080", " $1,080.", "The answer is 1080.", "#### 1080", "\\boxed{1080}"))
    assert not any(is_bare(text, "1080") for text in ("", "1081", "1000+80=1080", "It costs 1080"))
    assert is_bare("Final answer: iron oxide", "Iron oxide")


def test_legibility_in_numbers() -> None:
    fine = legibility("She buys three bags of apples. That makes 15.")
    assert (fine.words, fine.judged, fine.nonwords, fine.switches, fine.repetitive, fine.open_end) == (8, 6, 0, 0, False, False)
    odd = legibility("She buys xqzvw 三袋苹果 and then α яблок and")
    assert odd.nonwords == 1
    assert odd.switches == 4  # to Han and back, to Cyrillic and back; the lone Greek letter is mathematics
    assert odd.open_end
    assert legibility("44" * 100).repetitive
    assert legibility(" ").empty
    assert not legibility(" ").open_end


@pytest.mark.data("gsm8k", "aqua", "wikipedia")
def test_how_often_an_english_word_is_called_a_nonword(real: Path) -> None:
    """On questions that the table was not made from; the docstring of legibility.py quotes these numbers."""
    import random

    from markovlm.auditing.legibility import _JUDGED, is_nonword

    for name, most in (("gsm8k/test.jsonl", 0.006), ("aqua/test.json", 0.01), ("wikipedia/wiki.test.raw", 0.03)):
        words = _JUDGED.findall((real / name).read_text(encoding="utf-8").replace("\\n", " "))[:50_000]
        assert sum(map(is_nonword, words)) / len(words) < most
    rng = random.Random(0)
    shuffled = ["".join(rng.sample(word.lower(), len(word))) for word in words[:5000]]
    assert sum(map(is_nonword, shuffled)) / len(shuffled) > 0.6


def test_nothing_of_a_log_is_executed_or_opened(tmp_path: Path) -> None:
    """Names of members are no paths."""
    path = tmp_path / "p.eval"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps({"eval": {"model": "../../m"}}))
        archive.writestr("samples/../../evil_epoch_1.json", inspect_members()["samples/sum-0_epoch_1.json"])
    assert read_source(path).rows[0].group == "../../m"
    assert {p.name for p in tmp_path.iterdir()} == {"p.eval"}
