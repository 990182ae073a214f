"""Runs of two processes (gloo, CPU): starting them, finding them, and what they say.

Under torchrun where its own doing counts: who is told of a death, signals, its report. Where what the two compute together counts, they
are forks of this process (`forked`), which has torch imported: that is five seconds of processor time for each of torchrun's three.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from markovlm.cli.main import main
from markovlm.config import dump_yaml
from markovlm.runs.ahead import resumed_config
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import read_rows
from markovlm.training.loop import train
from support import tiny

MINUTE = 60.0


def config(**overrides: Any) -> Any:
    """Three questions over two processes, five dev questions: uneven on purpose."""
    keys = {
        "loading__dtype": "float32", "lora__rank": 8, "lora__alpha": 16, "rollouts__questions_per_step": 3,
        "rollouts__group_size": 4, "rollouts__max_cot_tokens": 12, "training__steps": 4, "training__lr": 1e-3,
        "training__eval_every": 2, "evaluation__dev_size": 5, "logging__samples_every": 1, "objective__name": "ema",
    }  # fmt: skip
    return tiny.config("embedded", **{**keys, **overrides})


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **more}


def torchrun(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]


def command(file: Path, *more: str) -> list[str]:
    return torchrun("-m", "markovlm", "train", str(file), *more)


def written(path: Path, **overrides: Any) -> Path:
    path.write_text(dump_yaml(config(**overrides)))
    return path


def finish(arguments: list[str], where: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=where, env=environment(**more), capture_output=True, text=True, timeout=5 * MINUTE, check=False
    )


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that was forked."""

    code: int  # negative: the signal that ended it
    out: str
    err: str


def forked(work: Callable[[], int | None], where: Path, size: int = 2) -> list[Ended]:
    """Let `size` forks of this process do `work` in `where`, each with the environment that torchrun would give it.

    When one fails the others are ended, as torchrun does. What needs polars doesn't belong here: its threads don't survive a fork.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {
            "WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free.getsockname()[1]),
            "COLUMNS": "120",
        }
    children: dict[int, int] = {}  # process id -> rank
    codes: dict[int, int] = {}
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            _in_the_fork(work, where, rank, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        children[pid] = rank
    deadline = time.monotonic() + 5 * MINUTE
    while len(codes) < size:
        for pid, rank in children.items():
            if rank not in codes and (done := os.waitpid(pid, os.WNOHANG))[0]:
                codes[rank] = os.waitstatus_to_exitcode(done[1])
        if any(codes.values()) or time.monotonic() > deadline:
            for pid, rank in children.items():
                if rank not in codes:
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    said = [[(where / f"rank-{rank}.{name}").read_text() for name in ("out", "err")] for rank in range(size)]
    return [Ended(codes[rank], *said[rank]) for rank in range(size)]


def _in_the_fork(work: Callable[[], int | None], where: Path, rank: int, environment: dict[str, str]) -> NoReturn:
    code = 1
    try:
        os.chdir(where)
        os.environ |= environment
        for descriptor, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(where / f"rank-{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        torch.set_num_threads(1)
        code = work() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def train_forked(where: Path, *arguments: str) -> list[Ended]:
    """`markovlm train ARGUMENTS` in two processes."""
    return forked(lambda: main(["train", *arguments]), where)


@contextlib.contextmanager
def going(file: Path, out: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A long run that has made three steps; killed with its processes if the test fails."""
    process = subprocess.Popen(
        command(file, "--out", str(out)), cwd=out.parent, env=environment(**more),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 3 * MINUTE
        while len(read_rows(out / "metrics.jsonl")) < 3:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield process
    finally:
        for pid in (*ranks(process.pid).values(), process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def ranks(parent: int) -> dict[int, int]:
    """RANK -> process id of torchrun's children."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                ppid = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                variables = dict(v.split("=", 1) for v in (entry / "environ").read_text().split("\0") if "=" in v)
                if ppid == parent and "RANK" in variables:
                    found[int(variables["RANK"])] = int(entry.name)
    return found


def ours(text: str) -> list[str]:
    """Lines that markovlm wrote, without torchrun's report (which says `markovlm FAILED`)."""
    return [line for line in text.splitlines() if re.match(r"markovlm( \(process \d\))?: ", line)]


def resumes(out: Path, **overrides: Any) -> list[int]:
    """Steps of the run after it is continued by this one process for two more."""
    last = RunDirectory(out).saved_steps()[-1]
    train(resumed_config(out, {**overrides, "training": {"steps": last + 2}}), out, resume=True)
    return [row["step"] for row in read_rows(out / "metrics.jsonl")]


def killed(file: Path, out: Path, victim: int) -> None:
    """Train in two processes, SIGKILL one of them, and see that the other ends and says what to do."""
    with going(file, out) as process:
        os.kill(ranks(process.pid)[victim], signal.SIGKILL)
        assert process.wait(MINUTE) != 0
        assert ranks(process.pid) == {}
        assert process.stderr is not None
        said = ours(process.stderr.read())
    if victim == 1:  # torchrun may end rank 0 before it can speak; if it speaks, then so
        assert all("processes of this run has ended" in line and "--resume" in line for line in said)
