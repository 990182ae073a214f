"""The run directory: whole rows, atomic files, torn lines, and one line for what goes wrong."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from markovlm.errors import MarkovlmError, RunFailed, UserError
from markovlm.runs import directory
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import clean, parse_row, read_rows, writing


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "deep" / "run")
    directory.create()
    return directory


def test_rows_come_back(run: RunDirectory) -> None:
    rows = [{"step": 1, "text": 'a "quoted"\nline\r\u2028é', "value": 0.1}, {"step": 2, "value": None}]
    run.append("metrics.jsonl", rows)
    run.append("metrics.jsonl", [])
    run.append("metrics.jsonl", [{"step": 3}])
    assert read_rows(run.path / "metrics.jsonl") == [*rows, {"step": 3}]
    assert len((run.path / "metrics.jsonl").read_bytes().splitlines()) == 3  # a row is a line, whatever is in it
    assert read_rows(run.path / "absent.jsonl") == []


def test_values_that_are_not_finite_become_null() -> None:
    row: dict[str, Any] = {"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": float("-inf")}, "e": "NaN", "f": True}
    assert clean(row) == {"a": None, "b": [None, 1.5], "c": {"d": None}, "e": "NaN", "f": True}
    json.dumps(clean(row), allow_nan=False)


def test_half_surrogates_of_a_model_do_not_end_a_run(run: RunDirectory) -> None:
    run.append("samples.jsonl", [{"step": 1, "cot": "\ud83d broken"}])
    assert read_rows(run.path / "samples.jsonl")[0]["step"] == 1


def test_torn_and_foreign_lines_are_no_rows() -> None:
    assert parse_row(b'{"step": 1}') == {"step": 1}
    for line in (b'{"step": 1', b"", b"[1, 2]", b"\x00\xff", "3"):
        assert parse_row(line) is None


def test_cutting_drops_later_rows_and_a_torn_line(run: RunDirectory) -> None:
    run.append("metrics.jsonl", [{"step": step} for step in (1, 2, 3, 4)])
    run.append("evals.jsonl", [{"step": 0}, {"step": 2}])
    with open(run.path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 2, "loss": 0.')
    (run.path / "events.jsonl").write_bytes(b'{"step": 9}\n{"torn')
    assert run.cut_after(2) == {"metrics.jsonl": 3}  # steps 3 and 4, and the torn one
    assert read_rows(run.path / "metrics.jsonl") == [{"step": 1}, {"step": 2}]
    assert read_rows(run.path / "evals.jsonl") == [{"step": 0}, {"step": 2}]
    assert (run.path / "events.jsonl").read_bytes() == b'{"step": 9}\n'  # events are history: kept, only mended
    assert run.cut_after(-1) == {"metrics.jsonl": 2, "evals.jsonl": 2}


def test_saved_steps_are_whole_checkpoints_in_order(run: RunDirectory) -> None:
    for name in ("step-000010", "step-000002", "step-1000000", ".step-000011.tmp", "step-best", "notes"):
        (run.checkpoints / name).mkdir()
    (run.checkpoints / "step-000099").touch()  # a file
    assert run.saved_steps() == [2, 10, 1000000]
    assert run.checkpoint(2).name == "step-000002"
    assert RunDirectory(run.path / "none").saved_steps() == []


def test_small_files_are_written_whole_or_not_at_all(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    run.write("config.yaml", "old")

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunFailed, match="No space left"):
        run.write("config.yaml", "new")
    monkeypatch.undo()
    assert (run.path / "config.yaml").read_text() == "old"
    assert not list(run.path.glob(".*.tmp"))


def test_writing_errors_are_one_line_with_the_path(tmp_path: Path) -> None:
    with (
        pytest.raises(
            RunFailed, match=r"rows\.jsonl: cannot be written: No space left on device; free space and run the command again"
        ) as failed,
        writing(tmp_path / "rows.jsonl"),
    ):
        raise OSError(28, "No space left on device")
    assert failed.value.exit_code == 1
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.EROFS, "make it writable, or copy it"), (errno.ENOSPC, "free space and run")]
)
def test_a_run_whose_lock_cannot_be_written(run: RunDirectory, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str) -> None:
    def refuse(path: Path, *_: Any) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(directory, "open", refuse, raising=False)
    with pytest.raises(MarkovlmError, match=remedy) as failed, run.locked():
        pass
    assert os.strerror(number) in str(failed.value)


def test_a_directory_with_something_in_it_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="not empty"):
        RunDirectory(tmp_path).create()
    with pytest.raises(UserError, match="is a file"):
        RunDirectory(tmp_path / "notes.txt").create()
    with pytest.raises(UserError, match="cannot be created"):
        RunDirectory(tmp_path / "notes.txt" / "run").create()


def test_a_run_that_never_began_may_be_replaced_but_not_one_with_a_checkpoint(run: RunDirectory) -> None:
    (run.path / ".lock").touch()
    (run.path / "environment.json").touch()
    run.create()
    run.checkpoint(0).mkdir()
    with pytest.raises(UserError, match="not empty"):
        run.create()


def test_the_lock_is_free_again_afterwards(run: RunDirectory) -> None:
    with run.locked(), pytest.raises(UserError, match="another process"), RunDirectory(run.path).locked():
        pass
    with run.locked():
        pass


def test_events_carry_time_step_and_kind(run: RunDirectory) -> None:
    run.event("retry", 3, "split", rows=2)
    (event,) = read_rows(run.path / "events.jsonl")
    assert {k: event[k] for k in ("step", "kind", "message", "rows")} == {
        "step": 3,
        "kind": "retry",
        "message": "split",
        "rows": 2,
    }
    assert event["time"].endswith("Z")
