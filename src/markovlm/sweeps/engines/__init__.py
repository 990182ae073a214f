"""Engines by name."""

from __future__ import annotations

from markovlm.sweeps.engines.base import Engine, Job
from markovlm.sweeps.engines.local import LocalEngine
from markovlm.sweeps.engines.ray import RayEngine
from markovlm.sweeps.spec import Resources

__all__ = ["Engine", "Job", "build_engine"]


def build_engine(name: str, resources: Resources, jobs: int | None) -> Engine:
    """`local`, or `ray` (the extra `markovlm[ray]`)."""
    return LocalEngine(resources, jobs) if name == "local" else RayEngine(resources, jobs)
