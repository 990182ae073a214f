"""What users' programs read stays as it is: `--json` of every command, columns of a report's tables, rows of a run. See support/golden.py."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from markovlm import demo
from markovlm.cli.main import NAMES, main
from markovlm.models.registry import KNOWN
from markovlm.runs.rows import read_rows
from support import golden

FIXTURES = Path(__file__).parent / "fixtures"
DOUBLE = ("--device", "cpu", "--loading.dtype", "float64")
SMALL = ("--rollouts.max_cot_tokens", "16", "--evaluation.batch_size", "8")
TRAINED = (
    *DOUBLE, *SMALL, "--training.steps", "3", "--training.eval_every", "2", "--training.checkpoint_every", "2",
    "--training.warmup_steps", "0", "--evaluation.dev_size", "6", "--evaluation.test_size", "6",
    "--rollouts.questions_per_step", "3", "--rollouts.group_size", "3", "--objective.kl_weight", "0.1",
    "--objective.baseline_every", "2", "--health.gradient_shares_every", "2",
)  # fmt: skip
SEEDS = (0, 1, 2)
CHAIN = ("--model", "embedded-notes", "--chain.kind", "notes_then_questions", "--task_options.chunks", "3")
FEW = ("--limit", "2")
DAMAGE = ("--perturbations", "delete,truncate_back", "--severities", "0.5")
READ = (*DOUBLE, *SMALL)
QUESTION = ("--question", "17+4+30")
CALLS: dict[str, tuple[str, ...]] = {  # name of the file -> the command
    "ask": ("ask", "run-0", "17+4+30"),
    "ask-model": ("ask", "embedded", "17+4+30", *READ),
    "ask-chain": ("ask", "chain", "--text", "text.txt", "apples"),
    "audit": (
        "audit",
        str(FIXTURES / "audit" / "samples_tiny_sums.jsonl"),
        "--reader",
        "embedded",
        *FEW,
        *DOUBLE,
        "--out",
        "audited",
    ),
    "audit-dry": ("audit", str(FIXTURES / "audit" / "samples_tiny_sums.jsonl"), "--reader", "embedded", *FEW, "--dry-run"),
    "check": ("check", "grpo.yaml"),
    "configs": ("configs",),
    "diagnose": ("diagnose", "run-0", "run-1"),
    "eval": ("eval", "run-0", "--checkpoints", "all", "--baseline", *FEW),
    "eval-no-cot": ("eval", "run-0", "--no-cot", *FEW),
    "eval-rescore": ("eval", "run-0", "--rescore"),
    "eval-model": ("eval", "embedded", "--task", "arithmetic", *FEW, *READ, "--out", "kept"),
    "eval-chain": ("eval", "chain", "--lengths", "2", *FEW),
    "explain": ("explain", "run-0", *FEW, "--out", "studies"),
    "explain-question": ("explain", "run-0", *QUESTION, "--by", "word", "--how", "replace", "--out", "studies"),
    "export": ("export", "run-0", "--to", "exported"),
    "models": ("models",),
    "perturb": ("perturb", "run-0", "--against", "run-1", "--severities", "0.5,1", *FEW, "--out", "studies"),
    "report": ("report", "run-0", "run-1", "run-2", "-o", "report"),
    "sweep-dry": ("sweep", "sweep.yaml", "--dry-run", "--out", "swept"),
    "tasks": ("tasks",),
    "tasks-one": ("tasks", "arithmetic"),
    "train-dry": ("train", "--model", "embedded", *TRAINED, "--dry-run"),
    "transfer": ("transfer", "run-0", "--readers", "embedded-shortcut", "--checkpoints", "0,3", *FEW, "--out", "studies"),
    "watch": ("watch", "run-0", "--idle", "0"),
}
LINES = {"watch"}  # one object a line
MADE: dict[str, tuple[str, ...]] = {  # what the others start from: made once, in this order, and its `--json` looked at too
    **{
        f"train-{seed}": ("train", "--model", "embedded", *TRAINED, "--seed", str(seed), "--out", f"run-{seed}") for seed in SEEDS
    },
    "train-chain": ("train", *CHAIN, *TRAINED, "--training.steps", "1", "--out", "chain"),
    "loadbearing": ("loadbearing", "run-0", "--against", "run-1", *FEW, *DAMAGE, "--out", "run-0/loadbearing"),
    "loadbearing-chain": ("loadbearing", "chain", *FEW, *DAMAGE, "--out", "chain/loadbearing"),
    "explain-resample": ("explain", "run-0", *FEW, "--how", "resample", "--out", "run-0/loadbearing"),
}
ELSEWHERE = {"demo", "sweep-cell"}  # tested below; without --json
SWEEP = """
base: {model: embedded, training: {steps: 2}}
matrix: {objective.name: [grpo, rloo]}
seeds: [0, 1]
"""


def called(*arguments: str) -> str:
    """Standard output of a command that ends well (or says that a run is unwell)."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main([*arguments, "--json"])
    assert code in (0, 3), arguments
    return out.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Three seeds of a run and one of chains, with studies, a text and a sweep's file; what the commands printed."""
    home = tmp_path_factory.mktemp("golden")
    (home / "text.txt").write_text("a has 3\n", encoding="utf-8")
    (home / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    (home / "grpo.yaml").write_text("num_generations: 1\nbeta: 0.001\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        printed = {name: json.loads(called(*arguments)) for name, arguments in MADE.items()}
    return home, printed


@pytest.fixture
def home(made: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where the command is run."""
    shutil.copytree(made[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("markovlm.sweeps.engines.local._cores", lambda: 2)  # a sweep's plan says how many runs fit this machine
    monkeypatch.setenv("MARKOVLM_CACHE", str(tmp_path / "cache"))  # no model is fetched
    return tmp_path


@pytest.mark.parametrize("name", CALLS)
def test_json_of_the_commands(name: str, home: Path) -> None:
    if name == "eval-rescore":
        called(*CALLS["eval"])
    out = called(*CALLS[name])
    found = [json.loads(line) for line in out.splitlines()] if name in LINES else json.loads(out)
    golden.check(f"json/{name}", found, home)


@pytest.mark.parametrize("name", [name for name in MADE if name not in ("train-1", "train-2")])
def test_json_of_the_commands_that_make_runs_and_studies(name: str, made: tuple[Path, dict[str, Any]]) -> None:
    golden.check(f"json/{name}", made[1][name], made[0])


def test_every_command_is_among_them() -> None:
    assert set(NAMES) - ELSEWHERE == {arguments[0] for arguments in (CALLS | MADE).values()}


def test_json_of_the_demo(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps and few questions."""
    monkeypatch.setattr(demo, "SMALL", demo.Scale(4, 2, demo.Plan(("delete",), (0.5,)), 1))
    defaults = KNOWN["embedded"].defaults
    monkeypatch.setitem(defaults, "loading", {"dtype": "float64"})
    monkeypatch.setitem(defaults, "training", {**defaults["training"], "steps": 2, "eval_every": 0, "checkpoint_every": 2})
    monkeypatch.setitem(
        defaults, "rollouts", {**defaults["rollouts"], "questions_per_step": 2, "group_size": 2, "max_cot_tokens": 12}
    )
    golden.check("json/demo", json.loads(called("demo", "--out", "demo", "--device", "cpu")), home)


@pytest.mark.parametrize("name", ["run-0", "run-1", "run-2", "chain"])
def test_rows_of_a_run(name: str, made: tuple[Path, Any]) -> None:
    """Every row of training and evaluation, with its keys in their order; and the files there are."""
    run = made[0] / name
    files = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    rows = {file: read_rows(run / f"{file}.jsonl") for file in ("metrics", "evals", "samples", "events")}
    golden.check(f"rows/{name}", {"files": files, **rows}, made[0])


def test_columns_of_a_report(home: Path) -> None:
    """Of runs with all studies: the tables that there are, and their columns; the other files."""
    called("report", "run-0", "run-1", "run-2", "chain", "-o", "report")
    columns = {}
    for path in sorted((home / "report" / "tables").glob("*.csv")):
        with open(path, newline="", encoding="utf-8") as file:
            columns[path.name] = next(csv.reader(file))
    files = sorted(str(path.relative_to(home)) for path in (home / "report").rglob("*") if path.is_file())
    golden.check("report", {"columns": columns, "files": [file for file in files if not file.endswith(".csv")]})


def test_a_changed_value_is_seen(tmp_path: Path) -> None:
    """The net itself: keys lost, renamed or in another order, numbers beyond rounding, texts, types, lengths."""
    old: dict[str, Any] = {"a": 1.0, "b": [{"c": "x"}, 2], "d": None}
    assert list(golden.differing(old, {"a": 1.0 + 1e-9, "b": [{"c": "x"}, 2], "d": None})) == []
    for new, said in (
        ({"a": 1.00001, "b": old["b"], "d": None}, ".a: 1.0, now 1.00001"),
        ({"a": 1, "b": old["b"], "d": None}, ".a: 1.0, now 1"),
        ({"a": 1.0, "b": [{"c": "y"}, 2], "d": None}, ".b[0].c: 'x', now 'y'"),
        ({"a": 1.0, "b": old["b"][:1], "d": None}, ".b: 2 items, now 1"),
        ({"a": 1.0, "b": old["b"]}, "top: lost ['d'], new []"),
        ({"b": old["b"], "a": 1.0, "d": None}, "top: the keys have another order"),
        ({"a": 1.0, "b": old["b"], "d": False}, ".d: None, now False"),
    ):
        assert list(golden.differing(old, new)) == [said]
    assert golden.plain({"step_seconds": 1.5, "at": f"{tmp_path}/x", "n": list(range(9))}, str(tmp_path)) == {
        "step_seconds": "<float>", "at": "<tmp>/x", "n": list(range(9)),
    }  # fmt: skip
