"""Runs of two processes under torchrun (gloo, CPU): starting them, finding them, and what they say."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markovlm.config import dump_yaml
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import read_rows
from markovlm.training.loop import train
from markovlm.training.start import resumed_config
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
        assert all("processes of this run ended" in line and "--resume" in line for line in said)
