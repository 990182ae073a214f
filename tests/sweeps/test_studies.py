"""The studies of `studies/`: their files, their rows, and the tables that docs/findings.md shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from markovlm.errors import UserError
from markovlm.sweeps.run import open_sweep, run_sweep
from markovlm.sweeps.spec import read_spec
from support.cells import run_cells_here
from support.scripts import ROOT, load

pytestmark = pytest.mark.usefixtures("forgotten")  # studies bring a plug-in


findings, derived, measures, rows_of = (load(name) for name in ("make_findings", "study_derived", "study_measures", "study_rows"))


def test_every_study_says_what_it_asks_and_all_its_cells_are_valid() -> None:
    files = rows_of.study_files()
    assert len(files) >= 5
    for path in files:
        sweep = open_sweep(path, None)
        study = rows_of.study_of(sweep)
        assert study.question.endswith("?"), path
        assert study.decides, path
        assert set(study.measures) <= set(measures.MEASURES), path
        least = 1 if "one seed" in study.design else 3  # such a design says what one shows
        assert len({cell.seed for cell in sweep.cells}) >= least, path


def test_the_tables_in_the_findings_are_those_of_the_rows() -> None:
    documents = {path: path.read_text(encoding="utf-8") for path in (findings.FINDINGS, findings.EARLIER)}
    made, figures = findings.render(documents)
    for path, document in documents.items():
        assert made[path] == document, "run `make findings`"
    for stem, _ in figures:
        assert (ROOT / "docs" / "figures" / f"{stem}.svg").exists()


def test_the_rows_are_small() -> None:
    assert sum(path.stat().st_size for path in rows_of.RESULTS.glob("*")) < 20e6


@pytest.mark.parametrize(
    ("given", "said"), [({"rows": ["seed"]}, "rows and columns"), ({"questoin": "?"}, "questoin"), ({"decides": ""}, "decides")]
)
def test_a_study_that_says_too_little_is_refused(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    study = {"question": "?", "design": "two seeds", "decides": "the mean", **given}
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({"base": {"model": "embedded"}, "seeds": 2, "study": study}), encoding="utf-8")
    with pytest.raises(UserError, match=said):
        read_spec(path)


def test_from_runs_to_rows_to_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_cells_here(monkeypatch)
    tiny = {
        "model": "embedded",
        "training": {"steps": 2, "eval_every": 1},
        "evaluation": {"dev_size": 4},
        "rollouts": {"group_size": 2, "questions_per_step": 1, "max_cot_tokens": 8},
    }
    study = {"question": "Is it?", "design": "two seeds", "decides": "the mean"}
    path = tmp_path / "tiny.yaml"
    path.write_text(
        yaml.safe_dump({"base": tiny, "matrix": {"objective.name": ["grpo", "rloo"]}, "seeds": 1, "study": study, "evaluate": {"limit": 5}}),
        encoding="utf-8",
    )  # fmt: skip
    runs = tmp_path / "tiny-sweep"
    assert rows_of.collect(path, runs) is None
    sweep = open_sweep(path, runs)
    run_sweep(sweep, jobs=1)
    rows = rows_of.collect(path, runs)
    assert [row["values"] for row in rows] == [{"objective.name": "grpo"}, {"objective.name": "rloo"}]
    assert all(row["n"] == 5 and row["where"].startswith("test") and len(row["course"]["reward_mean"]) == 2 for row in rows)
    text, figures = findings.section(sweep, rows)
    assert "Is it?" in text
    assert f"| grpo (reference) | 1 | {rows[0]['score']:.3f} [—] |" in text
    assert "runs are in" not in text
    assert len(figures) == 1
    part, _ = findings.section(sweep, rows[:1])
    assert "1 of 2 runs are in." in part  # what was not run is said, not dropped


def test_a_cell_that_was_run_again_takes_its_rows_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_of, "RESULTS", tmp_path / "results")
    first = [{"name": f"a_{seed}", "group": "a", "seed": seed, "score": 0.1} for seed in (0, 1)]
    rows_of.write("s", first)
    again = {**first[1], "name": "elsewhere", "score": 0.2}
    rows_of.write("s", [again])
    assert rows_of.read("s") == [first[0], again]


def test_a_document_without_a_place_is_refused_and_others_keep_their_words() -> None:
    documents = {findings.EARLIER: "nothing\n", findings.FINDINGS: "a\n<!-- study:x -->\nold\n<!-- /study:x -->\nb\n"}
    findings.placed(documents, "x", "n\\1w")
    assert documents[findings.FINDINGS] == "a\n<!-- study:x -->\nn\\1w\n<!-- /study:x -->\nb\n"
    assert documents[findings.EARLIER] == "nothing\n"
    with pytest.raises(SystemExit, match="no place for y"):
        findings.placed(documents, "y", "")


@pytest.mark.parametrize(
    ("curve", "step"),
    [
        ([[10, 0.5], [20, 0.9], [30, 0.1], [40, 0.2]], 30),
        ([[10, 0.5], [20, 0.1], [30, 0.8]], None),  # it came back
        ([[10, 0.1], [20, 0.0]], None),  # nothing to lose
        ([[10, 0.8], [20, 0.9]], None),
    ],
)
def test_when_a_run_broke(curve: list[list[float]], step: int | None) -> None:
    assert derived.fell_at(curve) == step


def test_garbage_is_a_reward_that_stays_while_answers_leave_the_cots() -> None:
    said = [0.2] * 5 + [0.9] * 12 + [0.1] * 12
    assert findings.is_garbage({"reward_mean": [-1.0] * 29, "cot_contains_answer": said})
    assert not findings.is_garbage({"reward_mean": [-1.0] * 17 + [-3.0] * 12, "cot_contains_answer": said})
    assert not findings.is_garbage({"reward_mean": [-1.0] * 29, "cot_contains_answer": [0.9] * 29})


def test_auc_is_the_share_of_pairs_in_order() -> None:
    assert measures.auc([1, 2], [0, 1]) == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert measures.auc([0], [1]) == 0


def test_cots_of_known_quality() -> None:
    right = measures.running_sums(measures.parse_question("17+4+79"))
    assert right == "17+4=21,21+79=100"
    assert measures.with_wrong_result(right) == "17+4=21,21+79=105"


def test_few_questions_choose_as_the_exact_probability_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two checkpoints that differ on one question of four: drawing one question, the worse one wins ties where it is the later."""
    monkeypatch.setattr(derived, "SMALL", 1)
    better_first = np.array([[1, 1, 0, 0], [1, 0, 0, 0]])
    wrong, lost = derived.chosen_by_few(better_first, np.random.default_rng(0))
    assert wrong == pytest.approx(0.75, abs=0.04)  # the later one is taken wherever the one question does not tell them apart
    assert lost == pytest.approx(0.75 * 0.25, abs=0.01)
    assert derived.chosen_by_few(better_first[::-1], np.random.default_rng(0)) == (0.0, 0.0)
