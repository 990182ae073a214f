"""Every quirk of the original files, on small files written by hand and on the real ones."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from markovlm.errors import UserError
from markovlm.tasks import get_task, task_names
from markovlm.tasks.base import LETTERS, Example, LoadRequest, Task
from markovlm.tasks.folds import assert_disjoint


def by_id(examples) -> dict[str, Example]:
    return {example.id.rpartition("/")[2]: example for example in examples}


@pytest.mark.parametrize("name", task_names())
def test_every_task_declares_what_a_reader_needs(name):
    task = get_task(name)
    assert isinstance(task, Task)
    assert task.name == name
    assert task.summary
    assert task.licence
    assert task.default_cot_tokens > 0
    assert task.max_answer_tokens > 0
    assert {"train", "dev", "test"} <= set(task.splits)
    assert task.hub is None or {"train", "test"} <= set(task.hub.splits) <= set(task.splits)
    assert task.extractors or task.prompt_kind == "continuation"


@pytest.mark.parametrize(
    ("task", "cot"),
    [
        ("gsm8k", 100),
        ("mmlu", 150),
        ("aqua", 50),
        ("svamp", 50),
        ("arc", 50),
        ("mathqa", 150),
        ("wiki", 50),
        ("arithmetic", 150),
    ],
)
def test_cot_defaults_are_those_of_the_method(task, cot):
    assert get_task(task).default_cot_tokens == cot  # METHOD §2


def test_unknown_names_are_refused_with_a_suggestion():
    with pytest.raises(UserError, match=r"no task 'gms8k' \(did you mean 'gsm8k'\?\); there are: arithmetic, gsm8k"):
        get_task("gms8k")
    with pytest.raises(UserError, match=r"no option 'sub' \(did you mean 'subset'\?\)"):
        get_task("arc", {"sub": "easy"})
    with pytest.raises(UserError, match="gsm8k has no option 'x'; it has no options"):
        get_task("gsm8k", {"x": 1})


# --- GSM8K


def test_gsm8k_answers_lose_commas_signs_stay_and_bad_rows_are_told_by_line(load, fixtures):
    loaded = load("gsm8k", fixtures / "gsm8k" / "train.jsonl", "train")
    assert [(e.id, e.answer) for e in loaded.examples] == [
        ("gsm8k/train/0", "7"),
        ("gsm8k/train/1", "1080"),
        ("gsm8k/train/2", "-3"),
        ("gsm8k/train/5", "2"),
    ]
    assert loaded.examples[0].question == "Tom has 3 apples.  He buys 4 more.  How many?"
    assert [re.search(r":(\d+): ", line)[1] for line in loaded.skipped] == ["4", "5", "8", "9", "10"]
    assert "train.jsonl:4: 'answer' ends in '3 + 4 = 7', expected '#### ' and a number" in loaded.skipped[0]
    assert "not valid JSON" in loaded.skipped[1]


def test_gsm8k_strict_makes_the_first_bad_row_fatal(load, fixtures):
    with pytest.raises(UserError, match=r"train\.jsonl:4: 'answer' ends in"):
        load("gsm8k", fixtures / "gsm8k" / "train.jsonl", "train", strict=True)


def test_gsm8k_test_file(load, fixtures):
    examples = load("gsm8k", fixtures / "gsm8k" / "test.jsonl").examples
    assert [e.answer for e in examples] == ["2", "70000", "9"]
    assert "\u2028" in examples[2].question


def test_gsm8k_train_loses_what_is_also_in_test(load, fixtures):
    train = load("gsm8k", fixtures / "gsm8k", "train")
    assert len(train.examples) == 3
    assert train.notes == ("train: questions removed because they are also in test: 1",)
    assert_disjoint(train.examples, load("gsm8k", fixtures / "gsm8k", "test").examples)


@pytest.mark.data("gsm8k")
def test_gsm8k_real(load, real):
    train, test = (load("gsm8k", real / "gsm8k", split, strict=True).examples for split in ("train", "test"))
    assert (len(train), len(test)) == (7473, 1319)
    raw = [json.loads(line) for line in (real / "gsm8k" / "test.jsonl").read_text().splitlines()]
    assert [e.answer for e in test] == [row["answer"].split("#### ")[1].replace(",", "") for row in raw]
    assert sum("," in row["answer"].split("#### ")[1] for row in raw) == 14
    assert test[230].answer == "276000"
    assert test[611].answer == "1450000"
    assert sum(e.answer.startswith("-") for e in train) == 3
    assert sum(e.answer.startswith("-") for e in test) == 2
    assert all(re.fullmatch(r"-?\d+", e.answer) for e in [*train, *test])
    assert any("  " in e.question for e in test)
    assert any(not e.question.isascii() for e in test)
    assert_disjoint(train, test)


# --- SVAMP


def test_svamp_joins_body_and_question_and_reads_float_answers(load, fixtures):
    loaded = load("svamp", fixtures / "svamp" / "SVAMP.json")
    first, second, contradictory, large = loaded.examples
    assert first.question.endswith("25 dollars on each pack, How much is a pack?")
    assert first.answer == "51"
    assert second.question == "Paco had 26 cookies. He ate 9. How many are left?"
    assert (contradictory.id, contradictory.answer) == ("svamp/test/chal-680", "1")  # not the 7 of its equation
    assert large.answer == "22090603"
    assert len(loaded.skipped) == 1
    assert "SVAMP.json:6: no 'answer'; the row has 'ID', 'Body'" in loaded.skipped[0]


def test_svamp_takes_hub_rows_and_rows_without_body(load, fixtures):
    examples = load("svamp", fixtures / "svamp" / "hub.jsonl").examples
    assert [(e.id, e.answer) for e in examples] == [("svamp/test/chal-1", "51"), ("svamp/test/1", "5")]
    assert examples[0].question == load("svamp", fixtures / "svamp" / "SVAMP.json").examples[0].question


@pytest.mark.data("svamp")
def test_svamp_real(load, real):
    whole = load("svamp", real / "svamp" / "SVAMP.json", strict=True).examples
    assert len(whole) == 1000
    assert all(e.answer.isdigit() for e in whole)
    raw = json.loads((real / "svamp" / "SVAMP.json").read_text())
    joined = sum(f"{row['Body'].strip()}, {row['Question'].strip()}" == e.question for row, e in zip(raw, whole, strict=True))
    assert joined == 358
    assert "22090603" in {e.answer for e in whole}
    folds = {split: load("svamp", real / "svamp", split).examples for split in ("train", "dev", "test")}
    assert {split: len(fold) for split, fold in folds.items()} == {"train": 600, "dev": 100, "test": 300}
    assert sorted(e.question for fold in folds.values() for e in fold) == sorted(e.question for e in whole)


# --- AQuA


def test_aqua_options_lose_their_labels(load, fixtures):
    loaded = load("aqua", fixtures / "aqua" / "test.json")
    root, spaces, doubled, duplicates = loaded.examples
    assert root.choices == ("5(√3 + 1)", "6", "7", "8", "None of these")
    assert root.answer == "A"
    assert root.question == "A car drives\nuphill. When?"
    assert spaces.choices == ("1", "1.25", "1.50", "1.75", "2")
    assert spaces.answer == "E"
    assert doubled.choices == ("59", "69", "79", "89", "99")
    assert doubled.answer == "B"
    assert duplicates.choices == ("3", "3", "4", "5", "5")
    assert duplicates.answer == "D"
    assert "test.json:5: answer 'C' is not one of A, B" in loaded.skipped[0]
    assert "no 'options'" in loaded.skipped[1]


def test_aqua_options_without_labels_stay_whole(load, fixtures):
    loaded = load("aqua", fixtures / "aqua" / "test_unlabelled.csv")
    assert [e.choices for e in loaded.examples] == [("A. Smith", "B. Jones", "nobody"), ("10", "20", "30's")]
    assert "test_unlabelled.csv:4: 4 cells, expected 3" in loaded.skipped[0]


@pytest.mark.data("aqua")
def test_aqua_real(load, real):
    dev, test = (load("aqua", real / "aqua", split, strict=True).examples for split in ("dev", "test"))
    assert (len(dev), len(test)) == (254, 254)
    assert all(len(e.choices) == 5 for e in [*dev, *test])
    assert test[29].choices == ("59", "69", "79", "89", "99")
    assert sum(len(set(e.choices)) < 5 for e in test) == 7
    assert sum("\n" in e.question for e in test) == 14
    train, small_dev = (load("aqua", real / "aqua", split, disjoint=True) for split in ("train", "dev"))
    assert (len(train.examples), len(small_dev.examples)) == (203, 51)
    assert "80 % of the dev questions" in train.notes[0]
    assert_disjoint(train.examples, [*small_dev.examples, *test])


# --- MathQA


def test_mathqa_options_in_both_writings(load, fixtures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = load("mathqa", fixtures / "mathqa" / "test.json")
    assert [(e.choices, e.answer) for e in loaded.examples] == [
        (("38", "27.675", "30", "data inadequate", "none of these"), "A"),
        (("2 : 3", "men 's", "16 : 9", "7 : 9", "8 : 5"), "E"),
        (("1 minute , 12 seconds", "1,001", "3", "4", "5"), "A"),
        (("2", "5", "7", "5", "8"), "D"),
        (("b / 2", "b", "3 b / 2", "2 b", "3 b"), "B"),
    ]
    assert not list(tmp_path.iterdir())
    hostile, words, number = loaded.skipped
    assert "test.json:16: 'options' is not a list of quoted strings" in hostile
    assert "test.json:17: 'options' is not a list `a ) … , b ) …`: 'just text'" in words
    assert "test.json:18: expected an object with named fields, found int" in number


@pytest.mark.data("mathqa")
def test_mathqa_real(load, real):
    dev, test = (load("mathqa", real / "mathqa", split, strict=True).examples for split in ("dev", "test"))
    assert (len(dev), len(test)) == (4475, 2985)
    assert all(len(e.choices) == 5 and e.answer in LETTERS[:5] for e in [*dev, *test])
    raw = json.loads((real / "mathqa" / "test.json").read_text())
    assert sum(row["options"].startswith("[") for row in raw) == 66
    assert test[0].choices == ("38", "27.675", "30", "data inadequate", "none of these")
    assert test[329].choices == ("b / 2", "b", "3 b / 2", "2 b", "3 b")
    assert test[329].answer == "E"
    assert not [choice for e in [*dev, *test] for choice in e.choices if re.match(r"[a-e] \)", choice)]
    assert "1 minute , 12 seconds" in {choice for e in [*dev, *test] for choice in e.choices}


# --- ARC


def test_arc_labels_go_by_position(load, fixtures):
    loaded = load("arc", fixtures / "arc", "test")
    assert [(e.id, len(e.choices), e.answer) for e in loaded.examples] == [
        ("arc/test/M_1", 4, "A"),
        ("arc/test/M_2", 4, "C"),
        ("arc/test/M_3", 3, "C"),
        ("arc/test/M_4", 5, "E"),
    ]
    assert loaded.examples[1].choices == ("H", "O", "C", "N")  # one-letter texts are texts
    assert "ARC-Challenge-Test.jsonl:5: 2 choices with the labels A, A" in loaded.skipped[0]


def test_arc_easy_is_a_task_and_an_option(load, fixtures):
    easy = load("arc_easy", fixtures / "arc", "test").examples
    assert [(e.id, e.answer) for e in easy] == [("arc_easy/test/E_1", "B")]
    assert load("arc", fixtures / "arc", "test", subset="easy").examples == easy
    with pytest.raises(UserError, match="subset is 'hard'; it must be challenge or easy"):
        load("arc", fixtures / "arc", "test", subset="hard")


@pytest.mark.parametrize(
    ("file", "expected", "problem"),
    [
        ("hub.jsonl", [(("iron", "wood"), "A"), (("x", "y", "z"), "B")], "2 choices with the labels A"),
        ("original.csv", [(("heat", "cold", "dust", "rain"), "C"), (("one", "two", "three"), "B")], "no 'choices'"),
        ("pandas.csv", [(("iron", "miner's lamp", "air"), "B")], None),
    ],
)
def test_arc_in_other_schemas(load, fixtures, file, expected, problem):
    loaded = load("arc", fixtures / "arc" / file)
    assert [(e.choices, e.answer) for e in loaded.examples] == expected
    assert (problem is None and not loaded.skipped) or problem in loaded.skipped[0]


def test_arc_original_csv_keeps_brackets_in_the_stem(load, fixtures):
    assert load("arc", fixtures / "arc" / "original.csv").examples[0].question == "Which factor (most likely) will rise?"


@pytest.mark.data("arc")
@pytest.mark.parametrize(
    ("task", "name", "counts", "numbered"),
    [("arc", "Challenge", (1119, 299), (23, 4)), ("arc_easy", "Easy", (2251, 570), (102, 21))],
)
def test_arc_real(load, real, task, name, counts, numbered):
    for split, count, with_numbers in zip(("train", "dev"), counts, numbered, strict=True):
        examples = load(task, real / "arc", split, strict=True).examples
        path = real / "arc" / f"ARC-{name}-{split.title()}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(examples) == count == len(rows)
        assert sum(row["answerKey"].isdigit() for row in rows) == with_numbers
        for example, row in zip(examples, rows, strict=True):
            right = next(c["text"] for c in row["question"]["choices"] if c["label"] == row["answerKey"])
            assert example.choices[LETTERS.index(example.answer)] == right.strip()
        assert {len(e.choices) for e in examples} == {3, 4, 5}
    test = load(task, real / "arc", "test")  # no test file here: half of dev stands in, and says so
    assert "50 % of the dev questions" in test.notes[0]
    assert_disjoint(load(task, real / "arc", "dev", disjoint=True).examples, test.examples)


# --- MMLU


def test_mmlu_csv_without_header(load, fixtures):
    loaded = load("mmlu", fixtures / "mmlu", "test")
    first, heart, lines = loaded.examples  # one of each subject in turn
    assert (first.id, first.choices, first.answer) == ("mmlu/test/abstract_algebra/0", ("1", "2", "3", "None"), "B")
    assert (heart.id, heart.answer) == ("mmlu/test/anatomy/0", "A")
    assert lines.question == "Two lines,\r\nquoted?"
    assert lines.choices == ("A", "B", "C", "D")
    assert lines.answer == "D"
    assert "anatomy_test.csv:2: 5 cells, expected 6" in loaded.skipped[0]
    assert "anatomy_test.csv:3: 'question' is empty" in loaded.skipped[1]


def test_mmlu_train_is_validation_less_what_is_in_test(load, fixtures):
    train = load("mmlu", fixtures / "mmlu", "train")
    assert [e.question for e in train.examples] == ["Unseen?"]  # the other is in test, its choices in another order
    assert len(load("mmlu", fixtures / "mmlu", "val").examples) == 2
    assert [e.id for e in load("mmlu", fixtures / "mmlu", "dev").examples] == ["mmlu/dev/abstract_algebra/0"]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("header.csv", [("Which is two?", ("one", "two", "three", "four"), "B")]),
        ("pandas.csv", [("Numpy?", ("0", "4", "it's 2", "6"), "B")]),
    ],
)
def test_mmlu_with_header(load, fixtures, file, expected):
    examples = load("mmlu", fixtures / "mmlu" / file).examples
    assert [(e.question, e.choices, e.answer) for e in examples] == expected


def test_mmlu_hub_rows_and_subjects(load, fixtures):
    loaded = load("mmlu", fixtures / "mmlu" / "hub.jsonl")
    assert [(e.id, e.answer) for e in loaded.examples] == [("mmlu/test/anatomy/0", "C"), ("mmlu/test/virology/1", "A")]
    assert "hub.jsonl:3: answer '4' is not one of A, B, C, D" in loaded.skipped[0]
    assert len(load("mmlu", fixtures / "mmlu" / "hub.jsonl", subject="Virology").examples) == 1
    assert len(load("mmlu", fixtures / "mmlu", "test", subject="abstract algebra").examples) == 2
    with pytest.raises(UserError, match=r"no subject 'anatomie' \(did you mean 'anatomy'\?\)"):
        load("mmlu", fixtures / "mmlu", "test", subject="anatomie")


def test_a_single_mmlu_subject_names_the_hub_configuration():
    assert get_task("mmlu", {"subject": "anatomy"}).hub.name == "anatomy"
    assert get_task("mmlu", {"subject": "all"}).hub.name == "all"


@pytest.mark.data("mmlu")
def test_mmlu_real(load, real):
    counts = {split: load("mmlu", real / "mmlu", split, strict=True).examples for split in ("dev", "val", "test")}
    assert {split: len(examples) for split, examples in counts.items()} == {"dev": 285, "val": 1531, "test": 14042}
    raw = [row for p in sorted((real / "mmlu" / "test").glob("*.csv")) for row in csv.reader(p.open(newline=""))]
    assert sum("\n" in row[0] for row in raw) == 1127
    assert len({e.id.split("/")[2] for e in counts["test"][:57]}) == 57
    assert sum("None" in e.choices for e in counts["test"]) == 10
    assert sum(any(re.fullmatch("[A-Z]", choice) for choice in e.choices) for e in counts["test"]) == 21
    train = load("mmlu", real / "mmlu", "train")
    assert len(train.examples) == 1503
    assert train.notes == ("train: questions removed because they are also in test: 28",)
    assert_disjoint(train.examples, counts["test"])
    assert len(load("mmlu", real / "mmlu", "test", subject="anatomy").examples) == 135
    assert len(load("mmlu", real / "mmlu" / "test" / "anatomy_test.csv", "dev").examples) == 135


# --- your own


def test_custom_maps_columns(load, fixtures):
    loaded = load("custom", fixtures / "custom" / "rows.csv", question="prompt", answer="gold")
    assert [(e.question, e.answer) for e in loaded.examples] == [("How many legs?", "1004")]
    assert "rows.csv:3: 'gold' is 'many', expected a number (or set data.answer_kind=text)" in loaded.skipped[0]


def test_custom_letters(load, fixtures):
    options = {"question": "q", "answer": "key", "choices": "opts", "answer_type": "letter"}
    loaded = load("custom", fixtures / "custom" / "letters.jsonl", **options)
    assert [(e.id, e.answer) for e in loaded.examples] == [
        ("custom/test/fr", "A"),
        ("custom/test/it", "B"),
        ("custom/test/it+2", "B"),  # ids are made unique
    ]
    assert "letters.jsonl:4: answer 'MAYBE' is not one of A, B" in loaded.skipped[0]
    task = get_task("custom", options)
    assert (task.answer_type, task.prompt_kind, task.extractors[0]) == ("letter", "multiple_choice", "final_letter")


def test_custom_one_column_for_each_choice(load, fixtures):
    options = {"question": "prompt", "answer": "Right", "choices": "Wrong1,Right", "answer_type": "letter"}
    assert [e.choices for e in load("custom", fixtures / "custom" / "rows.csv", **options).examples] == [("3", "4")] * 2


def test_custom_text_and_nonsense(load, fixtures):
    texts = load("custom", fixtures / "custom" / "rows.csv", question="prompt", answer="gold", answer_type="text")
    assert [e.answer for e in texts.examples] == ["1,004", "many"]
    with pytest.raises(UserError, match="answer_type is 'bool'; it must be number, letter or text"):
        get_task("custom", {"answer_type": "bool"})
    with pytest.raises(
        UserError,
        match=r"no usable example in the test split: 2 rows do not fit, the first: .*rows\.csv:2: no 'question'",
    ):
        load("custom", fixtures / "custom" / "rows.csv")
    with pytest.raises(UserError, match="needs your own file: give --data FILE"):
        load("custom", None)


# --- requests


def test_limits_splits_and_missing_paths(load, fixtures, tmp_path):
    assert len(load("gsm8k", fixtures / "gsm8k" / "test.jsonl", limit=2).examples) == 2
    with pytest.raises(UserError, match="limit 0: must be at least 1"):
        load("gsm8k", fixtures / "gsm8k" / "test.jsonl", limit=0)
    with pytest.raises(UserError, match="gsm8k has no split 'testing'; splits: train, dev, test"):
        load("gsm8k", fixtures / "gsm8k" / "test.jsonl", "testing")
    with pytest.raises(UserError, match="no such file or directory"):
        load("gsm8k", tmp_path / "nothing")
    with pytest.raises(UserError, match=r"no data file \(.json, .jsonl"):
        load("gsm8k", tmp_path)


@pytest.mark.parametrize("name", ["gsm8k", "svamp", "aqua", "mathqa", "arc", "mmlu"])
def test_the_three_splits_of_a_single_file_share_no_question(name, tmp_path, load):
    path = tmp_path / "mine.jsonl"
    answer = {"gsm8k": "#### 1", "svamp": 1}.get(name, "A")
    choices = {"text": ["1", "2"], "label": ["A", "B"]} if name == "arc" else ["1", "2"]
    keys = {"answer": answer, "correct": "A", "answerKey": "A", "options": ["1", "2"], "choices": choices}
    rows = [{"id": i, "question": f"Question number {i // 2}?", **keys} for i in range(200)]
    path.write_text("\n".join(map(json.dumps, rows)))
    folds = {split: load(name, path, split, disjoint=True).examples for split in ("train", "dev", "test")}
    assert {split: len(fold) for split, fold in folds.items()} == {"train": 120, "dev": 20, "test": 60}
    for split, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert_disjoint(folds[split], folds[other])
    path.write_text("\n".join(map(json.dumps, reversed(rows))))  # another order, the same folds
    again = load(name, path, "test", disjoint=True).examples
    assert {e.question for e in again} == {e.question for e in folds["test"]}
    assert len(load(name, path, "test").examples) == 200  # alone, a file is what it is


def test_requests_repeat_exactly(fixtures):
    request = LoadRequest("train", Path(fixtures) / "svamp" / "SVAMP.json", disjoint=True)
    assert get_task("svamp").load(request) == get_task("svamp").load(request)
