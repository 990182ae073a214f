"""N + M steps in one go, and N steps, an end of any kind, resume, M steps: the same rows and the same bits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from markovlm.cli.main import main
from markovlm.config import build_config, dump_yaml, load_yaml
from markovlm.errors import RunFailed, UserError
from markovlm.models.load import load_model
from markovlm.runs.ahead import resumed_config
from markovlm.runs.checkpoint import restore_optimizer, save_checkpoint
from markovlm.runs.directory import RunDirectory
from markovlm.runs.manifest import is_interim
from markovlm.runs.rows import read_rows
from markovlm.training.loop import train
from support import runs, tiny

COPIED = (1, 3, 5, 7)


@pytest.fixture(scope="module")
def whole(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing interrupted; beside it what a crash would have left behind some of its rows."""
    out = tmp_path_factory.mktemp("whole") / "run"
    copied = runs.CopyAfter(out, {step: out.parent / f"crashed-{step}" for step in COPIED})
    result = train(runs.run_config(tiny_models["llama"]), out, progress=copied)
    assert (result.steps, result.interrupted) == (7, False)
    assert RunDirectory(out).saved_steps() == [0, 3, 6, 7]
    assert [row["step"] for row in read_rows(out / "evals.jsonl")] == [0, 2, 4, 6, 7]
    return out


Ended = Callable[[int, Path], Path]


@pytest.fixture(scope="module")
def crashed(whole: Path) -> Ended:
    """`crashed(step, out)`: in `out` is what a crash behind the row of this step leaves."""
    return lambda step, out: Path(shutil.copytree(whole.parent / f"crashed-{step}", out))


@pytest.fixture(scope="module")
def terminated(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that SIGTERM ended in step 4."""
    out = tmp_path_factory.mktemp("terminated") / "run"
    result = train(runs.run_config(tiny_models["llama"]), out, progress=runs.TerminateAfter(4))
    assert (result.steps, result.interrupted) == (4, True)
    return out


def test_the_adapter_configuration_does_not_depend_on_the_order_of_a_set(whole: Path) -> None:
    """PEFT writes a set of strings, whose order changes with PYTHONHASHSEED: two processes would write two files."""
    targets = json.loads((whole / "checkpoints" / "step-000007" / "adapter_config.json").read_text())["target_modules"]
    assert targets == sorted(targets)
    assert len(targets) == 2 * 7  # two layers: q k v o gate up down


def test_another_seed_is_another_run(whole: Path, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(runs.Crash):
        train(runs.run_config(tiny_models["llama"], seed=1), tmp_path / "other", progress=runs.CrashAfter(1))
    assert runs.rows(tmp_path / "other", "metrics.jsonl") != runs.rows(whole, "metrics.jsonl")[:1]


def test_a_crash_leaves_what_is_copied(crashed: Ended, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """Or the tests below would resume from what no crash leaves."""
    with pytest.raises(runs.Crash):
        train(runs.run_config(tiny_models["llama"]), tmp_path / "run", progress=runs.CrashAfter(5))
    runs.assert_same_directory(crashed(5, tmp_path / "copy"), tmp_path / "run")


@pytest.mark.parametrize("step", COPIED, ids=lambda step: f"after row {step}")
def test_a_crash_and_resume(whole: Path, crashed: Ended, tmp_path: Path, step: int) -> None:
    """Rows past the last checkpoint (0, 0, 3, 6) are cut and made again."""
    out = crashed(step, tmp_path / "run")
    assert [row["step"] for row in read_rows(out / "metrics.jsonl")] == list(range(1, step + 1))
    runs.resume(out)
    runs.assert_same_run(out, whole)
    (event,) = [row for row in read_rows(out / "events.jsonl") if row["kind"] == "resume"]
    assert event["rows_dropped"]["metrics.jsonl"] == step - {1: 0, 3: 0, 5: 3, 7: 6}[step]


def test_two_crashes(whole: Path, crashed: Ended, tmp_path: Path) -> None:
    out = crashed(1, tmp_path / "run")
    with pytest.raises(runs.Crash):
        runs.resume(out, progress=runs.CrashAfter(4))
    runs.resume(out)
    runs.assert_same_run(out, whole)


def test_sigterm_ends_after_the_step_with_a_checkpoint(whole: Path, terminated: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(terminated, tmp_path / "run"))
    assert RunDirectory(out).saved_steps() == [0, 3, 4]
    assert read_rows(out / "events.jsonl")[-1]["kind"] == "interrupted"
    assert is_interim(RunDirectory(out).checkpoint(4))
    assert not is_interim(RunDirectory(out).checkpoint(3))
    runs.resume(out)
    runs.assert_same_run(out, whole)
    runs.assert_same_directory(out, whole)  # the checkpoint of the interruption has served
    assert [row["message"] for row in read_rows(out / "events.jsonl") if row["kind"] == "dropped"] == [
        "step-000004, where the run was interrupted"
    ]


def test_interrupted_again_and_killed_before_the_next_checkpoint(whole: Path, terminated: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(terminated, tmp_path / "run"))
    with pytest.raises(runs.Crash):
        runs.resume(out, progress=runs.CrashAfter(5))
    assert runs.resume(out, progress=runs.TerminateAfter(5)).steps == 5
    assert RunDirectory(out).saved_steps() == [0, 3, 4, 5]
    runs.resume(out)
    runs.assert_same_directory(out, whole)


def test_the_last_checkpoint_of_a_finished_run_is_kept_when_it_is_extended(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(runs.run_config(tiny_models["llama"], training__steps=2), out)
    train(resumed_config(out, {"training": {"steps": 3}}), out, resume=True)
    assert RunDirectory(out).saved_steps() == [0, 2, 3]


def test_a_finished_run_resumes_to_nothing(whole: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    assert runs.resume(out).steps == 7
    runs.assert_same_run(out, whole)


def test_torn_last_lines(whole: Path, crashed: Ended, tmp_path: Path) -> None:
    out = crashed(5, tmp_path / "run")
    for name in ("metrics.jsonl", "evals.jsonl", "samples.jsonl", "events.jsonl"):
        data = (out / name).read_bytes()
        (out / name).write_bytes(data[: -len(data.splitlines()[-1]) // 2 - 1])
    runs.resume(out)
    runs.assert_same_run(out, whole)
    assert all(line.endswith(b"}\n") for line in (out / "events.jsonl").read_bytes().splitlines(keepends=True))


def test_a_row_whose_step_is_no_number_is_torn(whole: Path, crashed: Ended, tmp_path: Path) -> None:
    out = crashed(5, tmp_path / "run")
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": null}\n{"step": "6"}\n')
    runs.resume(out)
    runs.assert_same_run(out, whole)


def test_a_torn_line_with_a_whole_row_but_no_newline(whole: Path, crashed: Ended, tmp_path: Path) -> None:
    """Killed between the row and its newline, at a step that the checkpoint holds: appending must not glue two rows."""
    out = crashed(5, tmp_path / "run")
    lines = (out / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (out / "metrics.jsonl").write_bytes(b"".join(lines[:3]) + lines[3].rstrip(b"\n"))
    runs.resume(out)
    runs.assert_same_run(out, whole)


def test_leftovers_of_a_killed_write_are_removed(whole: Path, crashed: Ended, tmp_path: Path) -> None:
    out = crashed(5, tmp_path / "run")
    half = out / "checkpoints" / ".step-000006.tmp"
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"half")
    (out / ".metrics.jsonl.tmp").write_bytes(b"half")
    runs.resume(out)
    runs.assert_same_run(out, whole)
    left = [path.name for path in [*out.iterdir(), *(out / "checkpoints").iterdir()] if path.name.endswith(".tmp")]
    assert left == []


def test_a_run_that_died_before_its_first_checkpoint(whole: Path, crashed: Ended, tmp_path: Path) -> None:
    out = crashed(1, tmp_path / "run")
    shutil.rmtree(out / "checkpoints" / "step-000000")  # it died while it wrote this one
    runs.resume(out)
    runs.assert_same_run(out, whole)


def test_a_run_that_died_before_its_configuration_can_be_started_again(
    whole: Path, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    RunDirectory(out).create()
    (out / ".lock").touch()
    (out / "environment.json").write_text("{}")
    (out / ".config.yaml.tmp").write_text("seed")
    with pytest.raises(UserError, match="start a new run"):
        resumed_config(out, {})
    train(runs.run_config(tiny_models["llama"]), out)
    runs.assert_same_run(out, whole)


def test_a_changed_base_model_is_refused(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_models["llama"], tmp_path / "model"))
    out = tmp_path / "run"
    with pytest.raises(runs.Crash):
        train(runs.run_config(model), out, progress=runs.CrashAfter(4))
    weights = load_file(model / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"].view(torch.int32)[3, 4] ^= 1  # the last bit of one number
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    before = (out / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"base model .* is not the one this run was trained on") as refused:
        runs.resume(out)
    assert "\n" not in str(refused.value)
    assert (out / "metrics.jsonl").read_bytes() == before  # nothing was cut


def test_a_bfloat16_base_keeps_every_bit_of_the_adapter(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """The adapter is float32 over it; read back through bf16 it would be rounded."""
    config = tiny.config(tiny_models["llama"], loading__dtype="bfloat16")
    lm = load_model(config.model, config.loading, lora=config.lora)
    tiny.shake(lm)
    run = RunDirectory(tmp_path / "run")
    run.create()
    saved = save_checkpoint(run, 1, lm, torch.optim.AdamW([p for _, p in lm.adapter_parameters()]), {})
    again = load_model(config.model, config.loading, lora=config.lora, adapter=saved)
    for (name, ours), (_, theirs) in zip(again.adapter_parameters(), lm.adapter_parameters(), strict=True):
        assert ours.dtype == torch.float32, name
        assert torch.equal(ours, theirs), name


def test_moments_go_to_their_parameters_and_counts_of_steps_to_the_cpu(whole: Path) -> None:
    """AdamW reads the count of each parameter in every step: on a GPU the host would wait for each of them."""
    checkpoint = max(RunDirectory(whole).checkpoints.iterdir())
    saved = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    elsewhere = torch.device("meta")
    optimizer = torch.optim.AdamW([torch.zeros_like(one["exp_avg"], device=elsewhere) for one in saved.values()])
    restore_optimizer(checkpoint, optimizer)
    states = list(optimizer.state.values())
    assert len(states) == len(saved) > 0
    assert {state["exp_avg"].device for state in states} == {elsewhere}
    assert {(state["step"].device.type, state["step"].item()) for state in states} == {("cpu", saved[0]["step"].item())}


@pytest.mark.parametrize("broken", ["trainer_state.json", "optimizer.pt", "adapter_model.safetensors"])
def test_a_broken_checkpoint_is_one_line(whole: Path, tmp_path: Path, broken: str) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    (out / "checkpoints" / "step-000007" / broken).write_bytes(b"\x00{")
    with pytest.raises(UserError) as refused:
        runs.resume(out)
    assert "\n" not in str(refused.value)
    assert "step-000007" in str(refused.value)


def test_two_trainers_of_one_run_are_refused(whole: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    with RunDirectory(out).locked(), pytest.raises(UserError, match="another process is training this run"):
        runs.resume(out)


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        resumed_config(tmp_path / "nothing", {})
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        resumed_config(tmp_path / "file", {})
    with pytest.raises(UserError, match="not a run"):
        resumed_config(tmp_path, {})


def test_more_steps_are_recorded_and_outlast_a_crash(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """A crash after `--resume --training.steps` must not end the run at the steps it had before."""
    out = tmp_path / "run"
    config = tiny.config(
        tiny_models["llama"], training__steps=2, training__lr="linear 1e-2 -> 0", objective__kl_weight="linear 0 -> 1 over 3"
    )
    train(config, out)
    with pytest.raises(runs.Crash):
        train(resumed_config(out, {"training": {"steps": 6}}), out, resume=True, progress=runs.CrashAfter(4))
    assert load_yaml(out / "config.yaml")["training"]["steps"] == 6
    events = read_rows(out / "events.jsonl")
    assert [row["changed"] for row in events if row["kind"] == "resume"] == [{"training.steps": [2, 6]}]
    (warned,) = [row["message"] for row in events if "training.steps has changed" in row["message"]]
    assert "training.lr spans" in warned
    assert runs.resume(out).steps == 6
    assert "changed" not in [row for row in read_rows(out / "events.jsonl") if row["kind"] == "resume"][-1]
    with pytest.raises(UserError, match=r"--training.steps 5: .* already has 6 steps"):
        train(resumed_config(out, {"training": {"steps": 5}}), out, resume=True)


def test_resume_keeps_the_configuration_but_for_the_number_of_steps(whole: Path) -> None:
    assert resumed_config(whole, {"training": {"steps": 9}}).training.steps == 9
    for overrides in ({"seed": 5}, {"training": {"lr": 1.0}}, {"objective": {"kl_weight": 0.0}}):
        with pytest.raises(UserError, match="can't be changed"):
            resumed_config(whole, overrides)


def test_a_new_run_never_overwrites(whole: Path, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not empty"):
        train(runs.run_config(tiny_models["llama"]), whole)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        train(runs.run_config(tiny_models["llama"]), tmp_path / "file")


def test_the_configuration_of_a_run_reproduces_it(whole: Path, tmp_path: Path) -> None:
    """Every row and every bit: so a repeated run is the same."""
    train(build_config(load_yaml(whole / "config.yaml")), tmp_path / "again")
    runs.assert_same_run(tmp_path / "again", whole)
    assert dump_yaml(build_config(load_yaml(whole / "config.yaml"))) == (whole / "config.yaml").read_text()


def test_the_environment_is_recorded(whole: Path, tiny_models: dict[str, Path]) -> None:
    environment = json.loads((whole / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert environment["model"] == str(tiny_models["llama"])
    assert len(environment["base_fingerprint"]) == 32


@pytest.mark.parametrize("name", ["metrics.jsonl", "events.jsonl", ".lock"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(
    whole: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    (out / name).unlink()
    os.mkfifo(out / name)
    assert main(["train", "--resume", str(out), "--training.steps", "8"]) in (1, 2)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("markovlm: ")]
    assert "a named pipe, not a file" in line


@pytest.mark.parametrize("who", ["the system", "safetensors"])
def test_a_full_disk_loses_nothing(
    who: str, whole: Path, crashed: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of step 6 can't be written: one line, exit code 1, and the run continues from step 3 once it can."""
    out, fsync, save = crashed(5, tmp_path / "run"), os.fsync, PeftModel.save_pretrained

    def full(descriptor: int) -> None:
        if (out / "checkpoints" / ".step-000006.tmp").exists():
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    def full_there(self: PeftModel, directory: str, **options: Any) -> None:
        if ".step-000006.tmp" in directory:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        save(self, directory, **options)

    if who == "the system":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(PeftModel, "save_pretrained", full_there)
    with pytest.raises(RunFailed, match=r"No space left on device; .*free space") as failed:
        runs.resume(out)
    monkeypatch.undo()
    assert failed.value.exit_code == 1
    assert RunDirectory(out).saved_steps() == [0, 3]
    runs.resume(out)
    runs.assert_same_run(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_kill_nine_at_random_moments(tiny_models: dict[str, Path], tmp_path: Path, seed: int) -> None:
    script = Path(runs.__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(script.parents[1]), *sys.path])}
    reference, killed = tmp_path / "reference", tmp_path / "killed"
    arguments = [str(script), str(tiny_models["llama"]), str(reference), str(killed), str(seed), "4"]
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    runs.assert_same_run(killed, reference)
