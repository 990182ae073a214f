"""Short training runs: what two of them must have in common, and processes that are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markovlm.runs.ahead import resumed_config
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import read_rows
from markovlm.training.loop import TrainResult, train
from markovlm.training.state import Silent
from support import tiny

NOT_COMPARED = ("_seconds", "_per_second", "_memory")
STATE = ("adapter_model.safetensors", "adapter_config.json", "optimizer.pt", "trainer_state.json")


def run_config(model: Path | str, **overrides: Any) -> Any:
    """Seven steps with everything that has state: evaluations, checkpoints, samples, a schedule, baselines every third step."""
    keys = {
        "loading__dtype": "float32",
        "training__steps": 7,
        "training__lr": "linear 1e-2 -> 0",
        "training__eval_every": 2,
        "training__checkpoint_every": 3,
        "objective__baseline_every": 3,
        "objective__kl_weight": "linear 0.1 -> 0.2",
        "lora__dropout": 0.1,
        "logging__samples_every": 2,
    }
    return tiny.config(model, **{**keys, **overrides})


class Crash(Exception):
    """Stands for whatever ends a process."""


class CrashAfter(Silent):
    """Raises once the row of step `step` is written, before its evaluation and checkpoint."""

    def __init__(self, step: int):
        self.at = step

    def step(self, row: dict[str, Any]) -> None:
        if row["step"] == self.at:
            raise Crash


class CopyAfter(Silent):
    """Copies the run `out` where `CrashAfter` would end it: what a crash leaves. The run goes on."""

    def __init__(self, out: Path, copies: Mapping[int, Path]):
        self.out, self.copies = out, copies

    def step(self, row: dict[str, Any]) -> None:
        if row["step"] in self.copies:
            shutil.copytree(self.out, self.copies[row["step"]])


class TerminateAfter(CrashAfter):
    """Sends SIGTERM to this process instead."""

    def step(self, row: dict[str, Any]) -> None:
        if row["step"] == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def resume(out: Path, **options: Any) -> TrainResult:
    return train(resumed_config(out, {}), out, resume=True, **options)


def rows(out: Path, name: str) -> list[dict[str, Any]]:
    """Without what a repeated run may change."""
    return [{k: v for k, v in row.items() if not k.endswith(NOT_COMPARED)} for row in read_rows(out / name)]


def checkpoint_bytes(out: Path, step: int) -> dict[str, Any]:
    """Every file that training reads back. Which checkpoints there were is a fact of each run, not of training."""
    files: dict[str, Any] = {name: (RunDirectory(out).checkpoint(step) / name).read_bytes() for name in STATE}
    state = json.loads(files["trainer_state.json"])
    state.get("guard", {}).pop("healthy", None)
    return {**files, "trainer_state.json": state}


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Every row and every bit of the last checkpoint."""
    for name in ("metrics.jsonl", "evals.jsonl", "samples.jsonl"):
        assert rows(theirs, name), name
        assert rows(ours, name) == rows(theirs, name), name
    last = RunDirectory(theirs).saved_steps()[-1]
    assert RunDirectory(ours).saved_steps()[-1] == last
    mine, other = checkpoint_bytes(ours, last), checkpoint_bytes(theirs, last)
    assert mine["trainer_state.json"] == other["trainer_state.json"]
    assert [name for name in STATE if mine[name] != other[name]] == []


def contents(out: Path) -> dict[str, Any]:
    """Every file of a run by its path, but for its events: bytes, and of rows what a repeated run may not change."""
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != "events.jsonl")
    return {
        path.relative_to(out).as_posix(): rows(path.parent, path.name) if path.suffix == ".jsonl" else path.read_bytes()
        for path in files
    }


def assert_same_directory(ours: Path, theirs: Path) -> None:
    """The same files with the same bytes, but for events and times."""
    mine, other = contents(ours), contents(theirs)
    assert sorted(mine) == sorted(other)
    assert [name for name in mine if mine[name] != other[name]] == []


def main(model: str, reference: str, killed: str, seed: int, kills: int) -> None:
    """Train `reference` whole, then `killed` with `kills` SIGKILLs at random moments, each time continued.

    Each attempt is a fork of this process, which has everything imported and has computed nothing yet.
    """
    import random

    import transformers.models.llama.modeling_llama  # noqa: F401  imported before the forks

    began = time.monotonic()
    assert _attempt(model, Path(reference), None) == 0
    whole, rng = time.monotonic() - began, random.Random(seed)
    done = 0
    for _ in range(50):
        if done < kills:
            _attempt(model, Path(killed), rng.uniform(0.0, whole))
            done += 1
        elif _attempt(model, Path(killed), None) == 0:
            return
    raise SystemExit("the run never finished")


def _attempt(model: str, out: Path, seconds: float | None) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            resume(out) if (out / "config.yaml").exists() else train(run_config(model), out)
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
