"""Sweeps: what the file says, what is run, and what happens when things go wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from markovlm.cli.main import main
from markovlm.errors import UserError
from markovlm.runs.rows import encode_rows, read_rows
from markovlm.sweeps.cells import expand
from markovlm.sweeps.checks import doubts
from markovlm.sweeps.engines.base import Job
from markovlm.sweeps.engines.local import LocalEngine
from markovlm.sweeps.page import write_comparison
from markovlm.sweeps.run import Sweep, open_sweep, run_sweep, statuses_of
from markovlm.sweeps.spec import FinalEvaluation, Resources, read_spec
from markovlm.sweeps.state import is_evaluated, progress_of, status_of, write_evaluation
from support.cells import run_cells_here
from support.scripts import ROOT

TINY = {
    "model": "embedded",
    "training": {"steps": 2, "eval_every": 1},
    "evaluation": {"dev_size": 4},
    "rollouts": {"group_size": 2, "questions_per_step": 1, "max_cot_tokens": 8},
}


def written(path: Path, **keys: Any) -> Path:
    path.write_text(yaml.safe_dump({"base": TINY, **keys}, sort_keys=False), encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------------------ the file


def test_matrix_cells_and_seeds(tmp_path: Path) -> None:
    file = written(
        tmp_path / "s.yaml",
        matrix={"objective.name": ["grpo", "ppo"], "training.lr": [1e-3, 2e-3]},
        cells=[{"objective": {"name": "ema"}}],
        seeds=[3, 5],
    )
    cells = expand(read_spec(file), file)
    assert len(cells) == (2 * 2 + 1) * 2
    assert cells[3].values == {"objective.name": "grpo", "training.lr": 2e-3}
    assert (cells[3].seed, cells[3].config.seed, cells[3].config.training.lr.start) == (5, 5, 2e-3)
    assert cells[3].to_json() == {"objective.name": "grpo", "training.lr": 2e-3, "seed": 5}
    assert cells[-1].config.objective.name == "ema"
    assert len({cell.name for cell in cells}) == len(cells)


def test_a_cells_name_is_kept_when_others_are_added_and_changes_with_the_base(tmp_path: Path) -> None:
    file = written(tmp_path / "s.yaml", matrix={"training.lr": [1e-3]}, seeds=[0])
    (before,) = expand(read_spec(file), file)
    more = written(tmp_path / "s.yaml", matrix={"training.lr": [5e-4, 1e-3]}, seeds=[1, 0])
    assert before.name in [cell.name for cell in expand(read_spec(more), more)]
    other = written(tmp_path / "s.yaml", base=TINY | {"lora": {"rank": 4}}, matrix={"training.lr": [1e-3]}, seeds=[0])
    assert before.name not in [cell.name for cell in expand(read_spec(other), other)]


def test_the_base_may_be_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    file = written(tmp_path / "s.yaml", base="base.yaml", seeds=2)
    assert [cell.seed for cell in expand(read_spec(file), file)] == [0, 1]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "nothing varies"),
        ({"matrix": {"training.lr": []}}, "training.lr: has no values"),
        ({"matrix": {"training.lr": [1, 1]}}, "contains a value twice"),
        ({"matrix": {"seed": [1]}}, "put seeds under"),
        ({"seeds": [1, 1]}, "contains a seed twice"),
        ({"seeds": 0}, "at least one"),
        ({"seeds": [-1]}, "whole numbers from 0"),
        ({"matrx": {}}, "matrx: unknown key; a sweep has base, matrix"),
        ({"seeds": 1, "resources": {"gpus": 2}}, "resources.gpus"),
        ({"seeds": 1, "evaluate": {"checkpoint": "all"}}, "last, best or a step"),
        ({"matrix": {"training.lrr": [1]}}, "cell training.lrr=1: training.lrr: unknown key"),
        ({"matrix": {"rollouts.group_size": [1]}}, "cell rollouts.group_size=1"),
        ({"matrix": {"training.lr": [1e-3]}, "cells": [{"training.lr": 1e-3}]}, "two cells are the same run"),
        (
            {"matrix": {"training.lr": ["1e-3", 0.001]}},
            "two cells are the same run: training.lr=1e-3, seed 0 and training.lr=0.001",
        ),
        ({"cells": [{}, {"objective.name": "grpo"}]}, "two cells are the same run: base, seed 0 and objective.name=grpo, seed 0"),
        ({"seeds": True}, "seeds: seeds must be whole numbers from 0, got True"),
        ({"seeds": [0, True]}, "got True"),
        ({"cells": [{"seed": True}]}, "cells: seeds must be whole numbers from 0, got True"),
        ({"cells": [{"seed": "one"}]}, "got 'one'"),
        ({"base": TINY | {"seed": "one"}, "cells": [{}]}, "cell base: seed: "),
        ({"seeds": 1, "evaluate": {"checkpoint": True}}, "must be last, best or a step, got True"),
        ({"seeds": 1, "evaluate": {"checkpoint": 3}}, "cell base: evaluate.checkpoint 3: training.steps is 2"),
        (
            {"seeds": 1, "evaluate": {"checkpoint": 1}},
            "evaluate.checkpoint 1: this step is not saved with training.checkpoint_every 25 and 2 steps",
        ),
        (
            {"cells": [{"training.eval_every": 0}], "evaluate": {"checkpoint": "best"}},
            "training.eval_every is 0, so there is nothing",
        ),
        (
            {"seeds": 1, "evaluate": {"split": "validation"}},
            "evaluate.split: task arithmetic has no split 'validation'; splits: train, dev, test",
        ),
        (
            {"cells": [{"data.test_split": "tset"}], "evaluate": {}},
            "cell data.test_split=tset: data.test_split: task arithmetic has no split 'tset'",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(
    keys: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "s.yaml", **keys)
    assert main(["sweep", str(file), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()


CELLS = [
    {"objective.name": "ppo"},
    {"objective.name": "ppo", "objective.clip": 0.1},
    {"training": {"lr": 0.004}, "objective": {"name": "rloo"}},
    {},
]


@pytest.mark.parametrize(
    ("reference", "group"),
    [
        (None, "objective.name=ppo"),
        # nested and dotted, in another order and spelling
        ({"objective": {"name": "rloo"}, "training.lr": "4e-3"}, "training.lr=0.004, objective.name=rloo"),
        ({"training.lr": 4e-3}, "training.lr=0.004, objective.name=rloo"),  # a part that says enough
        ({"objective.clip": 0.1}, "objective.name=ppo, objective.clip=0.1"),
        ({"objective.name": "ppo"}, "objective.name=ppo"),  # two have it, one of them nothing else
        ({"objective": {"name": "ppo"}}, "objective.name=ppo"),
        ({"objective.name": "grpo"}, "base"),  # from the base
        ({}, "base"),
    ],
)
def test_the_reference_is_found_by_what_it_comes_to(reference: dict[str, Any] | None, group: str, tmp_path: Path) -> None:
    more = {} if reference is None else {"reference": reference}
    sweep = open_sweep(written(tmp_path / "s.yaml", cells=CELLS, seeds=2, **more), tmp_path / "out")
    assert sweep.reference == group
    assert write_comparison(sweep, statuses_of(sweep)).comparison.reference == group


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ({"objective.name": "dr_grpo"}, "reference: no cell has objective.name=dr_grpo; the cells are objective.name=ppo; "),
        ({"objective.clip": 0.3}, "reference: no cell has objective.clip=0.3; the cells are "),  # grpo knows no clip
        ({"training.eval_every": 1}, "reference: 4 cells have training.eval_every=1, name one of them: objective.name=ppo; "),
        ({"training.lrr": 1}, "reference: training.lrr: unknown key; did you mean training.lr?"),
        ({"objective.name": "ppo", "seed": 0}, "reference: names a seed"),
    ],
)
def test_a_reference_that_names_no_cell_or_several_is_refused(
    reference: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "s.yaml", cells=CELLS, reference=reference)
    assert main(["sweep", str(file), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()


def test_the_sweep_of_the_documentation_expands(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^    # SWEEP\.yaml\n(?:    .*\n)+", document, re.MULTILINE)
    file = tmp_path / "s.yaml"
    file.write_text(textwrap.dedent(block), encoding="utf-8")
    sweep = open_sweep(file, tmp_path / "out")
    assert len(sweep.cells) == (2 * 2 + 1) * 5
    assert sweep.cells[-1].config.objective.model_dump()["clip"] == 0.1


@pytest.mark.parametrize("step", [2, "2", "02"])
def test_a_step_is_given_as_a_number_or_a_text(step: int | str, tmp_path: Path) -> None:
    sweep = open_sweep(written(tmp_path / "s.yaml", seeds=1, evaluate={"checkpoint": step}), tmp_path / "out")
    assert sweep.spec.evaluate == FinalEvaluation(checkpoint="2")


def test_nothing_to_compare_by_is_said_beforehand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = "1 of 2 runs have no score to compare: training.eval_every is 0 and there is no `evaluate`"
    blind = {"cells": [{"training.eval_every": 0}, {}], "seeds": 1}
    file = written(tmp_path / "s.yaml", **blind)
    assert main(["sweep", str(file), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert said in " ".join(capsys.readouterr().out.split())
    notes = Notes()
    run_sweep(open_sweep(file, tmp_path / "out"), engine=Fake([0, 0], finish), watcher=notes)
    assert said in notes.said
    evaluated = open_sweep(written(tmp_path / "s.yaml", **blind, evaluate={"limit": 3}), tmp_path / "out")
    assert doubts(evaluated.spec, evaluated.cells) == []


# -------------------------------------------------------------------------------------------------------- a real sweep


def test_a_sweep_runs_compares_and_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_cells_here(monkeypatch)
    file = written(tmp_path / "s.yaml", matrix={"objective.kl_weight": [0.1, 0.2]}, seeds=[0], evaluate={"limit": 3})
    command = ["sweep", str(file), "--out", str(tmp_path / "out"), "--json"]
    assert main([*command, "--only", "kl-weight=0.2", "--only", "seed=1"]) == 2
    assert "no cell has such a name" in capsys.readouterr().err
    assert main([*command, "--only", "kl_weight=0.2"]) == 0  # as the file has it; in names it is kl-weight
    part = json.loads(capsys.readouterr().out)
    assert [cell["values"]["objective.kl_weight"] for cell in part["cells"]] == [0.2]
    assert "1 of 2 runs compared" in Path(part["report"]).read_text(encoding="utf-8")
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(cell["status"], cell["values"]) for cell in found["cells"]] == [
        ("done", {"objective.kl_weight": 0.1, "seed": 0}),
        ("done", {"objective.kl_weight": 0.2, "seed": 0}),
    ]
    page = Path(found["report"]).read_text(encoding="utf-8")
    assert "2 of 2 runs compared" in page
    assert "n = 3 per run" in page
    assert (tmp_path / "out" / "report" / "tables" / "cells_runs.csv").read_text(encoding="utf-8").count("\n") == 3
    metrics = Path(found["cells"][0]["run"]) / "metrics.jsonl"
    before = metrics.read_bytes()
    assert main(["sweep", str(file), "--out", str(tmp_path / "out")]) == 0
    assert metrics.read_bytes() == before
    assert "2 of 2 cells are done already" in capsys.readouterr().err
    assert main(["sweep", str(file), "--out", str(tmp_path / "out"), "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["to_run"], planned["seconds_per_step"] > 0) == (0, True)
    written(file, matrix={"objective.kl_weight": [0.1, 0.2]}, seeds=[0], evaluate={"limit": 5, "baseline": True})
    assert main([*command, "--dry-run"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["to_run"], planned["steps"], planned["tokens"]) == (2, 0, 0)
    assert "2 runs, 2 to run (2 only to evaluate)" in planned["lines"][0]
    assert main([*command, "--only", "kl-weight=0.1"]) == 0
    captured = capsys.readouterr()
    assert "1 of 1 cells are trained already" in captured.err
    page = Path(json.loads(captured.out)["report"]).read_text(encoding="utf-8")
    assert "1 of 2 runs compared" in page  # the other cell's old numbers are not shown as new
    assert "n = 5 per run" in page
    assert metrics.read_bytes() == before


@pytest.mark.slow
def test_a_cell_with_a_plug_in_is_continued(tmp_path: Path) -> None:
    """Everything in processes of its own. The run directory names the plug-in too, and is not believed; the sweep's own file is."""
    (tmp_path / "own.py").write_text(
        "from markovlm import register\n"
        "from markovlm.objectives.grpo import Grpo, GrpoConfig\n\n\n"
        'class OwnConfig(GrpoConfig):\n    """As grpo."""\n\n    name: str = \'own\'\n\n\n'
        "@register.objective\nclass Own(Grpo):\n    Config = OwnConfig\n",
        encoding="utf-8",
    )
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump({**TINY, "plugins": ["own.py"], "objective": {"name": "own"}}), encoding="utf-8")
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({"base": "base.yaml", "seeds": [0], "evaluate": {"limit": 3}}), encoding="utf-8")

    def run() -> dict[str, Any]:
        command = [sys.executable, "-m", "markovlm", "sweep", str(file), "--out", str(tmp_path / "out"), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["cells"][0]

    first = run()
    (evaluation,) = (tmp_path / "out" / "cells").glob("*.eval.json")
    found = json.loads(evaluation.read_text())
    evaluation.unlink()
    assert run()["status"] == first["status"] == "done"
    assert json.loads(evaluation.read_text())["results"] == found["results"]


# ------------------------------------------------------------------------------------------ the scheduler with a fake engine


class Fake:
    """An engine whose jobs end at once with the codes it was given, `touch`ing their run as a real one would."""

    def __init__(self, codes: Sequence[int], work: Any = None):
        self.codes, self.work, self.started, self.over = list(codes), work, [], []

    def free(self) -> bool:
        return not self.over

    def start(self, job: Job) -> None:
        self.started.append(job.name)
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.log.write_text("noise\nmarkovlm: it broke\n", encoding="utf-8")
        code = self.codes.pop(0)
        if code == 0 and self.work:
            self.work(job)
        self.over.append((job.name, code))

    def poll(self) -> list[tuple[str, int]]:
        over, self.over = self.over, []
        return over

    def kill(self) -> None: ...
    def close(self) -> None: ...


class Notes:
    """A watcher that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def update(self, statuses: Mapping[str, str]) -> None: ...

    def note(self, message: str) -> None:
        self.said.append(message)


def finish(job: Job) -> None:
    """A run directory as a finished training leaves it."""
    run = Path(job.command[job.command.index("--out") + 1])
    (run / "checkpoints" / "step-000002").mkdir(parents=True)
    (run / "config.yaml").write_text("x")
    (run / "events.jsonl").write_text('{"kind": "start"}\n{"kind": "end"}\n')


@pytest.mark.parametrize(
    ("codes", "retries", "status", "starts"),
    [
        ([1, 0], 1, "done", 2),  # continued
        ([-9, 0], 1, "done", 2),  # killed: continued
        ([1, 1], 1, "failed", 2),  # tried enough
        ([2], 1, "failed", 1),  # bad input is not tried again
        ([0], 0, "done", 1),
    ],
)
def test_failed_runs_are_continued_as_often_as_asked(
    codes: list[int], retries: int, status: str, starts: int, tmp_path: Path
) -> None:
    file = written(tmp_path / "s.yaml", seeds=[0], retries=retries)
    sweep = open_sweep(file, tmp_path / "out")
    engine = Fake(codes, finish)
    result = run_sweep(sweep, engine=engine)
    assert list(result.statuses.values()) == [status]
    assert len(engine.started) == starts
    assert list(sweep.messages.values()) == (["it broke"] if status == "failed" else [])


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (-9, "killed by signal 9 (out of memory?)"),
        (-11, "killed by signal 11 (SIGSEGV)"),
        (-70, "killed by signal 70"),
        (1, "it broke"),
    ],
)
def test_of_a_killed_run_the_signal_is_the_reason_and_not_its_last_line(code: int, said: str, tmp_path: Path) -> None:
    sweep = open_sweep(written(tmp_path / "s.yaml", seeds=[0], retries=0), tmp_path / "out")
    assert list(run_sweep(sweep, engine=Fake([code])).statuses.values()) == ["failed"]
    assert list(sweep.messages.values()) == [said]


def evaluate_as_asked(job: Job) -> None:
    """As `sweep-cell` does once its run is trained."""
    asked, path = (job.command[job.command.index(flag) + 1] for flag in ("--evaluate", "--evaluation"))
    write_evaluation(Path(path), FinalEvaluation.model_validate_json(asked), {"results": []})


def test_a_changed_evaluation_is_owed_by_all_cells(tmp_path: Path) -> None:
    def opened(**evaluate: Any) -> Sweep:
        return open_sweep(written(tmp_path / "s.yaml", seeds=2, evaluate=evaluate), tmp_path / "out")

    def trained(job: Job) -> None:
        finish(job)
        evaluate_as_asked(job)

    assert set(run_sweep(opened(limit=20), engine=Fake([0, 0], trained)).statuses.values()) == {"done"}
    changed = opened(limit=40, checkpoint="best", baseline=True)
    assert set(statuses_of(changed).values()) == {"unfinished"}
    engine, notes = Fake([0, 0], evaluate_as_asked), Notes()
    assert set(run_sweep(changed, engine=engine, watcher=notes).statuses.values()) == {"done"}
    assert len(engine.started) == 2
    assert notes.said == ["2 of 2 cells are trained already; they are evaluated again because `evaluate` has changed"]
    assert set(statuses_of(opened(limit=40, checkpoint="best", baseline=True)).values()) == {"done"}


@pytest.mark.parametrize("text", ['{"results": []}', "[1]", "{", ""])
def test_an_evaluation_that_does_not_say_what_was_asked_is_made_again(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.eval.json"
    path.write_text(text, encoding="utf-8")
    assert not is_evaluated(path, FinalEvaluation())
    assert is_evaluated(path, None)


def test_a_trained_cell_is_evaluated_again_only_where_it_was_asked_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def fake(run: Path, **keys: Any) -> Any:
        asked.append(keys)
        return SimpleNamespace(report={"results": []})

    monkeypatch.setattr("markovlm.api.evaluation.evaluate", fake)
    monkeypatch.setattr("markovlm.sweeps.run.watch_parent", lambda *_: None)
    sweep = open_sweep(written(tmp_path / "s.yaml", seeds=[0]), tmp_path / "out")
    run_sweep(sweep, engine=Fake([0], finish))
    (cell,), layout = sweep.cells, sweep.layout
    command = ["sweep-cell", str(layout.config(cell)), "--out", str(layout.run(cell)), "--stop-file", str(layout.stop)]
    for limit in (20, 20, 40):
        wanted = FinalEvaluation.model_validate({"limit": limit, "checkpoint": 2}).model_dump_json()
        assert main([*command, "--evaluate", wanted, "--evaluation", str(layout.evaluation(cell))]) == 0
    assert asked == [{"checkpoints": "2", "split": None, "limit": limit, "baseline": False} for limit in (20, 40)]


def test_the_live_line_shows_dev_questions_alone(tmp_path: Path) -> None:
    sweep = open_sweep(written(tmp_path / "s.yaml", seeds=[0]), tmp_path / "out")
    (cell,) = sweep.cells
    rows = [
        {"step": 2, "role": "dev", "split": "dev", "checkpoint": "step-000002", "accuracy": 0.25, "logprob": -1.0},
        {"step": 2, "role": "test", "split": "test", "checkpoint": "step-000002", "accuracy": 0.75, "logprob": -2.0},
    ]
    sweep.layout.run(cell).mkdir(parents=True)
    (sweep.layout.run(cell) / "evals.jsonl").write_bytes(encode_rows(rows))
    assert progress_of(sweep.layout, cell, "running").dev == 0.25


def test_a_run_that_says_done_and_is_not_has_failed(tmp_path: Path) -> None:
    sweep = open_sweep(written(tmp_path / "s.yaml", seeds=[0]), tmp_path / "out")
    assert list(run_sweep(sweep, engine=Fake([0])).statuses.values()) == ["failed"]


def test_a_run_stopped_by_its_guard_is_a_result(tmp_path: Path) -> None:
    def stopped(job: Job) -> None:
        finish(job)
        run = Path(job.command[job.command.index("--out") + 1])
        (run / "events.jsonl").write_text('{"kind": "start"}\n{"kind": "stopped"}\n')

    sweep = open_sweep(written(tmp_path / "s.yaml", seeds=[0]), tmp_path / "out")
    engine = Fake([3], None)
    engine.start = lambda job: (stopped(job), engine.started.append(job.name), engine.over.append((job.name, 3)))  # type: ignore[method-assign]
    assert list(run_sweep(sweep, engine=engine).statuses.values()) == ["stopped"]
    assert status_of(sweep.layout, sweep.cells[0], FinalEvaluation()) == "unfinished"  # its evaluation is still owed


def test_a_directory_that_is_no_sweep_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="is not empty and not a sweep"):
        run_sweep(open_sweep(written(tmp_path / "s.yaml", seeds=[0]), tmp_path), engine=Fake([0]))
    assert not (tmp_path / "cells").exists()


def test_the_local_engine_gives_each_run_its_share_of_a_gpu(tmp_path: Path) -> None:
    engine = LocalEngine(Resources(cpus=1, gpus=0.5), cores=8, gpus=["0", "1"])
    assert engine.most == 4
    show = [sys.executable, "-c", "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS'])"]
    logs = [tmp_path / str(number) for number in range(4)]
    for log in logs:
        engine.start(Job(log.name, show, log))
    assert not engine.free()
    ended: list[tuple[str, int]] = []
    while len(ended) < 4:
        ended += engine.poll()
        time.sleep(0.02)
    assert sorted(log.read_text().strip() for log in logs) == ["0 1", "0 1", "1 1", "1 1"]
    assert engine.slots == {"0": 1.0, "1": 1.0}
    with pytest.raises(UserError, match="no GPU is visible"):
        LocalEngine(Resources(gpus=1), gpus=[])


def test_without_ray_one_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["sweep", str(written(tmp_path / "s.yaml", seeds=1)), "--out", str(tmp_path / "out"), "--engine", "ray"]) == 2
    assert "pip install 'markovlm[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_gpu_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", str(written(tmp_path / "s.yaml", seeds=1, resources={"gpus": 1}))]) == 2
    assert "no GPU is visible" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


# ------------------------------------------------------------------------------------------------------------- killed


def _start(file: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "markovlm", "sweep", str(file), "--out", str(out), "--jobs", "2"], stderr=subprocess.PIPE
    )


def _wait_for(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def _rows(out: Path) -> int:
    return sum(len(read_rows(path)) for path in out.glob("runs/*/metrics.jsonl"))


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_forty_runs_killed_and_continued_equal_forty_that_were_not(how: int, tmp_path: Path) -> None:
    base = TINY | {"training": {"steps": 10, "eval_every": 5, "checkpoint_every": 2}}
    file = written(tmp_path / "s.yaml", base=base, matrix={"objective.name": ["grpo", "rloo", "dr_grpo", "ppo"]}, seeds=10)
    out = tmp_path / "out"
    process = _start(file, out)
    _wait_for(lambda: _rows(out) >= 45, 300)
    process.send_signal(how)
    process.wait(60)
    _wait_for(lambda: not _running(out), 60)
    sweep = open_sweep(file, out)
    result = run_sweep(sweep)
    assert set(result.statuses.values()) == {"done"}
    cell = next(c for c in sweep.cells if "resume" in (sweep.layout.run(c) / "events.jsonl").read_text())
    assert main(["train", str(sweep.layout.config(cell)), "--out", str(tmp_path / "alone")]) == 0
    last = "checkpoints/step-000010/adapter_model.safetensors"
    assert (sweep.layout.run(cell) / last).read_bytes() == (tmp_path / "alone" / last).read_bytes()


def _running(out: Path) -> bool:
    marks = [f"--out\0{path}".encode() for path in out.glob("runs/*")]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = process.read_bytes()
        except OSError:
            continue
        if process.parent.name != str(os.getpid()) and any(mark in text for mark in marks):
            return True
    return False


@pytest.mark.long
def test_on_a_ray_of_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="ray is not installed (pip install 'markovlm[ray]')")
    file = written(tmp_path / "s.yaml", seeds=3)
    assert main(["sweep", str(file), "--out", str(tmp_path / "out"), "--engine", "ray", "--json"]) == 0
    assert [cell["status"] for cell in json.loads(capsys.readouterr().out)["cells"]] == ["done"] * 3
