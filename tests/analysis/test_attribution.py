"""Attributions and their aggregate, against numbers worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import pytest

from markovlm.analysis.attribution import Attribution, UnitDrop, aggregate
from markovlm.statistics import cluster_mean_ci


def attribution(id="q1", units=(), **changes):
    base = Attribution(
        id=id, question="17+4", gold="21", choices=("20", "21"), cot="17+4=21", answer=" 21", extracted="21", correct=True,
        target=" 21", logprob=-0.25, units=tuple(units), how="remove", by="word",
    )  # fmt: skip
    return replace(base, **changes)


ONE = attribution("q1", [UnitDrop("17", "number", 0.0, 3.0), UnitDrop("+", "operator", 0.3, -1.0)])
TWO = attribution(
    "q2", [UnitDrop("4", "number", 0.95, 1.0), UnitDrop("5", "number", 1.0, -0.5), UnitDrop("=", "operator", 0.3, 1.0)]
)


def test_json():
    one = attribution(units=[UnitDrop(" é\n", "word", 1 / 3, 0.1)], extracted=None, correct=None)
    row = json.loads(json.dumps(one.to_json(), allow_nan=False))
    assert row["choices"] == ["20", "21"]
    assert row["units"] == [{"text": " é\n", "kind": "word", "start": 1 / 3, "drop": 0.1}]
    assert row.keys() == {field.name for field in fields(one)}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(value):
    with pytest.raises(ValueError, match="not a number"):
        UnitDrop("1", "number", 0.0, value)
    with pytest.raises(ValueError, match="not a number"):
        attribution(logprob=value)


@pytest.mark.parametrize("start", [-0.1, 1.1, math.nan])
def test_starts_are_fractions(start):
    with pytest.raises(ValueError, match="fraction"):
        UnitDrop("1", "number", start, 0.0)


def test_top_and_hurting():
    drops = [0.5, 2.0, -1.0, 2.0, -3.0, 0.0]
    one = attribution(units=[UnitDrop(str(i), "number", 0, drop) for i, drop in enumerate(drops)])
    assert one.top() == [1, 3, 0]  # equal drops in the CoT's order
    assert one.hurting() == 4
    assert attribution().top() == []
    assert attribution().hurting() is None
    assert ONE.top() == [0]  # a unit without which the answer is likelier bears nothing
    assert attribution(units=[UnitDrop("1", "number", 0, 0.0)]).hurting() is None


def test_by_kind_by_hand():
    # numbers: 3, 1, -0.5, mean 3.5 / 3, positive 4 of all positive 3 + 1 + 1 = 5; operators: -1, 1, mean 0, positive 1
    rows = aggregate([ONE, TWO], seed=7)["by_kind"]
    assert [row["kind"] for row in rows] == ["number", "operator"]
    number, operator = rows
    assert (number["units"], number["questions"], operator["units"]) == (3, 2, 2)
    assert number["share"] == pytest.approx(4 / 5)
    assert operator["share"] == pytest.approx(1 / 5)
    assert number["share_of_units"] == pytest.approx(3 / 5)
    assert number["drop"]["mean"] == pytest.approx(3.5 / 3)
    assert operator["drop"]["mean"] == 0.0


def test_intervals_draw_questions():
    number = aggregate([ONE, TWO], seed=7)["by_kind"][0]
    # two clusters, {3} and {1, -0.5}: with 10,000 draws the 2.5 % and 97.5 % ends are one of them drawn twice
    assert number["drop"]["ci95"] == pytest.approx([0.25, 3.0])
    alone = cluster_mean_ci([3.0, 1.0, -0.5], None, 7)
    assert alone.low != pytest.approx(0.25)


def test_by_position_by_hand():
    rows = aggregate([ONE, TWO], seed=0)["by_position"]
    assert [(row["from"], row["to"]) for row in rows] == [(i / 10, (i + 1) / 10) for i in range(10)]
    assert [row["units"] for row in rows] == [1, 0, 0, 2, 0, 0, 0, 0, 0, 2]  # 0.3 begins the fourth tenth, 1.0 is in the last
    assert rows[9]["drop"] == {"mean": pytest.approx(0.25), "ci95": [None, None]}  # one question: no spread
    assert rows[1]["drop"] == {"mean": None, "ci95": [None, None]}


def test_every_tenth_of_every_length():
    for n in range(10, 200, 10):
        one = attribution(units=[UnitDrop("1", "number", i / n, 0.0) for i in range(n)])
        assert [row["units"] for row in aggregate([one], 0)["by_position"]] == [n // 10] * 10


def test_top_examples():
    rows = aggregate([TWO, ONE, attribution("empty")], seed=0)["top_examples"]
    assert [row["id"] for row in rows] == ["q1", "q2"]
    assert [unit["drop"] for unit in rows[0]["units"]] == [3.0]
    assert [unit["text"] for unit in rows[1]["units"]] == ["4", "="]
    assert rows[0]["target"] == " 21"
    many = [attribution(str(i), [UnitDrop("1", "number", 0, float(i))]) for i in range(9)]
    assert [row["id"] for row in aggregate(many, 0)["top_examples"]] == ["8", "7", "6", "5", "4"]


def test_no_load_has_no_shares():
    only = aggregate([attribution(units=[UnitDrop("1", "number", 0, -1.0)])], seed=0)
    assert only["by_kind"][0]["share"] is None
    assert only["by_kind"][0]["share_of_units"] == 1.0
    assert only["by_kind"][0]["drop"] == {"mean": -1.0, "ci95": [None, None]}


def test_nothing_at_all():
    nothing = aggregate([], seed=0)
    assert nothing["by"] is None
    assert (nothing["attributions"], nothing["units"], nothing["by_kind"], nothing["top_examples"]) == (0, 0, [], [])
    assert len(nothing["by_position"]) == 10


def test_counts_and_json():
    found = aggregate([ONE, replace(ONE, cot="other"), TWO], seed=3)
    assert (found["attributions"], found["questions"], found["units"], found["seed"]) == (3, 2, 7, 3)
    assert (found["by"], found["how"]) == ("word", "remove")
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_seed_decides():
    many = [attribution(str(i), [UnitDrop("1", "number", 0, float(i * i % 7))]) for i in range(12)]
    assert aggregate(many, 1) == aggregate(many, 1)
    assert aggregate(many, 1)["by_kind"][0]["drop"]["ci95"] != aggregate(many, 2)["by_kind"][0]["drop"]["ci95"]


@pytest.mark.parametrize(("changes", "name"), [({"by": "sentence"}, "by"), ({"how": "replace"}, "how")])
def test_mixtures_are_refused(changes, name):
    with pytest.raises(ValueError, match=f"{name} = "):
        aggregate([ONE, replace(TWO, **changes)], seed=0)
