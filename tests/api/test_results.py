"""What the API gives: short reprs, tables, and nothing of a text that a browser would obey."""

from __future__ import annotations

import polars as pl

import markovlm
from markovlm.api.results import StudyResult
from markovlm.texts.markup import curve_svg, html_table, intervals_svg

HOSTILE = "<script>alert(1)</script>"


def test_markup_escapes_whatever_comes_in() -> None:
    for made in (
        html_table(HOSTILE, [HOSTILE], [[HOSTILE]]),
        intervals_svg([(HOSTILE, 0.5, 0.4, 0.6)]),
        curve_svg([1.0, 2.0], HOSTILE),
    ):
        assert "<script" not in made
        assert "&lt;script" in made


def test_a_curve_leaves_a_gap_where_a_number_is_missing() -> None:
    assert curve_svg([0.0, 1.0, None, float("nan"), 2.0, 3.0], "reward").count("<polyline") == 2
    assert curve_svg([None, 1.0], "reward") == ""


def test_an_interval_is_drawn_where_it_lies() -> None:
    """The axis is 270 pixels wide and begins at 140."""
    assert 'cx="275.0"' in intervals_svg([("a", 0.5, 0.4, 0.6)])
    assert 'x1="248.0" x2="302.0"' in intervals_svg([("a", 0.5, 0.4, 0.6)])


def test_the_result_of_a_study_is_its_json_with_a_table() -> None:
    rows = [
        {"name": "delete", "drop": {"value": 1.5, "ci95": [1.0, 2.0]}},
        {"name": HOSTILE, "drop": {"value": 0.5, "ci95": [0, 1]}},
    ]
    found = StudyResult({"run": "runs/a", "notes": [{"text": "x"}], "damage": {"cells": rows}, "prompt": "long " * 1000})
    assert found == {"run": "runs/a", "notes": [{"text": "x"}], "damage": {"cells": rows}, "prompt": "long " * 1000}
    assert repr(found) == "StudyResult(run=runs/a; 2 rows of damage.cells; keys run, notes, damage, prompt)"
    assert found.to_frame()["drop.value"].to_list() == [1.5, 0.5]
    assert "[1, 2]" in found._repr_html_()
    assert "<script" not in found._repr_html_()


def test_verdicts_are_a_list_and_a_table() -> None:
    rows = [{"step": s, "reward_mean": -1.0 if s < 50 else -9.0} for s in range(1, 101)]
    found = markovlm.diagnose(rows)
    assert found[0].verdict == "collapsed"
    assert len(repr(found)) < 300
    assert found.to_frame().select("verdict", "onset_step").rows() == [("collapsed", found[0].onset_step)]
    assert found.to_frame().schema["why"] == pl.String
    assert "collapsed" in found._repr_html_()
