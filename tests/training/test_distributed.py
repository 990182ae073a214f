"""Two processes (gloo, CPU) against one: the same CoTs, metrics and adapter; under torchrun, ends of every kind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from markovlm.errors import UserError
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import read_rows
from markovlm.training.distributed import World
from markovlm.training.loop import train
from support import runs
from support.processes import MINUTE, Ended, config, finish, going, killed, ours, ranks, resumes, torchrun, train_forked, written

pytestmark = [pytest.mark.distributed, pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")]


# ------------------------------------------------------------------------------------------------------- the same as one


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Ended]]:
    """One process; two processes that each draw a random name for the run; what they printed."""
    root = tmp_path_factory.mktemp("pair")
    train(config(), root / "one")
    done = train_forked(root, str(written(root / "run.yaml")))
    assert [process.code for process in done] == [0, 0], done
    (two,) = (root / "runs").iterdir()
    return root / "one", two, done


def test_the_same_cots_are_drawn(pair: Any) -> None:
    one, two, _ = pair
    keys = ("step", "question_id", "sample", "cot", "baseline_cot")
    drawn = [[[row[key] for key in keys] for row in read_rows(run / "samples.jsonl")] for run in (one, two)]
    assert len(drawn[0]) == 4 * 12
    assert drawn[0] == drawn[1]


def test_the_same_metrics_to_rounding(pair: Any) -> None:
    one, two = (runs.rows(run, "metrics.jsonl") for run in pair[:2])
    assert [row["step"] for row in two] == [1, 2, 3, 4]
    for expected, row in zip(one, two, strict=True):
        assert set(row) == set(expected)
        for key, value in expected.items():
            rounding = 1e-4 if key.startswith("sampler_") else 1e-6  # of the first the sampler's gap is made, nothing else
            assert row[key] == (value if value is None else pytest.approx(value, rel=1e-4, abs=rounding)), key


def test_the_same_adapter_to_rounding(pair: Any) -> None:
    start, one, two = (
        load_file(RunDirectory(run).checkpoint(step) / "adapter_model.safetensors")
        for run, step in ((pair[0], 0), (pair[0], 4), (pair[1], 4))
    )
    assert set(one) == set(two)
    flat = [torch.cat([adapter[name].flatten() for name in sorted(one)]) for adapter in (start, one, two)]
    assert (flat[2] - flat[1]).norm() <= 1e-5 * flat[1].norm()
    assert (flat[2] - flat[1]).norm() <= 1e-4 * (flat[1] - flat[0]).norm()  # of what was learned; Adam enlarges rounding
    assert (flat[1] - flat[0]).norm() > 0.01 * flat[1].norm()


def test_the_same_evaluations_dealt_over_the_processes(pair: Any) -> None:
    one, two = (runs.rows(run, "evals.jsonl") for run in pair[:2])
    assert [row["n"] for row in two] == [5, 5, 5]
    for expected, row in zip(one, two, strict=True):
        assert (row["step"], row["accuracy"], row["how"]) == (expected["step"], expected["accuracy"], expected["how"])
        assert row["logprob"] == pytest.approx(expected["logprob"], rel=1e-4)


def test_one_log_and_one_set_of_checkpoints(pair: Any) -> None:
    one, two, done = pair
    assert RunDirectory(two).saved_steps() == RunDirectory(one).saved_steps() == [0, 2, 4]
    kinds = [[event["kind"] for event in read_rows(run / "events.jsonl")] for run in (one, two)]
    assert kinds[0] == kinds[1]
    assert '"processes": 2' in (two / "environment.json").read_text()
    main, other = done
    assert main.out.count("done:") == main.out.count("markovlm eval") == 1
    assert re.findall(r"^step (\d)/4", main.err, re.MULTILINE) == ["1", "2", "3", "4"]
    assert (other.out, ours(other.err)) == ("", [])


def test_a_run_of_two_is_continued_by_one(pair: Any, tmp_path: Path) -> None:
    out = Path(shutil.copytree(pair[1], tmp_path / "run"))
    assert resumes(out) == [1, 2, 3, 4, 5, 6]


@pytest.mark.long
def test_a_rollback_of_two_processes(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """The scripted collapse of test_guard: both go back together, and end where one process ends."""
    script = tmp_path / "script.py"
    here = Path(__file__).parent
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        f"sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]\n"
        "from test_guard import first_attempt_only, run\n"
        "run(Path(sys.argv[1]), Path(sys.argv[2]), first_attempt_only, health__policy='rollback')\n"
    )
    one, two = tmp_path / "one", tmp_path / "two"
    alone = finish([sys.executable, str(script), str(tiny_models["llama"]), str(one)], tmp_path)
    assert alone.returncode == 0, alone.stderr
    done = finish(torchrun(str(script), str(tiny_models["llama"]), str(two)), tmp_path)
    assert done.returncode == 0, done.stderr
    for run in (one, two):
        assert [event["step"] for event in read_rows(run / "events.jsonl") if event["kind"] == "rollback"] == [4]
        assert [row["step"] for row in read_rows(run / "metrics.jsonl")] == list(range(1, 11))
        assert [row["step"] for row in read_rows(run / "rollbacks" / "1" / "metrics.jsonl")] == [5, 6, 7, 8]
    last = [load_file(RunDirectory(run).checkpoint(10) / "adapter_model.safetensors") for run in (one, two)]
    for name, value in last[0].items():
        assert (last[1][name] - value).norm() <= 1e-4 * value.norm(), name


# ------------------------------------------------------------------------------------------------------- ends


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_killed_process_ends_the_others_and_the_run_resumes(tmp_path: Path, victim: int) -> None:
    out = tmp_path / "run"
    killed(written(tmp_path / "run.yaml", training__steps=500), out, victim)
    steps = resumes(out)
    assert steps == list(range(1, steps[-1] + 1))


@pytest.mark.long
def test_ctrl_c_ends_after_the_step_with_a_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with going(written(tmp_path / "run.yaml", training__steps=500, training__checkpoint_every=400), out) as process:
        process.send_signal(signal.SIGINT)
        process.wait(MINUTE)
        assert process.stderr is not None
        printed = process.stderr.read()
    assert printed.count("the run resumes with --resume") == 1
    made = [row["step"] for row in read_rows(out / "metrics.jsonl")]
    assert RunDirectory(out).saved_steps()[-1] == made[-1]
    assert read_rows(out / "events.jsonl")[-1]["kind"] == "interrupted"
    assert resumes(out) == [*made, made[-1] + 1, made[-1] + 2]


@pytest.mark.long
def test_a_process_that_hangs_is_given_up_after_the_timeout(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with going(written(tmp_path / "run.yaml", training__steps=500), out, MARKOVLM_TIMEOUT_SECONDS="5") as process:
        os.kill(ranks(process.pid)[1], signal.SIGSTOP)
        assert process.wait(2 * MINUTE) != 0  # torchrun allows a stopped process half a minute to end
        assert process.stderr is not None
        (line,) = ours(process.stderr.read())
    assert "another of the 2 processes of this run has ended or hangs" in line
    assert read_rows(out / "events.jsonl")[-1]["kind"] == "failed"
    assert resumes(out)


def test_more_processes_than_questions_are_refused_in_one_line(tmp_path: Path) -> None:
    """By the main one; the other waits for its end."""
    main, other = train_forked(tmp_path, str(written(tmp_path / "run.yaml", rollouts__questions_per_step=1)), "--out", "run")
    (line,) = ours(main.err)
    assert line.startswith("markovlm: rollouts.questions_per_step (1) must be at least the number of processes (2)")
    assert main.code == 2
    assert (other.code, ours(other.err)) == (-signal.SIGKILL, [])
    assert main.out == other.out == ""


@pytest.mark.long
def test_bad_input_is_said_once(tmp_path: Path) -> None:
    done = finish(torchrun("-m", "markovlm", "train", "--objective.name", "reinforced"), tmp_path)
    (line,) = ours(done.stderr)
    assert "objective.name" in line
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------- in this process


def test_in_one_process_the_world_is_the_identity() -> None:
    world = World()
    gradient = torch.tensor([1.0, 2.0])
    world.start("cpu")
    world.sum_gradients([gradient])
    assert (world.size, world.is_main, gradient.tolist()) == (1, True, [1.0, 2.0])
    assert world.share([1, 2, 3]) == world.gather([1, 2, 3]) == [1, 2, 3]
    assert world.broadcast("x") == "x"
    world.stop()


def test_questions_are_dealt_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert World().share(["a", "b", "c", "d", "e"]) == ["b", "d"]


@pytest.mark.parametrize("text", ["soon", "0", "-3"])
def test_a_timeout_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MARKOVLM_TIMEOUT_SECONDS": text}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="MARKOVLM_TIMEOUT_SECONDS"):
        World().start("cpu")
