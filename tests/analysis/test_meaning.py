"""Perturbations of meaning, interventions, and whether what should happen did. Expected texts are derived by hand."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovlm.analysis import meaning
from markovlm.analysis.changes import change_number, last_result
from markovlm.analysis.fragility import Plan, measure_damage, perturb_result
from markovlm.analysis.intervention import intervene
from markovlm.analysis.perturb import PERTURBATIONS, Context
from markovlm.analysis.scoring import Scored, Variant
from markovlm.cli.main import main
from markovlm.tasks.base import Example
from markovlm.tasks.equations import equations
from support import studied

ASKED = Context("Maya has 14 pears. She gives Tom 8.", "")
STORY = "Maya has 14 pears. 3 bags of 5 are 3 * 5 = 15. She gets them, 14 + 15 = 29. She loses 8, 29 - 8 = 21. So she has 21."


def done(name: str, text: str, seed: int = 0) -> str:
    return getattr(meaning, name)(text, Fraction(1), np.random.default_rng(seed), ASKED)


def test_a_paraphrase_keeps_every_number_and_every_equation_true() -> None:
    text = "Maya gives 8 pears to Tom. So we add 14 + 15 = 29. Then 3 * 5 = 15, 29 - 8 = 21."
    made = done("paraphrase", text)
    assert made == "8 pears are given to Tom by Maya. Therefore one can sum up 15 + 14 = 29. Next 5 * 3 = 15, 29 - 8 = 21."
    assert all(equation.holds for equation in equations(made))


def test_independent_sentences_change_places_and_dependent_ones_do_not() -> None:
    assert (
        done("paraphrase", "Tom has 3 pears. Ann has 4 pears. Both have 7.") == "Ann has 4 pears. Tom has 3 pears. Both have 7."
    )
    same = ("Tom has 3 pears. Ann has 3 pears. Both have 6.", "Tom has 3 pears. He eats 4. Both have 7.", "Tom has 3. Ann has 4.")
    assert [done("paraphrase", text) for text in same] == list(same)


@given(st.integers(2, 999_999))
def test_numbers_and_their_names(number: int) -> None:
    assert done("digitize_numbers", meaning.spelled(number)) == str(number)


def test_numerals_to_words_and_back() -> None:
    assert done("translate_numbers", "17+4=21, $1,080 and 3.5") == "seventeen+four=twenty-one, $one thousand eighty and 3.5"
    assert done("digitize_numbers", "Twenty-one pears, one hundred and five of them, one by one, two thirds, five six") == (
        "21 pears, 105 of them, one by one, two thirds, 5 6"
    )


def test_names_are_changed_everywhere_alike_or_not() -> None:
    text = "Maya has 14. So Maya gives Tom 8, and Maya keeps 6. Then 14 - 8 = 6."
    consistent = done("rename", text)
    new = consistent.split()[0]
    assert new != "Maya"
    assert consistent.count(new) == 3
    assert "Maya" not in consistent
    assert "Tom" not in consistent
    assert consistent.startswith(f"{new} has 14. So {new} gives ")
    broken = done("rename_inconsistently", text)
    assert 0 < broken.count("Maya") < 3
    assert done("rename", "So 17+4=21. Then 21+79=100.") == "So 17+4=21. Then 21+79=100."


# --------------------------------------------------------------------------------------------------------- one number changed


def test_a_changed_number_is_followed_up_to_the_end() -> None:
    """Step two of the story is 14 + 15: its own number is 14, which the first sentence states."""
    made = change_number(STORY, np.random.default_rng(1))
    assert made is not None
    n = int(made.new)
    assert made.old == "14"
    assert made.text == (
        f"Maya has {n} pears. 3 bags of 5 are 3 * 5 = 15. She gets them, {n} + 15 = {n + 15}. "
        f"She loses 8, {n + 15} - 8 = {n + 7}. So she has {n + 7}."
    )
    assert made.result == str(n + 7)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    "text", ["17+4=21,21+79=100", "17+4=21", STORY, "16 - 3 - 4 = 9 eggs. 9 * 2 = $18 a day. The answer is 18."]
)
def test_every_equation_of_a_changed_cot_holds(text: str, seed: int) -> None:
    made = change_number(text, np.random.default_rng(seed))
    assert made is not None
    assert made.text != text
    assert last_result(made.text) == made.result != last_result(text)
    found = equations(made.text)
    assert len(found) == len(equations(text))
    assert all(equation.holds for equation in found)


def test_where_there_is_nothing_to_change() -> None:
    assert all(change_number(text, np.random.default_rng(0)) is None for text in ("", "so we add", "17+4=22", "100"))
    assert last_result("17+4=22 but 1+2=3.") == "3"


# ------------------------------------------------------------------------------------------------------------ what happens


@pytest.fixture
def hand_written(tmp_path: Path) -> Any:
    study = studied.open_one("embedded", tmp_path)
    examples = [Example(f"q{i}", question, answer) for i, (question, answer) in enumerate((("17+4+79", "100"), ("5+6+7", "18")))]
    return studied.with_texts(study, ["17+4=21,21+79=100", "5+6=11,11+7=18"], examples)


@pytest.mark.parametrize(("answers", "share"), [("cot", 1.0), ("gold", 0.0), ("none", 0.0)])
def test_a_fact_changed_is_followed_or_not(hand_written: Any, monkeypatch: Any, answers: str, share: float) -> None:
    """A script reads the last result of the CoT, or knows the gold answer, or says nothing."""

    def read(variant: Variant) -> Scored:
        cot = hand_written.setup.prompter.text(variant.ids)
        said = {"cot": last_result(cot), "gold": variant.example.answer, "none": "0"}[answers]
        return Scored(-1.0, said, said, said == variant.example.answer)

    studied.scripted(monkeypatch, read)
    damage = measure_damage(hand_written, Plan(("change_fact", "paraphrase", "change_result")))
    rows = {row["perturbation"]: row for row in perturb_result(damage, None)["rows"] if row["severity"]}
    assert rows["change_fact"]["expect"] == "follow"
    assert rows["change_fact"]["as_expected"]["mean"] == share
    assert rows["change_fact"]["as_expected"]["n"] == 2
    assert rows["paraphrase"]["as_expected"]["mean"] == 1.0  # 4+17=21 has the same result
    result, path = intervene(hand_written)
    for row in result["rows"]:
        assert row["n"] == 2
        assert row[{"cot": "follows", "gold": "question", "none": "neither"}[answers]]["mean"] == 1.0
        assert sum(row[name]["mean"] for name in ("follows", "question", "neither")) == 1.0
    assert json.loads(path.read_text(encoding="utf-8"))["kind"] == "intervention"


def test_the_embedded_model_follows_its_cot(hand_written: Any) -> None:
    """It was trained on running sums: from a changed one it reads the changed sum, the question hidden."""
    result, _ = intervene(hand_written)
    assert result["changed"] == 2
    assert result["rows"][0]["reader"] == "question hidden"
    assert result["rows"][0]["follows"]["mean"] == 1.0


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = [
        "perturb",
        "embedded",
        "--only",
        "change_fact,paraphrase",
        "--intervene",
        "--limit",
        "12",
        "--out",
        str(tmp_path),
    ]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "follows the changed CoT" in output
    assert "should" in output
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["intervention"]["rows"][0]["reader"] == "question hidden"


def test_every_perturbation_of_ours_says_what_should_happen() -> None:
    assert all(row.expect in ("nothing", "follow", "degrade") for row in PERTURBATIONS.values())
