"""What the page is made of, without a browser: axes, smoothing, settings side by side, the table of runs, which runs are on show."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from markovlm.health.series import Course
from markovlm.logs.records import RunData
from markovlm.report import diagnose_paths
from markovlm.report.figures import CHARTS, calm, curves, first_shown, for_print
from markovlm.report.figures.base import Line
from markovlm.report.figures.curves import _spec
from markovlm.report.figures.thin import domain, line
from markovlm.report.html import _environment, _Links
from markovlm.report.overview import folded, groupings, overview
from markovlm.report.settings import settings, split_settings
from report.native import CONFIG, write_native


def config(name: str, **values: object) -> RunData:
    return RunData(path=Path(name), kind="native", name=name, config=dict(values))


def test_what_a_log_does_not_say_is_no_difference() -> None:
    runs = [config("a", lr=1e-4, seed=1, r=8), config("b", lr=1e-4, seed=2), config("c", lr=1e-4), config("d")]
    split = split_settings(runs)
    assert (split.differ, split.partial, split.common) == (("seed",), ("r",), ("lr",))
    found = settings(runs)
    assert found.differ.columns == ("run", "log", "seed")
    assert [[c.text for c in row] for row in found.partial.rows] == [["r", "8", "a"]]
    assert found.whole.columns == ("run", "log", "seed", "r")  # the CSV file loses nothing


def test_the_axis_fits_the_means_and_not_single_rows() -> None:
    means = np.array([-2.0, -1.0])
    raw = [-30.0, *([-1.5] * 98), 5.0]
    low, high = domain(means, raw, [], "linear", None)
    assert -2.2 < low < -2.0
    assert -1.0 < high < -0.8
    wide = domain(means, list(np.linspace(-9, 9, 200)), [], "linear", None)
    assert wide == pytest.approx((-2.6 - 0.06 * 2.2, -0.4 + 0.06 * 2.2))  # at most 0.6 of the means' span on each side


@pytest.mark.parametrize(
    ("value", "bounds", "expected"),
    [(0.1, None, (0.09, 0.11)), (0.0, (0.0, 1.0), (-0.02, 0.1)), (1.0, (0.0, 1.0), (0.9, 1.02)), (-4.0, None, (-4.4, -3.6))],
)
def test_the_axis_of_a_constant_is_around_it(
    value: float, bounds: tuple[float, float] | None, expected: tuple[float, float]
) -> None:
    assert domain(np.array([value, value]), [], [], "linear", bounds) == pytest.approx(expected)


def test_rounding_of_a_running_mean_is_no_spread() -> None:
    assert domain(np.array([0.4, 0.4 + 6e-17, 0.4 - 6e-17]), [], [], "linear", None) == pytest.approx((0.36, 0.44))


def test_a_limit_is_on_the_axis_only_where_the_metric_comes_near() -> None:
    assert domain(np.array([20.0, 80.0]), [], [100.0], "linear", None)[1] > 100
    assert domain(np.array([20.0, 21.0]), [], [100.0], "linear", None)[1] < 22


def test_means_are_of_equal_stretches_and_keep_the_total() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    found = line("run", "x", Course("x", np.arange(1000.0), values), 50)
    assert len(found.means) == 50
    assert np.mean(found.means) == pytest.approx(values.mean(), abs=1e-3)
    assert found.steps[:2] == (9, 29)  # the middle of rows 0 to 19, and of 20 to 39
    assert found.raw is not None
    assert max(found.raw[1]) == pytest.approx(values.max(), rel=1e-3)


def test_smoothing_is_a_share_of_the_run() -> None:
    found = Line("run", "x", tuple(range(100)), tuple([0.0] * 50 + [1.0] * 50))
    assert calm(found, 0).tolist() == list(found.means)
    assert (calm(found, 0.1) > 0).sum() == 54  # ten rows, row i those from i - 5 to i + 4: row 46 is the first to see row 50
    assert (calm(found, 0.01) > 0).sum() == 52  # never fewer than five rows


def test_every_chart_is_a_row_and_a_pattern_draws_all_its_columns(tmp_path: Path) -> None:
    assert len({chart.name for chart in CHARTS}) == len(CHARTS)
    run = write_native(tmp_path / "a", steps=40, change=lambda s: {"loss_policy": 0.1 * s, "loss_kl": 0.2, "loss_entropy": 0.3})
    diagnosed = diagnose_paths([run])
    terms = next(figure for figure in curves(diagnosed) if figure.name == "loss_all")
    assert [found.series for found in terms.lines] == ["policy loss", "KL loss", "entropy loss"]
    length = next(figure for figure in curves(diagnosed) if figure.name == "cot_length")
    assert length.limits == (("a", 48.0),)
    spec = for_print(length, diagnosed)
    assert {row["run"] for row in spec["datasets"]["calm"]} == {"a"}
    assert {param["name"]: param["value"] for param in spec["params"]}["x1"] == 40


def test_long_runs_are_on_show_first_and_the_grave_leave_them_room(tmp_path: Path) -> None:
    crash = {"answer_logprob": -20.0, "reward_mean": -20.0}
    for i in range(30):
        bad = i < 10
        steps = 60 if bad else 40 + 2 * i
        write_native(tmp_path / f"run-{i:02d}", steps, (lambda s: dict(crash) if s > 30 else {}) if bad else None, [], [])
    diagnosed = diagnose_paths([tmp_path])
    shown = first_shown(diagnosed)
    assert len(shown) == 12
    assert all(name < "run-10" for name in shown[:6])
    assert shown[6:] == [f"run-{i}" for i in range(29, 23, -1)]
    assert [(heading, len(runs)) for heading, runs, _ in folded(diagnosed)] == [
        ("10 runs collapsed", 10),
        ("20 runs healthy", 20),
    ]


def test_the_table_of_runs(tmp_path: Path) -> None:
    write_native(tmp_path / "runs" / "a", evals=[])
    write_native(tmp_path / "runs" / "b", config=CONFIG.replace("lr: 0.001", "lr: 0.002").replace("seed: 0", "other: 3"))
    diagnosed = diagnose_paths([tmp_path / "runs"])
    found = overview(diagnosed)
    assert [name for name, _ in found.groups][:2] == ["accuracy", "normalised reward"]
    rows = {row.row.run: row for row in found.rows}
    assert rows["a"].cells[0].text == "—"
    assert rows["b"].cells[1].text == "70.0 %"
    start = rows["b"].cells[3]
    assert start.value == pytest.approx(np.mean([1.3 * s / 100 + 0.05 * np.sin(s) for s in range(1, 31)]), rel=1e-6)
    assert start.hint == "mean of 30 rows, steps 1 to 30"
    assert groupings(diagnosed) == {
        "task": {"a": "arithmetic", "b": "arithmetic"},
        "verdict": {"a": "healthy", "b": "healthy"},
        "training.lr": {"a": "0.001", "b": "0.002"},
    }


def test_what_the_runs_say_together_is_shown_as_text(tmp_path: Path) -> None:
    found = SimpleNamespace(
        next_steps=("use a",),
        patterns=(SimpleNamespace(task="", sentence="All."), SimpleNamespace(task="arc", sentence="<b>Two</b>.")),
        hypotheses=(SimpleNamespace(claim="lr is too high", speaks_for=("a",), speaks_against=(), test="repeat"),),
        recommendations=(SimpleNamespace(advice="stop", runs=tuple("abcdefgh")),),
    )
    page = _environment(_Links(tmp_path), "").get_template("together.html").render(synthesis=found, ids={"a": "run-0"})
    assert "&lt;b&gt;Two&lt;/b&gt;." in page
    assert "<b>all tasks</b>" in page
    assert '<b>Lr is too high.</b> For: <a href="#run-0">a</a>' in " ".join(page.split())
    assert "no run here" in page
    assert "and 2 more" in page
    assert _environment(_Links(tmp_path), "").get_template("together.html").render(ids={}).strip() == ""


def test_the_run_in_front_keeps_its_series_apart() -> None:
    """Two series: the second stays thin. More: each keeps its dashes."""
    for series in (["the actor's", "frozen"], ["a", "b", "c"]):
        layers = {layer["data"]["name"]: layer for layer in _spec("title", "linear", series)["layer"]}
        front, calm_layer = layers["front"]["encoding"], layers["calm"]["encoding"]
        assert front["strokeDash"] == calm_layer["strokeDash"]
        if len(series) == 2:
            thin = front["strokeWidth"]["condition"]
            assert thin["test"] == {"field": "series", "equal": "frozen"}
            assert thin["value"] < front["strokeWidth"]["value"] / 2
        else:
            assert front["strokeDash"]["field"] == "series"
