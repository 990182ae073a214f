"""Sweeps: what the file says, what is run, and what happens when things go wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from markovlm.cli.main import main
from markovlm.errors import UserError
from markovlm.runs.rows import read_rows
from markovlm.sweeps.cells import expand
from markovlm.sweeps.engine import Job, LocalEngine
from markovlm.sweeps.run import open_sweep, run_sweep
from markovlm.sweeps.spec import Resources, read_spec
from markovlm.sweeps.state import status_of

TINY = {
    "model": "embedded",
    "training": {"steps": 2, "eval_every": 1},
    "evaluation": {"dev_size": 4},
    "rollouts": {"group_size": 2, "questions_per_step": 1, "max_cot_tokens": 8},
}


def written(path: Path, **keys: Any) -> Path:
    path.write_text(yaml.safe_dump({"base": TINY, **keys}), encoding="utf-8")
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
        ({"matrix": {"training.lr": [1, 1]}}, "names a value twice"),
        ({"matrix": {"seed": [1]}}, "seeds stand under"),
        ({"seeds": [1, 1]}, "names a seed twice"),
        ({"seeds": 0}, "at least one"),
        ({"seeds": [-1]}, "whole numbers from 0"),
        ({"matrx": {}}, "matrx: unknown key; a sweep has base, matrix"),
        ({"seeds": 1, "resources": {"gpus": 2}}, "resources.gpus"),
        ({"seeds": 1, "evaluate": {"checkpoint": "all"}}, "last, best or a step"),
        ({"matrix": {"training.lrr": [1]}}, "cell training.lrr=1: training.lrr: unknown key"),
        ({"matrix": {"rollouts.group_size": [1]}}, "cell rollouts.group_size=1"),
        ({"matrix": {"training.lr": [1e-3]}, "cells": [{"training.lr": 1e-3}]}, "two cells are the same run"),
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


# -------------------------------------------------------------------------------------------------------- a real sweep


@pytest.mark.slow
def test_a_sweep_runs_compares_and_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "s.yaml", matrix={"objective.kl_weight": [0.1, 0.2]}, seeds=[0], evaluate={"limit": 3})
    command = ["sweep", str(file), "--out", str(tmp_path / "out"), "--json"]
    assert main([*command, "--only", "kl-weight=0.2", "--only", "seed=1"]) == 2
    assert "no cell is called so" in capsys.readouterr().err
    assert main([*command, "--only", "kl-weight=0.2"]) == 0
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
    assert "n = 3 a run" in page
    assert (tmp_path / "out" / "report" / "tables" / "cells_runs.csv").read_text(encoding="utf-8").count("\n") == 3
    metrics = Path(found["cells"][0]["run"]) / "metrics.jsonl"
    before = metrics.read_bytes()
    assert main(["sweep", str(file), "--out", str(tmp_path / "out")]) == 0
    assert metrics.read_bytes() == before
    assert "2 of 2 cells are done already" in capsys.readouterr().err
    assert main(["sweep", str(file), "--out", str(tmp_path / "out"), "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["to_run"], planned["seconds_per_step"] > 0) == (0, True)


@pytest.mark.slow
def test_a_cell_with_a_plug_in_is_continued(tmp_path: Path) -> None:
    """The run directory names the plug-in too, and is not believed; the sweep's own file is."""
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
    assert status_of(sweep.layout, sweep.cells[0], evaluated=True) == "unfinished"  # its evaluation is still owed


def test_a_directory_that_is_no_sweep_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="is not empty and no sweep"):
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
