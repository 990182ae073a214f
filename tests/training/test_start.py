"""What can be known before a run is known before its directory is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from markovlm.cli import main
from markovlm.training import start


def questions(path: Path, *texts: str) -> str:
    path.write_text("".join(json.dumps({"question": t, "answer": str(i)}) + "\n" for i, t in enumerate(texts * 8)))
    return str(path)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--prompt.style", "compact"), "this model has no token for 'What'"),
        (("--prompt.style", "chat"), "chat needs a tokenizer with a chat template"),
        (("--option", "question=text"), "q.jsonl:1: no 'text'; the row has 'question'"),
    ],
)
def test_a_start_that_fails_leaves_nothing(
    flags: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = questions(tmp_path / "q.jsonl", *(f"What is {i}+{i}" for i in range(12)))
    out = tmp_path / "run"
    command = ["train", "--task", "custom", "--data", data, "--model", "embedded", "--out", str(out), *flags]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_questions_of_ones_own_train_on_the_embedded_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In plain style, with a warning of what it can't see; sums in the style it knows."""
    short = [
        "--training.steps",
        "1",
        "--training.eval_every",
        "0",
        "--rollouts.group_size",
        "2",
        "--rollouts.max_cot_tokens",
        "4",
    ]
    for name, texts, style in (("words", ("What is 2+2", "Who is 3"), "plain"), ("sums", ("2+2", "4+5+6"), "compact")):
        data, out = questions(tmp_path / f"{name}.jsonl", *(f"{t}+{i}" for i in range(12) for t in texts)), tmp_path / name
        assert main(["train", "--task", "custom", "--data", data, "--model", "embedded", "--out", str(out), *short]) == 0
        assert f"style: {style}" in (out / "config.yaml").read_text()
        warned = "have words that this model has no token for" in capsys.readouterr().err
        assert warned is (style == "plain")


def test_a_sampler_that_lies_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_models: dict[str, Path]
) -> None:
    from markovlm.errors import RunFailed

    def lying(*_: object) -> float:
        raise RunFailed("the sampler's log-probs differ")

    monkeypatch.setattr(start, "check_sampler", lying)
    assert main(["train", "--model", str(tiny_models["llama"]), "--out", str(tmp_path / "run")]) == 1
    assert not (tmp_path / "run").exists()
