"""Runs on this machine, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import IO

from markovlm.errors import UserError
from markovlm.sweeps.engines.base import Job
from markovlm.sweeps.spec import Resources


class LocalEngine:
    """Fills this machine: as many runs as its cores and GPUs carry, each with its share."""

    def __init__(
        self, resources: Resources, jobs: int | None = None, cores: int | None = None, gpus: Sequence[str] | None = None
    ):
        cores = cores or _cores()
        self.resources = resources
        self.most = jobs or max(1, cores // resources.cpus)
        self.slots: dict[str, float] = {}  # GPU -> share that is free
        if resources.gpus:
            found = list(gpus) if gpus is not None else _gpus()
            if not found:
                raise UserError(
                    f"resources.gpus {resources.gpus:g}: no GPU is visible on this machine; leave it out to run on the CPU"
                )
            self.slots = dict.fromkeys(found, 1.0)
            self.most = min(self.most, len(found) * int(1 / resources.gpus + 1e-9))
        self._running: dict[str, tuple[subprocess.Popen[bytes], IO[bytes], str | None]] = {}

    def free(self) -> bool:
        return len(self._running) < self.most

    def start(self, job: Job) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": str(self.resources.cpus), **job.env}
        gpu = None
        if self.slots:
            gpu = max(self.slots, key=lambda name: self.slots[name])
            self.slots[gpu] -= self.resources.gpus
            env["CUDA_VISIBLE_DEVICES"] = gpu
        job.log.parent.mkdir(parents=True, exist_ok=True)
        log = open(job.log, "ab")  # noqa: SIM115  (closed when the process ends)
        # a session of its own: Ctrl-C reaches the sweep alone, which ends its runs after their step
        process = subprocess.Popen(job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True)
        self._running[job.name] = (process, log, gpu)

    def poll(self) -> list[tuple[str, int]]:
        over = [(name, process.returncode) for name, (process, _, _) in self._running.items() if process.poll() is not None]
        for name, _ in over:
            _, log, gpu = self._running.pop(name)
            log.close()
            if gpu is not None:
                self.slots[gpu] += self.resources.gpus
        return over

    def kill(self) -> None:
        for process, _, _ in self._running.values():
            process.kill()

    def close(self) -> None:
        for process, log, _ in self._running.values():
            process.wait()
            log.close()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    """Of this process: what CUDA_VISIBLE_DEVICES names, else all."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip() and name.strip() != "-1"]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
