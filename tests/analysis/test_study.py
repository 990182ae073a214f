"""Fresh CoTs, each from its own stream; readings that are kept; studies that are interrupted; intervals."""

from __future__ import annotations

import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from markovlm.analysis.fragility import RAW, whole
from markovlm.analysis.scoring import Scored, Variant
from markovlm.analysis.study import Study, estimate, estimate_some, open_study, with_earlier
from markovlm.errors import UserError
from markovlm.rollouts.streams import stream
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import read_rows
from markovlm.runs.setup import Setup
from markovlm.runs.targets import open_targets
from support import naive, studied
from support.studied import Stopped, counted_readings, stop_after

Twins = tuple[Path, Path]
CotOf = dict[tuple[str, int], tuple[int, ...]]


def cots_of(study: Study) -> CotOf:
    return {cot.key: cot.ids for cot in study.cots}


def shortened(study: Study) -> list[Variant]:
    """Twelve variants of each CoT: its beginnings."""
    return [replace(whole(study, cot, f"{n}"), ids=cot.ids[:n]) for cot in study.cots for n in range(len(cot.ids))]


# ------------------------------------------------------------------------------------------------------------ drawing


@torch.no_grad()
def drawn_alone(study: Study, question: int, number: int) -> tuple[int, ...]:
    """A CoT token by token: the token whose share of the cumulative distribution holds the uniform number of its stream."""
    setup, example = study.setup, study.questions[question]
    ids: list[int] = []
    for uniform in stream(study.how.seed, "study", example.id, number).random(studied.COT_TOKENS):
        logits = naive.row_logits(setup.lm, [*setup.prompter.cot_prompt(example), *ids], [0])
        p = naive.distribution(logits, study.how.temperature, setup.lm.terminators)[0].exp()
        ids.append(int((p.cumsum(0) > uniform).nonzero()[0]))
    return tuple(ids)


def test_a_cot_comes_from_its_own_stream(twins: Twins, tmp_path: Path) -> None:
    study = studied.open_one(twins[0], tmp_path, limit=2, cots=2)
    assert [cot.key[1] for cot in study.cots] == [0, 1, 0, 1]
    assert [cot.ids for cot in study.cots] == [drawn_alone(study, i, n) for i in (0, 1) for n in (0, 1)]
    assert len({cot.ids for cot in study.cots}) == 4
    assert all(cot.text == study.setup.prompter.text(cot.ids) and not cot.ended for cot in study.cots)


def test_neither_limit_order_batches_nor_their_number_change_a_draw(twins: Twins, tmp_path: Path) -> None:
    many = cots_of(studied.open_one(twins[0], tmp_path / "a", limit=5, cots=3, evaluation={"batch_size": 4}))
    few = cots_of(studied.open_one(twins[0], tmp_path / "b", limit=3, cots=1, evaluation={"batch_size": 2}))
    assert {key: many[key] for key in few} == few
    target = open_targets(str(twins[0]), "last", {})[0]
    setup = target.prepare()
    backwards = list(target.load(setup, "test", 5).examples)[::-1]
    again = open_study(target, setup, split="test", limit=None, cots=3, folder=tmp_path / "c", examples=backwards)
    assert cots_of(again) == many
    assert [cot.example for cot in again.cots[::3]] == backwards


def test_what_is_drawn_already_is_found(twins: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cots_of(studied.open_one(twins[0], tmp_path, limit=3, cots=2))
    asked: list[int] = []
    real = Setup.sampler

    class Counting:
        def __init__(self, setup: Setup):
            self.inner = real(setup)

        def sample(self, requests: Any, decoding: Any) -> Any:
            asked.append(len(requests))
            return self.inner.sample(requests, decoding)

    monkeypatch.setattr(Setup, "sampler", lambda setup: Counting(setup))
    assert cots_of(studied.open_one(twins[0], tmp_path, limit=3, cots=2)) == first
    assert asked == []
    more = cots_of(studied.open_one(twins[0], tmp_path, limit=4, cots=3))
    assert sum(asked) == 4 * 3 - 3 * 2
    assert {key: more[key] for key in first} == first


def test_interrupted_drawing_goes_on(twins: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = cots_of(studied.open_one(twins[0], tmp_path / "whole", limit=6, evaluation={"batch_size": 2}))
    with monkeypatch.context() as patched:
        stop_after(patched, RunDirectory, "append", 2)
        with pytest.raises(Stopped):
            studied.open_one(twins[0], tmp_path / "cut", limit=6, evaluation={"batch_size": 2})
    [file] = (tmp_path / "cut").glob("cots-*.jsonl")
    assert len(read_rows(file)) == 4
    file.write_bytes(file.read_bytes()[:-20])  # as a crash leaves the last line
    assert cots_of(studied.open_one(twins[0], tmp_path / "cut", limit=6)) == expected
    assert len(read_rows(file)) == 6
    assert file.read_bytes().count(b"\n") == 6


# ------------------------------------------------------------------------------------------------------------ reading


def test_what_is_read_is_kept_and_read_once(twins: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = studied.open_one(twins[0], tmp_path, limit=2)
    wanted = shortened(study)
    twice = [*wanted, *(replace(v, name="again") for v in wanted)]
    read = counted_readings(monkeypatch)
    first = study.read(twice, "")
    assert len(read) == len(wanted)
    assert first[: len(wanted)] == first[len(wanted) :]
    again = studied.open_one(twins[0], tmp_path, limit=2)
    assert again.read(twice, "") == first  # to the last bit
    assert len(read) == len(wanted)
    rows = read_rows(study.reader.path)
    row = next(row for row in rows if row["digest"] == wanted[0].digest and row["id"] == wanted[0].example.id)
    assert row | {"logprob": 0} == {
        "id": wanted[0].example.id, "cot": 0, "variant": "0", "conditioning": "markovian", "target": wanted[0].example.answer,
        "text": "", "digest": wanted[0].digest, "logprob": 0, "answer": first[0].answer, "extracted": first[0].extracted,
        "correct": first[0].correct, "answer_ended": first[0].answer_ended, "extractor": "final_number",
    }  # fmt: skip


def test_what_another_extractor_read_is_read_again_from_the_kept_answer(
    twins: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = studied.open_one(twins[0], tmp_path, limit=2)
    wanted = shortened(study)[:4]
    silent = replace(wanted[3], write=False)
    first = study.read([*wanted[:3], silent], "")
    rows = read_rows(study.reader.path)
    kept = [{"answer": "It is 2,400.", "answer_ended": True}, {"answer": "no: 17", "answer_ended": False}, {"answer": "so 9"}]
    for row, changes in zip(rows, kept, strict=False):
        del row["extractor"]  # as a version wrote it that read by another
        row |= {"extracted": "1", "correct": True} | changes
    del rows[2]["answer_ended"]
    study.reader.path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = studied.open_one(twins[0], tmp_path, limit=2)
    read = counted_readings(monkeypatch)
    found = again.read([*wanted[:3], silent], "")
    assert [(one.extracted, one.correct) for one in found] == [("2400", False), (None, False), ("9", False), (None, None)]
    assert [one.logprob for one in found] == [one.logprob for one in first]
    assert read == []
    likelihood = studied.open_one(twins[0], tmp_path, limit=2)
    likelihood.setup.task = replace(likelihood.setup.task, extractors=("likelihood",))  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(
        "markovlm.analysis.study.read_variants", lambda setup, sampler, some: read.extend(some) or [Scored(-1.0)] * len(some)
    )
    likelihood.read([*wanted[:3], silent], "")
    assert read == wanted[:3]  # no text says what it would find; the silent one is as good as it was


def test_an_answer_that_is_asked_for_later_is_written_then(twins: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = studied.open_one(twins[0], tmp_path, limit=2)
    wanted = shortened(study)[:3]
    silent = study.read([replace(v, write=False) for v in wanted], "")
    assert [one.answer for one in silent] == [None] * 3
    mixed = studied.open_one(twins[0], tmp_path / "mixed", limit=2)
    found = mixed.read([*wanted, *(replace(v, write=False) for v in wanted)], "")
    assert all(one.answer is not None for one in found)
    read = counted_readings(monkeypatch)
    spoken = study.read(wanted, "")
    assert len(read) == 3
    assert all(one.answer is not None for one in spoken)
    assert [one.logprob for one in spoken] == pytest.approx([one.logprob for one in silent], abs=1e-10)
    again = studied.open_one(twins[0], tmp_path, limit=2)
    assert again.read([replace(v, write=False) for v in wanted], "") == spoken
    assert len(read) == 3


@pytest.mark.parametrize("before", [True, False], ids=["before a batch is kept", "after"])
def test_interrupted_reading_goes_on(twins: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool) -> None:
    settings_ = {"batch_size": 2}  # readings are kept after every 8
    whole_study = studied.open_one(twins[0], tmp_path / "whole", limit=2, evaluation=settings_)
    expected = whole_study.read(shortened(whole_study), "")
    study = studied.open_one(twins[0], tmp_path / "cut", limit=2, evaluation=settings_)
    with monkeypatch.context() as patched:
        stop_after(patched, RunDirectory, "append", 2, before=before)
        with pytest.raises(Stopped):
            study.read(shortened(study), "")
    kept = 2 + (8 if before else 16)  # one batch comes first, by which it is known how long the rest takes
    assert len(read_rows(study.reader.path)) == kept
    with open(study.reader.path, "ab") as file:
        file.write(b'{"id": "arithmetic/te')  # a torn line
    read = counted_readings(monkeypatch)
    again = studied.open_one(twins[0], tmp_path / "cut", limit=2, evaluation=settings_)
    assert again.read(shortened(again), "") == expected
    assert len(read) == len(expected) - kept
    assert len(read_rows(study.reader.path)) == len(expected)


def test_a_reworded_question_is_read_anew(twins: Twins, tmp_path: Path) -> None:
    study = studied.open_one(twins[1], tmp_path, limit=1)
    one = whole(study, study.cots[0], RAW)
    other = replace(one, example=replace(one.example, question="1+1"))
    first, second = (study.read([variant], "")[0].logprob for variant in (one, other))
    assert first != second
    for variant, found in ((one, first), (other, second)):
        assert found == pytest.approx(studied.read_alone(study.setup.lm, study.setup.prompter, variant), abs=1e-10)


def test_a_frozen_reader_is_the_base(twins: Twins, tmp_path: Path) -> None:
    actor = studied.open_one(twins[0], tmp_path, limit=2)
    frozen = studied.open_one(twins[0], tmp_path, limit=2, evaluation={"reader": "frozen"})
    assert actor.reader.path != frozen.reader.path
    assert cots_of(actor) == cots_of(frozen)
    base = open_targets(str(twins[0]), "base", {})[0].prepare()
    variants = shortened(frozen)
    found = [one.logprob for one in frozen.read(variants, "")]
    assert found == pytest.approx([studied.read_alone(base.lm, base.prompter, v) for v in variants], abs=1e-10)
    assert max(abs(a.logprob - b) for a, b in zip(actor.read(variants, ""), found, strict=True)) > 0.01


# ---------------------------------------------------------------------------------------------------------- the whole


def test_the_header_says_what_was_studied(twins: Twins, tmp_path: Path) -> None:
    study = studied.open_one(twins[1], tmp_path, limit=3, cots=2)
    header = study.header("leak")
    assert header | {"model": "", "run": ""} == {
        "kind": "leak", "run": "", "checkpoint": "step-000003", "step": 3, "split": "test", "task": "arithmetic", "model": "",
        "conditioning": "non_markovian", "n": 3, "cots_per_question": 2, "seed": 0, "notes": [],
    }  # fmt: skip
    path = study.write("leak", {**header, "leaks": {"mean": float("nan"), "ci95": [0.1, 0.2]}})
    assert path.name.startswith("leak-step-000003-test-")
    assert '"mean": null' in path.read_text()
    with pytest.raises(ValueError, match="Leak does not declare leek"):  # nobody would read it
        study.write("leak", {**header, "leek": 1})


def test_a_closed_study_lets_go_of_its_model(twins: Twins, tmp_path: Path) -> None:
    study = studied.open_one(twins[0], tmp_path, limit=1)
    study.read(shortened(study)[:2], "")
    alive = weakref.ref(study.setup.lm.causal_lm)
    study.close()
    study.close()
    gc.collect()
    assert alive() is None
    assert study.write("leak", study.header("leak")).exists()


def test_a_split_without_questions_is_refused(twins: Twins, tmp_path: Path) -> None:
    target = open_targets(str(twins[0]), "last", {})[0]
    with pytest.raises(UserError, match="no questions in the test split"):
        open_study(target, target.prepare(), split="test", limit=None, cots=1, folder=tmp_path / "new", examples=[])
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------------------------------------------------- intervals


@settings(max_examples=5, deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 3), st.sampled_from("abcd")), min_size=3, max_size=8), st.integers(0, 9))
def test_an_interval_draws_whole_questions(rows: list[tuple[float, str]], seed: int) -> None:
    values, clusters = [value for value, _ in rows], [cluster for _, cluster in rows]
    found = estimate(values, clusters, seed)
    assert found["mean"] == pytest.approx(sum(values) / len(values), abs=1e-12)
    if len(set(clusters)) == 1:
        assert found["ci95"] == [None, None]  # one question says nothing of the spread between questions
    else:
        assert found["ci95"] == pytest.approx(studied.bootstrap(values, clusters, seed), abs=1e-9)


def test_what_is_not_known_is_left_out() -> None:
    assert estimate_some([None, None], ["a", "b"], 0) is None
    assert estimate_some([1.0, None, 3.0], ["a", "b", "c"], 0) == estimate([1.0, 3.0], ["a", "c"], 0)
    assert estimate([2.0, 2.0], ["a", "b"], 0) == {"mean": 2.0, "ci95": [2.0, 2.0]}


def test_scored_is_what_the_file_holds() -> None:
    """Rows are written by `asdict` and read back by name: both must know every field."""
    assert list(Scored.__dataclass_fields__) == ["logprob", "answer", "extracted", "correct", "answer_ended"]


def _result(n: int, cells: dict[float, float], **more: Any) -> dict[str, Any]:
    rows = [{"perturbation": "delete", "severity": severity, "n": n, "drop": drop} for severity, drop in cells.items()]
    return {"kind": "perturb", "run": "r", "checkpoint": "step-000003", "seed": 0, "n": n, "rows": rows, **more}


def test_a_result_keeps_the_cells_of_earlier_calls() -> None:
    key = {"rows": ("perturbation", "severity")}

    def drops(old: dict[str, Any], new: dict[str, Any]) -> dict[float, float]:
        return {row["severity"]: row["drop"] for row in with_earlier(old, new, key)["rows"]}

    first, second = _result(20, {0.2: 1.0, 0.4: 2.0}), _result(20, {0.4: 2.5, 0.8: 3.0})
    assert drops(first, second) == {0.4: 2.5, 0.8: 3.0, 0.2: 1.0}
    fewer = _result(5, {0.4: 9.0, 1.0: 4.0})
    assert drops(first, fewer) == {0.2: 1.0, 0.4: 2.0, 1.0: 4.0}  # five questions do not take the place of twenty
    assert with_earlier(first, fewer, key)["n"] == 20
    assert drops(_result(20, {0.2: 1.0}, seed=1), second) == {0.4: 2.5, 0.8: 3.0}  # other CoTs
    assert drops({}, second) == {0.4: 2.5, 0.8: 3.0}


def test_results_in_another_manner_stay_whole() -> None:
    def explained(by: str, n: int, **more: Any) -> dict[str, Any]:
        return {**_result(n, {}), "kind": "explain", "by": by, "most": None, "examples": [by, n], **more}

    def calls(*results: dict[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for result in results:
            kept = with_earlier(kept, result, {}, ("by", "most"))
        return kept

    words, tokens, few = explained("word", 20), explained("token", 10), explained("word", 5)
    assert calls(words) == words
    assert calls(words, tokens) == tokens | {"others": [words]}
    assert calls(words, tokens, few) == words | {"others": [tokens]}  # five questions do not take the place of twenty
    assert calls(words, explained("word", 9, most=40), tokens)["others"] == [words, explained("word", 9, most=40)]
    assert calls(words, explained("token", 10, seed=1)) == explained("token", 10, seed=1)  # other CoTs
