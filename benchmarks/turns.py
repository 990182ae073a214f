"""A side of a benchmark in a process of its own that makes one step a line, so that the sides never compute at the same time."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Turns:
    """`first`: the line that it begins with; `step()`: that of one more step. Its standard error goes to `NAME.log` in `folder`."""

    def __init__(self, name: str, command: Sequence[str], folder: Path):
        self.name = name
        self.errors = (folder / f"{name.replace(' ', '-')}.log").open("w+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, cwd=folder
        )
        self.first = self._line()

    def step(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:  # TRL prints things of its own
            if line.startswith('{"'):
                return json.loads(line)
        self.errors.seek(0)
        raise SystemExit(f"{self.name} ended: {self.errors.read()[-2000:]}")

    def end(self) -> str:
        """Kill it; its standard error."""
        self.process.kill()
        self.process.wait()
        self.errors.seek(0)
        return self.errors.read()
