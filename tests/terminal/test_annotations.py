"""Annotations for GitHub Actions, and the exit codes of `--fail-on`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from markovlm.cli.main import main
from markovlm.health.diagnose import diagnose_paths
from markovlm.health.verdict import FAILS_ON
from markovlm.terminal.annotations import annotation_lines


def log(path: Path, fall: int = 999, n: int = 80, **more: object) -> Path:
    path.write_text(
        "".join(
            json.dumps({"step": s, "reward": 0.8 if s < fall else 0.0, "loss": 0.1, "kl": 0.01 * (1 + s % 2), **more}) + "\n"
            for s in range(1, n + 1)
        )
    )
    return path


def warned(path: Path) -> Path:
    """All groups without spread."""
    return log(path, frac_reward_zero_std=1.0)


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    made = {
        "collapsed": log(tmp_path / "gone, 100%.jsonl", fall=40), "warn": warned(tmp_path / "warned.jsonl"),
        "unknown": log(tmp_path / "short.jsonl", n=5), "healthy": log(tmp_path / "well.jsonl"),
    }  # fmt: skip
    for verdict, path in made.items():
        assert diagnose_paths([path])[0].verdict == verdict
    return {verdict: str(path) for verdict, path in made.items()}


@pytest.mark.parametrize(
    ("fail_on", "codes"),
    [
        ("collapsed", {"collapsed": 3, "warn": 0, "unknown": 0, "healthy": 0}),
        ("warn", {"collapsed": 3, "warn": 3, "unknown": 0, "healthy": 0}),
        ("unknown", {"collapsed": 3, "warn": 3, "unknown": 3, "healthy": 0}),
        ("never", {"collapsed": 0, "warn": 0, "unknown": 0, "healthy": 0}),
    ],
)
def test_exit_codes(logs: dict[str, str], fail_on: str, codes: dict[str, int]) -> None:
    for form in ((), ("--json",), ("--github",)):
        assert {name: main(["diagnose", path, "--fail-on", fail_on, *form]) for name, path in logs.items()} == codes


def test_the_default_fails_on_a_collapse_and_other_names_are_bad_input(logs: dict[str, str]) -> None:
    assert main(["diagnose", logs["collapsed"]]) == 3
    assert main(["diagnose", logs["warn"]]) == 0
    assert main(["diagnose", logs["warn"], "--fail-on", "smoke"]) == 2
    assert main(["diagnose", logs["warn"], "--github", "--json"]) == 2
    assert main(["watch", logs["warn"], "--idle", "0"]) == 0
    assert main(["watch", logs["warn"], "--idle", "0", "--fail-on", "warn"]) == 3
    assert main(["watch", logs["healthy"], "--idle", "0", "--fail-on", "warn"]) == 0


def test_one_annotation_a_run_that_is_not_healthy_the_gravest_first(
    logs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diagnose", *reversed(logs.values()), "--github"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning", "::notice", "::notice"]
    assert lines[0].startswith(
        "::error file=gone%2C 100%25.jsonl,line=40,title=collapsed from step 40%3A gone%2C 100%25::the reward crashed: "
    )
    assert "%0Ado: " in lines[0]
    assert "%0A41 of 80 steps since step 40: 51 %25 of the steps" in lines[0]
    assert lines[3] == "::notice title=markovlm diagnose::4 runs: 1 collapsed, 1 warn, 1 unknown, 1 healthy"
    main(["diagnose", *logs.values(), "--github", "--fail-on", "unknown"])
    assert [line.split(" ")[0] for line in capsys.readouterr().out.splitlines()] == ["::error"] * 3 + ["::notice"]
    main(["diagnose", *logs.values(), "--github", "--fail-on", "never"])
    assert capsys.readouterr().out.startswith("::warning file=gone")


def test_what_a_log_says_is_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = log(tmp_path / "a\n::set-env name=PATH::x,line=1\r##[add-path]b.jsonl", n=5)
    main(["diagnose", str(path), "--github"])
    out = capsys.readouterr().out
    assert all(
        line.startswith(("::notice file=a%0A%3A%3Aset-env name=PATH", "::notice title=markovlm")) for line in out.split("\n")[:-1]
    )
    assert "\r" not in out


def test_of_many_the_rest_is_counted(tmp_path: Path) -> None:
    paths = [log(tmp_path / f"{i:02}.jsonl", fall=40) for i in range(12)]
    lines = annotation_lines(diagnose_paths(paths), [], FAILS_ON["collapsed"])
    assert [line[:8] for line in lines] == ["::error "] * 9 + ["::notice"]
    assert lines[-1].endswith("12 runs: 12 collapsed; 3 of them without their own annotation (GitHub shows 10 of each kind)")
