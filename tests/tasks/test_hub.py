"""The Hub, played by a module that stands in for `datasets`: what is asked for, and how failures are told."""

from __future__ import annotations

import sys
import types

import pytest

from markovlm.config import build_config
from markovlm.errors import UserError
from markovlm.runs.asking import task_of, with_kind
from markovlm.runs.setup import load_examples
from markovlm.tasks import get_task
from markovlm.tasks.base import HubSource, LoadRequest
from markovlm.tasks.folds import assert_disjoint


@pytest.fixture
def hub(monkeypatch):
    """`hub[(path, name, split)] = rows`; an exception in place of rows is raised."""
    answers: dict[tuple[str, str | None, str], object] = {}

    def load_dataset(path, name=None, *, split):
        answer = answers[path, name, split]
        if isinstance(answer, Exception):
            raise answer
        return answer

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset
    module.get_dataset_split_names = lambda path, name=None: [split for p, n, split in answers if (p, n) == (path, name)]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return answers


def test_gsm8k_from_the_hub(hub):
    hub["openai/gsm8k", "main", "test"] = [
        {"question": "In both?", "answer": "#### 3"},
        {"question": "Bad", "answer": "x"},
    ]
    hub["openai/gsm8k", "main", "train"] = [{"question": f"Q{i}?", "answer": "#### 1"} for i in range(9)] + [
        {"question": "in both?", "answer": "#### 3"}
    ]
    task = get_task("gsm8k")
    test, train = task.load(LoadRequest("test")), task.load(LoadRequest("train"))
    assert [e.id for e in test.examples] == ["gsm8k/test/0"]
    assert test.skipped[0].startswith("openai/gsm8k[test]:1: 'answer' ends in")
    assert len(train.examples) == 9
    assert "questions removed because they are also in test: 1" in train.notes[0]
    dev = task.load(LoadRequest("dev", disjoint=True))  # no dev split there: a part of train
    assert_disjoint(task.load(LoadRequest("train", disjoint=True)).examples, dev.examples)


@pytest.mark.parametrize(
    ("name", "options", "key", "rows", "question", "answer"),
    [
        ("svamp", {}, ("ChilleD/SVAMP", None, "test"), {"Body": "A.", "Question": "B?", "Answer": "145"}, "A. B?", "145"),
        ("aqua", {}, ("deepmind/aqua_rat", "raw", "test"),
         {"question": "Q", "options": ["A)1", "B)2"], "correct": "B"}, "Q", "B"),
        ("mathqa", {}, ("regisss/math_qa", None, "test"), {"Problem": "Q", "options": "a ) 1 , b ) 2", "correct": "a"}, "Q", "A"),
        ("arc", {}, ("allenai/ai2_arc", "ARC-Challenge", "test"),
         {"id": "x", "question": "Q", "choices": {"text": ["1", "2"], "label": ["1", "2"]}, "answerKey": "2"}, "Q", "B"),
        ("arc", {"subset": "easy"}, ("allenai/ai2_arc", "ARC-Easy", "test"),
         {"id": "x", "question": "Q", "choices": {"text": ["1", "2"], "label": ["A", "B"]}, "answerKey": "A"}, "Q", "A"),
        ("mmlu", {}, ("cais/mmlu", "all", "test"),
         {"question": "Q", "subject": "anatomy", "choices": list("wxyz"), "answer": 3}, "Q", "D"),
        ("mmlu", {"subject": "anatomy"}, ("cais/mmlu", "anatomy", "test"),
         {"question": "Q", "subject": "anatomy", "choices": list("wxyz"), "answer": 0}, "Q", "A"),
    ],
)  # fmt: skip
def test_every_task_asks_for_its_dataset(hub, name, options, key, rows, question, answer):
    hub[key] = [rows]
    example = get_task(name, options).load(LoadRequest("test", options=options)).examples[0]
    assert (example.question, example.answer) == (question, answer)


def test_wiki_articles_from_lines(hub):
    lines = [
        "",
        " = One = \n",
        "",
        " First words stand here for everybody to read . \n",
        " = Two = \n",
        " Other words too . \n",
    ]
    hub["Salesforce/wikitext", "wikitext-103-raw-v1", "test"] = [{"text": line} for line in lines]
    examples = get_task("wiki").load(LoadRequest("test", options={"context_tokens": 2, "target_tokens": 2})).examples
    assert [(e.id, e.question, e.answer) for e in examples] == [
        ("wiki/test/One", "First words", "stand here"),
        ("wiki/test/Two", "Other words", "too."),
    ][: len(examples)]
    assert examples[0].id == "wiki/test/One"


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("letter", {"question": "Q", "answer": "y", "choices": ["x", "y"]}),
        ("number", {"question": "Q", "answer": "1,200"}),
        ("text", {"question": "Q", "answer": "Paris"}),
    ],
)
def test_the_kind_of_answers_on_the_hub_is_chosen_by_looking_and_said(hub, kind, row):
    """As of a file: without `data.answer_kind` texts and letters would all be skipped as numbers that they are not."""
    hub[f"org/{kind}", None, "train"] = [{**row, "question": f"{i}?"} for i in range(9)]
    config = build_config({"task": "custom", "data": {"hub": f"org/{kind}"}})
    found = load_examples(config, task_of(config), "train")
    assert len(found.examples) > 0
    assert not found.skipped
    assert f"answers are read as kind {kind!r}" in found.notes[0]
    assert with_kind(config).data.answer_kind == kind


def test_a_hub_that_is_not_there_is_asked_once_for_the_kind_of_its_answers(hub):
    hub["org/away", None, "train"] = error = ConnectionError("Couldn't reach the Hub")
    config = build_config({"task": "custom", "data": {"hub": "org/away"}})
    with pytest.raises(UserError, match="org/away: the Hub cannot be reached from here") as caught:
        task_of(config)
    assert caught.value.__cause__ is error


class DatasetNotFoundError(FileNotFoundError):
    pass


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionError("Couldn't reach the Hub"), "the Hub cannot be reached from here"),
        (
            ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub (LocalEntryNotFoundError)"),
            "the Hub cannot be reached from here",
        ),
        (
            DatasetNotFoundError("Dataset 'x' is a gated dataset on the Hub. Visit …"),
            "gated or private; accept its terms",
        ),
        (DatasetNotFoundError("Dataset 'x' doesn't exist on the Hub or cannot be accessed."), "not found on the Hub"),
        (
            RuntimeError("Dataset scripts are no longer\nsupported"),
            "cannot be loaded from the Hub (RuntimeError: Dataset scripts are no longer supported)",
        ),
    ],
)
def test_failures_are_one_line_that_names_the_way_out(hub, error, reason):
    hub["openai/gsm8k", "main", "test"] = error
    with pytest.raises(UserError) as caught:
        get_task("gsm8k").load(LoadRequest("test"))
    message = str(caught.value)
    assert message.startswith("openai/gsm8k: ")
    assert reason in message
    assert "--data PATH" in message
    assert "\n" not in message


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="needs the `datasets` package; or give --data PATH"):
        get_task("gsm8k").load(LoadRequest("test"))


def test_a_dataset_of_ones_own_on_the_hub(hub):
    hub["me/quiz", "hard", "train"] = [{"ask": f"{i}+1?", "gold": i + 1} for i in range(9)]
    hub["me/quiz", "hard", "validation"] = [{"ask": "20+1?", "gold": "21"}]
    source, columns = HubSource("me/quiz", "hard"), {"question": "ask", "answer": "gold"}
    task = get_task("custom", columns)
    dev = task.load(LoadRequest("dev", hub=source, options=columns))
    assert [(e.id, e.question, e.answer) for e in dev.examples] == [("custom/dev/0", "20+1?", "21")]
    assert len(task.load(LoadRequest("train", hub=source, options=columns)).examples) == 9
    other = get_task("gsm8k").load(LoadRequest("dev", hub=source, columns=columns))  # the columns of a built-in task
    assert other.examples[0].answer == "21"
    hub.clear()
    hub["me/quiz", "hard", "part1"] = []
    with pytest.raises(UserError, match="me/quiz: its splits are part1; none is named train, validation or test"):
        task.load(LoadRequest("dev", hub=source, options=columns))
