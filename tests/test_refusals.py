"""What can be known without a model is said before torch is imported."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# In one fresh process: after each command, is torch there?
TYPED = """
import json, sys
from markovlm.cli import main
for command in json.loads(sys.argv[1]):
    print("code", main(command.split()), "torch" in sys.modules, file=sys.stderr)
"""


def test_a_mistyped_command_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    wanted: dict[str, str] = runpy.run_path(str(ROOT / "benchmarks" / "refusals.py"))["REFUSALS"]
    done = subprocess.run(
        [sys.executable, "-c", TYPED, json.dumps(list(wanted))], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 2 * len(wanted), done.stderr
    for (command, said), line, code in zip(wanted.items(), lines[::2], lines[1::2], strict=True):
        assert said in line, command
        assert code == "code 2 False", command
    assert not list(tmp_path.iterdir())
