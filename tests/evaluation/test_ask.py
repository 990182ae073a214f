"""One question of the user's own, also of multiple-choice tasks: on the command line, as text, as an Example."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import markovlm
from markovlm.cli.main import main
from markovlm.errors import UserError
from markovlm.tasks.base import Example

SMALL = {"rollouts": {"max_cot_tokens": 4}, "loading": {"device": "cpu"}}


@pytest.fixture(scope="module")
def letters(tiny_models: dict[str, Path]) -> Any:
    return markovlm.load(tiny_models["llama"], config={"task": "arc", "objective": {"answer_end": "open"}, **SMALL})


def test_a_multiple_choice_question_is_asked_in_three_ways(letters: Any) -> None:
    """The same question gets the same CoT and likelihoods whichever way its choices come."""
    apart = letters.ask("Which is a metal?", ["iron", "wood", "glass"])
    assert apart.choices == ("iron", "wood", "glass")
    assert set(apart.choice_logprobs) == {"A", "B", "C"}
    assert apart.answer in (None, "A", "B", "C")
    assert (apart.correct, apart.logprob) == (None, None)
    listed = letters.ask("Which is a metal?\nA. iron\nB. wood\nC. glass")
    example = letters.ask(Example("ask", "Which is a metal?", "C", ("iron", "wood", "glass")))
    for other in (listed, example):
        assert (other.cot, other.raw_answer, other.choices) == (apart.cot, apart.raw_answer, apart.choices)
        assert other.choice_logprobs == pytest.approx(apart.choice_logprobs)
    assert example.correct == (example.answer == "C")
    # one token a character: " C" is two tokens, and ln pi(C | CoT) of a choice is their sum
    assert 2 * example.logprob == pytest.approx(example.choice_logprobs["C"], abs=1e-5)


def test_without_choices_it_is_one_line(letters: Any) -> None:
    with pytest.raises(UserError, match="multiple choice, and this question has no choices"):
        letters.ask("Which is a metal?")


def test_the_command(tiny_models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--task", "arc", "--rollouts.max_cot_tokens", "4", "--device", "cpu"]
    command = ["ask", str(tiny_models["llama"]), "Which is a metal?", *flags]
    assert main([*command, "--choice", "iron", "--choice", "wood", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["choices"] == ["iron", "wood"]
    assert set(found["choice_logprobs"]) == {"A", "B"}
    assert main([*command, "--choice", "iron", "--choice", "wood"]) == 0
    assert "B  wood" in capsys.readouterr().out
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "--choice TEXT" in error
    assert error.count("\n") == 1


def test_a_number_task_is_asked_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    model = markovlm.load("embedded")
    known = model.ask(Example("ask", "17+4+79", "100"))
    assert known.correct == (known.answer == "100")
    assert known.logprob is not None
    unknown = model.ask("17+4+79")
    assert (unknown.cot, unknown.answer, unknown.correct, unknown.logprob) == (known.cot, known.answer, None, None)
    with pytest.raises(UserError, match="leave them out"):
        model.ask("17+4+79", ["1", "2"])
    with pytest.raises(UserError, match="does not know"):
        model.ask("17+4+\N{CYRILLIC SMALL LETTER ZHE}")


def test_explain_takes_choices_too(tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--task", "arc", "--rollouts.max_cot_tokens", "4", "--device", "cpu", "--out", str(tmp_path / "out"), "--json"]
    command = ["explain", str(tiny_models["llama"]), "--question", "Which is a metal?", *flags]
    assert main(command) == 2
    assert "--choice TEXT" in capsys.readouterr().err
    assert main([*command, "--choice", "iron", "--choice", "wood"]) in (0, 1)  # 1: random weights may answer nothing
    out, err = capsys.readouterr()
    assert "nothing to explain" in err or json.loads(out)["attributions"][0]["choices"] == ["iron", "wood"]
    assert main(["explain", str(tiny_models["llama"]), "--choice", "iron", *flags]) == 2
