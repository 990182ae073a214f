"""Paraphrases by another model: asked for, checked, kept; a tiny model that babbles and a fake that paraphrases truly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from markovlm.analysis import paraphrase
from markovlm.analysis.fragility import measure_damage, perturb_result
from markovlm.analysis.loadbearing import Plan
from markovlm.analysis.paraphrase import Reply, Reworded, fault, open_paraphraser, reword
from markovlm.analysis.study import StudyCot
from markovlm.cli import study as cli_study
from markovlm.cli.main import main
from markovlm.tasks.base import Example
from support import studied

COT = "Maya has 3 * 5 = 15 pears. Then Tom gives her two, so she has 17."


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("3 times 5 makes 15 for Maya; with 2 from Tom there are 17.", None),  # 2 is two, and = may become a word
        ("Maya: three times five is fifteen. Tom adds two: seventeen.", None),
        ("Maya has 15 pears and Tom gives her 2, which makes 17.", "numbers"),  # 3 and 5 are gone
        ("Maya has 3 * 5 = 15 pears, 2 more from Tom, 17, that is 18 less 1.", "numbers"),
        ("She has 3 * 5 = 15 pears. Then Tom gives her two, so she has 17.", "names"),
        ("  ", "empty"),
    ],
)
def test_what_counts_as_a_paraphrase(text: str, wrong: str | None) -> None:
    assert fault(COT, text, "Maya has pears. Tom gives her two.") == wrong


def test_a_true_paraphrase_stands_in_the_cots_place_and_a_false_one_does_not(tmp_path: Path) -> None:
    asked = [Example("q/1", "17+4+79", "100"), Example("q/2", "5+6+7", "18")]
    study = studied.with_texts(studied.open_one("embedded", tmp_path), ["17+4=21,21+79=100", "5+6=11,11+7=18"], asked)
    true = {("q/1", 0): Reply("4+17=21,79+21=100", None), ("q/2", 0): Reply("6+5=11", "numbers")}
    damage = measure_damage(study, Plan(("paraphrase",)), Reworded("fake", 0.0, true))
    zero, row = perturb_result(damage, None)["rows"]
    assert zero["drop_logprob"]["mean"] == 0.0
    assert row["changed"] == 0.5  # the rejected one stays as it was
    assert (row["paraphraser"], row["paraphrases"]) == (
        "fake",
        {"temperature": 0.0, "asked": 2, "accepted": 1, "rejected": {"numbers": 1}},
    )
    assert row["as_expected"]["n"] == 1
    by_rules = perturb_result(measure_damage(study, Plan(("paraphrase",))), None)["rows"][1]
    assert (by_rules["paraphraser"], by_rules["paraphrases"]) == (None, None)


def test_replies_are_kept_and_not_asked_for_twice(
    tiny_models: dict[str, Path], twins: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = studied.open_one(twins[0], tmp_path, limit=3)
    by = open_paraphraser(str(tiny_models["llama"]), 0.0, study.target)
    [first] = reword(by, [study])
    assert len(first.replies) == 3
    assert all(reply.rejected in paraphrase.REASONS for reply in first.replies.values())  # random weights: no paraphrase
    assert all(first.text(cot) == cot.text for cot in study.cots)

    def refuse(*_: Any) -> Iterator[Any]:
        raise AssertionError("asked again")

    with monkeypatch.context() as patch:
        patch.setattr(paraphrase, "_replies", refuse)
        assert reword(by, [study]) == [first]
    hot = open_paraphraser(str(tiny_models["llama"]), 1.0, study.target)
    assert hot.digest != by.digest
    [drawn] = reword(hot, [study])
    alone = studied.open_one(twins[0], tmp_path / "alone", limit=1)
    [again] = reword(hot, [alone])  # another batch, the same stream
    assert [again.replies[cot.key] for cot in alone.cots] == [drawn.replies[cot.key] for cot in alone.cots]
    assert {r.text for r in drawn.replies.values()} != {r.text for r in first.replies.values()}


def test_a_model_with_a_chat_template_is_asked_through_it(
    tiny_models: dict[str, Path], twins: tuple[Path, Path], tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_models["llama"], tmp_path / "model")
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"
    (model / "chat_template.jinja").write_text(template, encoding="utf-8")
    study = studied.open_one(twins[0], tmp_path / "study", limit=1)
    [cot] = study.cots
    by = open_paraphraser(str(model), 0.0, study.target)
    setup = by.target.prepare()
    request, budget = paraphrase._request(setup, study, cot)
    assert setup.prompter.text(request.prompt) == f"<user>{paraphrase.INSTRUCTION}\n\n{cot.text}<assistant>"
    assert budget == int(1.5 * len(cot.text)) + 32  # one token a character
    [found] = reword(by, [study])  # that is more than its 256 tokens
    assert found.to_json() == {"temperature": 0.0, "asked": 1, "accepted": 0, "rejected": {"too long": 1}}


def test_the_command(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fake that says every sum the other way round; what rules made stands beside it."""

    def truly(_: Any, __: Any, cots: Sequence[StudyCot], ___: float) -> Iterator[tuple[list[StudyCot], list[tuple[str, None]]]]:
        yield list(cots), [(f"So: {cot.text}", None) for cot in cots]

    monkeypatch.setattr(paraphrase, "_replies", truly)
    monkeypatch.setattr(cli_study, "_drawn", lambda _: [])
    common = ["perturb", "embedded", "--only", "paraphrase", "--limit", "4", "--out", str(tmp_path / "out")]
    assert main([*common, "--json"]) == 0
    by = ["--paraphraser", str(tiny_models["gpt2"])]
    assert main([*common, *by]) == 0
    assert "4 of 4 replies accepted (greedy)" in capsys.readouterr().out
    [path] = (tmp_path / "out").glob("perturb-*.json")
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert [(row["severity"], row["paraphraser"]) for row in rows] == [(s, p) for p in (by[1], None) for s in (0.0, 1.0)]
    assert rows[1]["changed"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--paraphraser", "README.md"], "--paraphraser README.md: README.md: is a file"),
        (["--paraphraser", "embedded"], "can't encode a request in English"),
        (["--paraphraser", "TINY", "--only", "delete"], "which --perturbations leaves out"),
        (["--paraphrase-temperature", "1"], "is only for --paraphraser"),
    ],
)
def test_bad_input(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_models: dict[str, Path]
) -> None:
    arguments = [str(tiny_models["gpt2"]) if word == "TINY" else word for word in arguments]
    assert main(["perturb", "embedded", "--limit", "2", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
