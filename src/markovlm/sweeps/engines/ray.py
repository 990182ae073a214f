"""Runs on the machines of a Ray cluster (or a Ray of this machine's own). DIR must be the same directory on all of them."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from markovlm.errors import RunFailed, UserError
from markovlm.sweeps.engines.base import Job
from markovlm.sweeps.spec import Resources

LOST = -9  # the machine of a job is gone: as if it had been killed there


class RayEngine:
    """One Ray task a run, with the cores and the share of a GPU that it asks for; Ray sets CUDA_VISIBLE_DEVICES."""

    def __init__(self, resources: Resources, jobs: int | None = None):
        try:
            import ray  # pyright: ignore[reportMissingImports]  (an extra)
        except ImportError:
            raise UserError("--engine ray: Ray is not installed; pip install 'markovlm[ray]', or use --engine local") from None
        self._ray: Any = ray
        self.resources = resources
        if not ray.is_initialized():
            ray.init(address=os.environ.get("RAY_ADDRESS"), include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        have = ray.cluster_resources()
        if have.get("CPU", 0) < resources.cpus or have.get("GPU", 0) < resources.gpus:
            raise UserError(
                f"resources: a run asks for {resources.cpus} cores and {resources.gpus:g} GPUs, "
                f"the Ray cluster has {have.get('CPU', 0):g} and {have.get('GPU', 0):g}"
            )
        carried = int(have["CPU"] // resources.cpus)
        if resources.gpus:
            carried = min(carried, int(have["GPU"] / resources.gpus + 1e-9))
        self.most = jobs or max(1, carried)
        task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=0)
        self._task: Any = task(_run)
        self._running: dict[Any, str] = {}

    def free(self) -> bool:
        return len(self._running) < self.most

    def start(self, job: Job) -> None:
        env = {"OMP_NUM_THREADS": str(self.resources.cpus), **job.env}
        self._running[self._task.remote(list(job.command), str(job.log), env)] = job.name

    def poll(self) -> list[tuple[str, int]]:
        if not self._running:
            return []
        over, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [(self._running.pop(reference), self._code(reference)) for reference in over]

    def _code(self, reference: Any) -> int:
        try:
            return int(self._ray.get(reference))
        except self._ray.exceptions.RayTaskError as error:  # the command could not be started there
            raise RunFailed(
                f"--engine ray: {str(error).strip().splitlines()[-1]}; is DIR the same directory on all machines?"
            ) from None
        except self._ray.exceptions.RayError:
            return LOST

    def kill(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)

    def close(self) -> None:
        self._ray.shutdown()


def _run(command: list[str], log: str, env: dict[str, str]) -> int:
    """On a worker. The process it starts watches this one and ends with it."""
    os.makedirs(os.path.dirname(log), exist_ok=True)
    with open(log, "ab") as file:
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**os.environ, **env}).returncode
