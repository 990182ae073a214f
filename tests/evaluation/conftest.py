"""Runs, adapters and data files small enough to evaluate many times."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from markovlm.training.loop import train
from support import runs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tiny_run(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven steps on sums; checkpoints at 0, 3, 6 and 7, dev evaluations at 0, 2, 4, 6 and 7."""
    out = tmp_path_factory.mktemp("evaluated") / "run"
    train(runs.run_config(tiny_models["llama"]), out)
    return out


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may write to."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.fixture
def adapters(tiny_run: Path, tmp_path: Path) -> Path:
    """Adapters as an old run of somebody else left them."""
    for step in (3, 7):
        target = tmp_path / "old" / f"adapter_{step * 1000}"
        target.mkdir(parents=True)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(tiny_run / "checkpoints" / f"step-{step:06d}" / name, target / name)
    return tmp_path / "old"


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Twenty rows with column names of their own."""
    path = tmp_path / "mine.jsonl"
    rows = [{"prompt": f"{i} apples and {i + 1} pears?", "gold": str(2 * i + 1)} for i in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
