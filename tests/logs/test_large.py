"""A log of 100 MB is read in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BYTES = 100_000_000
MOST = 400_000_000  # bytes that reading may add; the frame of 200,000 rows has some ten million
READ = """
import json, resource, sys
from markovlm.logs.find import read_run
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run = read_run(sys.argv[1])
print(json.dumps([run.steps, run.last_step, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before), run.problems]))
"""


@pytest.mark.long
def test_a_hundred_megabytes(tmp_path: Path) -> None:
    line = json.dumps({"step": 0, "reward": 0.5, "kl": 0.125, "loss": 0.25, "note": "x" * 200})
    path, step = tmp_path / "big.jsonl", 0
    with open(path, "w") as file:
        while step * len(line) < BYTES:
            step += 1
            file.write(line.replace('"step": 0', f'"step": {step}') + "\n")
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True)
    steps, last, grown, problems = json.loads(done.stdout)
    assert step > 200_000
    assert 100_000 <= steps <= 200_000
    assert step - last < 4
    assert grown < MOST
    assert any("was kept" in problem for problem in problems)
