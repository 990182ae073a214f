"""All studies in one go: what is written where, one model at a time, interruption, and what is refused before any work."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from markovlm.analysis.explain import Manner
from markovlm.analysis.loadbearing import PARTS, Part, Request, default_readers, explain_question, run_studies
from markovlm.analysis.perturb import Plan
from markovlm.errors import UserError
from markovlm.runs.directory import RunDirectory
from markovlm.runs.targets import Target, open_targets, sighted
from support import studied
from support.studied import Stopped, counted_readings, stop_after, targets_of, watch

Twins = tuple[Path, Path]
PLAN = Plan(("delete", "token_delete", "filler"), (0.5,))


def rounded(value: Any) -> Any:
    """Twelve digits of each number: other rows in a batch change the last ones."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


def one(run: Path | str, checkpoint: str = "last", **overrides: Any) -> Target:
    return open_targets(str(run), checkpoint, overrides)[0]


def request_of(twins: Twins, out: Path, **more: Any) -> Request:
    settings = {"against": one(twins[1]), "checkpoints": tuple(targets_of(twins[0])), "readers": (str(twins[1]),), **more}
    return Request(one(twins[0]), limit=2, plan=PLAN, out=out, **settings)


def test_a_study_with_a_twin_writes_every_result(twins: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = watch(monkeypatch)
    found = run_studies(request_of(twins, tmp_path))
    assert len(loaded) == 2 + 2 + 1  # run, twin; base, the checkpoints in one; reader
    assert set(found.results) == {*PARTS, "bypass_against", "intervention_against"}
    names = [path.relative_to(tmp_path).as_posix().split("-step")[0] for path in found.paths]
    assert [name.split("-vs-")[0] for name in names] == [
        "bypass", "leak", "intervention", "explain", "against/bypass", "against/intervention", "perturb", "transfer",
    ]  # fmt: skip
    by_path = dict(zip(names, found.paths, strict=True))
    for name, path in by_path.items():
        key = {"against/bypass": "bypass_against", "against/intervention": "intervention_against"}.get(name, name.split("-")[0])
        assert json.loads(path.read_text()) == json.loads(json.dumps(found.results[key]))
    assert found.page is not None
    assert found.page.exists()
    assert not list(tmp_path.glob("**/.*"))
    perturb = found.results["perturb"]
    assert [(row["perturbation"], row["severity"]) for row in perturb["rows"]] == [
        (name, s) for name in ("delete", "token_delete", "filler") for s in ((0.0, 1.0) if name == "filler" else (0.0, 0.5))
    ]
    assert all(row["fragility"]["mean"] is not None for row in perturb["rows"])
    assert found.results["bypass_against"]["conditioning"] == "non_markovian"


def test_in_a_run_results_lie_in_the_run(twins: Twins, tmp_path: Path) -> None:
    run = Path(shutil.copytree(twins[0], tmp_path / "run"))
    found = run_studies(Request(one(run), parts=("bypass",), limit=2))
    assert [path.parent for path in found.paths] == [run / "loadbearing"]
    assert sorted(path.name.split("-")[0] for path in (run / "loadbearing").iterdir()) == ["bypass", "cots", "readings"]


def test_a_smaller_study_takes_nothing_away(twins: Twins, tmp_path: Path) -> None:
    def kept(limit: int, by: Literal["word", "token"]) -> dict[str, Any]:
        parts: tuple[Part, ...] = ("bypass", "leak", "explain")
        found = run_studies(Request(one(twins[0]), parts=parts, limit=limit, manner=Manner(by=by), out=tmp_path))
        assert {result["n"] for result in found.results.values()} == {limit}
        return dict(zip(parts, (json.loads(path.read_text()) for path in found.paths), strict=True))

    more, fewer = kept(2, "word"), kept(1, "word")
    assert fewer == more
    other = kept(1, "token")
    assert (other["explain"]["by"], other["explain"]["n"]) == ("token", 1)
    assert other["explain"]["others"] == [more["explain"]]


@pytest.mark.slow
def test_an_interrupted_study_comes_to_the_same(twins: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = counted_readings(monkeypatch)
    whole = run_studies(request_of(twins, tmp_path / "whole"))
    total = len(counted)
    del counted[:]
    for calls in (1, 2, 0, 3):
        with monkeypatch.context() as patched:
            stop_after(patched, RunDirectory, "append", calls, before=False)
            with pytest.raises(Stopped):
                run_studies(request_of(twins, tmp_path / "cut"))
        for file in (tmp_path / "cut").glob("**/*.jsonl"):
            with open(file, "ab") as torn:
                torn.write(b'{"id": "arith')
    again = run_studies(request_of(twins, tmp_path / "cut"))
    assert rounded(again.results) == rounded(whole.results)
    assert rounded(list(map(asdict, again.attributions))) == rounded(list(map(asdict, whole.attributions)))
    assert len(counted) == total  # nothing twice


def test_the_map_of_the_load_is_of_some_cots_only(twins: Twins, tmp_path: Path) -> None:
    request = Request(one(twins[0]), parts=("explain", "leak"), limit=4, cots=2, explained=3, out=tmp_path)
    found = run_studies(request)
    assert (found.results["explain"]["attributions"], found.results["leak"]["cots"]) == (3, 8)


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"limit": 0}, "--limit 0: must be at least 1"),
        ({"cots": 0}, "--cots 0: must be at least 1"),
        ({"against": "itself"}, "is the run itself; name its paired control run"),
        ({"against": "other sums"}, r"its task_options is \{'max_terms': 3\}, but that of .* is \{\}; fragility needs the same"),
        ({"readers": ("/nowhere/model",)}, "^--readers /nowhere/model: "),
    ],
)
def test_wrong_requests_are_refused_before_a_model_is_loaded(
    twins: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    named = {"itself": lambda: one(twins[0]), "other sums": lambda: one(twins[1], task_options={"max_terms": 3})}
    change = (
        {key: named[value]() if value in named else value for key, value in change.items()} if "against" in change else change
    )
    monkeypatch.setattr(Target, "prepare", lambda _: pytest.fail("loaded"))
    with pytest.raises(UserError, match=message):
        run_studies(replace(request_of(twins, tmp_path / "out"), **change))
    assert not (tmp_path / "out").exists()


def test_itself_is_told_by_its_weights(twins: Twins, byte_model: Path, tmp_path: Path) -> None:
    def refused(ours: Target, theirs: Target) -> bool:
        try:
            run_studies(Request(ours, parts=("perturb",), against=theirs, limit=1, plan=PLAN, out=tmp_path))
        except UserError as error:
            return "is the run itself" in str(error)
        return False

    settings: dict[str, Any] = {"task": "arithmetic", "rollouts": {"max_cot_tokens": 6}}
    assert refused(one(byte_model, **settings), one(byte_model, **settings))
    assert refused(one(twins[0]), one(f"{twins[0]}/../{twins[0].name}"))
    assert not refused(one(twins[0]), one(twins[0], "1"))  # another checkpoint may be compared
    assert not refused(one(twins[0], "base"), one(twins[1], "base"))  # the same model, read in two ways
    assert not refused(sighted(one(twins[0])), one(twins[0]))


def test_a_plain_model_needs_a_place(byte_model: Path) -> None:
    with pytest.raises(UserError, match="is not a run of markovlm; name a directory for the results with --out"):
        run_studies(Request(one(byte_model, task="arithmetic"), parts=("leak",), limit=1))


# ---------------------------------------------------------------------------------------------------------- one question


def test_one_question_of_the_split_or_of_ones_own(twins: Twins, tmp_path: Path) -> None:
    request = Request(one(twins[0]), parts=("explain",), out=tmp_path)
    setup = request.target.prepare()
    example = request.target.load(setup, "test").examples[7]
    found = explain_question(request, example.id, None)
    attributions = found.attributions
    assert attributions[0].id == example.id
    assert attributions[0].target == example.answer
    assert found.page is not None
    assert found.page.parent == tmp_path
    fresh = studied.open_one(twins[0], tmp_path / "again", limit=8)
    assert attributions[0].cot == fresh.cots[7].text  # the CoT that every study has of it
    with pytest.raises(UserError, match="--example nobody: no such question"):
        explain_question(request, "nobody", None)
    with pytest.raises(UserError, match="the question is empty"):
        explain_question(request, None, " ")


def test_default_readers_can_read_the_task(twins: Twins) -> None:
    assert default_readers([one("embedded")], ("embedded", "embedded-shortcut")) == ("embedded", "embedded-shortcut")
    assert default_readers([one("embedded-shortcut")], ("embedded", "embedded-shortcut")) == ("embedded-shortcut", "embedded")
    run = one(twins[0])
    assert default_readers([run], ("embedded",)) == (run.config.model,)
