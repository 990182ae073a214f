"""Evaluation and studies of chains on a tiny random model: what they compute, not how well the model does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from markovlm.analysis.chains import PARTS, study_chains
from markovlm.analysis.fragility import Plan
from markovlm.chains.controls import CONTROLS
from markovlm.cli.main import main
from markovlm.errors import UserError
from markovlm.evaluation.chain_run import at_length, chain_report, evaluate_chain_targets
from markovlm.runs.rows import read_rows
from markovlm.runs.targets import Target, open_targets
from markovlm.training.loop import train
from support import tiny

KEYS = {
    "task": "ledger", "task_options": {"chunks": 3}, "chain__kind": "notes_then_questions", "rollouts__max_cot_tokens": 6,
    "training__steps": 1, "loading__dtype": "float32", "training__eval_every": 1, "evaluation__dev_size": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("chains") / "run"
    train(tiny.config(tiny_models["llama"], **KEYS), out, check=False)
    return out


def target(run: Path) -> Target:
    return open_targets(str(run), "last", {})[0]


def test_every_control_is_measured_on_the_same_questions(run: Path, tmp_path: Path) -> None:
    one = target(run)
    results = evaluate_chain_targets([one], "test", 4, tmp_path, lengths=[2, 5])
    report = chain_report(one.config, "test", results)
    (row,) = report["results"]
    answers = row["predicted"]["answer"]
    assert set(answers) == {"own", *CONTROLS}
    assert {of["n"] for of in answers.values()} == {8}  # two questions a ledger
    assert [by["t"] for by in row["predicted"]["next_chunk"]["own"]["by_t"]] == [1, 2]
    assert sum(by["n"] for by in answers["own"]["by_distance"]) == 8
    own = answers["own"]["logprob"]
    assert answers["nothing"]["versus_own"]["logprob"] == pytest.approx(own - answers["nothing"]["logprob"])
    assert len({of["logprob"] for of in answers.values()}) == len(answers)  # no control is another one
    assert [(length["chunks"], length["states"]["written"]) for length in report["lengths"]] == [(2, 8), (5, 20)]
    assert all(length["states"]["max_tokens"] <= 6 for length in report["lengths"])
    kept = read_rows(tmp_path / f"chains-{row['checkpoint']}-test.jsonl")
    assert len([r for r in kept if r["kind"] == "state"]) == 4
    assert json.loads((run / "evals.jsonl").read_text().splitlines()[-1])["role"] == "test"


def test_damage_of_severity_zero_changes_nothing_and_damage_is_felt_later(run: Path, tmp_path: Path) -> None:
    plan = Plan(("other_cot", "truncate_back"), (1.0,))
    result, (data, page) = study_chains(target(run), "test", 4, tuple(PARTS), plan, tmp_path, None)
    rows = result["damage"]["rows"]
    nothing = [row for row in rows if row["severity"] == 0]
    assert nothing
    assert all(row["drop_logprob"]["mean"] == pytest.approx(0, abs=1e-5) for row in nothing)
    assert all(row["state_differs"]["mean"] == 0 for row in nothing if row["state_differs"])
    assert {row["lag"] for row in rows if row["predicted"] == "answer"} == {0, 1, 2}
    felt = [row for row in rows if row["severity"] == 1 and row["lag"] == 1]
    assert any(abs(row["drop_logprob"]["mean"]) > 1e-3 for row in felt)
    assert len(result["words"]["texts"]) == 4
    questions = result["facts"]["questions"]
    assert len(questions) == 8
    assert all([known["t"] for known in question["known"]] == [1, 2, 3] for question in questions)
    assert json.loads(data.read_text())["n"] == 4
    html = page.read_text()
    assert "<script" not in html
    assert "Facts that enter, stay and leave" in html


def test_a_text_of_ones_own(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ledger.txt"
    file.write_text("ann+3 bob+2\n\nbob+1\n")
    assert main(["ask", str(run), "bob?", "--text", str(file), "--json"]) == 0
    asked = json.loads(capsys.readouterr().out)
    assert asked["chunks"] == ["ann+3 bob+2", "bob+1"]
    assert len(asked["states"]) == 2
    assert asked["answer"] is not None
    for arguments in (["bob?"], ["--text", str(tmp_path / "none")], []):
        assert main(["ask", str(run), *arguments]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_what_chains_have_no_use_for_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 2 chunks"):
        at_length(target(run), 1)
    for arguments in (
        ["eval", str(run), "--no-cot"],
        ["eval", str(run), "--lengths", "a"],
        ["explain", str(run), "--question", "x"],
    ):
        assert main(arguments) == 2
