"""`perturb`, `transfer`, `explain` and `loadbearing` as a user runs them, on tiny runs and the embedded model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from markovlm.cli.main import main
from support import studied

FIXTURES = Path(__file__).parent / "fixtures"
SMALL = ("--limit", 3, "--evaluation.batch_size", 64)
EMBEDDED = ("embedded", "--limit", 3, "--rollouts.max_cot_tokens", 16, "--device", "cpu")


@pytest.fixture(scope="module")
def twins(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return studied.train_twins(tiny_models["gpt2"], tmp_path_factory.mktemp("cli-twins"))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twins: tuple[Path, Path]):
    """`call("perturb", …)` -> (exit code, standard output, standard error), beside copies of the twins."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(twins[0], "run")
    shutil.copytree(twins[1], "twin")

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def answered(found: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = found
    assert code == 0, err
    return json.loads(out)


def test_perturb_as_the_issue_promises_it(call) -> None:
    result = answered(call("perturb", "run", "--against", "twin", *SMALL, "--severities", "0.5,1", "--json"))
    row = next(row for row in result["rows"] if row["perturbation"] == "delete" and row["severity"] == 0.5)
    assert {"perturbation", "severity", "n", "drop_logprob", "drop_accuracy", "fragility"} <= set(row)
    assert row["n"] == 3
    for key in ("drop_logprob", "drop_accuracy", "fragility", "fragility_accuracy"):
        assert set(row[key]) == {"mean", "ci95"}
        assert row[key]["ci95"][0] <= row[key]["mean"] <= row[key]["ci95"][1]
    assert {row["drop_logprob"]["mean"] for row in result["rows"] if row["severity"] == 0} == {0.0}
    assert result["against"]["run"] == "twin"
    [path] = result["files"]
    assert Path(path).is_relative_to("run/loadbearing")
    kept = json.loads(Path(path).read_text())
    assert {key: value for key, value in result.items() if key not in ("files", "figures")} == kept
    stem = path.removesuffix(".json")
    assert set(result["figures"]) == {f"{stem}-fragility.svg", f"{stem}-drop.svg"}
    assert all(Path(figure).read_text().startswith("<svg") for figure in result["figures"])
    assert not list(Path("twin/loadbearing").glob("*.json"))

    code, out, _ = call("perturb", "run", "--against", "twin", *SMALL, "--severities", "0.5,1")
    assert code == 0
    for text in ("Fragility in nats", "Fragility in points of accuracy", "damage, run: step-000003, test split, n=3 questions"):
        assert text in out, text
    assert "At severity 0 the drop is 0, as it must be." in out
    code, out, _ = call("perturb", "run", "--perturbations", "delete", *SMALL)
    assert "Drop of ln pi(a|CoT)" in out
    assert "ragility" not in out


def test_the_question_in_sight_of_both_readers_is_a_study_of_its_own(call) -> None:
    flags = ("--against", "twin", *SMALL, "--perturbations", "delete", "--severities", "1", "--json")
    plain, sighted = (answered(call("perturb", "run", *flags, *more)) for more in ((), ("--non-markovian",)))
    assert (plain["conditioning"], sighted["conditioning"]) == ("markovian", "non_markovian")
    assert plain["files"] != sighted["files"]
    assert plain["rows"][1]["against"] == sighted["rows"][1]["against"]  # the twin is read as before
    assert plain["rows"][1]["drop_logprob"] != sighted["rows"][1]["drop_logprob"]


def test_transfer_from_checkpoints_to_readers(call) -> None:
    result = answered(
        call("transfer", "run", "--readers", "twin,run", "--reader", "twin", "--checkpoints", "1,2,last", *SMALL, "--json")
    )
    assert [reader["reader"] for reader in result["readers"]] == ["actor", "twin", "run"]
    assert [p["checkpoint"] for p in result["points"][:4]] == ["base", "step-000001", "step-000002", "step-000003"]
    assert [(row["reader"], row["n"]) for row in result["correlation"]] == [("twin", 4), ("run", 4)]
    same = {p["reader"]: p["logprob"] for p in result["points"] if p["checkpoint"] == "step-000003"}
    assert same["run"]["mean"] == pytest.approx(same["actor"]["mean"], abs=1e-9)  # a character a token: the text is the CoT
    code, out, _ = call("transfer", "run", "--readers", "twin", "--checkpoints", "1,2,last", *SMALL)
    assert code == 0
    assert "Spearman's rank correlation" in out
    assert "With 4 checkpoints no p is below 0.08." in out


def test_explain_over_many_and_one(call) -> None:
    result = answered(call("explain", "run", "--cots", 2, *SMALL, "--json"))
    assert (result["attributions"], result["questions"], result["by"], result["how"]) == (6, 3, "token", "remove")
    assert sum(row["units"] for row in result["by_kind"]) == result["units"] == 6 * studied.COT_TOKENS
    first = result["examples"][0]
    one = answered(call("explain", "run", "--example", first["id"], "--by", "word", "--how", "replace", "--json"))
    assert {a["id"] for a in one["attributions"]} == {first["id"]}
    assert {(a["by"], a["how"]) for a in one["attributions"]} == {("word", "replace")}
    assert Path(one["page"]).read_text().startswith("<!doctype html>")
    code, out, err = call("explain", *EMBEDDED, "--question", "17+4+30", "--out", "mine")
    assert code == 0, err
    assert "17+4+30" in out
    assert "towards the model's own answer" in out
    assert "gold" not in out.split("page:")[0]
    assert "saw the question" not in out
    code, out, err = call("explain", "twin", "--question", "17+4+30")
    assert code == 1 or "the reader also saw the question" in out, err


def test_a_plain_model_has_a_place_of_its_own(call) -> None:
    result = answered(call("perturb", *EMBEDDED, "--perturbations", "truncate_sentences,change_result", "--json"))
    assert result["checkpoint"] == "base"
    assert [Path(path).parent for path in result["files"]] == [Path("runs/evaluations/embedded-arithmetic/loadbearing")]


def test_the_whole_study_and_its_report(call, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("--against", "twin", "--readers", "twin", *SMALL, "--severities", "1")
    result = answered(call("loadbearing", "run", *flags, "--json"))
    parts = {"perturb", "bypass", "bypass_against", "leak", "intervention", "intervention_against", "explain", "transfer"}
    assert {*parts, "files", "report"} == set(result)
    assert all(Path(path).exists() for path in [*result["files"], result["report"]])
    assert "load-bearing" in Path(result["report"]).read_text()
    monkeypatch.setattr("markovlm.report.write_report", lambda _, out: SimpleNamespace(html=out / "report.html"))  # not twice
    code, out, err = call("loadbearing", "run", *flags)
    assert code == 0, err
    for text in (
        "The answer without its CoT",
        "The answer as a plain copy",
        "Drop when one token is removed, by kind",
        "by position in the CoT",
        "CoTs read by the model itself and by others",
        "Does the answer do what it should?",
        "report: ",
    ):
        assert text in out, text


@pytest.mark.parametrize("task", ["arc", "wiki"])
def test_letters_and_text(call, tiny_models: dict[str, Path], task: str) -> None:
    data = FIXTURES / {"arc": "arc/ARC-Challenge-Test.jsonl", "wiki": "wiki/wiki.test.raw"}[task]
    options = ("--option", "context_tokens=12", "--option", "target_tokens=5") if task == "wiki" else ()
    flags = ("--task", task, "--data", data, *options, "--rollouts.max_cot_tokens", 6, "--device", "cpu", "--limit", 2)
    model = tiny_models["gpt2"]
    result = answered(call("perturb", model, *flags, "--perturbations", "delete,question", "--json"))
    assert {row["drop_accuracy"] is None for row in result["rows"]} == {task == "wiki"}
    assert all(row["drop_logprob"]["mean"] is not None for row in result["rows"])
    for arguments in (("perturb",), ("explain",)):
        code, out, err = call(*arguments, model, *flags)
        assert code == 0, err
        assert "Intact CoT" in out or "by kind" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("perturb run --against run", "--against run: is the run itself; name its paired control run"),
        ("perturb run --against nowhere/else/run", "--against nowhere/else/run: model: 'nowhere/else/run' does not exist"),
        ("perturb run --against empty", "--against empty: "),
        (
            "perturb run --against MODEL --task arithmetic",
            "is not a run of markovlm; name a directory for the results with --out",
        ),
        ("perturb run --against other", "fragility needs the same questions"),
        ("perturb run --perturbations dellete", "--perturbations dellete: unknown; known are delete"),
        ("perturb run --severities 2", "--severities 2: must be between 0 and 1"),
        ("perturb run --severities much", "--severities much: write numbers between 0 and 1"),
        ("perturb run --limit 0", "--limit 0: must be at least 1"),
        ("loadbearing run --cots 0", "--cots 0: must be at least 1"),
        ("perturb run --checkpoint 7", "has no checkpoint at step 7; it has 0, 1, 2, 3"),
        ("perturb run --split tst", "has no split 'tst'; splits: train, dev, test"),
        ("perturb MODEL", "so a task is needed"),
        ("transfer MODEL --task arithmetic --readers run", "is a plain model"),
        ("transfer run --readers nowhere/else/model", "--readers nowhere/else/model: "),
        ("loadbearing run --reader nowhere/else/model", "--readers nowhere/else/model: "),
        ("explain run --example 9", "--example 9: no such question; the split has 500, such as arithmetic/test/"),
        ("explain run --example 9 --question 1+1", "--example and --question: give only one of them"),
        ("explain embedded --question one+one", "the question is not a sum"),
    ],
)
def test_wrong_inputs_are_one_line_and_leave_nothing(call, tiny_models: dict[str, Path], arguments: str, message: str) -> None:
    shutil.copytree("twin", "other")
    config = Path("other/config.yaml")
    config.write_text(config.read_text().replace("task_options: {}", "task_options: {max_terms: 3}"))
    Path("empty").mkdir()
    before = sorted(Path().rglob("*"))
    code, out, err = call(*(word.replace("MODEL", str(tiny_models["gpt2"])) for word in arguments.split()))
    assert code == 2, err
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert sorted(Path().rglob("*")) == before
