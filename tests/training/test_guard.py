"""What `health.policy` does with a collapse, through the real loop and the command line.

The CoTs are scripted: from a given step on they repeat one character, which the guard must see, in the rows of real steps of
a tiny random model. What is drawn depends on the stream's key alone, so a resumed run meets the same script.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from markovlm import cli
from markovlm.config import dump_yaml
from markovlm.errors import StopVerdict
from markovlm.rollouts.streams import Key, stream
from markovlm.rollouts.types import CoT, Decoding, SampleRequest
from markovlm.runs.directory import RunDirectory
from markovlm.runs.manifest import is_whole
from markovlm.runs.rows import read_rows
from markovlm.training import keeping, start
from markovlm.training.loop import train
from support import runs, tiny

TOKENS = 24
FOUR = tiny.ALPHABET.index("4") + len(tiny.SPECIAL)
Bad = Callable[[int, int], bool]  # (step, attempt) -> does this step draw "4444..."?


class Scripted:
    """Random characters, or the same one over and over in the steps that `bad` names."""

    def __init__(self, bad: Bad):
        self.bad = bad
        self.splits = 0

    def sample(self, requests: Sequence[SampleRequest], decoding: Decoding) -> list[list[CoT]]:
        length = min(decoding.max_tokens, TOKENS)
        return [[self._cot(key, length) for key in request.streams] for request in requests]

    def _cot(self, key: Key, length: int) -> CoT:
        step = key[key.index("cot") + 1] if "cot" in key else 0
        attempt = key[key.index("attempt") + 1] if "attempt" in key else 0
        assert isinstance(step, int)
        assert isinstance(attempt, int)
        drawn = stream(*key).integers(len(tiny.SPECIAL), len(tiny.SPECIAL) + len(tiny.ALPHABET), length)
        tokens = (FOUR,) * length if self.bad(step, attempt) else tuple(int(t) for t in drawn)
        return CoT(tokens, length, (-4.0,) * length, ended=False)


def from_step_5(step: int, attempt: int) -> bool:
    return step >= 5


def config(model: Path, **overrides: Any) -> Any:
    """10 steps, a checkpoint every second one. From step 5 on is a collapse, seen at step 8: four of five rows."""
    keys = {
        "loading__dtype": "float32", "rollouts__max_cot_tokens": TOKENS, "rollouts__group_size": 2, "training__steps": 10,
        "training__lr": 1e-3, "objective__baseline_every": 1, "training__eval_every": 4, "logging__samples_every": 1,
        "evaluation__dev_size": 2,
    }  # fmt: skip
    return tiny.config(model, **{**keys, **overrides})


def run(model: Path, out: Path, bad: Bad, **overrides: Any) -> Any:
    return train(config(model, **overrides), out, sampler=Scripted(bad), check=False)


def resume(out: Path, bad: Bad) -> Any:
    return runs.resume(out, sampler=Scripted(bad), check=False)


def steps_of(path: Path) -> list[int]:
    return [row["step"] for row in read_rows(path)]


def events(out: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_rows(out / "events.jsonl") if event["kind"] == kind]


# ------------------------------------------------------------------------------------------------------- warn and off


@pytest.fixture(scope="module")
def went_on(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs that collapsed and were not stopped, by `health.policy`."""
    root = tmp_path_factory.mktemp("went on")
    for policy in ("warn", "off"):
        assert run(tiny_models["llama"], root / policy, from_step_5, health__policy=policy).steps == 10
    return {policy: root / policy for policy in ("warn", "off")}


def test_warn_notes_the_collapse_with_its_evidence_and_goes_on(went_on: dict[str, Path]) -> None:
    (verdict,) = [event for event in events(went_on["warn"], "verdict") if event["verdict"] == "collapsed"]
    assert verdict["step"] == 8
    (signal,) = [signal for signal in verdict["signals"] if signal["name"] == "char_run_share"]
    assert (signal["step"], signal["level"], signal["kind"]) == (5, "collapsed", "repeated_character")
    assert signal["value"] == 1.0 > signal["threshold"]


def test_a_healthy_run_has_no_verdict(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    run(tiny_models["llama"], tmp_path / "run", lambda step, attempt: False, health__policy="stop")
    found = {signal["name"] for verdict in events(tmp_path / "run", "verdict") for signal in verdict["signals"]}
    assert found <= {"sampler_gap"}  # these characters are drawn by no model, whatever log-prob they claim


def test_off_says_nothing(went_on: dict[str, Path]) -> None:
    assert events(went_on["off"], "verdict") == []


def test_the_guard_changes_no_number(went_on: dict[str, Path]) -> None:
    assert runs.rows(went_on["off"], "metrics.jsonl") == runs.rows(went_on["warn"], "metrics.jsonl")


# ------------------------------------------------------------------------------------------------------- stop


def command(model: Path, out: Path, bad: Bad, monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> int:
    """`markovlm train CONFIG` with the script in place of the sampler."""
    file = out.with_suffix(".yaml")
    file.write_text(dump_yaml(config(model, **overrides)))
    monkeypatch.setattr("markovlm.runs.setup.HFSampler", lambda lm, batch_tokens, **_: Scripted(bad))
    monkeypatch.setattr(start, "check_sampler", lambda *args: 0.0)
    return cli.main(["train", str(file), "--out", str(out)])


def test_stop_ends_with_exit_code_3_and_one_line(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert command(tiny_models["llama"], out, from_step_5, monkeypatch, health__policy="stop") == 3
    printed = capsys.readouterr()
    (line,) = [line for line in printed.err.splitlines() if line.startswith("markovlm: ")]
    assert "collapsed from step 5: the CoT repeats one character" in line
    assert "the last healthy checkpoint is step 4" in line  # that of step 6 was saved before anybody knew
    assert printed.out == ""
    assert "Traceback" not in printed.err
    # and the run can be read
    assert steps_of(out / "metrics.jsonl") == list(range(1, 9))
    assert RunDirectory(out).saved_steps() == [0, 2, 4, 6, 8]
    assert events(out, "stopped")[0]["step"] == 8
    assert all(parsed is not None for parsed in map(json.loads, (out / "events.jsonl").read_text().splitlines()))


def test_a_stopped_run_that_is_resumed_stops_again(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """The guard's memory is part of the checkpoint."""
    for attempt in (run, lambda model, out, bad, **keys: resume(out, bad)):
        with pytest.raises(StopVerdict, match="collapsed from step 5"):
            attempt(tiny_models["llama"], tmp_path / "run", from_step_5, health__policy="stop")
    assert steps_of(tmp_path / "run" / "metrics.jsonl") == list(range(1, 10))


# ------------------------------------------------------------------------------------------------------- rollback


def first_attempt_only(step: int, attempt: int) -> bool:
    return step >= 5 and attempt == 0


MOMENTS = ("before anything", "before rows are moved", "before checkpoints are moved", "at the end")


@contextlib.contextmanager
def copied_in_a_rollback(out: Path) -> Iterator[None]:
    """Copies of the run at each of `MOMENTS` of its rollback, beside it."""
    update_state, put_aside, replace = keeping.update_state, RunDirectory.put_aside, os.replace

    def copy(moment: str) -> None:
        shutil.copytree(out, out.parent / f"{out.name} {moment}")

    def copy_and_update(*args: Any) -> None:
        copy("before anything")
        update_state(*args)

    def copy_and_put_aside(*args: Any) -> None:
        copy("before rows are moved")
        put_aside(*args)
        copy("at the end")

    def copy_and_replace(source: Any, target: Any) -> None:
        if "rollbacks" in str(target):
            copy("before checkpoints are moved")
        replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeping, "update_state", copy_and_update)
        patch.setattr(RunDirectory, "put_aside", copy_and_put_aside)
        patch.setattr(os, "replace", copy_and_replace)
        yield


@pytest.fixture(scope="module")
def rolled_back(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Runs that went back once and were not disturbed, with a checkpoint every 2 and every 4 steps.

    Beside each is what it would have left if the process had been killed at each of `MOMENTS`, or behind the row of step 9.
    """
    root = tmp_path_factory.mktemp("rolled back")
    for every in (2, 4):
        out = root / str(every)
        keys = {"health__policy": "rollback", "training__checkpoint_every": every}
        copied = runs.CopyAfter(out, {9: root / f"{every} after row 9"})
        with copied_in_a_rollback(out):
            done = train(
                config(tiny_models["llama"], **keys), out, sampler=Scripted(first_attempt_only), check=False, progress=copied
            )
        assert done.steps == 10
    return {every: root / str(every) for every in (2, 4)}


def test_rollback_returns_to_the_last_healthy_checkpoint_at_half_the_rate(rolled_back: dict[int, Path]) -> None:
    out = rolled_back[2]
    (rollback,) = events(out, "rollback")
    # onset at 5: the checkpoint of step 6 was saved before anybody knew, and must not be the one
    assert (rollback["from_step"], rollback["step"], rollback["lr_scale"]) == (8, 4, 0.5)
    assert "repeats one character" in rollback["reason"]
    rows = read_rows(out / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 11))  # one course, no step twice
    assert [row["lr"] for row in rows] == [1e-3] * 4 + [5e-4] * 6
    assert rows[-1]["longest_char_run"] < 10
    aside = out / "rollbacks" / "1"
    assert steps_of(aside / "metrics.jsonl") == [5, 6, 7, 8]
    assert sorted(set(steps_of(aside / "samples.jsonl"))) == [5, 6, 7, 8]
    assert [path.name for path in (aside / "checkpoints").iterdir()] == ["step-000006"]
    assert RunDirectory(out).saved_steps() == [0, 2, 4, 6, 8, 10]
    assert steps_of(out / "evals.jsonl") == [0, 4, 8, 10]


def test_the_weights_and_the_optimizer_are_those_of_the_checkpoint(rolled_back: dict[int, Path], tmp_path: Path) -> None:
    """A run that goes back to step 4 equals one that is resumed from a copy of that checkpoint after the rollback."""
    out, copy = rolled_back[2], tmp_path / "copy"
    shutil.copytree(out, copy)
    for later in (6, 8, 10):
        shutil.rmtree(RunDirectory(copy).checkpoint(later))
    resume(copy, first_attempt_only)
    runs.assert_same_run(copy, out)


def test_other_cots_are_drawn_after_a_rollback(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """Else the same samples at half the rate would walk the same way."""
    out = tmp_path / "run"
    run(tiny_models["llama"], out, lambda step, attempt: 6 <= step <= 9 and attempt == 0, health__policy="rollback")
    (rollback,) = events(out, "rollback")
    assert rollback["step"] == 4
    before = [row["cot"] for row in read_rows(out / "rollbacks" / "1" / "samples.jsonl") if row["step"] == 5]
    after = [row["cot"] for row in read_rows(out / "samples.jsonl") if row["step"] == 5]
    assert len(before) == len(after) == 4
    assert not set(before) & set(after)


def test_the_number_of_rollbacks_is_limited(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(StopVerdict) as stopped:
        run(tiny_models["llama"], out, from_step_5, health__policy="rollback", health__max_rollbacks=2)
    assert "stopped by health.policy=rollback" in str(stopped.value)
    assert [event["lr_scale"] for event in events(out, "rollback")] == [0.5, 0.25]
    assert sorted(path.name for path in (out / "rollbacks").iterdir()) == ["1", "2"]
    for number, lr in (("1", 1e-3), ("2", 5e-4)):
        rows = read_rows(out / "rollbacks" / number / "metrics.jsonl")
        assert [(row["step"], row["lr"]) for row in rows] == [(step, lr) for step in (5, 6, 7, 8)]
    assert [row["lr"] for row in read_rows(out / "metrics.jsonl")] == [1e-3] * 4 + [2.5e-4] * 4


def test_without_a_healthy_checkpoint_it_stops(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """A collapse from the first step on: only step 0 lies before it, and that is where the run goes."""
    out = tmp_path / "run"
    with pytest.raises(StopVerdict):
        run(tiny_models["llama"], out, lambda step, attempt: True, health__policy="rollback", health__max_rollbacks=1)
    (rollback,) = events(out, "rollback")
    assert rollback["step"] == 0
    assert steps_of(out / "rollbacks" / "1" / "metrics.jsonl") == [1, 2, 3, 4]
    assert steps_of(out / "metrics.jsonl") == [1, 2, 3, 4]


# ------------------------------------------------------------------------------------------------------- killed


@pytest.mark.parametrize("every", [2, 4], ids=["with a later checkpoint", "without a later checkpoint"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_in_the_middle_of_a_rollback(rolled_back: dict[int, Path], tmp_path: Path, moment: str, every: int) -> None:
    """Resumed, the run ends as if nobody had killed it, and what collapsed is on record."""
    if moment == "before checkpoints are moved" and every == 4:
        pytest.skip("there is none to move")
    out = Path(shutil.copytree(rolled_back[every].parent / f"{every} {moment}", tmp_path / "run"))
    resume(out, first_attempt_only)
    runs.assert_same_run(out, rolled_back[every])
    aside = out / "rollbacks" / "1"
    assert set(steps_of(aside / "metrics.jsonl")) == {5, 6, 7, 8}
    assert not (out / "rollbacks" / "2").exists()


def test_an_interruption_before_a_rollback_leaves_no_trace(
    tiny_models: dict[str, Path], rolled_back: dict[int, Path], tmp_path: Path
) -> None:
    """The checkpoint of the interruption is none that a rollback could go to, or has to put aside: an uninterrupted run has none there."""
    out = tmp_path / "run"
    keys = {"health__policy": "rollback", "training__checkpoint_every": 4}
    stopped = config(tiny_models["llama"], **keys)
    train(stopped, out, sampler=Scripted(first_attempt_only), check=False, progress=runs.TerminateAfter(6))
    assert RunDirectory(out).saved_steps() == [0, 4, 6]
    resume(out, first_attempt_only)
    runs.assert_same_directory(out, rolled_back[4])


def test_a_rollback_passes_a_damaged_checkpoint_by(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"

    class Damage(runs.Silent):
        def step(self, row: dict[str, Any]) -> None:
            if row["step"] == 7 and not (out / "rollbacks").exists():
                (RunDirectory(out).checkpoint(4) / "optimizer.pt").write_bytes(b"torn")

    stopped = config(tiny_models["llama"], health__policy="rollback")
    train(stopped, out, sampler=Scripted(first_attempt_only), check=False, progress=Damage())
    assert [event["step"] for event in events(out, "rollback")] == [2]
    assert "step-000004 is damaged and can't be rolled back to" in [event["message"] for event in events(out, "warning")]
    assert RunDirectory(out).saved_steps() == [0, 2, 4, 6, 8, 10]
    assert is_whole(RunDirectory(out).checkpoint(4), training=True)  # made anew


def test_a_crash_after_a_rollback(rolled_back: dict[int, Path], tmp_path: Path) -> None:
    """The halved rate, the number of rollbacks and the other draws survive."""
    out = Path(shutil.copytree(rolled_back[2].parent / "2 after row 9", tmp_path / "run"))
    resume(out, first_attempt_only)
    runs.assert_same_run(out, rolled_back[2])
