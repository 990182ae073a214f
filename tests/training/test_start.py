"""What can be known before a run is known before its directory is there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from markovlm.cli import main
from markovlm.runs.rows import read_rows
from markovlm.tasks.base import Example
from markovlm.training import loop, start
from markovlm.training.records import Learner, StepResult
from support import runs, tiny


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


def test_a_question_that_comes_late_is_found_at_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Behind the first 64: all that will be asked are put to the model beforehand, and no others."""
    data, out = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    rows = [{"question": f"{i}+{i}", "answer": str(2 * i)} for i in range(120)]
    for split, part in (("dev", rows[:10]), ("test", rows[10:20]), ("train", rows[20:])):
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    bad = {"question": "1+<|answer|>2", "answer": "3"}
    with (data / "train.jsonl").open("a") as file:
        file.write(json.dumps(bad) + "\n")
    sizes = ["--rollouts.group_size", "2", "--rollouts.questions_per_step", "4", "--rollouts.max_cot_tokens", "3"]
    command = [
        "train",
        "--task",
        "custom",
        "--data",
        str(data),
        "--model",
        "embedded",
        "--out",
        str(out),
        "--training.eval_every",
        "0",
        *sizes,
    ]
    assert main([*command, "--training.steps", "26"]) == 2  # an epoch and a little
    error = capsys.readouterr().err
    assert "train" in error
    assert "the question has <|answer|>, a token of the prompt" in error
    assert error.count("\n") == 1
    assert not out.exists()
    assert main([*command, "--training.steps", "1", "--seed", "1"]) == 0


def test_whatever_ends_a_step_the_steps_before_it_are_kept(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    take_step = loop.take_step

    def broken(learner: Learner, questions: Sequence[Example], step: int) -> StepResult:
        if step == 4:
            raise ZeroDivisionError("somebody's plug-in")
        return take_step(learner, questions, step)

    monkeypatch.setattr(loop, "take_step", broken)
    config = tiny.config(tiny_models["llama"], training__steps=5, training__checkpoint_every=100)
    with pytest.raises(ZeroDivisionError):
        loop.train(config, out)
    failed = read_rows(out / "events.jsonl")[-2:]
    assert [(row["kind"], row["step"]) for row in failed] == [("failed", 3), ("checkpoint", 3)]
    assert failed[0]["message"] == "ZeroDivisionError: somebody's plug-in"
    monkeypatch.setattr(loop, "take_step", take_step)
    assert runs.resume(out).steps == 5


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
