"""Odd files in a directory: what is read, what is left out and why, and that nothing waits for ever."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from markovlm.errors import UserError
from markovlm.logs.find import Skipped, find_runs, read_run, read_runs
from markovlm.report import write_report
from report.native import write_native
from report.seed import SETTINGS, record

ROWS = [SETTINGS, *(record(b, 0.0, 0.1 * b, -1.0 - 0.01 * b, None, f"cot {b}", "gsm8k") for b in range(30))]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
RESULT = {
    "accuracy": 0.5,
    "results": [
        {"question": "1+1", "true_answer": 2, "generated_answer": 2, "is_correct": True},
        {"question": "2+2", "true_answer": 4, "generated_answer": "[invalid]", "is_correct": False},
    ],
}


def test_a_log_reads_the_same_however_it_is_packed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(LINES)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
    (tmp_path / "c.json").write_text(json.dumps(ROWS, indent=2))
    (tmp_path / "d.txt").write_text(json.dumps(ROWS))
    (tmp_path / "e.log.gz").write_bytes(gzip.compress(LINES[:500].encode()) + gzip.compress(LINES[500:].encode()))
    skipped: list[Skipped] = []
    runs = list(read_runs([tmp_path], skipped=skipped))
    assert [run.name for run in runs] == ["a", "b", "c", "d", "e"]
    assert skipped == []
    for run in runs:
        assert run.metrics.equals(runs[0].metrics)
        assert [s.cot for s in run.samples] == [s.cot for s in runs[0].samples]
        assert run.config == runs[0].config


def test_gzip_that_ends_early_or_is_damaged(tmp_path: Path) -> None:
    packed = gzip.compress(LINES.encode())
    (tmp_path / "early.jsonl.gz").write_bytes(packed[: len(packed) * 2 // 3])
    run = read_run(tmp_path / "early.jsonl.gz")
    assert 3 < run.steps < 30
    assert any("ends early" in problem for problem in run.problems)
    (tmp_path / "fault.json").write_text(json.dumps(ROWS)[:-300])
    run = read_run(tmp_path / "fault.json")
    assert run.steps == 29
    assert any("fault" in problem for problem in run.problems)


def test_what_is_left_out_is_listed_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_text(LINES)
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "numbers.json").write_text("[1, 2]")
    (tmp_path / "other.jsonl").write_text('{"foo": 1, "bar": 2}\n')
    (tmp_path / "bad.log.gz").write_bytes(b"\x1f\x8bnot gzip")
    (tmp_path / "dead.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "picture.png").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.jsonl")
    skipped: list[Skipped] = []
    assert find_runs([tmp_path], skipped) == [tmp_path / "good.jsonl"]
    why = {s.path.name: s.why for s in skipped}
    assert why["empty.jsonl"] == "empty"
    assert "pipe" in why["pipe.jsonl"]
    assert "link" in why["dead.jsonl"]
    assert "foo, bar" in why["other.jsonl"]
    assert {"numbers.json", "bad.log.gz"} <= why.keys()
    assert "1 .png" in why[tmp_path.name]
    write_report([tmp_path], tmp_path / "out")
    with open(tmp_path / "out" / "tables" / "problems.csv") as file:
        listed = {row["run"]: row["problem"] for row in csv.DictReader(file)}
    assert listed["empty.jsonl"] == "left out: empty"
    assert "other.jsonl" in (tmp_path / "out" / "report.html").read_text()
    assert "left out: empty" in (tmp_path / "out" / "report.md").read_text()


def test_a_directory_without_runs_says_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UserError, match=r"no runs found.*empty\.jsonl: empty"):
        find_runs([tmp_path])


def test_named_pipes_hang_nothing(tmp_path: Path) -> None:
    run = write_native(tmp_path / "run")
    for name in ("samples.jsonl", "evals.jsonl", "environment.json"):
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)
    os.mkfifo(tmp_path / "pipe.log")
    done = subprocess.run(
        [sys.executable, "-m", "markovlm", "diagnose", "--json", str(tmp_path), str(tmp_path / "pipe.log")],
        capture_output=True, timeout=60, text=True, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert [row["verdict"] for row in found["runs"]] == ["healthy", "unknown"]
    assert "pipe" in found["skipped"][0]["why"]
    assert sum("pipe" in problem for problem in read_run(run).problems) >= 2


def test_repeated_batch_numbers_the_later_counts(tmp_path: Path) -> None:
    three = [record(b, 0.0, 0.1, -1.0 - i, None, "x", "gsm8k") for b in range(10) for i in range(3)]
    (tmp_path / "three.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [SETTINGS, *three]))
    run = read_run(tmp_path / "three.jsonl")
    assert run.metrics["step"].to_list() == list(range(10))
    assert set(run.metrics["answer_logprob"]) == {-3.0}
    assert any("20 rows repeat a Batch Index; the last row of each is used" in p for p in run.problems)
    (tmp_path / "one.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [SETTINGS, *three[:3]]))
    assert read_run(tmp_path / "one.jsonl").metrics["answer_logprob"].to_list() == [-3.0]


def test_a_lone_evaluation_file_has_its_answers(tmp_path: Path) -> None:
    (tmp_path / "eval.json").write_text(json.dumps(RESULT))
    run = next(iter(read_runs([tmp_path])))
    assert (run.kind, run.evals[0].n, run.evals[0].score.no_answer) == ("evaluation", 2, 0.5)
    assert [(s.question, s.correct) for s in run.samples] == [("2+2", False), ("1+1", True)]
    (tmp_path / "eval.json").unlink()
    (tmp_path / "some_results_llama.jsonl").write_text((json.dumps(RESULT) + "\n") * 2)
    assert len(next(iter(read_runs([tmp_path]))).evals) == 2


def test_sources_in_tables_are_relative_to_the_report(tmp_path: Path) -> None:
    write_native(tmp_path / "runs" / "a")
    write_report([tmp_path / "runs"], tmp_path / "out")
    text = (tmp_path / "out" / "tables" / "verdicts.csv").read_text() + (tmp_path / "out" / "tables" / "runs.csv").read_text()
    assert "../runs/a/metrics.jsonl:" in text
    assert str(tmp_path) not in text
