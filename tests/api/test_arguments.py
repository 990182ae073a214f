"""Nonsense given to the Python API is a UserError in one line, and leaves nothing behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import markovlm
from markovlm import UserError
from markovlm.cli import main
from support import tiny

GOOD = {"question": "1+2", "answer": "3"}
Call = Callable[[], Any]


@pytest.fixture(scope="module")
def model() -> markovlm.Model:
    return markovlm.load("embedded")


def refused(call: Call, said: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert re.search(said, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"questions": "17+4+79"}, r"^questions: must be a list of strings or Examples, not '17\+4\+79'$"),
        ({"questions": ["1+2", 3]}, r"^questions: must be a list of strings or Examples, but \[1\] is 3$"),
        ({"n": 0}, "^n 0: must be at least 1$"),
        ({"n": -1}, "^n -1: must be at least 1$"),
        ({"n": 2.5}, r"^n 2\.5: must be a whole number, at least 1$"),
        ({"temperature": -1}, "^temperature -1: must be a finite number"),
        ({"temperature": float("nan")}, "^temperature nan: must be a finite number"),
        ({"temperature": float("inf")}, "^temperature inf: must be a finite number"),
        ({"temperature": "hot"}, "^temperature 'hot': must be a finite number"),
        ({"max_tokens": 0}, "^max_tokens 0: must be at least 1$"),
        ({"max_tokens": -1}, "^max_tokens -1: must be at least 1$"),
    ],
)
def test_sample(model: markovlm.Model, given: dict[str, Any], said: str) -> None:
    refused(lambda: model.sample(**{"questions": ["1+2"], **given}), said)


def test_sample_takes_the_smallest_numbers_and_those_of_numpy(model: markovlm.Model) -> None:
    [group] = model.sample(("1+2",), n=np.int64(2), max_tokens=1, temperature=np.float32(0))
    assert [len(thought.ids) <= 1 for thought in group] == [True, True]
    assert model.sample([]) == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: m.read("1+2=3"), "^thoughts: must be a list of Thoughts or strings, not '1"),
        (lambda m: m.read([3]), r"^thoughts: .* but \[0\] is 3$"),
        (lambda m: m.read(["a", "b"], "21"), "^answers: must be a list of strings, not '21'$"),
        (lambda m: m.read(["a"], [21]), r"^answers: .* but \[0\] is 21$"),
        (lambda m: m.ask(3), "^question 3: must be a string$"),
        (lambda m: m.ask_text(3), "^text 3: must be a string$"),
        (lambda m: m.examples(limit=0), "^limit 0: must be at least 1$"),
        (lambda m: m.examples(limit="3"), "^limit '3': must be a whole number"),
    ],
)
def test_the_other_methods_of_a_model(model: markovlm.Model, call: Callable[[Any], Any], said: str) -> None:
    refused(lambda: call(model), said)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: markovlm.load("embedded", config="x.yaml"), "^config: must be a mapping of keys, not 'x.yaml'$"),  # type: ignore
        (lambda: markovlm.configure([1]), r"^config: must be a mapping of keys, not \[1\]$"),  # type: ignore
        (lambda: markovlm.evaluate("embedded", limit="2"), "^--limit '2': must be a whole number"),  # type: ignore
        (lambda: markovlm.evaluate("embedded", checkpoints=[100]), r"^--checkpoints \[100\]: must be a string such as"),  # type: ignore
        (lambda: markovlm.evaluate("embedded", lengths="12"), "^--lengths: must be a list of numbers of chunks, not '12'$"),  # type: ignore
        (
            lambda: markovlm.perturb("embedded", perturbations="delete"),
            "^--perturbations: must be a list of names, not 'delete'$",
        ),
        (lambda: markovlm.perturb("embedded", severities=0.5), r"^--severities: must be a list of numbers, not 0\.5$"),  # type: ignore
        (lambda: markovlm.perturb("embedded", severities=["0.5"]), r"^--severities: .* but \[0\] is '0\.5'$"),  # type: ignore
        (lambda: markovlm.perturb("embedded", limit=-1), "^--limit -1: must be at least 1$"),
        (lambda: markovlm.transfer("embedded", "gpt2"), "^--readers: must be a list of models, not 'gpt2'$"),
        (lambda: markovlm.explain("embedded", "1+2", by="tokens"), "^--by tokens: must be token, word or sentence$"),
        (lambda: markovlm.explain("embedded", "1+2", cots=0), "^--cots 0: must be at least 1$"),
        (lambda: markovlm.audit([], "embedded"), "^files: nothing to audit"),
        (lambda: markovlm.audit([1], "embedded"), r"^files: must be a list of paths, but \[0\] is 1$"),  # type: ignore
        (lambda: markovlm.audit(__file__, "embedded", only="damage"), "^--only: must be a list of parts, not 'damage'$"),
        (lambda: markovlm.audit(__file__, "embedded", perturbations="delete"), "^--perturbations: must be a list of names"),
        (lambda: markovlm.diagnose([1, 2]), r"^diagnose: must be a list of paths, or of metric rows, but \[0\] is 1$"),  # type: ignore
        (lambda: markovlm.diagnose({"step": 1}), "^diagnose: must be a list of paths, or of metric rows, not {'step': 1}$"),  # type: ignore
        (lambda: markovlm.diagnose(["x", {"step": 1}]), r"^diagnose: must be .* alone, but \[1\] is {'step': 1}$"),  # type: ignore
        (lambda: markovlm.diagnose("x", columns=3), "^columns: must be a list of strings such as"),  # type: ignore
        (lambda: markovlm.write_report([], "out"), "^write_report: nothing to report on"),
        (lambda: markovlm.write_report([1], "out"), r"^write_report: must be a list of paths, but \[0\] is 1$"),  # type: ignore
    ],
)
def test_the_functions(call: Call, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(call, said)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------ nothing left


@pytest.mark.parametrize(
    ("questions", "said"),
    [
        ([GOOD, 3], r"^questions: must be a list of mappings with question and answer, or of Examples, but \[1\] is 3$"),
        ("1+2", "^questions: must be a list"),
        (GOOD, "^questions: must be a list"),
        ([], "^questions: the list is empty$"),
        ([GOOD, {"question": "1+2"}], r"^questions\[1\]: has no answer$"),
        ([{**GOOD, "answer": np.int64(3)}], r"^questions\[0\]: can't be written as JSON"),
        ([{**GOOD, "answer": "x"}] * 5, "'answer' is 'x', expected a number"),  # found when they are loaded
    ],
)
def test_refused_questions_leave_nothing(questions: Any, said: str, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"training__steps": 1, "data__answer_kind": "number"}
    refused(lambda: markovlm.train(questions=questions, out=tmp_path / "run", **keys), said)
    assert list(tmp_path.iterdir()) == []


def test_refused_questions_leave_what_others_have_there(tmp_path: Path) -> None:
    """A directory with something in it is no place for a run; one that another process has locked is that one's."""
    (tmp_path / "mine.txt").write_text("kept")
    refused(lambda: markovlm.train(questions=[GOOD], out=tmp_path), "is not empty")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    from markovlm.runs.directory import RunDirectory

    other = RunDirectory(tmp_path / "run")
    other.create()
    with other.locked():
        refused(lambda: markovlm.train(questions=[GOOD], out=other.path), "another process is training this run")
        assert {path.name for path in other.path.iterdir()} == {".lock", "checkpoints", "questions.jsonl"}


def test_questions_that_are_good_are_kept(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    config = tiny.config(tiny_models["llama"], training__steps=1).model_dump(mode="json", exclude={"task"})
    rows = [{"question": f"{i}+2", "answer": str(i + 2)} for i in range(40)]
    done = markovlm.train(config, tmp_path / "run", questions=rows, training__eval_every=0)
    assert len((done.run / "questions.jsonl").read_text().splitlines()) == 40


def test_a_report_on_nothing_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "nothere"), "-o", str(tmp_path / "out")]) == 2
    assert "no such file or directory" in capsys.readouterr().err
    (tmp_path / "log.jsonl").write_text('{"step": 1, "reward_mean": 0.5}\n')
    assert main(["report", str(tmp_path / "log.jsonl"), "-o", str(tmp_path / "out"), "--map", "reward=nowhere"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
