"""What runs the processes of a sweep. An engine starts commands and says how they ended; it knows nothing of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Job:
    """One process: what it is called, its command, where its output goes."""

    name: str
    command: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """`free` and `poll` never wait."""

    def free(self) -> bool:
        """Can another job start now?"""
        ...

    def start(self, job: Job) -> None: ...

    def poll(self) -> list[tuple[str, int]]:
        """(name, exit code) of the jobs that ended since; a negative code is a signal, as in subprocess."""
        ...

    def kill(self) -> None:
        """End all jobs at once."""
        ...

    def close(self) -> None: ...
