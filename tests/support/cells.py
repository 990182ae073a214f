"""An engine of sweeps that runs each cell in this process, without the five seconds that a process of its own takes to import torch."""

from __future__ import annotations

import contextlib

import pytest

from markovlm.cli.main import main
from markovlm.sweeps.engines.base import Job


class InThisProcess:
    """A job is over when `start` returns."""

    def __init__(self, *_: object):
        self.over: list[tuple[str, int]] = []

    def free(self) -> bool:
        return not self.over

    def start(self, job: Job) -> None:
        assert list(job.command[1:3]) == ["-m", "markovlm"]
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with open(job.log, "a", encoding="utf-8") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            self.over.append((job.name, main(list(job.command[3:]))))

    def poll(self) -> list[tuple[str, int]]:
        over, self.over = self.over, []
        return over

    def kill(self) -> None: ...
    def close(self) -> None: ...


def run_cells_here(patch: pytest.MonkeyPatch) -> None:
    """Every sweep runs its cells in this process, which nobody watches for its parent's end."""
    patch.setattr("markovlm.sweeps.run.build_engine", InThisProcess)
    patch.setattr("markovlm.sweeps.run.watch_parent", lambda *_: None)
