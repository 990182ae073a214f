"""Occlusion against tokens deleted by hand, the text of each token, and which answers a CoT is explained towards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from markovlm.analysis import explain as explain_module
from markovlm.analysis.explain import Manner, attribute, attribute_own, explain, explain_one, find_example, pieces_of, write_page
from markovlm.analysis.scoring import Scored, Variant, encode_cot
from markovlm.analysis.study import Study, StudyCot
from markovlm.errors import UserError
from markovlm.runs.setup import prepare
from markovlm.tasks.base import Example
from support import studied, tiny

Twins = tuple[Path, Path]
TEXTS = ("1+22=23. ok", "7+8=15")


@pytest.fixture
def study(twins: Twins, tmp_path: Path) -> Study:
    return studied.with_texts(studied.open_one(twins[0], tmp_path / "study", limit=2), TEXTS)


def read(study: Study, cot: StudyCot, text: str) -> float:
    """ln pi(a | text); a token is a character here."""
    ids = encode_cot(study.setup.prompter, text)
    assert len(ids) == len(text)
    return studied.read_alone(study.setup.lm, study.setup.prompter, Variant(cot.example, 0, "", ids, ids, study.conditioning))


def test_removing_a_token_is_deleting_it(study: Study) -> None:
    for cot, one in zip(study.cots, attribute(study, study.cots, Manner()), strict=True):
        assert "".join(unit.text for unit in one.units) == cot.text
        assert one.logprob == pytest.approx(read(study, cot, cot.text), abs=1e-9)
        for i, unit in enumerate(one.units):
            left = cot.text[:i] + cot.text[i + 1 :]
            assert unit.drop == pytest.approx(read(study, cot, cot.text) - read(study, cot, left), abs=1e-9)
            assert unit.start == i / len(cot.text)


def test_words_and_sentences_go_whole(study: Study) -> None:
    first = study.cots[0]
    words = attribute(study, [first], Manner("word"))[0].units
    assert [unit.text for unit in words] == ["1", "+", "22", "=", "23", ".", " ok"]
    assert words[2].drop == pytest.approx(read(study, first, TEXTS[0]) - read(study, first, "1+=23. ok"), abs=1e-9)
    assert words[2].start == 2 / 11
    one, two = attribute(study, [first], Manner("sentence"))[0].units
    assert (one.text.strip(), two.text.strip()) == ("1+22=23.", "ok")
    kept = {unit.text: TEXTS[0].replace(unit.text, "") for unit in (one, two)}
    for unit in (one, two):
        assert unit.drop == pytest.approx(read(study, first, TEXTS[0]) - read(study, first, kept[unit.text]), abs=1e-9)


def test_replacing_keeps_the_length(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    first = study.cots[0]
    found = attribute(study, [first], Manner("word", "replace"))[0].units[2]
    changed = "1+..=23. ok"  # two characters of filler for the two of 22
    assert found.drop == pytest.approx(read(study, first, TEXTS[0]) - read(study, first, changed), abs=1e-9)
    asked = studied.scripted(monkeypatch, lambda v: Scored(-1.0, "4", "4", False))
    attribute(study, study.cots, Manner("sentence", "replace"))
    assert {len(v.ids) for v in asked if not v.name.startswith("filler")} == {len(text) for text in TEXTS}


def test_filler_alone_is_the_baseline_of_replacing(study: Study) -> None:
    """As much filler before the unit as it has itself, and nothing taken away: what costs without a loss."""
    first = study.cots[0]
    result, _ = explain(study, Manner("word", "replace"))
    [row] = [row for row in result["by_kind"] if row["kind"] == "operator"]
    found = attribute(study, [first], Manner("word", "replace"))[0].units[2]
    assert found.filler == pytest.approx(read(study, first, TEXTS[0]) - read(study, first, "1+..22=23. ok"), abs=1e-9)
    assert found.filler != pytest.approx(found.drop, abs=1e-6)
    units = [u for one in attribute(study, study.cots, Manner("word", "replace")) for u in one.units if u.kind == "operator"]
    assert row["filler"]["mean"] == pytest.approx(sum(u.filler or 0.0 for u in units) / len(units))
    removed, shown = explain(study, Manner("word", "remove"))
    assert "filler" not in removed["by_kind"][0]
    assert "filler" not in shown[0].to_json()["units"][0]


def test_an_empty_cot_has_no_units(study: Study) -> None:
    study.cots = [replace(study.cots[0], ids=(), text="")]
    [one] = attribute(study, study.cots, Manner())
    assert one.units == ()
    assert one.logprob == pytest.approx(read(study, study.cots[0], ""), abs=1e-9)


@pytest.mark.parametrize("text", ["17+4=21", "é=2", "a→b", "🙂 ok", "naïve 21→22 🙂🙂.", "\ufffd?", "é🙂", ""])
def test_the_text_of_each_token(byte_model: Path, text: str) -> None:
    setup = prepare(tiny.config(byte_model, loading__dtype="float32"))
    ids = encode_cot(setup.prompter, text)
    pieces = pieces_of(setup.prompter, ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert "\ufffd" not in "".join(pieces)
        # of the bytes of a character only the last adds it
        assert [piece for piece in pieces if piece] == [p for p in _split(text) if p]


def _split(text: str) -> list[str]:
    for merged in studied.MERGED:
        text = text.replace(merged, f"\0{merged}\0")
    return [p for part in text.split("\0") for p in ([part] if part in studied.MERGED else list(part))]


def test_half_a_character_at_the_end_is_shown(byte_model: Path) -> None:
    setup = prepare(tiny.config(byte_model, loading__dtype="float32"))
    ids = encode_cot(setup.prompter, "4 🙂")[:-2]
    pieces = pieces_of(setup.prompter, ids)
    assert "".join(pieces) == setup.prompter.text(ids)
    assert pieces[:2] == ["4", " "]


# ------------------------------------------------------------------------------------------------------- which answers


def answering(answers: dict[tuple[str, int], str]):
    """A reader that says `answers` of (question, CoT number), and -1 of every CoT for its own answer, -2 for others."""

    def script(v: Variant) -> Scored:
        said = answers[v.example.id, v.number]
        score = -1.0 if v.example.answer == said else -2.0
        return Scored(score, f" {said}", said, said == v.example.answer) if v.write else Scored(score)

    return script


def test_a_wrong_answer_is_explained_towards_both(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = study.questions
    studied.scripted(monkeypatch, answering({(first.id, 0): "99", (second.id, 0): second.answer}))
    result, shown = explain(study, Manner())
    assert [(one.id, one.target, one.correct, one.logprob) for one in shown] == [
        (first.id, first.answer, False, -2.0),
        (first.id, "99", False, -1.0),
        (second.id, second.answer, True, -1.0),
    ]
    assert [one["target"] for one in result["examples"]] == [first.answer, "99", second.answer]
    assert result["attributions"] == 2  # the aggregate is towards the gold answer alone
    assert [one.target for one in explain_one(replace(study, cots=study.cots[:1]), Manner())] == [first.answer, "99"]
    assert [one.target for one in explain_one(replace(study, cots=study.cots[1:]), Manner())] == [second.answer]


def test_two_cots_of_one_question_are_not_mixed_up(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    first = study.questions[0]
    texts = ("1+22=99", "1+22=23", "1+22=7")
    study.cots = [StudyCot(first, n, encode_cot(study.setup.prompter, t), t, False) for n, t in enumerate(texts)]
    studied.scripted(monkeypatch, answering({(first.id, 0): "99", (first.id, 1): first.answer, (first.id, 2): "7"}))
    result, shown = explain(study, Manner())
    assert [(one.cot, one.target) for one in shown] == [
        (texts[0], first.answer), (texts[0], "99"), (texts[2], first.answer), (texts[2], "7"), (texts[1], first.answer),
    ]  # fmt: skip
    assert (result["attributions"], result["questions"], result["cots_per_question"]) == (3, 1, 3)


def test_a_few_are_shown_wrong_ones_first(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [Example(f"q/{n}", f"{n}+1", str(n + 1)) for n in range(12)]
    studied.with_texts(study, ["so"] * 12, asked)
    wrong = (2, 4, 5, 6, 9, 11)
    studied.scripted(monkeypatch, answering({(e.id, 0): "77" if n in wrong else e.answer for n, e in enumerate(asked)}))
    _, shown = explain(study, Manner())
    assert list(dict.fromkeys(one.id for one in shown)) == [f"q/{n}" for n in (2, 4, 5, 6, 0, 1, 3, 7)]
    assert [one.target for one in shown[:4]] == ["3", "77", "5", "77"]
    assert explain_module.EXAMPLES_SHOWN == 8


@pytest.mark.parametrize("said", ["5", "0"])
def test_a_question_of_ones_own_has_no_gold_answer(study: Study, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """0 stands in for the gold answer that is not known; a model may well say 0."""
    asked = Example("question", "0+0", "0")
    studied.with_texts(study, ["0+0=0"], [asked])
    studied.scripted(monkeypatch, answering({("question", 0): said}))
    [one] = explain_one(study, Manner(), gold_known=False)
    assert (one.target, one.gold, one.correct, one.logprob) == (said, "", None, -1.0)


def test_no_answer_leaves_nothing_to_explain(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    studied.scripted(monkeypatch, lambda v: Scored(-1.0, "", None, False) if v.write else Scored(-1.0))
    assert attribute_own(study, study.cots, Manner()) == {}
    assert explain_one(study, Manner(), gold_known=False) == []
    assert len(explain_one(study, Manner())) == 1


def test_text_is_explained_towards_the_gold_text(study: Study) -> None:
    study.setup.task = replace(study.setup.task, extractors=(), answer_type="text")  # pyright: ignore[reportArgumentType]
    studied.with_texts(study, ["to sea"], [Example("w/1", "The ship", " sailed on")])
    [one] = explain_one(study, Manner("word"))
    assert (one.target, one.correct, one.extracted) == (" sailed on", None, None)
    assert len(one.units) == 2


# --------------------------------------------------------------------------------------------------------------- pages


def test_the_page_of_a_question_is_its_own(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = study.questions
    studied.scripted(monkeypatch, answering({(first.id, 0): first.answer, (second.id, 0): second.answer}))
    result, shown = explain(study, Manner("word"))
    page = write_page(study, shown, result, Manner("word"))
    assert page.name.startswith("explain-word-remove-all-step-000003-test-")
    assert first.question in page.read_text()
    hostile = replace(shown[0], id="../../x", question="<script>")
    pages = {write_page(study, [one], None, Manner()) for one in (hostile, replace(hostile, question="b"), *shown)}
    assert len(pages) == 4
    assert {one.parent for one in pages} == {page.parent}
    assert "<script>" not in "".join(one.read_text() for one in pages)


def test_an_example_is_found_by_its_id_or_the_end_of_it() -> None:
    examples = [Example("t/test/1+2", "1+2", "3"), Example("t/test/11+2", "11+2", "13"), Example("t/dev/4", "4", "4")]
    assert find_example(examples, "t/test/1+2") is examples[0]
    assert find_example(examples, "1+2") is examples[0]
    with pytest.raises(UserError, match=r"^--example 9: no such question; the split has 3, such as t/test/1\+2, "):
        find_example(examples, "9")
