"""Run against run: in which order metrics part, and which settings differ."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from markovlm.cli.main import main
from markovlm.errors import UserError
from markovlm.health.compare import RunComparison, compare, compare_all
from markovlm.health.diagnose import diagnose_run
from markovlm.logs.native import run_of_rows


def rows(
    seed: int, n: int = 120, every: int = 1, blurred: float = 0.0, entropy_from: int = 999, reward_from: int = 999
) -> list[dict[str, Any]]:
    """A run that learns slowly, in noise that neighbouring rows share by `blurred`; from given steps on entropy explodes and the reward is lost."""
    rng, noise, out = random.Random(seed), 0.0, []
    for step in range(every, n * every + 1, every):
        noise = blurred * noise + (1 - blurred**2) ** 0.5 * rng.gauss(0, 0.04)
        entropy, lost = step >= entropy_from, step >= reward_from
        row = {
            "step": step, "reward_mean": rng.uniform(0, 0.02) if lost else 0.5 + 0.1 * step / (n * every) + noise, "loss": rng.gauss(0, 0.1),
            "entropy": (4.0 if entropy else 0.3) * rng.uniform(0.9, 1.1), "grad_norm": rng.uniform(0.2, 0.6), "cot_length": rng.gauss(200, 10),
        }  # fmt: skip
        out.append(row)
    return out


def compared(a: list[dict[str, Any]], b: list[dict[str, Any]], **settings: Any) -> RunComparison:
    one, other = run_of_rows(a), run_of_rows(b)
    for run, rate in ((one, 1e-6), (other, settings.get("lr", 1e-6))):
        run.kind, run.framework, run.config = "jsonl", "TRL", {"training.lr": rate, "seed": 1}
    return compare(diagnose_run(one), diagnose_run(other))


def test_metrics_part_in_the_order_in_which_they_did() -> None:
    found = compared(rows(0), rows(1, entropy_from=50, reward_from=70), lr=1e-5)
    assert [(p.key, abs(p.step - at) <= 3) for p, at in zip(found.partings, (50, 70), strict=True)] == [
        ("entropy", True),
        ("reward_mean", True),
    ]
    assert (found.partings[1].last_a > 0.5, found.partings[1].last_b < 0.05) == (True, True)
    assert [(s.name, s.a, s.b) for s in found.settings] == [("learning_rate", 1e-6, 1e-5)]
    assert found.same == 1
    assert {"reward_mean", "entropy", "cot_length", "loss", "grad_norm"} <= set(found.compared)


@pytest.mark.parametrize("blurred", [0.0, 0.5, 0.9])
def test_two_runs_of_one_kind_do_not_part(blurred: float) -> None:
    """20 pairs, 5 metrics each; 200 pairs of 40 rows with a correlation of .9 had 3 false partings in one metric, the others fewer."""
    assert sum(bool(compared(rows(s, 60, blurred=blurred), rows(s + 500, 60, blurred=blurred)).partings) for s in range(20)) <= 1


def test_logs_of_other_spacing_meet_at_common_steps() -> None:
    found = compared(rows(0, 300), rows(1, 30, every=10, reward_from=160))
    (reward,) = [p for p in found.partings if p.key == "reward_mean"]
    assert 150 <= reward.step <= 180
    assert compared(rows(0, 6), rows(1, 6)).compared == ()  # too few common rows for anything


def test_the_command_compares_the_first_with_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed, lost in (("a", 0, 999), ("b", 1, 70), ("c", 2, 999)):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows(seed, reward_from=lost)))
    paths = [str(tmp_path / f"{name}.jsonl") for name in "abc"]
    assert main(["diagnose", *paths, "--compare", "--json"]) == 3
    to_b, to_c = json.loads(capsys.readouterr().out)["comparisons"]
    assert [p["metric"] for p in to_b["partings"]] == ["reward_mean"]
    assert to_c["partings"] == []
    main(["diagnose", *paths, "--compare"])
    assert "parts   reward" in capsys.readouterr().out
    assert main(["diagnose", paths[0], "--compare"]) == 2
    with pytest.raises(UserError, match="two runs or more"):
        compare_all([])
