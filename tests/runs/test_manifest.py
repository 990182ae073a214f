"""Checkpoints that are not what was saved: named in one line wherever they are opened, and never taken for whole."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from markovlm.cli.main import main
from markovlm.errors import Note, UserError
from markovlm.runs import checkpoint, manifest
from markovlm.runs.directory import RunDirectory
from markovlm.runs.export import export
from markovlm.runs.manifest import (
    ADAPTER_FILES,
    DamagedCheckpoint,
    accept_damaged,
    check_checkpoint,
    is_whole,
    read_manifest,
    recorded,
    replace_file,
)
from markovlm.runs.rows import read_rows
from markovlm.runs.targets import open_targets
from markovlm.training.loop import train
from support import runs

pytestmark = pytest.mark.filterwarnings("ignore::markovlm.errors.Note")
ADAPTER, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture(scope="module")
def made(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints at 0, 2 and 4, with running statistics and a slow reader."""
    return trained(tiny_models["llama"], tmp_path_factory.mktemp("manifest") / "run")


def trained(model: Path, out: Path, **keys: Any) -> Path:
    few = {"training__steps": 4, "training__checkpoint_every": 2, "training__eval_every": 2, "training__lr": 1e-2}
    ema = {
        "objective__name": "ema",
        "objective__reader": "ema",
        "objective__actor_reward_weight": 0.0,
        "objective__baseline_every": 1,
    }
    train(runs.run_config(model, **{**few, **ema, **keys}), out)
    return out


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def last(run: Path) -> Path:
    return run / "checkpoints" / "step-000004"


def as_before(run: Path) -> Path:
    """As a version without manifests would have left it."""
    for path in run.glob("checkpoints/*/manifest.json"):
        path.unlink()
    environment = json.loads((run / "environment.json").read_text())
    del environment["run"]
    (run / "environment.json").write_text(json.dumps(environment))
    return run


def flip(path: Path, at: int = -100) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as error:
        call()
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    return str(error.value)


# ------------------------------------------------------------------------------------------------------ what is written


def test_every_file_is_described_and_two_runs_write_the_same(made: Path, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    found = read_manifest(last(made))
    assert found is not None
    assert set(found.files) == {ADAPTER, CONFIG, "optimizer.pt", "trainer_state.json", "reader.safetensors"}
    assert (found.step, found.interim, found.run) == (4, False, recorded(made).run)
    assert len(found.run) == 32
    again = trained(tiny_models["llama"], tmp_path / "again", logging__samples_every=1)
    assert (last(again) / "manifest.json").read_bytes() == (last(made) / "manifest.json").read_bytes()
    other = recorded(trained(tiny_models["llama"], tmp_path / "other", seed=5, training__steps=1)).run
    assert other != found.run


def test_checkpoints_stay_plain_adapters_and_files_may_be_added(run: Path, tiny_models: dict[str, Path]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    (last(run) / "README.md").write_text("# mine")
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_models["llama"]), str(last(run)))
    check_checkpoint(last(run), training=True)
    (last(run) / "optimizer.pt").unlink()  # pruned, to save space: only --resume needs it
    check_checkpoint(last(run))
    assert "optimizer.pt is missing" in refused(lambda: check_checkpoint(last(run), training=True))


# ------------------------------------------------------------------------------------------------------ what is refused


def swapped(name: str) -> Callable[[Path, Path], None]:
    return lambda run, other: shutil.copy(last(other) / name, last(run) / name) and None


def of_step_two(run: Path, other: Path) -> None:
    shutil.rmtree(last(run))
    shutil.copytree(run / "checkpoints" / "step-000002", last(run))


def of_another_run(run: Path, other: Path) -> None:
    shutil.rmtree(last(run))
    shutil.copytree(last(other), last(run))


def shortened(run: Path, other: Path) -> None:
    weights = load_file(last(run) / ADAPTER)
    weights.pop(sorted(weights)[0])
    save_file(weights, last(run) / ADAPTER)


def as_a_device(run: Path, other: Path) -> None:
    (last(run) / ADAPTER).unlink()
    (last(run) / ADAPTER).symlink_to("/dev/zero")


def as_a_pipe(run: Path, other: Path) -> None:
    (last(run) / CONFIG).unlink()
    os.mkfifo(last(run) / CONFIG)


def hostile_manifest(run: Path, other: Path) -> None:
    found = json.loads((last(run) / "manifest.json").read_text())
    found["files"]["../../../secret"] = {"bytes": 1, "sha256": "0"}
    (last(run) / "manifest.json").write_text(json.dumps(found))


DAMAGES: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "a flipped byte of the adapter": (lambda run, _: flip(last(run) / ADAPTER), f"{ADAPTER} is not the file that was saved"),
    "a flipped byte of the optimizer": (lambda run, _: flip(last(run) / "optimizer.pt", 4000), "optimizer.pt is not the file"),
    "a tensor is missing": (shortened, f"{ADAPTER} has "),
    "another run's adapter": (swapped(ADAPTER), f"{ADAPTER} is not the file"),
    "another run's optimizer": (swapped("optimizer.pt"), "optimizer.pt is not the file"),
    "another run's state": (swapped("trainer_state.json"), "trainer_state.json "),
    "another run's checkpoint": (of_another_run, "belongs to another run"),
    "another step's checkpoint": (of_step_two, "holds step 2 according to its"),
    "a missing file": (lambda run, _: (last(run) / ADAPTER).unlink(), f"{ADAPTER} is missing"),
    "a missing manifest": (lambda run, _: (last(run) / "manifest.json").unlink(), "manifest.json is missing"),
    "a torn manifest": (lambda run, _: (last(run) / "manifest.json").write_text('{"run": '), "manifest.json: cannot be read"),
    "an empty manifest": (lambda run, _: (last(run) / "manifest.json").write_text("{}"), "manifest.json: cannot be read"),
    "a device": (as_a_device, f"{ADAPTER} is not a regular file"),
    "a pipe": (as_a_pipe, f"{CONFIG} is not a regular file"),
    "a manifest that names a place outside": (hostile_manifest, "is not a valid file name"),
}


@pytest.fixture(scope="module")
def other(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny_models["llama"], tmp_path_factory.mktemp("other") / "run", seed=1)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused_wherever_a_checkpoint_is_opened(run: Path, other: Path, tmp_path: Path, damage: str) -> None:
    inflict, said = DAMAGES[damage]
    inflict(run, other)
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    (target,) = open_targets(str(run), "last", {})
    for call in (lambda: runs.resume(run), target.prepare, lambda: export(target, tmp_path / "out", merge=False)):
        message = refused(call)
        assert said in message
        assert "step-000004" in message
        assert "step-000002, step-000000" in message  # the whole ones
        assert "--force" in message
    assert "delete step-000004 to continue from step-000002" in refused(lambda: runs.resume(run))
    assert not (tmp_path / "out").exists()
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_force_goes_on_and_is_an_event(run: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swapped("trainer_state.json")(run, other)
    assert main(["train", "--resume", str(run), "--training.steps", "5"]) == 2
    assert "trainer_state.json" in capsys.readouterr().err
    assert main(["train", "--resume", str(run), "--training.steps", "5", "--force"]) == 0
    assert "markovlm: note: " in capsys.readouterr().err
    (event,) = [row for row in read_rows(run / "events.jsonl") if row["kind"] == "forced"]
    assert "trainer_state.json" in event["message"]
    assert event["step"] == 4


def test_a_swapped_base_is_refused_and_another_precision_is_not(run: Path, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_models["llama"], tmp_path / "model"))
    weights = load_file(model / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"].view(torch.int32)[3, 4] ^= 1
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    config = (run / "config.yaml").read_text().replace(str(tiny_models["llama"]), str(model))
    (run / "config.yaml").write_text(config)
    assert "is not the one this run was trained on" in refused(open_targets(str(run), "last", {})[0].prepare)
    assert "is not the one this run was trained on" in refused(open_targets(str(run), "base", {})[0].prepare)
    open_targets(str(run), "last", {"loading": {"dtype": "float64"}})[0].prepare()
    with accept_damaged(), pytest.warns(Note, match="used all the same"):
        open_targets(str(run), "last", {})[0].prepare()


def test_a_damaged_export_is_refused_and_its_card_may_be_edited(run: Path, tmp_path: Path) -> None:
    out = export(open_targets(str(run), "last", {})[0], tmp_path / "exported", merge=False)
    assert set(read_manifest(out).files) == set(ADAPTER_FILES)  # type: ignore[union-attr]
    (out / "README.md").write_text("my own words")
    open_targets(str(out), "last", {})[0].prepare()
    flip(out / ADAPTER)
    assert "is not the file that was saved" in refused(open_targets(str(out), "last", {})[0].prepare)


# ------------------------------------------------------------------------------------------------------ earlier versions


def test_checkpoints_of_an_earlier_version_are_read_with_a_note(run: Path) -> None:
    as_before(run)
    with pytest.warns(Note, match="saved by an earlier version, without manifest"):
        open_targets(str(run), "last", {})[0].prepare()
    train(runs.resumed_config(run, {"training": {"steps": 6}}), run, resume=True)
    assert (run / "checkpoints" / "step-000006" / "manifest.json").exists()
    check_checkpoint(run / "checkpoints" / "step-000006", training=True)
    check_checkpoint(last(run), training=True)


def test_the_environment_of_an_earlier_run_is_written_anew_without_an_identity(run: Path) -> None:
    as_before(run)
    (run / "environment.json").unlink()
    runs.resume(run)
    assert recorded(run).run == ""
    assert recorded(run).base_fingerprint


STATES = {
    "an empty object": "{}",
    "a list": "[]",
    "null": "null",
    "torn": '{"step": 4, "obj',
    "nested too deeply": "[" * 100_000,
    "a text for the step": {"step": "4"},
    "another step": {"step": 3},
    "no guard": {"guard": None},
    "a guard of another shape": {"guard": {"monitor": {"tracks": 3}, "healthy": [], "rollbacks": 0}},
    "a monitor that counts in words": lambda state: state["guard"]["monitor"].update(n="many"),
    "a bad best": {"best": {"step": 4, "score": "high"}},
    "a best that is a number": {"best": 7},
    "no objective": {"objective": None},
    "a foreign objective": {"objective": {"history": []}},
    "words in the objective": {"objective": {"weighted": "much", "weights": 1.0}},
    "an infinite scale": {"lr_scale": float("inf")},
}


@pytest.mark.parametrize("what", STATES)
def test_a_bad_trainer_state_is_one_line(run: Path, what: str) -> None:
    path, wrong = last(as_before(run)) / "trainer_state.json", STATES[what]
    if isinstance(wrong, str):
        path.write_text(wrong)
    else:
        state = json.loads(path.read_text())
        wrong(state) if callable(wrong) else state.update(wrong)
        path.write_text(json.dumps(state))
    message = refused(lambda: runs.resume(run))
    assert "trainer_state.json" in message
    assert "delete step-000004 to continue from step-000002" in message
    assert "--force" not in message  # there is nothing that could be used


def moments(run: Path) -> dict[str, Any]:
    return torch.load(last(run) / "optimizer.pt", weights_only=True)


def of_another_rank(run: Path) -> Any:
    state = moments(run)
    state["state"][0]["exp_avg"] = torch.zeros(3, 5)
    return state


def not_finite(run: Path) -> Any:
    state = moments(run)
    state["state"][1]["exp_avg_sq"][0, 0] = float("nan")
    return state


OPTIMIZERS: dict[str, Callable[[Path], Any]] = {
    "a list": lambda _: [1, 2],
    "a tensor": lambda _: torch.zeros(3),
    "no groups": lambda run: {"state": moments(run)["state"]},
    "groups without parameters": lambda run: {**moments(run), "param_groups": [{}]},
    "too few parameters": lambda run: {**moments(run), "param_groups": [{**moments(run)["param_groups"][0], "params": [0]}]},
    "another rank": of_another_rank,
    "not finite": not_finite,
}


@pytest.mark.parametrize("what", OPTIMIZERS)
def test_a_bad_optimizer_is_one_line(run: Path, what: str) -> None:
    torch.save(OPTIMIZERS[what](run), last(as_before(run)) / "optimizer.pt")
    message = refused(lambda: runs.resume(run))
    assert "optimizer.pt" in message
    assert "delete step-000004 to continue from step-000002" in message


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("name", ["optimizer.pt", "adapter_model.bin"])
def test_no_pickle_is_ever_run(run: Path, tmp_path: Path, name: str) -> None:
    as_before(run)
    (last(run) / ADAPTER).unlink() if name.endswith(".bin") else None
    (last(run) / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    message = refused(lambda: runs.resume(run))
    assert "step-000004" in message
    assert f"{name} is not a file of tensors" in message
    assert "weights_only" not in message  # torch's advice would run it
    assert not (tmp_path / "sprung").exists()


def test_an_adapter_that_is_not_finite_is_said_to_be_that(run: Path) -> None:
    as_before(run)
    weights = load_file(last(run) / ADAPTER)
    weights[sorted(weights)[3]][0, 0] = float("nan")
    save_file(weights, last(run) / ADAPTER, {"format": "pt"})
    first = open_targets(str(run), "0", {})[0].prepare()
    for call in (open_targets(str(run), "last", {})[0].prepare, lambda: checkpoint.load_adapter(first.lm, last(run))):
        message = refused(call)
        assert "not finite (NaN or infinite)" in message
        assert "intact: step-000002" in message


def test_a_tensor_that_is_missing_is_missed_without_a_manifest_too(run: Path) -> None:
    shortened(as_before(run), run)
    first = open_targets(str(run), "0", {})[0].prepare()
    assert "missing adapter keys" in refused(open_targets(str(run), "last", {})[0].prepare)
    assert "1 tensors of the adapter are missing" in refused(lambda: checkpoint.load_adapter(first.lm, last(run)))


@pytest.mark.parametrize("text", ["[]", "{", '{"run": 3}', "[" * 100_000])
def test_a_bad_environment_is_one_line(run: Path, text: str) -> None:
    (run / "environment.json").write_text(text)
    assert "environment.json: cannot be read" in refused(lambda: runs.resume(run))
    assert "environment.json: cannot be read" in refused(open_targets(str(run), "last", {})[0].prepare)


# ------------------------------------------------------------------------------------------------------ being replaced


def test_a_state_that_is_replaced_is_whole_whenever_it_is_killed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three files are renamed into place; the process dies before the first, second, third, or not at all."""
    old = (last(run) / "trainer_state.json").read_bytes()
    new = old.replace(b'"attempt": 0', b'"attempt": 1')
    assert new != old
    write, seen = manifest.replace_whole, []
    for survived in range(4):
        left = [survived]

        def one(path: Path, data: bytes, left: list[int] = left) -> None:
            if not left[0]:
                raise runs.Crash
            left[0] -= 1
            write(path, data)

        monkeypatch.setattr(manifest, "replace_whole", one)
        try:
            replace_file(last(run), "trainer_state.json", new)
        except runs.Crash:
            assert survived < 3
        assert is_whole(last(run), training=True)
        seen.append((last(run) / "trainer_state.json").read_bytes())
    assert seen == [old, old, new, new]
    flip(last(run) / "trainer_state.json", 20)
    assert not is_whole(last(run), training=True)


def test_the_error_names_at_most_three_whole_checkpoints_the_latest_first(run: Path) -> None:
    for step in (2, 0):
        flip(RunDirectory(run).checkpoint(step) / ADAPTER)
    flip(last(run) / ADAPTER)
    with pytest.raises(DamagedCheckpoint, match="no other checkpoint is intact; --force"):
        runs.resume(run)
