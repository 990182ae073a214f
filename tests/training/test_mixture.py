"""Several tasks in one run: drawn by weight, evaluated apart, resumed bit for bit."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from markovlm.cli.main import cli
from markovlm.config import build_config, dump_yaml
from markovlm.errors import UserError
from markovlm.health import diagnose
from markovlm.health.monitor import judge
from markovlm.logs.find import read_run
from markovlm.report import write_report
from markovlm.runs.asking import parts_of, task_of
from markovlm.runs.rows import read_rows
from markovlm.tasks.base import Example
from markovlm.training.loop import train
from markovlm.training.plan import plan
from markovlm.training.questions import MixedQuestions
from support import runs

WEIGHTS = {"gsm8k": 2.0, "svamp": 1.0}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    numbers = range(40)
    rows = {
        "gsm8k": [{"question": f"{i}+1?", "answer": f"so #### {i + 1}"} for i in numbers],
        "custom": [{"ask": f"Which of {i}?", "gold": "ab"[i % 2], "a": f"x{i}", "b": f"y{i}"} for i in numbers],
    }
    for name, of_task in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of_task))
    return {name: folder / f"{name}.jsonl" for name in rows}


def mixed(model: Path, files: dict[str, Path], **more: Any) -> Any:
    custom = {
        "path": str(files["custom"]),
        "columns": {"question": "ask", "answer": "gold", "choices": "a,b"},
        "answer_kind": "letter",
    }
    config = runs.run_config(model, training__steps=4, rollouts__questions_per_step=3, **more)
    layer = {**config.model_dump(mode="json"), "tasks": {"gsm8k": {"weight": 2, "path": str(files["gsm8k"])}, "custom": custom}}
    return build_config(layer)


@pytest.fixture(scope="module")
def run(tiny_models: dict[str, Path], files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside it what a crash would have left behind the row of step 4."""
    out = tmp_path_factory.mktemp("mixed") / "run"
    train(mixed(tiny_models["llama"], files), out, check=False, progress=runs.CopyAfter(out, {4: out.parent / "crashed"}))
    return out


def test_tasks_are_drawn_by_weight_each_in_its_own_order() -> None:
    parts = {name: [Example(f"{name}/{i}", "q", "1") for i in range(50)] for name in WEIGHTS}
    drawn = MixedQuestions(parts, WEIGHTS, seed=3)
    names = Counter(drawn[i].id.partition("/")[0] for i in range(6000))
    assert names["gsm8k"] / 6000 == pytest.approx(2 / 3, abs=0.02)  # three standard errors are 0.018
    for name in parts:  # an epoch of each has every question once
        first = [q.id for i in range(400) if (q := drawn[i]).id.startswith(name)][:50]
        assert len(set(first)) == 50
    again = MixedQuestions(parts, WEIGHTS, seed=3)
    assert [again[i].id for i in (5999, 17, 4096)] == [drawn[i].id for i in (5999, 17, 4096)]  # whatever was asked before
    assert [MixedQuestions(parts, WEIGHTS, seed=4)[i].id for i in range(20)] != [drawn[i].id for i in range(20)]


def test_a_run_has_both_tasks_and_evaluates_them_apart(run: Path) -> None:
    asked = Counter(row["question_id"].partition("/")[0] for row in read_rows(run / "samples.jsonl"))
    assert set(asked) == {"gsm8k", "custom"}
    rows = list(read_rows(run / "evals.jsonl"))
    first = [row for row in rows if row["step"] == 0]
    assert [row["how"].get("task") for row in first] == ["gsm8k", "custom", None]
    assert [row["n"] for row in first] == [4, 4, 8]
    assert list(first[0]["extractors"]) == ["final_number", "anchor", "simple", "math_verify"]
    assert list(first[1]["extractors"]) == ["final_letter", "word_boundary", "legacy", "likelihood"]
    right = sum(row["accuracy"] * row["n"] for row in first[:2])
    assert first[2]["accuracy"] == pytest.approx(right / 8)
    assert first[2]["logprob"] == pytest.approx(sum(row["logprob"] for row in first[:2]) / 2)


def test_the_guard_and_hindsight_judge_all_tasks_together(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = max((run / "checkpoints").iterdir())
    kept = json.loads((last / "trainer_state.json").read_text())["guard"]["monitor"]["evaluations"]
    pooled = [[row["step"], row["accuracy"], row["n"]] for row in read_rows(run / "evals.jsonl") if "task" not in row["how"]]
    assert kept == pooled
    assert {n for _, _, n in kept} == {8}
    seen: list[Any] = []
    monkeypatch.setattr(diagnose, "judge", lambda rows, measured: seen.extend(measured) or judge(rows, measured))
    diagnose.judge_run(read_run(run))
    assert [[m.step, m.accuracy, m.n] for m in seen] == pooled


def test_a_resumed_mixture_is_the_same_run(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run.parent / "crashed", tmp_path / "run")
    runs.resume(tmp_path / "run", check=False)
    runs.assert_same_run(tmp_path / "run", run)


def test_eval_and_report_show_each_task(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["eval", str(run), "--limit", "3", "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)["tasks"]
    assert [report["results"][0]["n"] for report in (found["gsm8k"], found["custom"])] == [3, 3]
    assert not any("trained on" in line for report in found.values() for line in report["warnings"])
    tests = [row for row in read_rows(run / "evals.jsonl") if row["role"] == "test"]
    assert [row["how"]["task"] for row in tests] == ["gsm8k", "custom"]
    one = CliRunner().invoke(cli, ["eval", str(run), "--task", "custom", "--limit", "3", "--json"], catch_exceptions=False)
    assert json.loads(one.stdout)["results"] == found["custom"]["results"]
    text = write_report([run], tmp_path / "report").markdown.read_text()
    assert all(f"dev, {task}" in text for task in ("gsm8k", "custom"))


def test_the_configuration_survives_and_says_what_is_wrong(run: Path, files: dict[str, Path]) -> None:
    config = build_config({"tasks": {"gsm8k": 2, "svamp": 1}})
    assert (config.task, config.tasks["gsm8k"].weight) == ("gsm8k+svamp", 2.0)
    assert build_config(json.loads(json.dumps(config.model_dump(mode="json")))) == config
    assert "weight: 2.0" in dump_yaml(config)
    assert {name: part.task for name, part in parts_of(config).items()} == {"gsm8k": "gsm8k", "svamp": "svamp"}
    planned = plan(build_config({"tasks": {"gsm8k": {"weight": 2, "path": str(files["gsm8k"])}, "arithmetic": 1}}))
    assert planned["splits"]["arithmetic train"] is None
    assert planned["splits"]["gsm8k train"] == 24
    for layer, words in (
        ({"tasks": {"gsm8k": 0, "svamp": 1}}, "tasks.gsm8k.weight"),
        ({"tasks": {"gsm8k": 1}}, "for a single one use --task"),
        ({"tasks": {"gsm8k": 1, "svamp": 1}, "data": {"path": "x"}}, "are for a single task"),
        ({"tasks": {"gsm8k": {"path": "x", "hub": "y"}, "svamp": 1}}, "two sources"),
    ):
        with pytest.raises(UserError, match=words):
            build_config(layer)
    with pytest.raises(UserError, match="no task 'gms8k'"):
        task_of(build_config({"tasks": {"gms8k": 1, "svamp": 1}}))
    with pytest.raises(UserError, match=r"task_options\.max_terms: none of the tasks gsm8k"):
        task_of(build_config({"tasks": {"gsm8k": 1, "svamp": 1}, "task_options": {"max_terms": 3}}))
