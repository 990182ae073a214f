"""The scripts of examples/, run as a user runs them: from another directory, with what they say they print."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SAID = {
    "1_train_on_own_questions": ("step   6  reward", "accuracy from the CoT alone 0.", "n = 40", "ln pi(100 | CoT) = -", "nats"),
    "2_reward_of_ones_own": ("logprob  CoT tokens", "brief    CoT tokens"),
    "3_audit_cots": (
        "from the CoT alone       accuracy 0.",
        "from the question alone  accuracy 0.",
        "(n = 6)",
        "-> 100  follows",
    ),
    "4_diagnose_rows": ("collapsed since step 2", "- "),
    "5_adapter_with_plain_peft": ("<|answer|>",),
}


@pytest.mark.parametrize("name", sorted(SAID))
def test_an_example_prints_what_it_promises(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for words in SAID[name]:
        assert words in done.stdout


def test_every_example_is_run_and_listed() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SAID)
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}.py`" in listed for name in SAID)
