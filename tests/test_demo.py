"""`markovlm demo --words` from end to end, with two steps and few questions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from markovlm import demo
from markovlm.cli.main import main
from markovlm.models.registry import KNOWN


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The demo with two steps and few questions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "TEST_QUESTIONS", 6)
    monkeypatch.setattr(demo, "STUDIED_QUESTIONS", 6)
    monkeypatch.setattr(demo, "STUDIED_DAMAGE", demo.Plan(("delete",), (0.2, 0.6, 1.0)))
    defaults = KNOWN["embedded-words"].defaults
    monkeypatch.setitem(defaults, "training", {**defaults["training"], "steps": 2, "eval_every": 0, "checkpoint_every": 2})
    monkeypatch.setitem(defaults, "rollouts", {**defaults["rollouts"], "questions_per_step": 2, "group_size": 2})
    return tmp_path


def test_the_demo_in_words(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--words", "--out", "run", "--device", "cpu"]) == 0
    output = capsys.readouterr().out
    for text in ("Accuracy from the CoT alone", "before", "after", "what does the answer follow?", "stays with the question"):
        assert text in output, text
    assert "2 steps" in output
    assert "markovlm ask run '" in output  # a question in words, quoted for the shell

    results = {path.name.split("-")[1]: json.loads(path.read_text()) for path in (short / "run/loadbearing").glob("interv*.json")}
    assert set(results) == {"base", "step"}  # before and after
    for result in results.values():
        assert result["cots"] == 6
        for example in result["examples"]:
            assert set(example["answers"]) == {"question hidden", "sees the question"}
            assert example["changed"] != example["cot"]
