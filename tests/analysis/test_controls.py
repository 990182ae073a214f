"""Bypass and leak: what is read, and the arithmetic of both on cases made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from markovlm.analysis.controls import bypass, leak
from markovlm.analysis.fragility import other_cot
from markovlm.analysis.scoring import Scored, Variant, encode_cot
from markovlm.analysis.study import Study
from markovlm.tasks.base import Example
from support import studied

Twins = tuple[Path, Path]
ASKED = [Example("q/1", "1+22", "23"), Example("q/2", "7+8+9", "24"), Example("q/3", "30+4", "34"), Example("q/4", "5+6", "11")]
TEXTS = ["1+22=23", "24, as 7+8=15", "no sum", "5+6 is 12"]  # the answer stands at 5 of 7, at 0, nowhere, nowhere


@pytest.fixture
def study(twins: Twins, tmp_path: Path) -> Study:
    return studied.with_texts(studied.open_one(twins[1], tmp_path / "study"), TEXTS, ASKED)


# ------------------------------------------------------------------------------------------------------------- bypass


def test_each_control_is_read_with_the_question_in_sight_and_without(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = studied.scripted(monkeypatch, lambda v: Scored(-1.0, "", None, False))
    bypass(study)
    found = {(v.name, v.conditioning, v.example.id): v.ids for v in asked}
    assert len(found) == len(asked) == 4 * 2 * 4
    for cot in study.cots:
        for seen in ("markovian", "non_markovian"):
            ids = {name: found[name, seen, cot.example.id] for name in ("raw", "empty", "other", "filler")}
            assert ids["raw"] == cot.ids
            assert ids["empty"] == ()
            assert ids["other"] == other_cot(study, cot).ids != cot.ids
            assert study.setup.prompter.text(ids["filler"]) == (" ..." * 9)[: len(cot.text)]


RIGHT = {  # of which questions the answer is right, with the question visible and hidden
    "raw": ({1, 2, 3}, {1, 2}), "empty": ({1, 2, 4}, set()), "other": ({1}, {3}), "filler": ({1, 2}, {2}),
}  # fmt: skip


def test_what_survives_is_of_what_was_right(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(v: Variant) -> Scored:
        hidden = v.conditioning == "markovian"
        return Scored(-2.0 if hidden else -1.0, "", None, int(v.example.id[-1]) in RIGHT[v.name][hidden])

    studied.scripted(monkeypatch, script)
    result, path = bypass(study)
    rows = {(row["control"], row["reader"]): row for row in result["rows"]}
    sight, hidden = "sees the question", "question hidden"
    assert [rows[name, sight]["accuracy"]["mean"] for name in ("own", "empty", "other", "filler")] == [0.75, 0.75, 0.25, 0.5]
    assert [rows[name, hidden]["accuracy"]["mean"] for name in ("own", "empty", "other", "filler")] == [0.5, 0, 0.25, 0.25]
    # of 1, 2, 3: with no CoT 1 and 2 are right still (4 was wrong before), with another's 1, with filler 1 and 2
    survives = {name: rows[name, sight]["survives"] for name in ("empty", "other", "filler")}
    assert {name: (one["mean"], one["n"]) for name, one in survives.items()} == {
        "empty": (pytest.approx(2 / 3), 3), "other": (pytest.approx(1 / 3), 3), "filler": (pytest.approx(2 / 3), 3),
    }  # fmt: skip
    assert rows["own", sight]["survives"] is None
    assert rows["other", hidden]["survives"] | {"ci95": 0} == {"mean": 0.0, "ci95": 0, "n": 2}
    each = [1.0, 2 / 3, 0.0]  # question 1 under all three controls, 2 under two, 3 under none
    assert result["bypass"]["mean"] == pytest.approx(5 / 9)
    assert result["bypass"]["ci95"] == pytest.approx(studied.bootstrap(each, ["q/1", "q/2", "q/3"], 0))
    assert (rows["own", sight]["logprob"]["mean"], rows["own", hidden]["logprob"]["mean"]) == (-1.0, -2.0)
    assert path.name.startswith("bypass-step-000003-test-")


@pytest.mark.parametrize("correct", [False, None], ids=["all wrong", "text"])
def test_where_nothing_was_right_nothing_survives(study: Study, monkeypatch: pytest.MonkeyPatch, correct: bool | None) -> None:
    studied.scripted(monkeypatch, lambda _: Scored(-1.0, None, None, correct))
    result, _ = bypass(study)
    assert result["bypass"] is None
    assert all(row["survives"] is None for row in result["rows"])
    assert {row["accuracy"] is None for row in result["rows"]} == {correct is None}


def test_bypass_numbers_are_plain_scores(study: Study) -> None:
    result, _ = bypass(study)
    prompter, lm = study.setup.prompter, study.setup.lm
    for row in result["rows"]:
        if row["control"] in ("own", "empty"):
            seen = {"sees the question": "non_markovian", "question hidden": "markovian"}[row["reader"]]
            ids = [cot.ids if row["control"] == "own" else () for cot in study.cots]
            values = [
                studied.read_alone(lm, prompter, Variant(cot.example, 0, "", some, some, seen))
                for cot, some in zip(study.cots, ids, strict=True)
            ]
            assert row["logprob"]["mean"] == pytest.approx(sum(values) / 4, abs=1e-9)


# --------------------------------------------------------------------------------------------------------------- leak


def test_cots_are_cut_right_before_the_answer(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole they say -1 and -3, cut -2 and -7; both are right whole, only the second when cut."""
    values = {("q/1", 7): -1.0, ("q/2", 13): -3.0, ("q/1", 5): -2.0, ("q/2", 0): -7.0}

    def script(v: Variant) -> Scored:
        return Scored(values[v.example.id, len(v.ids)], "", None, (v.example.id == "q/1") == (len(v.ids) == 7))

    asked = studied.scripted(monkeypatch, script)
    result, _ = leak(study)
    assert [study.setup.prompter.text(v.ids) for v in asked] == [*TEXTS[:2], "1+22=", ""]
    assert {v.conditioning for v in asked} == {"non_markovian"}  # as this run is read
    assert (result["cots"], result["leaks"]["mean"]) == (4, 0.5)
    assert result["leaks"]["ci95"] == pytest.approx(studied.bootstrap([1, 1, 0, 0], list("abcd"), 0))
    middle = 5 / 7  # and 0
    assert result["position"] == {
        "mean": pytest.approx(middle / 2), "quartiles": pytest.approx([middle / 4, middle / 2, 3 * middle / 4]),
    }  # fmt: skip
    assert (result["logprob"]["mean"], result["logprob_cut_before"]["mean"]) == (-2.0, -4.5)
    assert (result["accuracy"]["mean"], result["accuracy_cut_before"]["mean"]) == (1.0, 0.5)
    assert (result["drop_logprob"]["mean"], result["drop_accuracy"]["mean"]) == (2.5, 0.5)
    assert result["drop_logprob"]["ci95"] == pytest.approx(studied.bootstrap([1.0, 4.0], ["q/1", "q/2"], 0))


def test_chance_is_another_questions_answer(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every CoT holds 23 and 24: the answers of two questions. Whoever is given one of those two is found by chance."""
    study.cots = [replace(cot, text="23 24") for cot in study.cots]
    studied.scripted(monkeypatch, lambda _: Scored(-1.0, "", None, True))
    result, _ = leak(study)
    donors = [other_cot(study, cot).example.answer for cot in study.cots]
    assert result["leaks_other"]["mean"] == sum(donor in ("23", "24") for donor in donors) / 4
    assert result["leaks"]["mean"] == 0.5


def test_no_leak_leaves_nothing_to_cut(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.cots = [replace(cot, text="so") for cot in study.cots]
    studied.scripted(monkeypatch, lambda _: pytest.fail("nothing is read"))
    result, _ = leak(study)
    assert result["leaks"]["mean"] == 0.0
    assert [result[key] for key in ("position", "accuracy", "accuracy_cut_before", "logprob", "logprob_cut_before")] == [None] * 5


def test_letters_leak_as_letters_and_as_their_choice(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.setup.task = replace(study.setup.task, answer_type="letter")  # pyright: ignore[reportArgumentType]
    asked = [Example(f"m/{n}", "Which is a metal?", "B", ("wood", "iron")) for n in range(3)]
    studied.with_texts(study, ["it is (B)", "surely iron", "Bark is wood"], asked)
    seen = studied.scripted(monkeypatch, lambda _: Scored(-1.0, "", None, True))
    result, _ = leak(study)
    assert result["leaks"]["mean"] == pytest.approx(2 / 3)
    assert [study.setup.prompter.text(v.ids) for v in seen[2:]] == ["it is (", "surely "]
    assert encode_cot(study.setup.prompter, "surely ") == seen[3].ids
