"""Drops against plain scoring of damage done by hand, severity 0, the round trip apart, and the difference between twins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from markovlm.analysis.fragility import (
    Plan,
    measure_damage,
    other_cot,
    perturb_result,
    pool_of,
    require_twins,
    twin_name,
)  # fmt: skip
from markovlm.analysis.perturb import PERTURBATIONS
from markovlm.analysis.scoring import Scored, Variant, encode_cot
from markovlm.analysis.study import Study, StudyCot
from markovlm.errors import UserError
from markovlm.tasks.base import Example
from support import studied, tiny

Twins = tuple[Path, Path]
TEXTS = ("1+22=23, ok 4", "7+8=15,15+9=24", "no digits", "30 + 4 = 34. So 34")


@pytest.fixture
def study(twins: Twins, tmp_path: Path) -> Study:
    """Four CoTs written by hand."""
    return studied.with_texts(studied.open_one(twins[0], tmp_path / "study"), TEXTS)


def read(study: Study, cot: StudyCot, ids: tuple[int, ...]) -> float:
    """ln pi(a | these ids), alone."""
    variant = Variant(cot.example, 0, "", ids, ids, study.conditioning)
    return studied.read_alone(study.setup.lm, study.setup.prompter, variant)


def drops(study: Study, name: str, severity: float) -> list[float]:
    return [drop.logprob for drop in measure_damage(study, Plan((name,), (severity,))).cells[name, severity]]


# -------------------------------------------------------------------------------------------------------------- drops

BY_HAND: dict[str, Callable[[Study, StudyCot], str]] = {  # at severity 0.6, floor(0.4 n) of n characters stay
    "truncate_back": lambda _, cot: cot.text[: 2 * len(cot.text) // 5],
    "truncate_front": lambda _, cot: cot.text[len(cot.text) - 2 * len(cot.text) // 5 :],
    "token_truncate_back": lambda _, cot: cot.text[: 2 * len(cot.text) // 5],  # a token is a character here
    "question": lambda _, cot: cot.example.question,
    "filler": lambda _, cot: (" ..." * 9)[: len(cot.text)],
    "other_cot": lambda study, cot: other_cot(study, cot).text,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_drop_is_the_difference_of_two_plain_scores(study: Study, name: str) -> None:
    severity = 0.6 if len(PERTURBATIONS[name].severities) > 1 else 1.0
    expected = [
        read(study, cot, cot.ids) - read(study, cot, encode_cot(study.setup.prompter, BY_HAND[name](study, cot)))
        for cot in study.cots
    ]
    assert max(map(abs, expected)) > 0.01
    assert drops(study, name, severity) == pytest.approx(expected, abs=1e-9)


def test_severity_0_is_exactly_nothing(study: Study) -> None:
    damage = measure_damage(study, Plan(severities=(0.0, 1.0)))
    assert {name for name, severity in damage.cells if severity == 0} == set(PERTURBATIONS)
    for (_, severity), cell in damage.cells.items():
        assert len(cell) == len(TEXTS)
        if severity == 0:
            assert all((drop.logprob, drop.accuracy, drop.changed) == (0.0, 0.0, False) for drop in cell)
    assert any(drop.logprob for drop in damage.cells["delete", 1.0])


def test_what_finds_nothing_to_change_drops_nothing_and_says_so(study: Study) -> None:
    cell = measure_damage(study, Plan(("digit_replace",), (1.0,))).cells["digit_replace", 1.0]
    assert (cell[2].logprob, cell[2].changed) == (0.0, False)  # "no digits"
    row = perturb_result(measure_damage(study, Plan(("swap_numbers",))), None)["rows"][-1]
    assert (row["severity"], row["n"], row["changed"]) == (1.0, 4, 0.75)


def test_accuracy_falls_from_right_to_wrong(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right with the whole CoT: the first three. Right with none: the third and the fourth."""
    right = {(n, True) for n in range(3)} | {(2, False), (3, False)}
    number = {cot.example.id: n for n, cot in enumerate(study.cots)}
    studied.scripted(monkeypatch, lambda v: Scored(-1.0, "", None, (number[v.example.id], bool(v.ids)) in right))
    damage = measure_damage(study, Plan(("delete",), (1.0,)))
    assert [drop.accuracy for drop in damage.cells["delete", 1.0]] == [1.0, 1.0, 0.0, -1.0]
    result = perturb_result(damage, None)
    assert result["rows"][1]["drop_accuracy"]["mean"] == 0.25
    assert result["intact"]["accuracy"]["mean"] == 0.75
    assert result["intact_against"] is result["against"] is result["rows"][1]["fragility"] is None


def test_text_has_no_accuracy(twins: Twins, tmp_path: Path) -> None:
    asked = [Example(f"w/{n}", "The ship", " sailed on") for n in range(2)]
    one, two = (
        studied.with_texts(studied.open_one(run, tmp_path / run.name, limit=2), ("to sea", "away"), asked) for run in twins
    )
    for study in (one, two):
        study.setup.task = replace(study.setup.task, extractors=(), answer_type="text")  # pyright: ignore[reportArgumentType]
    plan = Plan(("delete",), (1.0,))
    result = perturb_result(measure_damage(one, plan), measure_damage(two, plan))
    row = result["rows"][1]
    assert (row["drop_accuracy"], row["fragility_accuracy"], result["intact"]["accuracy"]) == (None, None, None)
    assert row["drop_logprob"]["mean"] != 0


# -------------------------------------------------------------------------------------------------------- the round trip


def test_the_round_trip_is_apart_and_no_drop_holds_it(byte_model: Path, tmp_path: Path) -> None:
    """Sampled `1`, `0` where encoding gives `10`: other ids of the same text."""
    study = studied.open_one(byte_model, tmp_path, limit=2, **tiny_settings())
    tokenizer = study.setup.lm.tokenizer
    apart = tuple(tokenizer.convert_tokens_to_ids(list("9+1=10")))
    merged = tuple(tokenizer.convert_tokens_to_ids(["9", "+", "1", "=", "10"]))
    assert tokenizer.decode(list(apart)) == tokenizer.decode(list(merged)) == "9+1=10"
    plain = tuple(tokenizer.convert_tokens_to_ids(list("9+1=9")))
    first, second = study.questions
    study.cots = [StudyCot(first, 0, apart, "9+1=10", False), StudyCot(second, 0, plain, "9+1=9", False)]
    damage = measure_damage(study, Plan(("truncate_back", "token_truncate_back"), (0.5,)))
    result = perturb_result(damage, None)

    one, two = study.cots
    gap = read(study, one, apart) - read(study, one, merged)
    assert abs(gap) > 1e-3
    assert result["round_trip_gap"]["mean"] == pytest.approx(gap / 2, abs=1e-5)
    assert result["round_trip_gap"]["changed"] == 0.5
    text_level = [read(study, one, merged) - read(study, one, apart[:3]), read(study, two, plain) - read(study, two, plain[:2])]
    token_level = [read(study, one, apart) - read(study, one, apart[:3]), text_level[1]]
    assert [d.logprob for d in damage.cells["truncate_back", 0.5]] == pytest.approx(text_level, abs=1e-5)
    assert [d.logprob for d in damage.cells["token_truncate_back", 0.5]] == pytest.approx(token_level, abs=1e-5)
    assert {d.logprob for name in ("truncate_back", "token_truncate_back") for d in damage.cells[name, 0.0]} == {0.0}
    whole = [read(study, one, apart), read(study, two, plain)]
    assert result["intact"]["logprob"]["mean"] == pytest.approx(sum(whole) / 2, abs=1e-5)  # as sampled


def tiny_settings() -> dict[str, object]:
    return {"task": "arithmetic", "rollouts": {"max_cot_tokens": 6}, "loading": {"device": "cpu", "dtype": "float32"}}


def test_token_level_damage_takes_and_gives_ids(byte_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is tokenised again: `1`, `0` stay two tokens, and no special token is ever put in."""
    study = studied.open_one(byte_model, tmp_path, limit=1, **tiny_settings())
    tokenizer = study.setup.lm.tokenizer
    ids = tuple(tokenizer.convert_tokens_to_ids(list("10+21=210=21")))
    study.cots = [StudyCot(study.questions[0], 0, ids, "10+21=210=21", False)]
    asked = studied.scripted(monkeypatch, lambda v: Scored(-1.0, "", None, False))
    names = tuple(name for name, row in PERTURBATIONS.items() if row.level == "token")
    measure_damage(study, Plan(names, (0.2, 0.5)))
    for variant in asked[2:]:
        name, _, severity = variant.name.partition("@")
        kept = 12 if "replace" in name else {"0": 12, "0.2": 10 if name == "token_delete" else 9, "0.5": 6}[severity]
        assert len(variant.ids) == kept, variant.name
        assert not set(variant.ids) & {0, 1, 2, 3}
        if name == "token_delete":
            rest = iter(ids)
            assert all(token in rest for token in variant.ids)  # a subsequence
    assert asked[1].ids != ids  # the round trip, which text-level damage begins from


def test_what_tokens_are_drawn_from(byte_model: Path, tmp_path: Path) -> None:
    study = studied.open_one(byte_model, tmp_path, limit=1, **tiny_settings())
    pool, tokenizer = pool_of(study.setup), study.setup.lm.tokenizer
    assert {tokenizer.decode([i]) for i in pool.with_digit} == {*"0123456789", *studied.MERGED}
    assert not {tiny.PAD, tiny.BOS, tiny.EOS, 3} & set(pool.replacements)


# ----------------------------------------------------------------------------------------------------------------- draws


def drawn(study: Study, monkeypatch: pytest.MonkeyPatch, plan: Plan) -> dict[tuple[str, str], tuple[int, ...]]:
    with monkeypatch.context() as patched:
        asked = studied.scripted(patched, lambda v: Scored(-1.0, "", None, False))
        measure_damage(study, plan)
    return {(v.example.id, v.name): v.ids for v in asked}


def test_a_draw_depends_on_its_key_alone(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(name for name in PERTURBATIONS if name != "other_cot")  # that one depends on who else is there
    every = drawn(study, monkeypatch, Plan(names))
    backwards = replace(study, cots=study.cots[::-1])
    assert drawn(backwards, monkeypatch, Plan(names[::-1])) == every
    fewer = drawn(replace(study, cots=study.cots[1:2]), monkeypatch, Plan(("delete", "token_replace"), (0.4,)))
    assert fewer == {key: every[key] for key in fewer}
    other_seed = replace(study, label=replace(study.label, how=replace(study.how, seed=1)))
    assert drawn(other_seed, monkeypatch, Plan(("delete",))) != drawn(study, monkeypatch, Plan(("delete",)))


def test_the_other_cot_is_of_another_question_with_another_answer(study: Study) -> None:
    answers = ("5", "5", "7", "5")
    study.cots = [
        StudyCot(replace(cot.example, answer=answer), n, cot.ids, cot.text, False)
        for cot, answer in zip(study.cots, answers, strict=True)
        for n in range(2)
    ]
    for cot in study.cots:
        assert other_cot(study, cot).example.answer != cot.example.answer
        assert other_cot(study, cot) == other_cot(study, cot)
    lonely = replace(study, cots=study.cots[:4])  # two questions, one answer
    assert all(other_cot(lonely, cot).example.id != cot.example.id for cot in lonely.cots)
    alone = replace(study, cots=study.cots[:1])
    assert other_cot(alone, alone.cots[0]) == alone.cots[0]


# ----------------------------------------------------------------------------------------------------------------- twins


def test_fragility_is_the_difference_of_the_drops_on_the_same_questions(twins: Twins, tmp_path: Path) -> None:
    ours, theirs = (studied.open_one(run, tmp_path / run.name, limit=3, cots=2) for run in twins)
    require_twins(ours, theirs)
    assert [cot.ids for cot in ours.cots] != [cot.ids for cot in theirs.cots]  # each with its own
    plan = Plan(("token_truncate_back",), (1.0,))
    result = perturb_result(measure_damage(ours, plan), measure_damage(theirs, plan))
    row = result["rows"][1]

    by_hand = []
    for study in (ours, theirs):
        reads = [(read(study, cot, cot.ids), read(study, cot, ())) for cot in study.cots]
        by_hand.append([whole - empty for whole, empty in reads])
    questions = [cot.example.id for cot in ours.cots]  # two CoTs of a question are drawn together
    for key, values in (
        ("drop_logprob", by_hand[0]),
        ("fragility", [a - b for a, b in zip(*by_hand, strict=True)]),
    ):
        assert row[key]["mean"] == pytest.approx(sum(values) / 6, abs=1e-9)
        assert row[key]["ci95"] == pytest.approx(studied.bootstrap(values, questions, 0), abs=1e-9)
    assert row["against"]["drop_logprob"]["mean"] == pytest.approx(sum(by_hand[1]) / 6, abs=1e-9)
    assert row["n"] == result["n"] == 3
    assert result["cots_per_question"] == 2
    assert result["against"] == {
        "run": str(twins[1]), "checkpoint": "step-000003", "conditioning": "non_markovian", "model": theirs.label.model,
    }  # fmt: skip
    zero = result["rows"][0]
    assert (zero["fragility"], zero["drop_logprob"]) == ({"mean": 0.0, "ci95": [0.0, 0.0]},) * 2
    assert twin_name(theirs) in theirs.label.file
    assert twin_name(theirs) != twin_name(ours)


def test_twins_are_asked_the_same_questions(twins: Twins, tmp_path: Path) -> None:
    ours, theirs = (studied.open_one(run, tmp_path / run.name, limit=2) for run in twins)
    theirs.cots[0] = replace(theirs.cots[0], example=replace(theirs.cots[0].example, question="1+1"))
    with pytest.raises(UserError, match=r"was not asked the same questions as"):
        require_twins(ours, theirs)


# ------------------------------------------------------------------------------------------------------------------ plan


def test_a_plan_is_checked_and_names_each_cell_once() -> None:
    plan = Plan(("delete", "filler", "delete"), (0.5, 0.5, 0.25))
    assert plan.cells() == [("delete", 0.0), ("delete", 0.25), ("delete", 0.5), ("filler", 0.0), ("filler", 1.0)]
    assert len(Plan().cells()) == 11 * 6 + 12 * 2
    for wrong in (2.0, -0.1, float("nan")):
        with pytest.raises(UserError, match=r"^--severities .*: must be between 0 and 1$"):
            Plan(severities=(wrong,))
    with pytest.raises(UserError, match=r"^--perturbations dellete: unknown; known are delete, "):
        Plan(("dellete",))


def test_a_perturbation_that_is_named_twice_is_measured_once(study: Study) -> None:
    once, twice = (measure_damage(study, Plan(names, (1.0,))) for names in (("delete", "filler"), ("delete", "filler", "delete")))
    assert once.cells == twice.cells
