"""`pip install markovlm` alone: commands on logs work without torch, the others say in one line what to install."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from markovlm.cli.main import main
from markovlm.errors import TRAINING

ROOT = Path(__file__).parents[1]
# One fresh process in which the packages of `train` are not there.
WITHOUT = """
import json, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in json.loads(sys.argv[1]):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import markovlm
from markovlm.cli import main
for command in json.loads(sys.argv[2]):
    print("code", main(command), file=sys.stderr)
print("verdict", markovlm.Watcher()({"reward": 0.5}, 1).verdict, file=sys.stderr)
print("pydantic", "pydantic" in sys.modules, file=sys.stderr)
"""


def test_commands_on_logs_work_without_the_packages_of_train(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({"step": i, "reward": 0.5, "reward_std": 0.1, "kl": 0.01}) + "\n" for i in range(40)))
    (tmp_path / "grpo.yaml").write_text("num_generations: 1\n")
    logs = [["diagnose", str(log)], ["watch", str(log), "--idle", "0"]]
    others = [
        ["check", "grpo.yaml"],
        ["configs"],
        ["models"],
        ["train", "--model", "embedded", "--dry-run"],
        ["ask", "embedded", "1+1"],
    ]

    def said(commands: list[list[str]]) -> list[str]:
        asked = [sys.executable, "-c", WITHOUT, json.dumps(sorted(TRAINING)), json.dumps(commands)]
        return subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True).stderr.splitlines()

    assert said(logs) == ["code 0", "code 0", "verdict unknown", "pydantic False"]  # no configuration is built to judge a log
    needs = "needs torch, which is not installed: pip install 'markovlm[train]'"
    assert said(others)[:-2] == [
        "code 3",
        "code 0",
        "code 0",
        f"markovlm: train {needs}",
        "code 2",
        f"markovlm: ask {needs}",
        "code 2",
    ]


def test_what_is_installed_by_itself_and_what_train_brings_are_apart() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    alone, train = (
        {line.partition(">")[0].replace("-", "_") for line in lines}
        for lines in (project["dependencies"], project["optional-dependencies"]["train"])
    )
    assert not alone & TRAINING
    assert train <= TRAINING


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
    ids=["nothing", "spins", "policy"],
)
def test_threads_that_wait_soon_sleep(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], spins: str | None) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that what `main` sets is taken back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(["models"]) == 0
    assert os.environ.get("GOMP_SPINCOUNT") == spins
