"""Other people's files: real ones of one TRL run that was logged everywhere, and made-up ones of what cannot run here."""

from __future__ import annotations

import csv
import gzip
import json
import math
import random
import shutil
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from markovlm.errors import UserError
from markovlm.health.diagnose import diagnose_paths
from markovlm.logs.duplicates import same_training
from markovlm.logs.find import find_runs, read_run, read_runs
from markovlm.logs.mapping import read_mapping
from markovlm.logs.records import RunData

FIXTURE = Path(__file__).parents[1] / "fixtures" / "logs" / "trl_embedded.tar.gz"
KINDS = {"console", "mlflow", "trackio", "trainer_state", "tensorboard", "wandb"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def by_kind(folder: Path) -> dict[str, RunData]:
    return {run.kind: run for run in map(read_run, find_runs([folder]))}


def test_one_real_run_says_the_same_in_every_format(made: Path) -> None:
    runs = by_kind(made)
    assert set(runs) == KINDS
    state = runs["trainer_state"]
    for kind, run in runs.items():
        assert (run.framework, run.training) == ("TRL", "reinforcement"), kind
        assert run.metrics.columns.__len__() == len(state.metrics.columns), kind
        for key in state.metrics.columns:
            close = run.metrics[key].cast(pl.Float64).to_list()
            assert close == pytest.approx(state.metrics[key].cast(pl.Float64).to_list(), rel=1e-3, abs=1e-6, nan_ok=True), (
                kind,
                key,
            )
    assert state.metrics["step"].to_list() == list(range(1, 9))
    assert {"reward/right", "reward/short", "kl", "entropy", "cot_length_saturated_fraction"} <= set(state.metrics.columns)
    for kind in ("mlflow", "trackio", "wandb"):
        assert (runs[kind].name, runs[kind].config["rollouts.max_cot_tokens"]) == ("sums", 12), kind


def test_the_same_training_in_six_logs_is_one_run_with_its_completions(made: Path) -> None:
    runs = list(read_runs([made]))
    assert len(runs) == 1
    assert sum("the same training" in problem for problem in runs[0].problems) == 5
    assert runs[0].kind == "trainer_state"
    assert runs[0].sample_rows == 64
    sample = runs[0].samples[0]
    assert "+" in sample.question
    assert {s.question for s in runs[0].samples} >= {"18+24", "12+22"}
    assert sample.reward is not None
    assert sample.advantage is not None


def test_two_seeds_are_two_runs(tmp_path: Path) -> None:
    for seed in (1, 2):
        draw = random.Random(seed)
        rows = [{"step": s, "reward": draw.random(), "kl": draw.random(), "grad_norm": 1.0} for s in range(30)]
        (tmp_path / f"seed{seed}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    a, b = (read_run(path) for path in find_runs([tmp_path]))
    assert not same_training(a, b)
    assert same_training(a, a)


@pytest.mark.parametrize("kind", ["wandb", "tensorboard", "console", "trainer_state"])
def test_a_file_cut_anywhere_keeps_the_rows_before_the_cut(made: Path, tmp_path: Path, kind: str) -> None:
    source = by_kind(made)[kind].path
    data, cut_file = source.read_bytes(), tmp_path / source.name
    whole = read_run(source).metrics
    counts = []
    for cut in [*range(1, 40), *range(40, len(data), len(data) // 15)]:
        cut_file.write_bytes(data[:cut])
        frame = read_run(cut_file).metrics
        counts.append(frame.height)
        assert frame["step"].to_list() == whole["step"].to_list()[: frame.height], cut
    assert counts == sorted(counts)
    assert counts[-1] >= 6


def test_damaged_bytes_never_raise(made: Path, tmp_path: Path) -> None:
    draw = random.Random(7)
    for kind, run in by_kind(made).items():
        source = Path(str(run.path).partition("::")[0])
        if source.is_dir():
            continue
        data = source.read_bytes()
        for _ in range(6):
            bad = bytearray(data)
            for _ in range(draw.choice([1, 20, 300])):
                bad[draw.randrange(len(bad))] = draw.randrange(256)
            (tmp_path / source.name).write_bytes(bad)
            found = read_run(tmp_path / source.name)
            assert found.metrics.columns[0] == "step", kind


# --- made-up files of frameworks that can't run here -----------------------------------------------------------------------

VERL = (
    "\x1b[36m(TaskRunner pid=12)\x1b[0m step:{s} - global_seqlen/min:16268 - actor/kl_loss:nan - actor/pg_clipfrac:0.002 - "
    "actor/ppo_kl:np.float64(0.125) - actor/entropy:0.5 - critic/score/mean:{r} - critic/score/max:1.0 - response_length/mean:257.0 - "
    "response_length/clip_ratio:1.0 - training/rollout_probs_diff_mean:0.004 - actor/grad_norm:np.float64(2.0)"
)


def test_verl_console_and_jsonl(tmp_path: Path) -> None:
    lines = ["noise", "step:0 - val-core/openai/gsm8k/acc/mean@1:0.25", *(VERL.format(s=s, r=s / 10) for s in (1, 2, 3))]
    (tmp_path / "verl.log").write_text("\n".join(lines) + "\n(TaskRunner pid=12) step:4 - critic/score/mean:0.")
    row = {"critic/score/mean": 0.5, "actor/entropy_loss": 0.25, "response_length/mean": 9.0}
    (tmp_path / "verl.jsonl").write_text("".join(json.dumps({"step": s, "data": row}) + "\n" for s in (1, 2)))
    run = read_run(tmp_path / "verl.log")
    assert (run.framework, run.kind) == ("verl", "console")
    assert run.metrics["step"].to_list() == [0, 1, 2, 3]  # the last line is cut within its first value
    assert run.metrics["reward_mean"].to_list() == [None, 0.1, 0.2, 0.3]
    assert run.metrics["eval_accuracy"].to_list()[0] == 0.25
    assert math.isnan(run.metrics["kl"][1])
    expected = {
        "behavior_kl": 0.125, "cot_length_saturated_fraction": 1.0, "grad_norm": 2.0, "entropy": 0.5,
        "ratio_clipped_fraction": 0.002, "sampler_prob_gap": 0.004, "reward_max": 1.0,
    }  # fmt: skip
    assert {key: run.metrics[key][1] for key in expected} == expected
    other = read_run(tmp_path / "verl.jsonl")
    assert (other.framework, other.metrics["entropy"].to_list()) == ("verl", [0.25, 0.25])


def jsonl(path: Path, *rows: dict[str, Any]) -> RunData:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_run(path)


def test_ms_swift_llama_factory_tinker_and_openrlhf(tmp_path: Path) -> None:
    swift = {"loss": 0.1, "reward": 0.5, "rewards/Acc/mean": 0.5, "completions/mean_length": 9.0}
    run = jsonl(tmp_path / "logging.jsonl", *({"global_step/max_steps": f"{s}/9", **swift} for s in (1, 2)))
    assert (run.framework, run.metrics["step"].to_list(), run.metrics["reward/Acc"][0]) == ("ms-swift", [1, 2], 0.5)
    run = jsonl(
        tmp_path / "trainer_log.jsonl", *({"current_steps": s, "total_steps": 9, "loss": 0.5, "reward": 0.25} for s in (5, 10))
    )
    assert (run.framework, run.metrics["step"].to_list(), run.metrics["reward_mean"][0]) == ("LLaMA-Factory", [5, 10], 0.25)
    run = jsonl(tmp_path / "a.jsonl", *({"current_steps": s, "total_steps": 9, "loss": 0.5, "lr": 1e-5} for s in (5, 10)))
    assert run.training == "supervised"
    tinker = {
        "env/all/reward/total": 0.5, "env/all/correct": 0.25, "optim/kl_sample_train_v1": -1.0, "optim/kl_sample_train_v2": 0.125,
        "env/all/by_group/frac_all_good": 0.5, "env/all/by_group/frac_all_bad": 0.25, "optim/entropy": 0.75,
    }  # fmt: skip
    run = jsonl(tmp_path / "metrics.jsonl", {"step": 0, **tinker}, {"step": 1, **tinker, "test/env/all/correct": 0.5})
    found = {key: run.metrics[key][1] for key in run.metrics.columns}
    assert run.framework == "tinker-cookbook"
    assert found == {
        "step": 1, "reward_mean": 0.5, "accuracy": 0.25, "sampler_kl": 0.125, "groups_without_spread": 0.75, "entropy": 0.75,
        "groups_all_right": 0.5, "groups_all_wrong": 0.25, "eval_accuracy": 0.5,
    }  # fmt: skip
    line = "(PPOTrainer pid=1) INFO x] ✨ Global step {s}: {{'policy_loss': 0.1, 'actor_lr': 1e-6, 'reward': 0.5, 'kl': 0.25}}\n"
    (tmp_path / "open.log").write_text("".join(line.format(s=s) for s in (1, 2)))
    run = read_run(tmp_path / "open.log")
    assert (run.framework, run.metrics["step"].to_list(), run.metrics["kl"][0]) == ("OpenRLHF", [1, 2], 0.25)


def test_wandb_csv_of_one_and_of_two_runs(tmp_path: Path) -> None:
    head = '"Step","sunny-sea-1 - train/reward","sunny-sea-1 - train/reward__MIN","sunny-sea-1 - train/reward__MAX"'
    (tmp_path / "wandb.csv").write_text(head + '\n"1","0.5","0","1"\n"2","","",""\n"3","NaN","0","1"\n')
    frame = read_run(tmp_path / "wandb.csv").metrics
    assert frame["reward_mean"][0] == 0.5
    assert frame["step"].to_list() == [1, 3]
    assert math.isnan(frame["reward_mean"][1])
    (tmp_path / "two.csv").write_text('"Step","a - train/reward","b - train/reward"\n1,0.5,0.25\n2,0.5,0.25\n')
    run = read_run(tmp_path / "two.csv")
    assert run.metrics["reward_mean"].to_list() == [0.5, 0.5]
    assert any("2 runs" in problem for problem in run.problems)
    for given in (tmp_path / "two.csv", tmp_path):
        both = {run.name: run for run in read_runs([given])}
        assert both["a"].metrics["reward_mean"].to_list() == [0.5, 0.5]
        assert both["b"].metrics["reward_mean"].to_list() == [0.25, 0.25]
        assert both["b"].path.name == "two.csv::b"
        assert both["b"].problems == []
    (one,) = read_runs([f"{tmp_path / 'two.csv'}::b"])
    assert one.name == "b"
    (none,) = read_runs([f"{tmp_path / 'two.csv'}::c"])
    assert none.problems == ["two.csv: there is no run 'c'; it has a, b"]


def test_a_table_with_long_cells_changes_nothing_for_others(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    (tmp_path / "t.csv").write_text(f"step,reward,text\n1,0.5,{'x' * 200_000}\n")
    assert read_run(tmp_path / "t.csv").metrics["reward_mean"].to_list() == [0.5]
    assert csv.field_size_limit() == before


def test_any_table_through_a_mapping_on_the_command_line_or_saved(tmp_path: Path) -> None:
    pl.DataFrame({"update": [1, 2], "score/avg": [0.5, 0.25], "len": [3.0, 4.0]}).write_parquet(tmp_path / "t.parquet")
    pl.DataFrame({"update": [1, 2], "score/avg": [0.5, 0.25], "len": [3.0, 4.0]}).write_csv(tmp_path / "t.csv")
    (tmp_path / "t.jsonl").write_text('{"update": 1, "score/avg": 0.5, "len": 3}\n{"update": 2, "score/avg": "0.25", "len": 4}\n')
    saved = tmp_path / "names.yaml"
    saved.write_text("step: update\nreward: [absent, score/avg]\nlength: len\n")
    for entries in (["step=update", "reward=score/avg", "length=len"], [str(saved)]):
        for name in ("t.parquet", "t.csv", "t.jsonl"):
            frame = read_run(tmp_path / name, mapping=read_mapping(entries)).metrics
            assert frame.to_dict(as_series=False) == {"step": [1, 2], "reward_mean": [0.5, 0.25], "cot_length": [3.0, 4.0]}, name


@pytest.mark.parametrize(
    ("entry", "told"), [("rewrd=x", "did you mean reward"), ("reward=", "OURS=THEIRS"), ("no.yaml", "No such file")]
)
def test_a_wrong_mapping_is_one_clear_line(entry: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        read_mapping([entry])


def test_a_mapping_that_names_no_column_says_which_there_are(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("step,marks\n1,0.5\n")
    with pytest.raises(UserError, match=r"t\.csv: --map: there is no column points; the columns are marks, step"):
        list(read_runs([tmp_path / "t.csv"], mapping=read_mapping(["reward=points"])))
    (run,) = read_runs([tmp_path / "t.csv"])
    assert run.problems == ["t.csv: no column is a known metric (columns: marks, step); name them: --map reward=COLUMN"]


def test_an_output_directory_is_its_newest_checkpoint(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        folder = tmp_path / "out" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        rows = [{"step": s, "reward": s / 100, "loss": 0.1} for s in range(1, step + 1)]
        (folder / "trainer_state.json").write_text(json.dumps({"best_metric": None, "global_step": step, "log_history": rows}))
    runs = list(read_runs([tmp_path]))
    assert [(run.name, run.last_step) for run in runs] == [("out", 100)]


def test_a_database_of_two_runs_and_a_foreign_database(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "project.db") as db:
        db.execute("create table metrics (id integer primary key, timestamp text, run_name text, step integer, metrics text)")
        for name in ("a", "b' or 1=1"):
            for step in range(3):
                db.execute(
                    "insert into metrics (run_name, step, metrics) values (?, ?, ?)", (name, step, '{"train/reward": 0.5}')
                )
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("create table metrics (id integer)")
    runs = list(read_runs([tmp_path]))
    assert [(run.name, run.steps) for run in runs] == [("a", 3), ("b' or 1=1", 3)]
    assert diagnose_paths([tmp_path / "other.db"])[0].verdict == "unknown"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.db", "project.db"]


def test_reading_a_tracker_leaves_no_trace(made: Path) -> None:
    before = sorted(made.rglob("*"))
    assert len(list(read_runs([made]))) == 1
    assert sorted(made.rglob("*")) == before
    assert not list(made.rglob("*-wal"))


def test_verl_rollouts_are_samples_and_no_run(tmp_path: Path) -> None:
    (tmp_path / "rollout").mkdir()
    for step in (1, 2):
        row = {"input": "<script>", "output": f"o{step}", "gts": "7", "score": float(step - 1), "step": step}
        (tmp_path / "rollout" / f"{step}.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "train.log").write_text("\n".join(VERL.format(s=s, r=0.5) for s in (1, 2)))
    runs = list(read_runs([tmp_path]))
    assert len(runs) == 1
    assert [(s.step, s.cot, s.answer, s.reward) for s in runs[0].samples] == [(1, "o1", "7", 0.0), (2, "o2", "7", 1.0)]


def test_a_tree_of_three_hundred_runs(made: Path, tmp_path: Path) -> None:
    state = next(made.rglob("trainer_state.json"))
    for number in range(300):
        folder = tmp_path / f"run{number:03}" / "checkpoint-8"
        folder.mkdir(parents=True)
        text = state.read_text()
        found = json.loads(text)
        for row in found["log_history"]:
            row |= {"loss": row.get("loss", 0.0) + number, "entropy": number + row["step"]}
        (folder / "trainer_state.json").write_text(json.dumps(found))
        shutil.copy(folder / "trainer_state.json", tmp_path / f"run{number:03}" / "trainer_state.json") if number % 2 else None
    assert len(list(read_runs([tmp_path]))) == 300


def test_packed_logs_and_arrays_of_rows(made: Path, tmp_path: Path) -> None:
    runs = by_kind(made)
    for kind in ("console", "trainer_state"):
        data = gzip.compress(runs[kind].path.read_bytes())
        (tmp_path / f"{runs[kind].path.name}.gz").write_bytes(data)
        assert read_run(tmp_path / f"{runs[kind].path.name}.gz").steps == 8
        (tmp_path / "torn.gz").write_bytes(data[: len(data) // 2])
        torn = read_run(tmp_path / "torn.gz")
        assert torn.metrics["step"].to_list() == list(range(1, torn.steps + 1))
        assert kind == "console" or 0 < torn.steps < 8
    rows = [{"step": s, "reward": s / 10, "loss": 0.5} for s in range(1, 5)]
    (tmp_path / "rows.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(pl.DataFrame(rows).write_csv().encode()))
    for name in ("rows.json", "rows.jsonl.gz", "rows.csv.gz"):
        assert read_run(tmp_path / name).metrics["reward_mean"].to_list() == [0.1, 0.2, 0.3, 0.4], name
