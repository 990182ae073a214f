"""The guard in other people's loops: dicts, a plain Trainer, growing logs."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from markovlm.cli.main import main
from markovlm.errors import UserError
from markovlm.health import judge
from markovlm.integrations import tell
from markovlm.integrations.follow import Change, follow
from markovlm.integrations.tell import call_command, command_of, webhook_of
from markovlm.integrations.watch import Watcher


def reward(step: int, fall: int) -> float:
    return 0.8 if step < fall else 0.0


def test_dicts_of_a_loop_are_judged_as_their_log_is(tmp_path: Path) -> None:
    changes: list[tuple[str, str | None]] = []
    watcher = Watcher(on_change=lambda now, before: changes.append((now.verdict, before.verdict if before else None)))
    rows = [{"step": s, "reward": reward(s, 40), "kl": 0.1, "rewards/f/mean": 0.5, "x": object()} for s in range(1, 80)]
    for row in rows:
        watcher(row)
        watcher({"eval_loss": 1.0, "step": row["step"]})  # an evaluation says nothing new
    expected = judge([{"step": s, "reward_mean": reward(s, 40), "kl": 0.1} for s in range(1, 80)])
    assert watcher.verdict is not None
    assert watcher.verdict.verdict == expected.verdict == "collapsed"
    assert watcher.verdict.onset_step == expected.onset_step
    assert [now for now, _ in changes][-1] == "collapsed"
    assert changes[0][1] is None


def test_a_stored_watcher_goes_on_as_if_nothing_had_happened() -> None:
    whole, first, second = Watcher(), Watcher(), Watcher()
    for step in range(1, 60):
        whole({"reward": reward(step, 30), "response_length": 9.0, "policy_loss": 0.1}, step)
    for step in range(1, 33):
        first({"reward": reward(step, 30), "response_length": 9.0, "policy_loss": 0.1}, step)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for step in range(33, 60):
        second({"reward": reward(step, 30), "response_length": 9.0, "policy_loss": 0.1}, step)
    assert second.verdict == whole.verdict


def test_keys_of_ones_own_and_wrong_ones() -> None:
    watcher = Watcher(columns={"reward": "my/score"})
    for step in range(1, 60):
        watcher({"my/score": reward(step, 30)}, step)
    assert watcher.verdict is not None
    assert watcher.verdict.verdict == "collapsed"
    with pytest.raises(UserError, match="did you mean"):
        Watcher(columns={"rewrd": "x"})


class Tiny(nn.Module):
    """A loss that is NaN from the tenth step on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.calls = 0

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.calls += 1
        loss = (self.weight - x.mean()) ** 2
        return {"loss": loss.sum() * (float("nan") if self.calls > 10 else 1.0)}


@pytest.mark.parametrize(
    ("policy", "steps", "saved"), [("warn", 20, False), ("stop", None, False), ("save-and-stop", None, True)]
)
def test_a_plain_trainer_is_warned_stopped_or_saved(tmp_path: Path, policy: Any, steps: int | None, saved: bool) -> None:
    from transformers import Trainer, TrainingArguments

    from markovlm.integrations.trl import HealthCallback, HealthWarning

    args = TrainingArguments(
        output_dir=str(tmp_path), max_steps=20, logging_steps=1, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True,
        logging_nan_inf_filter=False, per_device_train_batch_size=1,
    )  # fmt: skip
    callback = HealthCallback(policy)
    trainer = Trainer(model=Tiny(), args=args, train_dataset=[{"x": torch.ones(1)}] * 20, callbacks=[callback])  # pyright: ignore
    with pytest.warns(HealthWarning, match="collapsed"):
        trainer.train()
    assert callback.verdict is not None
    assert callback.verdict.verdict == "collapsed"
    assert trainer.state.global_step == (steps or callback.stopped_at)
    assert 10 < trainer.state.global_step <= 20
    assert bool(list(tmp_path.glob("checkpoint-*"))) is saved


def test_an_unknown_policy_is_refused() -> None:
    from markovlm.integrations.trl import HealthCallback

    with pytest.raises(UserError, match="warn, stop, save-and-stop"):
        HealthCallback("halt")  # pyright: ignore[reportArgumentType]


def write(path: Path, first: int, last: int, fall: int) -> None:
    with open(path, "a") as file:
        file.writelines(f"{json.dumps({'step': s, 'reward': reward(s, fall), 'loss': 0.1})}\n" for s in range(first, last + 1))


def test_a_growing_log_is_read_again_and_a_run_that_appears_is_taken_up(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 1, 20, 40)
    times = iter(range(10_000))
    looks: list[int] = []

    def sleep(_: float) -> None:
        looks.append(len(looks))
        if len(looks) == 1:
            write(tmp_path / "a.jsonl", 21, 80, 40)
        if len(looks) == 2:
            write(tmp_path / "b.jsonl", 1, 20, 99)

    found = [
        (c.path.name, c.before, c.diagnosis.verdict)
        for c in follow([tmp_path], 1.0, 30.0, clock=lambda: next(times), sleep=sleep)
    ]
    assert found == [("a.jsonl", None, "healthy"), ("a.jsonl", "healthy", "collapsed"), ("b.jsonl", None, "healthy")]


def stalls(
    tmp_path: Path, limit: float | None, rows: Iterable[dict[str, Any]], more: Iterable[dict[str, Any]] = ()
) -> list[Change]:
    """What is said of a log that grew at second 0 and, with `more`, after 2,000 looks; each reads the clock three times."""
    log = tmp_path / "run.jsonl"
    log.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    times = iter(range(100_000))
    looks = itertools.count()

    def sleep(_: float) -> None:
        if next(looks) == 2_000:
            with open(log, "a") as file:
                file.writelines(f"{json.dumps(row)}\n" for row in more)

    return [
        c for c in follow([log], 1.0, 9_000.0, stalled=limit, clock=lambda: next(times), sleep=sleep) if c.stalled is not None
    ]


def test_a_log_that_has_stopped_growing_is_said_once_and_again_after_it_has_grown(tmp_path: Path) -> None:
    rows = [{"step": s, "reward": reward(s, 99), "loss": 0.1, "step_time": 90.0} for s in range(1, 41)]
    (one,) = stalls(tmp_path, None, rows[:30])
    assert one.usual == 90.0
    assert one.stalled == pytest.approx(900.0, abs=10)  # ten times the usual time
    assert one.as_json()["stalled_seconds"] == round(one.stalled or 0.0, 1)
    assert len(stalls(tmp_path, 120.0, rows[:30], rows[30:])) == 2
    assert stalls(tmp_path, 120.0, [*rows, {"train_runtime": 3600.0, "epoch": 1.0}]) == []  # the Trainer says that it is done
    assert (
        stalls(tmp_path, None, [{"step": s, "reward": 0.5, "loss": 0.1} for s in range(30)]) == []
    )  # how long a row takes is not known


def test_the_command_ends_with_4_on_a_stall(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "run.jsonl", 1, 30, 99)
    tell = tmp_path / "tell.py"
    tell.write_text("import sys; open(sys.argv[1], 'w').write(sys.argv[2])")
    command = f"{sys.executable} {tell} {tmp_path / 'said'}"
    assert main(["watch", str(tmp_path), "--every", "0.02", "--stalled", "0.1", "--exec", command]) == 4
    assert "nothing new for" in capsys.readouterr().out
    assert (tmp_path / "said").read_text() == "stalled"
    assert main(["watch", str(tmp_path), "--stalled", "0"]) == 2


def test_the_command_ends_with_3_and_calls_a_command_and_a_webhook(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log = tmp_path / "$(touch pwned).jsonl"
    write(log, 1, 80, 40)
    tell = tmp_path / "tell.py"
    tell.write_text("import sys; open(sys.argv[1], 'w').write('|'.join(sys.argv[2:]) + '|' + sys.stdin.read())")
    url = f"http://127.0.0.1:{server.server_port}/"
    command = f"{sys.executable} {tell} {tmp_path / 'said'}"
    assert main(["watch", str(log), "--exec", command, "--webhook", url]) == 3
    server.shutdown()
    said = (tmp_path / "said").read_text().split("|")
    assert said[0] == "collapsed"
    assert said[2] == str(log)
    assert heard[0]["verdict"] == json.loads(said[3])["verdict"] == "collapsed"
    assert not list(tmp_path.glob("pwned*"))
    write(tmp_path / "well.jsonl", 1, 80, 99)
    assert main(["watch", str(tmp_path / "well.jsonl"), "--idle", "0", "--json"]) == 0


def test_a_live_log_in_a_process_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "run.jsonl"
    write(log, 1, 30, 40)
    command = [sys.executable, "-m", "markovlm", "watch", str(log), "--every", "0.05", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["verdict"] == "healthy"
        write(log, 31, 80, 40)
        started = time.monotonic()
        assert json.loads(process.stdout.readline())["before"] == "healthy"
        process.stdout.read()
    assert process.returncode == 3
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    "url", ["http://example.com/x", "ftp://localhost/", "http://169.254.169.254/", "localhost:80", "http://[::1"]
)
def test_a_webhook_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="--webhook"):
        webhook_of(url)
    assert main(["watch", ".", "--webhook", url]) == 2


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n", None]
)
def test_a_webhook_that_hangs_breaks_off_or_leads_elsewhere_is_a_note(
    answer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tell, "_HOOK_SECONDS", 10.0 if answer is not None else 0.3)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(10_000)
                connection.sendall(answer if answer is not None else b"HTTP/1.1 200 OK\r\n")
                while answer is None and not over.wait(0.02):
                    connection.sendall(b"X")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        started = time.monotonic()
        assert (tell.call_webhook(url, {"verdict": "warn"}) or "").startswith(url)
        assert time.monotonic() - started < 8
        over.set()
        thread.join(5)


def test_a_command_that_fails_is_a_note(tmp_path: Path) -> None:
    message = {"verdict": "warn", "onset_step": None, "last_step": 3, "path": "p"}
    assert "exit code 1" in str(call_command(["false"], message))
    told = tmp_path / "told"
    program = f"import sys; open({str(told)!r}, 'w').write(repr(sys.argv[1:]))"
    assert call_command([sys.executable, "-c", program], {**message, "path": "-rf; $(x)"}) is None
    assert told.read_text() == repr(["warn", "3", "./-rf; $(x)"])  # no shell, and no option
    assert "no-such-command" in str(call_command(["no-such-command"], message))
    with pytest.raises(UserError, match="--exec"):
        command_of("'open")
    assert main(["watch", str(tmp_path / "absent")]) == 2
