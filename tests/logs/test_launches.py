"""Several launches in one log are several runs; a resumed run, an epoch's own steps and rows out of order are one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from markovlm.cli.main import main
from markovlm.health.diagnose import diagnose_paths
from markovlm.logs.find import find_runs, read_launches, read_runs


def rows(*launches: tuple[Sequence[int], float], **more: Any) -> str:
    """Lines of steps with one reward for each launch."""
    return "".join(json.dumps({"step": s, "reward": r, "kl": 0.01, **more}) + "\n" for steps, r in launches for s in steps)


def found(path: Path, text: str) -> list[tuple[tuple[int, int], list[int]]]:
    path.write_text(text)
    return [(run.launch, run.metrics["step"].to_list()) for run in read_launches(path)]


def test_steps_that_begin_anew_are_launches_of_their_own(tmp_path: Path) -> None:
    one, two, three = range(1, 31), range(1, 11), range(1, 6)
    assert found(tmp_path / "a.jsonl", rows((one, 0.5), (two, 0.1), (three, 0.7))) == [
        ((1, 3), list(one)), ((2, 3), list(two)), ((3, 3), list(three)),
    ]  # fmt: skip
    by_tens = found(tmp_path / "b.jsonl", rows((range(10, 200, 10), 0.5), (range(5, 100, 5), 0.5)))
    assert [launch for launch, _ in by_tens] == [(1, 2), (2, 2)]  # logged at another interval


def test_a_resumed_run_a_lone_row_and_steps_within_epochs_are_one_run(tmp_path: Path) -> None:
    assert found(tmp_path / "a.jsonl", rows((range(1, 21), 0.5), (range(11, 31), 0.6))) == [((1, 1), list(range(1, 31)))]
    assert found(tmp_path / "b.jsonl", rows(([3, 1, 2, 1], 0.5)))[0][0] == (1, 1)
    epochs = rows((range(1, 11), 0.5), epoch=0.5) + rows((range(1, 11), 0.5), epoch=1.5)
    assert found(tmp_path / "c.jsonl", epochs) == [((1, 1), list(range(1, 21)))]
    evaluated = rows((range(1, 11), 0.5)) + json.dumps({"step": 0, "eval_loss": 0.5}) + "\n" + rows((range(11, 21), 0.5))
    assert found(tmp_path / "d.jsonl", evaluated)[0][0] == (1, 1)


def test_a_launch_that_has_one_row_so_far_is_there(tmp_path: Path) -> None:
    assert [len(steps) for _, steps in found(tmp_path / "a.jsonl", rows((range(1, 31), 0.5), ([1], 0.5)))] == [30, 1]


def test_each_launch_is_judged_and_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "train.jsonl"
    dies = rows((range(1, 41), 0.6)) + rows((range(41, 81), 0.01))
    log.write_text(rows((range(1, 61), 0.6)) + dies + rows((range(1, 61), 0.6)))
    assert [d.verdict for d in diagnose_paths([log])] == ["healthy", "collapsed", "healthy"]
    assert main(["diagnose", str(log), "--json"]) == 3
    said = json.loads(capsys.readouterr().out)["runs"]
    assert [(run["path"], run["launch"]) for run in said] == [(str(log), {"number": k, "of": 3}) for k in (1, 2, 3)]
    (second,) = read_runs([f"{log}::launch-2"])
    assert (second.launch, second.last_step) == ((2, 3), 80)
    (none,) = read_runs([f"{log}::launch-7"])
    assert any("there is no launch 7; it has 3" in line for line in none.problems)


def test_an_error_belongs_to_the_launch_that_it_ended(tmp_path: Path) -> None:
    def part(last: int) -> str:
        return "".join(f"step:{s} - actor/lr:1e-6 - critic/score/mean:0.5\n" for s in range(1, last + 1))

    error = 'Traceback (most recent call last):\n  File "x.py", line 1\ntorch.OutOfMemoryError: CUDA out of memory\n'
    caught = "Traceback (most recent call last):\nValueError: a reward function failed\n"
    (tmp_path / "train.log").write_text(part(9) + error + part(4) + caught + part(9).split("\n", 4)[-1])
    first, second = read_launches(tmp_path / "train.log")
    assert [event["text"] for event in first.events] == ["torch.OutOfMemoryError: CUDA out of memory"]
    assert second.events == []  # rows went on after it
    assert second.last_step == 9


def test_an_event_file_is_a_launch_unless_its_steps_go_on(tmp_path: Path) -> None:
    event_file_writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    from tensorboard.compat.proto import event_pb2, summary_pb2

    def write(number: int, steps: Sequence[int], reward: float, tag: str = "train/reward") -> Path:
        writer = event_file_writer.EventFileWriter(str(tmp_path), filename_suffix=f".{number}")
        for step in steps:
            value = summary_pb2.Summary.Value(tag=tag, simple_value=reward)  # pyright: ignore[reportAttributeAccessIssue]
            summary = summary_pb2.Summary(value=[value])  # pyright: ignore[reportAttributeAccessIssue]
            writer.add_event(event_pb2.Event(step=step, wall_time=1.0, summary=summary))  # pyright: ignore[reportAttributeAccessIssue]
        writer.close()
        (made,) = (file for file in tmp_path.iterdir() if file.name.endswith(f".{number}"))
        return made.rename(tmp_path / f"events.out.tfevents.{100 + number}.host.{number}")

    first = write(1, range(10, 400, 10), 0.5)
    second = write(2, range(10, 200, 10), 0.25)
    resumed = write(3, range(150, 300, 10), 0.125)
    write(4, [300], 0.75, "eval/reward")
    write(5, range(5, 100, 5), 0.5)
    assert [path.name for path in find_runs([tmp_path])] == [f"events.out.tfevents.{100 + k}.host.{k}" for k in (1, 2, 5)]
    runs = {run.path.name[-1]: run for run in read_runs([tmp_path])}
    assert {key: (run.launch, run.last_step) for key, run in runs.items()} == {
        "1": ((1, 3), 390),
        "2": ((2, 3), 300),
        "5": ((3, 3), 95),
    }
    assert runs["2"].metrics["reward_mean"].drop_nulls().to_list() == [0.25] * 14 + [0.125] * 15
    assert runs["2"].metrics["eval_reward"].drop_nulls().to_list() == [0.75]
    for named, launch in ((first, 1), (second, 2), (resumed, 2)):  # a file names its launch, not the newest
        (run,) = read_launches(named)
        assert run.launch == (launch, 3)
