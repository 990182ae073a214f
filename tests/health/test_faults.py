"""Faults as people met them: verdict, onset, cause and advice. The table of what is right stands in benchmarks/faults.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from markovlm.health.diagnose import diagnose_paths
from support.paths import DATA
from support.scripts import load

faults: Any = load("faults", "benchmarks")


@pytest.mark.data("rl-faults")
@pytest.mark.parametrize("name", sorted(faults.FILES))
def test_a_log_of_a_fault_is_judged_as_an_expert_would(name: str) -> None:
    (path,) = (DATA / "rl-faults").glob(f"{name}.*")
    assert faults.misses(path) == []


@pytest.mark.data("rl-faults")
def test_what_is_said_of_them_beside_verdict_and_cause() -> None:
    said = {path.stem: diagnose_paths([path]) for path in (DATA / "rl-faults").iterdir() if path.stem in faults.FILES}
    (cut,), (samples,), (ranks,), (ended,), (unread,) = (
        said[name]
        for name in ("f-last-line-cut", "e-printed-samples", "v-four-ranks-print", "u-ended-in-an-error", "n-no-reward-at-all")
    )
    assert "is incomplete" in cut.run.problems[0]
    assert (samples.run.steps, ranks.run.steps) == (200, 60)
    assert "CUDA out of memory" in str(ended.error)
    assert any("--map reward=" in line for line in unread.run.problems)
    (held_out,), (dying,) = said["c-validation-in-the-log"], said["q-actor-lr-1e-6"]
    assert 110 <= (held_out.best_step or 0) <= 200
    assert "lower --actor_learning_rate from 1e-6 to 5e-7" in dying.advice


def verdict_of(name: str, make: Any, seed: int, path: Path) -> Any:
    d = faults.Draw(seed)
    make(d)
    faults.write(d, faults.form_for(d), path)
    return diagnose_paths([path])[-1]


@pytest.mark.parametrize("name", sorted(faults.KINDS))
def test_a_made_fault_is_named(name: str, tmp_path: Path) -> None:
    """One draw of each kind: the benchmark counts how firm that is."""
    kind = faults.KINDS[name]
    found = verdict_of(name, kind.make, 1, tmp_path / "run.log")
    assert faults.judged(found, kind.right) == (True, True), (found.verdict, found.cause, found.advice)


@pytest.mark.parametrize("name", sorted(faults.HEALTHY))
def test_a_made_healthy_run_is_not_called_collapsed(name: str, tmp_path: Path) -> None:
    assert {verdict_of(name, faults.HEALTHY[name], seed, tmp_path / "run.log").verdict for seed in (1, 2)} == {"healthy"}
