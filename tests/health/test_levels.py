"""Levels as window means with errors, trends with intervals: numbers computed another way, and runs whose truth is known."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from markovlm.health.levels import levels, milestone_levels, window_of
from markovlm.health.series import Course
from markovlm.health.trend import autocorrelation_time, claimed, persistence, trend
from markovlm.report import diagnose_paths, write_report
from markovlm.report.run_rows import run_rows
from report.native import eval_row, write_native


def course(values: np.ndarray, key: str = "answer_logprob") -> Course:
    return Course(key, np.arange(1, len(values) + 1, dtype=float), values.astype(float))


def autoregressive(n: int, rho: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = np.zeros(n)
    for i in range(1, n):
        values[i] = rho * values[i - 1] + rng.normal()
    return values


def test_start_best_and_end_of_a_course_that_peaks() -> None:
    values = np.concatenate([np.full(30, -3.0), np.full(20, -1.0), np.full(50, -2.0)]) + 0.1 * (-1.0) ** np.arange(100)
    found = levels(course(values))
    assert window_of(100) == 10
    assert [found.start.mean, found.best.mean, found.end.mean] == pytest.approx([-3.0, -1.0, -2.0])
    assert found.best.first_step >= 31
    assert found.best.last_step <= 50
    assert (found.start.first_step, found.start.last_step) == (1, 10)
    assert (found.end.first_step, found.end.last_step) == (91, 100)
    assert found.end.spread == pytest.approx(0.1 * math.sqrt(10 / 9))


def test_a_best_window_at_either_end_is_found() -> None:
    rising = levels(course(np.arange(40.0)))
    assert rising.best == rising.end
    falling = levels(course(-np.arange(40.0)))
    assert falling.best == falling.start


def test_errors_allow_for_autocorrelation() -> None:
    white = np.random.default_rng(1).normal(size=4000)
    assert persistence(white).mean_error(white) == pytest.approx(1 / math.sqrt(4000), rel=0.25)
    # The mean of 100 rows of an AR(1) process with rho = .8 and variance 1 / .36: (9 - 2 * .8 / (100 * .04)) / 100 of it.
    alike = autoregressive(20_000, 0.8, 2)
    assert persistence(alike).rho == pytest.approx(0.8, abs=0.02)
    means = [alike[at : at + 100].mean() for at in range(0, 20_000, 100)]
    told = [persistence(alike).mean_error(alike[at : at + 100]) for at in range(0, 20_000, 100)]
    assert float(np.mean(told)) == pytest.approx(math.sqrt((9 - 0.4) / 100 / 0.36), rel=0.15)
    assert float(np.mean(told)) == pytest.approx(float(np.std(means)), rel=0.2)
    # An AR(1) process has tau = (1 + rho) / (1 - rho): 9 for 0.8.
    assert autocorrelation_time(autoregressive(20_000, 0.8, 2)) == pytest.approx(9, rel=0.25)
    assert levels(course(np.ones(8))).end.error is None  # windows of two rows
    never = levels(course(np.zeros(40), "cot_contains_answer")).end
    assert never.error == pytest.approx(math.sqrt((1 / 12) * (11 / 12) / 12))  # none of ten rows is not surely none at all


def test_the_interval_of_a_trend_covers_it() -> None:
    covered = [
        (found := trend(course(0.002 * np.arange(300) + 0.5 * autoregressive(300, 0.5, seed)))) is not None
        and found.low <= 0.598 <= found.high
        for seed in range(60)
    ]
    assert sum(covered) >= 53  # 95 % of 60 is 57; under 53 has a chance of 1 %


def test_a_level_course_has_no_trend_and_a_slow_rise_in_noise_has() -> None:
    false = sum(abs(t.z) > 2.58 for seed in range(100) if (t := trend(course(autoregressive(300, 0.5, seed)))))
    assert false <= 6
    slow = np.linspace(-5.6, -2.8, 450) + np.random.default_rng(0).normal(0, 2.8, 450)  # one sample a row
    found = trend(course(slow))
    assert found is not None
    assert found.direction(0.3) == "rises"
    assert found.z > 5
    assert found.low < 2.8 < found.high
    few = trend(course(np.random.default_rng(3).normal(0, 3, 30)))
    assert few is not None
    assert few.direction(0.3) == "cannot tell"
    flat = trend(course(np.random.default_rng(4).normal(0, 0.05, 400)))
    assert flat is not None
    assert flat.direction(0.3) == "level"


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_a_window_of_ten_rows_holds_its_level_as_often_as_it_says(rho: float) -> None:
    """200 courses of 100 rows, mean plus or minus two errors; the errors of within the window alone covered .38 at rho = .9."""
    hits = 0
    for seed in range(200):
        end = levels(course(autoregressive(400, rho, seed)[300:])).end
        hits += end.error is not None and abs(end.mean) <= 2 * end.error
    assert hits >= 178  # 95 % of 200 is 190; under 178 has a chance of 1 in 1,000


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("rows", [20, 40])
def test_few_rows_that_remember_each_other_are_no_trend(rho: float, rows: int) -> None:
    """300 courses without a trend, claims at 99 %; .143 of those with rho = .9 were called one before."""
    found = [trend(course(autoregressive(300 + rows, rho, seed)[300:])) for seed in range(300)]
    assert sum(t is not None and claimed(t) for t in found) <= 11  # 3 are expected; over 11 has a chance of 1 in 10,000
    steep = trend(course(np.linspace(0, 6, rows) + autoregressive(300 + rows, 0.0, 1)[300:]))
    assert steep is not None
    assert claimed(steep)


def test_trend_of_hand_counted_pairs() -> None:
    found = trend(course(np.array([0.0, 2, 1, 3, 4, 5, 6, 7])))
    assert found is not None
    # 28 pairs, one falls: S = 26; variance 8 * 7 * 21 / 18 = 65.33, no autocorrelation left: z = 25 / 8.083
    assert found.z == pytest.approx(25 / math.sqrt(8 * 7 * 21 / 18))
    assert found.change == pytest.approx(7.0)
    assert trend(course(np.zeros(7))) is None
    same = trend(course(np.ones(20)))
    assert same is not None
    assert (same.change, same.low, same.high, same.z) == (0.0, 0.0, 0.0, 0.0)


def test_milestones_are_means_of_windows(tmp_path: Path) -> None:
    d = diagnose_paths([write_native(tmp_path / "r", steps=300)])[0]
    values = d.run.metrics["answer_logprob"].to_numpy()
    first, middle, last = milestone_levels(d.run, "answer_logprob", [1, 150, 300])
    assert first is not None
    assert middle is not None
    assert last is not None
    assert (first.first_step, first.rows, last.last_step) == (1, 15, 300)
    assert middle.mean == pytest.approx(values[142:157].mean())
    assert middle.spread == pytest.approx(values[142:157].std(ddof=1))
    assert milestone_levels(d.run, "no_such_metric", [1]) == [None]


def test_the_table_of_runs_as_csv_json_and_markdown(tmp_path: Path) -> None:
    write_native(tmp_path / "runs" / "a", evals=[eval_row(0, 0.1, 500), eval_row(300, 0.6, 500)])
    write_native(tmp_path / "runs" / "b", steps=2, evals=[], samples=[])
    write_report([tmp_path / "runs"], tmp_path / "out")
    listed = json.loads((tmp_path / "out" / "tables" / "runs.json").read_text())
    assert [row["run"] for row in listed] == ["a", "b"]
    assert listed[0]["accuracy"]["last"]["accuracy"] == 0.6
    assert listed == [row.as_json() for row in run_rows(diagnose_paths([tmp_path / "runs"]))]
    with open(tmp_path / "out" / "tables" / "runs.csv") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["answer log-prob, actor, end"]) == pytest.approx(listed[0]["signals"]["answer_logprob"]["end"]["mean"])
    assert rows[1]["verdict"] == "unknown"
    text = (tmp_path / "out" / "report.md").read_text()
    assert "## Runs" in text
    assert "| around step |" in text
    assert (tmp_path / "out" / "tables" / "milestone-means.csv").exists()
