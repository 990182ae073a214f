"""What a GPU asks of the code, on one that is not there (`support.card`): no tensor of another device anywhere, and the same numbers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")


def python(*words: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_step_and_an_evaluation_are_those_of_the_cpu(tiny_models: dict[str, Path]) -> None:
    done = python("-m", "support.card.steps", str(tiny_models["llama"].parent))
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert "Expected all tensors to be on the same device" in found["refused"]
    for name, way in found["ways"].items():
        cpu, card = way["cpu"], way["cuda"]
        assert (cpu["device"], card["device"]) == ("cpu", "cuda:0")
        assert card["recorded"] is (name != "a cache that grows"), name
        assert not cpu["recorded"]
        assert card["cots"] == cpu["cots"], name
        assert card["answers"] == cpu["answers"], name
        assert card["rewards"] == pytest.approx(cpu["rewards"], abs=1e-4), name
        largest = max(map(abs, cpu["gradient"]))
        assert card["gradient"] == pytest.approx(cpu["gradient"], abs=1e-3 * largest), name


@pytest.mark.long
@pytest.mark.parametrize(
    "suite", ["training/test_resume.py", "training/test_guard.py", "evaluation/test_evaluate.py", "test_cli_eval.py"]
)
def test_whole_suites(suite: str) -> None:
    """Runs, their ends and continuations, evaluations: with `cpu` and `auto` taken for the card."""
    done = python(
        "-m", "pytest", "-p", "support.card", "-p", "no:cacheprovider", "-q", "-m", "not long and not slow", f"tests/{suite}"
    )
    assert done.returncode == 0, done.stdout[-5000:]
