"""Evaluation and studies of chains on a tiny random model: what they compute, not how well the model does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from markovlm.analysis import chains as analysis
from markovlm.analysis.chain_study import open_chain_study
from markovlm.analysis.chains import PARTS, study_chains
from markovlm.analysis.perturb import Plan
from markovlm.chains.controls import CONTROLS
from markovlm.cli.main import main
from markovlm.errors import UserError
from markovlm.evaluation import chains
from markovlm.evaluation.chain_run import at_length, chain_report, evaluate_chain_targets
from markovlm.health.series import evaluation_groups
from markovlm.logs.find import read_run
from markovlm.runs.rows import read_rows
from markovlm.runs.targets import Target, open_targets
from markovlm.training.loop import train
from support import runs, tiny

KEYS = {
    "task": "ledger", "task_options": {"chunks": 3}, "chain__kind": "notes_then_questions", "rollouts__max_cot_tokens": 6,
    "training__steps": 1, "loading__dtype": "float32", "training__eval_every": 1, "evaluation__dev_size": 2, "evaluation__batch_size": 2,
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
    (kept,) = (
        read_rows(path) for path in tmp_path.glob(f"chains-{row['checkpoint']}-test-*.jsonl") if "chunks-" not in path.name
    )
    assert len([r for r in kept if r["kind"] == "state"]) == 4
    assert json.loads((run / "evals.jsonl").read_text().splitlines()[-1])["role"] == "test"


def test_an_evaluation_of_something_else_is_not_taken_for_the_run_s_own(run: Path, tmp_path: Path) -> None:
    """Fewer questions add no row beside more; other texts, and another chain over the same ones, say in their row what they are."""
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "evals.jsonl").unlink()

    def test_rows(limit: int, **overrides: Any) -> list[dict[str, Any]]:
        some = open_targets(str(copy), "last", overrides)
        evaluate_chain_targets(some, "test", limit, tmp_path / "kept")
        return read_rows(copy / "evals.jsonl")

    for limit in (2, 2, 1):
        (own,) = test_rows(limit)
    assert (own["texts"], own["n"]) == (2, 4)
    assert not {"task", "chain"} & set(own["how"])
    for chunks in (4, 5, 5):
        other = test_rows(1, task_options={"chunks": chunks})[1:]
    assert [(row["how"]["task"], row["how"]["task_options"]) for row in other] == [("ledger", {"chunks": n}) for n in (4, 5)]
    (shorter,) = test_rows(2, chain={"state_tokens": 4}, rollouts={"max_cot_tokens": 4})[3:]
    assert shorter["how"]["chain"] == {"kind": "notes_then_questions", "state_tokens": 4}
    (series,) = (group for group in evaluation_groups(read_run(copy)) if not {"task", "chain"} & set(group[0].how))
    assert [(e.n, e.texts) for e in series] == [(4, 2)]


@contextmanager
def crashing(label: str, n: int) -> Iterator[Callable[[int], None]]:
    """Progress that ends the process after the second of three batches is written."""
    done: list[int] = []

    def advance(texts: int) -> None:
        done.append(texts)
        if len(done) == 3:  # what is known already comes first
            raise runs.Crash

    yield advance


def test_an_interrupted_evaluation_continues(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five texts in batches of two, ended after the second: the same rows and numbers in the end, and only the third is read then."""
    one = target(run)
    whole = evaluate_chain_targets([one], "test", 5, tmp_path / "whole")
    with pytest.raises(runs.Crash):
        evaluate_chain_targets([one], "test", 5, tmp_path / "cut", crashing)
    (file,) = (tmp_path / "cut").glob("*.jsonl")
    assert [row["number"] for row in read_rows(file) if row["kind"] == "batch"] == [0, 1]
    with open(file, "ab") as torn:  # of a third batch: a whole row and half of one
        torn.write(b'{"kind": "state", "text": "x", "states": [], "tokens": [], "signals": {}}\n{"kind": "rea')
    read: list[int] = []
    original = chains._evaluate_batch

    def watched(lm: Any, sampler: Any, prompter: Any, number: int, *rest: Any) -> Any:
        read.append(number)
        return original(lm, sampler, prompter, number, *rest)

    monkeypatch.setattr(chains, "_evaluate_batch", watched)
    continued = evaluate_chain_targets([one], "test", 5, tmp_path / "cut")
    assert read == [2]
    assert continued[0].evaluation.readings == whole[0].evaluation.readings
    assert continued[0].evaluation.traces == whole[0].evaluation.traces
    measured = ("seconds", "peak_memory")
    rows = [
        [{key: value for key, value in row.items() if key not in measured} for row in read_rows(next(folder.glob("*.jsonl")))]
        for folder in (tmp_path / "cut", tmp_path / "whole")
    ]
    assert rows[0] == rows[1]
    evaluate_chain_targets([one], "test", 5, tmp_path / "cut")
    assert read == [2]  # nothing is read again
    evaluate_chain_targets([one], "test", 2, tmp_path / "cut", non_markovian=True)
    assert len(list((tmp_path / "cut").glob("*.jsonl"))) == 2  # beside, not instead
    assert file.read_bytes().count(b"\n") == len(rows[0])


def test_no_pass_of_an_evaluation_grows_with_the_length_of_the_chains(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of chains of 9 chunks as of those of 3, at most `evaluation.batch_size` states are read at once; in one pass they read the same."""
    rows: list[int] = []
    original = chains.read_jobs

    def watched(lm: Any, sampler: Any, prompter: Any, jobs: Any, control: str) -> Any:
        rows.append(len(jobs))
        return original(lm, sampler, prompter, jobs, control)

    monkeypatch.setattr(chains, "read_jobs", watched)
    one = at_length(target(run), 9)
    few = evaluate_chain_targets([one], "test", 2, tmp_path / "few")[0].evaluation
    assert sum(rows) == len(few.readings) > 60
    assert max(rows) == 2
    monkeypatch.setattr(chains, "_read", _in_one_pass(chains._read))
    whole = evaluate_chain_targets([one], "test", 2, tmp_path / "whole")[0].evaluation
    assert max(rows) > 2
    assert [r.logprob for r in few.readings] == pytest.approx([r.logprob for r in whole.readings], abs=1e-5)
    assert [r.answer for r in few.readings] == [r.answer for r in whole.readings]


def _in_one_pass(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: original(*arguments[:-1], 10_000)


def test_damage_of_severity_zero_changes_nothing_and_damage_is_felt_later(run: Path, tmp_path: Path) -> None:
    plan = Plan(("other_cot", "truncate_back"), (1.0,))
    result, (data, page) = studied(run, tmp_path, plan)
    rows = result["damage"]["rows"]
    nothing = [row for row in rows if row["severity"] == 0]
    assert nothing
    assert all(row["drop_logprob"]["mean"] == 0 for row in nothing)
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


def studied(run: Path, folder: Path, plan: Plan, parts: tuple[str, ...] = PARTS) -> tuple[dict[str, Any], list[Path]]:
    one = target(run)
    setup = one.prepare()
    return study_chains(one, setup, one.load(setup, "test", 4), "test", parts, plan, folder, None)


def test_an_interrupted_study_continues(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage is kept cell by cell, and what an earlier call found stays."""
    whole, _ = studied(run, tmp_path / "whole", Plan(("delete", "other_cot"), (1.0,)), ("damage",))
    original, done = analysis.damage, []

    def crashing(study: Any, name: str, severity: float) -> Any:
        done.append((name, severity))
        if len(done) == 3:
            raise runs.Crash
        return original(study, name, severity)

    monkeypatch.setattr(analysis, "damage", crashing)
    with pytest.raises(runs.Crash):
        studied(run, tmp_path / "cut", Plan(("delete", "other_cot"), (1.0,)), ("damage",))
    continued, _ = studied(run, tmp_path / "cut", Plan(("delete", "other_cot"), (1.0,)), ("damage",))
    assert done == [("delete", 0.0), ("delete", 1.0), ("other_cot", 0.0), ("other_cot", 0.0), ("other_cot", 1.0)]
    assert continued == whole
    monkeypatch.setattr(analysis, "damage", None)
    more, _ = studied(run, tmp_path / "cut", Plan(), ("facts",))
    assert more["damage"] == whole["damage"]


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
        ["explain", str(run), "--how", "resample", "--question", "x"],
        ["explain", str(run), "--example", "none"],
    ):
        assert main(arguments) == 2


THINKING = {**KEYS, "task": "arithmetic", "task_options": {}, "chain__kind": "thinking", "chain__steps": 3}


@pytest.fixture(scope="module")
def thinking(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("thinking") / "run"
    train(tiny.config(tiny_models["llama"], **THINKING), out, check=False)
    return out


def test_pieces_of_thinking_are_studied_too(thinking: Path, tmp_path: Path) -> None:
    """Damage to piece t travels to the answer, T - t pieces later; pieces before the last are read by the next one's writer alone."""
    result, (_, page) = studied(thinking, tmp_path, Plan(("truncate_back",), (1.0,)))
    rows = result["damage"]["rows"]
    assert [(row["predicted"], row["severity"], row["lag"], row["n"]) for row in rows] == [
        ("answer", severity, lag, 4) for severity in (0.0, 1.0) for lag in (0, 1, 2)
    ]
    assert all(row["drop_logprob"]["mean"] == 0 for row in rows if row["severity"] == 0)
    assert all(abs(row["drop_logprob"]["mean"]) > 1e-4 for row in rows if row["severity"] == 1)
    for text in result["words"]["texts"]:
        assert [state["t"] for state in text["states"]] == [1, 2, 3]
        for state in text["states"]:
            read, unread = ("drop", "drop_next") if state["t"] == 3 else ("drop_next", "drop")
            assert all(word[read] is not None and word[unread] is None for word in state["words"])
    assert [(row["t"], row["n"]) for row in result["facts"]["by_t"]] == [(1, 4), (2, 4), (3, 4)]
    assert result["facts"]["by_age"] == []
    assert "When the answer can be read" in page.read_text()


def test_what_is_lost_without_a_word_is_what_the_model_says(thinking: Path, tmp_path: Path) -> None:
    """One drop of the last piece and one of the first, computed here from the log-probs of whole sequences."""
    result, _ = studied(thinking, tmp_path, Plan(), ("words",))
    one = target(thinking)
    setup = one.prepare()
    study = open_chain_study(setup, one.load(setup, "test", 4).examples, None)
    chain = study.walks[0]
    states = result["words"]["texts"][0]["states"]
    for t, name in ((1, "drop_next"), (3, "drop")):
        ids, word = chain.state(t + 1), states[t - 1]["words"][0]
        first = next(k for k in range(1, len(ids)) if study.prompter.text(ids[:k]).strip() == word["word"])
        head, tail, after = setup.prompter.cot_prompt(chain.text.example), chain.written[1].tokens, ()
        if t == 3:
            after = study.prompter.header_ids
            head = setup.prompter.reader_prompt(chain.text.example, "markovian")
            tail = setup.prompter.answer_ids(chain.text.example)[len(after) :]
        expected = mean_logprob(setup, head + ids + after, tail) - mean_logprob(setup, head + ids[first:] + after, tail)
        assert word[name] == pytest.approx(expected, abs=1e-4)


def mean_logprob(setup: Any, before: tuple[int, ...], tokens: tuple[int, ...]) -> float:
    with torch.no_grad():
        logits = setup.lm.causal_lm(torch.tensor([[*before, *tokens]])).logits[0, len(before) - 1 : -1].float()
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).mean().item()


def test_a_question_of_ones_own_is_explained(thinking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", str(thinking), "1+2", "--json"]) == 0
    asked = json.loads(capsys.readouterr().out)
    code = main(["explain", str(thinking), "--question", "1+2", "--out", str(tmp_path), "--json"])
    said = capsys.readouterr()
    if not asked["answer"].strip():
        assert (code, "reads no answer" in said.err) == (1, True)
        return
    assert code == 0
    found = json.loads(said.out)
    assert found["facts"]["questions"][0]["answer"] == asked["answer"].strip()
    assert len(found["words"]["texts"][0]["states"]) == 3
