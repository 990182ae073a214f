"""The wheel, installed into an empty environment outside the checkout, does something real."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
MAX_ASSETS = 12_000_000  # bytes, the embedded models together


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--sdist", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    assert len(list(out.glob("*.tar.gz"))) == 1
    return next(out.glob("*.whl"))


def test_the_wheel_carries_the_embedded_models_and_nothing_large(wheel: Path) -> None:
    sizes = {item.filename: item.file_size for item in zipfile.ZipFile(wheel).infolist()}
    for asset in ("arithmetic", "shortcut", "words"):
        here = {name.rpartition("/")[2] for name in sizes if f"/assets/{asset}/" in name}
        assert here >= {"README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert any(name.endswith("licenses/LICENSE") for name in sizes)
    assert any("report/templates/" in name for name in sizes)
    assert sum(size for name, size in sizes.items() if "/assets/" in name) <= MAX_ASSETS
    assert not any(name.startswith(("tests", "docs")) for name in sizes)


def test_the_installed_wheel_trains_and_answers(wheel: Path, tmp_path: Path) -> None:
    env = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env)], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(env), "platbase": str(env)}))
    # the dependencies are those of this environment (torch takes minutes to install); the package is the wheel's own
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(command, check=True)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    python = env / "bin" / "python"

    where = subprocess.run(
        [python, "-c", "import markovlm; print(markovlm.__file__)"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert Path(where.stdout.strip()).is_relative_to(env)

    flags = ["--model", "embedded", "--training.steps", "1", "--training.eval_every", "0", "--rollouts.group_size", "2"]
    command = [python, "-m", "markovlm", "train", *flags, "--out", "run", "--json"]
    trained = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["steps"] == 1

    asked = subprocess.run(
        [python, "-m", "markovlm", "ask", "run", "17+4+79", "--json"], cwd=tmp_path, capture_output=True, text=True
    )
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["question"] == "17+4+79"
