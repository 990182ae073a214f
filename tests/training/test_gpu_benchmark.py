"""benchmarks/gpu.py, which a lent card has minutes for: rehearsed on a CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.scripts import load

gpu: Any = load("gpu", "benchmarks")
SMALL = (
    "--device",
    "cpu",
    "--dtype",
    "float32",
    "--size",
    "1m",
    "--cot-tokens",
    "5",
    "--group",
    "3",
    "--questions",
    "2",
    "--evaluated",
    "4",
)


def test_a_rehearsal_fills_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repeats = gpu.Lease.repeats
    monkeypatch.setattr(gpu.Lease, "repeats", lambda lease, most: repeats(lease, min(most, 2)))  # enough for a median
    parts = [name for name, _, _ in gpu.PARTS if name != "agreement"]  # which is step.py's, and takes longer than all the others
    assert gpu.main(["--out", str(tmp_path), "--seconds", "60", "--parts", ",".join(parts), *SMALL]) == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert list(found) == parts
    assert {name for name, part in found.items() if not part["rows"]} == {"memory"}  # of GPUs alone
    assert {row["rollouts.static_cache"]: row["in one shape"] for row in found["decoding"]["rows"]} == {"on": True, "off": False}
    assert found["many"]["rows"][0]["work"] == "2 x 3 x 5"
    phases = sum(found["many"]["rows"][0][phase] for phase in gpu.PHASES)
    assert phases == pytest.approx(found["many"]["rows"][0]["s a step"], rel=0.5)
    assert found["kernels"]["rows"][1]["calls"] > 0
    assert "## evaluation" in (tmp_path / "table.md").read_text()


def test_what_fails_or_has_no_time_is_said_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(bench: Any) -> list[Any]:
        raise RuntimeError("CUDA out of memory. Tried to allocate 3 GiB")

    parts = (("first", 0, fails), ("second", 1e9, fails), ("third", 0, lambda bench: [{"a": 1}]))
    monkeypatch.setattr(gpu, "PARTS", parts)
    monkeypatch.setattr(gpu.Bench, "on_gpu", True)
    assert gpu.main(["--out", str(tmp_path), *SMALL]) == 1
    found = json.loads((tmp_path / "results.json").read_text())
    assert "out of memory" in found["first"]["error"]
    assert "s are left" in found["second"]["skipped"]
    assert found["third"]["rows"] == [{"a": 1}]
    assert "| a |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"), [(("--parts", "card,nothing"), "unknown nothing"), (("--device", "cuda"), "there is no GPU here")]
)
def test_wrong_commands(tmp_path: Path, given: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "cuda" in given and gpu.torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--out", str(tmp_path / "out"), *SMALL, *given])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_time_is_left_for_those_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))  # every look at the clock is ten seconds later
    monkeypatch.setattr(gpu.time, "monotonic", lambda: next(clock))
    assert len(list(gpu.Lease(100.0, began=0.0).repeats(50))) < 5
