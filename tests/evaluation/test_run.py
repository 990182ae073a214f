"""Evaluating checkpoints: opened, kept, continued, re-scored, compared, chosen."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from markovlm.errors import UserError
from markovlm.evaluation import compare, store
from markovlm.evaluation import run as module
from markovlm.evaluation.compare import paired, power
from markovlm.evaluation.evaluate import AnswerReading, Evaluation, How
from markovlm.evaluation.report import choose, evaluation_report
from markovlm.evaluation.run import Control, Result, chosen_in_training, evaluate_targets, rescore_targets
from markovlm.evaluation.store import Label, Readings, rescore
from markovlm.models.fetch import place_of
from markovlm.models.registry import KNOWN
from markovlm.models.sources import SMOLLM2
from markovlm.registry import EXTRACTORS
from markovlm.runs.directory import RunDirectory
from markovlm.runs.manifest import accept_damaged
from markovlm.runs.rows import read_rows
from markovlm.runs.targets import open_targets
from markovlm.tasks import get_task
from markovlm.tasks.answers import Extractor
from markovlm.tasks.base import Example
from support import studied

HOW = How("sampled", 1.0, 5, False, (), "actor", "markovian", "plain", None, 0)


def evaluated(run: Path, checkpoints: str, limit: int = 6, control: Control | None = None, **options):
    targets = open_targets(str(run), checkpoints, options.pop("overrides", {}))
    return targets, evaluate_targets(targets, "test", limit, control or Control(), run / "evaluations", **options)


def evaluation(right: str, method: str = "anchor") -> Evaluation:
    """`right` as ones and zeros, a question each."""
    readings = [
        AnswerReading(f"q/{i}", "?", "1", "cot", 1, True, "1", {method: "1"}, {method: c == "1"}, -1.0 - int(c == "0"))
        for i, c in enumerate(right)
    ]
    return Evaluation(readings, HOW, (method,))


def result(name: str, right: str, dev: str | None = None, step: int = 0, **label) -> Result:
    labelled = Label(name, step, "test", "arithmetic", {}, None, False, "m", "w", HOW)
    return Result(name, step, evaluation(right), replace(labelled, **label), evaluation(dev) if dev else None)


# ---------------------------------------------------------------------------------------------------------- opening


@pytest.mark.parametrize(
    ("words", "steps"),
    [("last", [7]), ("all", [0, 3, 6, 7]), ("base,3,step-6", [None, 3, 6]), ("all,base,last", [0, 3, 6, 7, None])],
)
def test_checkpoints_of_a_run(run: Path, words: str, steps: list[int | None]) -> None:
    assert [target.step for target in open_targets(str(run), words, {})] == steps


def test_the_best_checkpoint_is_that_of_the_dev_rows(run: Path) -> None:
    rows = read_rows(run / "evals.jsonl")
    best = max((row for row in rows if row["step"] in (0, 3, 6, 7)), key=lambda row: (row["accuracy"], row["logprob"]))
    assert [target.step for target in open_targets(str(run), "best", {})] == [best["step"]]
    (run / "evals.jsonl").unlink()
    with pytest.raises(UserError, match="no dev evaluation at a saved checkpoint; use last or all"):
        open_targets(str(run), "best", {})


@pytest.mark.parametrize(
    ("words", "message"),
    [("5", "no checkpoint at step 5; it has 0, 3, 6, 7"), ("first", "'first' is not last, best"), ("", "'' is not last")],
)
def test_checkpoints_that_are_not_there(run: Path, words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_targets(str(run), words, {})


def test_what_is_no_target(run: Path, tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    (tmp_path / "empty").mkdir()
    for name, message in (
        (run / "metrics.jsonl", "is a file"),
        (tmp_path / "empty", "neither a run"),
    ):
        with pytest.raises(UserError, match=message):
            open_targets(str(name), "last", {})
    with pytest.raises(UserError, match="is a plain model and has no checkpoint '100'"):
        open_targets(str(tiny_models["llama"]), "100", {})
    with pytest.raises(UserError, match="name one of them"):
        open_targets(str(tiny_models["llama"]), "last", {"model": "embedded"})
    with pytest.raises(UserError, match="was trained on"):
        open_targets(str(run), "last", {"model": "embedded"})


def test_foreign_adapters_are_opened_by_their_names(adapters: Path, tiny_models: dict[str, Path]) -> None:
    targets = open_targets(str(adapters), "all,base", {})
    assert [(t.checkpoint, t.step) for t in targets] == [("adapter_3000", 3000), ("adapter_7000", 7000), ("base", None)]
    assert {t.config.model for t in targets} == {str(tiny_models["llama"])}  # from adapter_config.json
    assert open_targets(str(adapters), "last", {"model": "gpt2"})[0].config.model == "gpt2"
    assert open_targets(str(adapters / "adapter_7000"), "last", {})[0].checkpoint == "adapter_7000"
    with pytest.raises(UserError, match="no checkpoint at step 1; it has 3000, 7000"):
        open_targets(str(adapters), "1", {})
    with pytest.raises(UserError, match="no evaluations yet"):
        open_targets(str(adapters), "best", {})


@pytest.mark.parametrize(
    ("recorded", "name", "mentions_budget"),
    [
        (str(KNOWN["embedded-words"].path), "embedded-words", True),
        (f"/elsewhere/cache/models/{place_of('smollm2', SMOLLM2).name}", "smollm2", False),
    ],
)
def test_an_adapter_of_a_model_with_a_name_is_asked_as_that_model_is(
    adapters: Path, recorded: str, name: str, mentions_budget: bool
) -> None:
    """PEFT records the directory that was loaded: without the name its own prompts and task options would be lost, silently."""
    for path in adapters.glob("*/adapter_config.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": recorded}))
    config = open_targets(str(adapters), "last", {})[0].config
    assert (config.model, config.task, config.prompt.mention_budget) == (name, "words", mentions_budget)


def test_an_adapter_that_names_no_base(adapters: Path) -> None:
    path = adapters / "adapter_3000" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": None}))
    with pytest.raises(UserError, match="does not name its base model; give it with --model"):
        open_targets(str(adapters), "all", {})


# ------------------------------------------------------------------------------------------------------- evaluating


def test_adapters_that_are_swapped_in_read_like_loaded_ones(run: Path) -> None:
    """The model is loaded once for all checkpoints; each must give what it gives alone."""
    _, together = evaluated(run, "base,0,3,7")
    shutil.rmtree(run / "evaluations")
    for one in together:
        _, [alone] = evaluated(run, one.checkpoint)
        assert alone.evaluation == one.evaluation, one.checkpoint
        shutil.rmtree(run / "evaluations")
    base, start, _, last = together
    assert [a.cot for a in base.evaluation.readings] == [b.cot for b in start.evaluation.readings]
    assert [a.logprob for a in base.evaluation.readings] != [b.logprob for b in last.evaluation.readings]


def test_one_model_is_in_memory_at_a_time(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = studied.watch(monkeypatch)
    evaluated(run, "base,3,7", limit=2)
    assert len(loaded) == 2  # the base, and the model that takes both adapters


def test_foreign_adapters_read_like_the_checkpoints_they_are(run: Path, adapters: Path, tmp_path: Path) -> None:
    _, [ours] = evaluated(run, "7")
    layer = {"task": "arithmetic", "rollouts": {"max_cot_tokens": 5}, "loading": {"device": "cpu"}}
    theirs = evaluate_targets(open_targets(str(adapters), "last", layer), "test", 6, Control(), tmp_path / "kept")
    assert theirs[0].evaluation == ours.evaluation
    assert (tmp_path / "kept" / theirs[0].label.file).exists()


def test_an_interrupted_evaluation_continues(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, [whole] = evaluated(run, "last", limit=12)
    shutil.rmtree(run / "evaluations")
    add = store.Readings.add

    def add_and_die(self: store.Readings, readings) -> None:
        add(self, readings)
        raise KeyboardInterrupt

    monkeypatch.setattr(store.Readings, "add", add_and_die)
    with pytest.raises(KeyboardInterrupt):
        evaluated(run, "last", limit=12)
    monkeypatch.setattr(store.Readings, "add", add)
    [path] = (run / "evaluations").iterdir()
    assert len(read_rows(path)) == 1 + 4  # the label, and one batch
    path.write_bytes(path.read_bytes()[:-20])  # torn by the crash
    asked: list[str] = []
    evaluate = module.evaluate

    def noting(*args, **options):
        asked.extend(example.id for example in args[3])
        return evaluate(*args, **options)

    monkeypatch.setattr(module, "evaluate", noting)
    _, [continued] = evaluated(run, "last", limit=12)
    assert len(asked) == 12 - 3
    for ours, theirs in zip(continued.evaluation.readings, whole.evaluation.readings, strict=True):
        assert replace(ours, logprob=0.0) == replace(theirs, logprob=0.0)
        assert ours.logprob == pytest.approx(theirs.logprob, rel=1e-5)  # another batch rounds otherwise
    asked.clear()
    evaluated(run, "last", limit=12)
    assert asked == []


@pytest.mark.filterwarnings("ignore::markovlm.errors.Note")
def test_kept_readings_belong_to_the_weights_and_the_way(run: Path) -> None:
    """A checkpoint that was made anew, or another temperature, is not read from the old file."""
    _, [first] = evaluated(run, "7")
    adapter = "adapter_model.safetensors"
    shutil.copy(run / "checkpoints" / "step-000003" / adapter, run / "checkpoints" / "step-000007" / adapter)
    with accept_damaged():
        _, [changed] = evaluated(run, "7")
        _, [cooler] = evaluated(run, "7", overrides={"evaluation": {"temperature": 0.5}})
        _, [direct] = evaluated(run, "7", control=Control(no_cot=True))
    assert len({one.label.file for one in (first, changed, cooler, direct)}) == 4
    assert len({one.label.comparable for one in (first, changed, cooler, direct)}) == 3


def test_each_evaluation_is_a_row_of_the_run_once(run: Path) -> None:
    for limit in (6, 6, 4):
        evaluated(run, "7", limit=limit)
    rows = [row for row in read_rows(run / "evals.jsonl") if row["role"] == "test"]
    assert [(row["n"], row["split"], row["checkpoint"]) for row in rows] == [(6, "test", "step-000007")]
    evaluated(run, "7", limit=8)
    assert [row["n"] for row in read_rows(run / "evals.jsonl") if row["role"] == "test"] == [6, 8]


# ---------------------------------------------------------------------------------------------------- other questions


def test_a_run_is_evaluated_on_another_task(run: Path, questions: Path) -> None:
    over = {"task": "custom", "data": {"path": str(questions)}, "task_options": {"question": "prompt", "answer": "gold"}}
    targets, [done] = evaluated(run, "last", limit=20, overrides=over)
    assert done.evaluation.n == 20  # a foreign file is taken whole
    assert done.notes[0].startswith("answers are read as kind 'number'")
    assert done.notes[1:] == ("trained on arithmetic, evaluated on custom",)
    assert chosen_in_training(targets[0], [7], "test", done.evaluation.how) is None
    row = read_rows(run / "evals.jsonl")[-1]
    assert (row["how"]["task"], row["how"]["data"]) == ("custom", str(questions))
    with pytest.raises(UserError, match="no task 'gms8k'"):
        open_targets(str(run), "last", {"task": "gms8k"})


def test_training_questions_are_called_so(run: Path, tiny_models: dict[str, Path], questions: Path, tmp_path: Path) -> None:
    """A run on a file of one's own, evaluated on its test part, its train part, and the whole of a copy of the file."""
    from markovlm.training.loop import train
    from support import runs

    options = {"question": "prompt", "answer": "gold"}
    config = runs.run_config(
        tiny_models["llama"], task="custom", data__path=str(questions), task_options=options, training__steps=1
    )
    train(config, tmp_path / "mine")
    targets = open_targets(str(tmp_path / "mine"), "last", {})
    kept = tmp_path / "kept"
    [test] = evaluate_targets(targets, "test", None, Control(), kept)
    assert (test.evaluation.n, [note for note in test.notes if "not a test" in note]) == (6, [])
    [seen] = evaluate_targets(targets, "train", 2, Control(), kept)
    assert any("the run was trained on these questions" in note for note in seen.notes)
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(questions.read_bytes())
    targets = open_targets(str(tmp_path / "mine"), "last", {"data": {"path": str(copy)}})
    [whole] = evaluate_targets(targets, "test", None, Control(), kept)
    assert "12 of 20 questions are in the run's training split: this is not a test" in whole.notes


# --------------------------------------------------------------------------------------------------------- rescoring


def test_rescoring_reads_kept_answers_with_new_extractors(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, before = evaluated(run, "base,7")
    other = Extractor(lambda text, choices: "41", "number")
    monkeypatch.setattr(EXTRACTORS._entries["anchor"], "item", other)
    monkeypatch.setattr("markovlm.runs.setup.prepare", lambda *_, **__: pytest.fail("nothing is generated"))
    after = rescore_targets(run / "evaluations", "test", None, RunDirectory(run), "dev")
    assert [one.checkpoint for one in after] == ["base", "step-000007"]
    assert {reading.extracted["anchor"] for one in after for reading in one.evaluation.readings} == {"41"}
    simple = [{r.id: r.extracted["simple"] for r in one.evaluation.readings} for one in (before[1], after[1])]
    assert simple[0] == simple[1]
    assert after[1].evaluation.how == before[1].evaluation.how
    again = rescore_targets(run / "evaluations", "test", ["base"], RunDirectory(run), "dev")
    assert again[0].evaluation == after[0].evaluation  # the files were written anew


def by_id(done: Evaluation) -> dict[str, AnswerReading]:
    return {reading.id: reading for reading in done.readings}


def test_nothing_to_rescore(run: Path) -> None:
    with pytest.raises(UserError, match="no kept answers"):
        rescore_targets(run / "evaluations", "test", None, None, "dev")
    evaluated(run, "7")
    with pytest.raises(UserError, match="kept are step-000007 on test"):
        rescore_targets(run / "evaluations", "dev", None, None, "dev")


def test_letters_are_rescored_with_their_kept_likelihoods(tiny_models: dict[str, Path], fixtures: Path, tmp_path: Path) -> None:
    over = {"task": "arc", "data": {"path": str(fixtures / "arc" / "hub.jsonl")}, "rollouts": {"max_cot_tokens": 4}}
    targets = open_targets(str(tiny_models["llama"]), "last", over)
    [done] = evaluate_targets(targets, "test", None, Control(), tmp_path / "kept")
    [again] = rescore_targets(tmp_path / "kept", "test", None, None, "dev")
    assert by_id(again.evaluation) == by_id(done.evaluation)
    assert set(done.evaluation.readings[0].choice_logprobs) == set("ABCD"[: len(done.evaluation.readings[0].choices)])


@pytest.fixture
def fixtures() -> Path:
    return Path(__file__).resolve().parents[1] / "fixtures"


# --------------------------------------------------------------------------------------------------------- comparing


def test_paired_difference_by_hand() -> None:
    # gained on questions 1, 2, 3, lost on 4: McNemar 2 * (C(4,0) + C(4,1)) / 2^4 = 0.625
    row = paired(evaluation("111101"), evaluation("100011"), seed=0)
    assert (row["n"], row["gained"], row["lost"], row["mcnemar_p"]) == (6, 3, 1, 0.625)
    assert row["accuracy"] == pytest.approx(2 / 6)
    assert row["logprob"] == pytest.approx(2 / 6)  # a wrong one has one nat less
    assert row["ci95"][0] < 2 / 6 < row["ci95"][1]


def test_a_single_question_has_no_interval() -> None:
    row = paired(evaluation("1"), evaluation("0"), seed=0)
    assert (row["ci95"], row["mcnemar_p"]) == ([None, None], 1.0)
    json.dumps(row, allow_nan=False)


def test_only_common_questions_are_paired() -> None:
    longer = evaluation("1111")
    assert paired(longer, evaluation("10"), seed=0)["n"] == 2


def test_the_best_is_chosen_on_dev_and_reported_on_test(run: Path) -> None:
    target = open_targets(str(run), "last", {})[0]
    (run / "evals.jsonl").unlink()
    one, two = result("step-000001", "1110", "0111", step=1), result("step-000002", "1111", "0011", step=2)
    results = [result("base", "0000"), one, two]
    selection = choose(target, results, 0)
    assert selection is not None
    assert (selection.checkpoint, selection.second, selection.source) == ("step-000001", "step-000002", "now")
    assert (selection.optimistic, selection.told_apart, selection.split) == (False, False, "dev")
    report = evaluation_report(target.config, results, selection)
    assert report["best"] == "step-000001"
    assert report["results"][1]["vs_base"]["gained"] == 3
    assert "best (step-000001) and second best (step-000002) are not significantly different" in report["warnings"]


def test_chosen_on_test_is_said_to_be_optimistic(run: Path) -> None:
    target = open_targets(str(run), "last", {})[0]
    (run / "evals.jsonl").unlink()
    results = [result("step-000001", "0" * 10, step=1), result("step-000002", "1" * 10, step=2)]
    selection = choose(target, results, 0)
    assert selection is not None
    assert (selection.source, selection.optimistic, selection.told_apart) == ("reported", True, True)
    assert any(
        "the best checkpoint's number is optimistic" in line
        for line in evaluation_report(target.config, results, selection)["warnings"]
    )


def test_dev_rows_of_training_choose_where_they_are_comparable(run: Path) -> None:
    """Steps 0, 6 and 7 have dev rows made as the evaluation is; step 3 has none, so all are evaluated now."""
    targets, results = evaluated(run, "0,6,7", choose=True)
    assert all(one.dev is None for one in results)
    selection = choose(targets[0], results, 0)
    assert selection is not None
    assert (selection.source, selection.n) == ("training", 4)
    targets, results = evaluated(run, "0,3", choose=True)
    assert [one.dev.n for one in results if one.dev] == [4, 4]
    selection = choose(targets[0], results, 0)
    assert selection is not None
    assert selection.source == "now"
    targets, results = evaluated(run, "0,7", choose=True, overrides={"evaluation": {"temperature": 0.5}})
    assert all(one.dev is not None for one in results)


def test_rows_of_different_ways_are_not_compared(run: Path) -> None:
    target = open_targets(str(run), "last", {})[0]
    other = replace(HOW, temperature=0.5)
    results = [result("base", "0000"), result("step-000001", "1111", step=1), result("step-000001", "1111", step=1, how=other)]
    report = evaluation_report(target.config, results, choose(target, results, 0))
    assert [row["vs_base"] is None for row in report["results"]] == [True, False, True]
    assert any("2 different ways" in line for line in report["warnings"])


def test_power_says_how_many_questions_would_do() -> None:
    # p = 0.5 and 0.55: discordant 0.5, n = ((1.960 sqrt(0.5) + 0.8416 sqrt(0.5 - 0.0025)) / 0.05)^2 = 1567
    found = power(evaluation("10" * 15), 0.05)
    assert found is not None
    assert (found["n"], found["enough"]) == (30, False)
    assert found["needed"] == pytest.approx(1567, abs=2)
    assert 0.3 < found["detectable"] < 0.4
    assert power(evaluation("10" * 1000), 0.05)["enough"]


def test_the_needed_number_of_an_observed_difference() -> None:
    base = evaluation("0" * 15 + "1" * 15)
    row = paired(evaluation("1" + "0" * 14 + "1" * 15), base, seed=0)
    needed = compare.needed_for(row, base)
    # discordant share = difference = 1/30: n = 30² (1.960 sqrt(1/30) + 0.8416 sqrt(1/30 - 1/900))² = 232.5
    assert needed == pytest.approx(233, abs=2)
    assert compare.needed_for(paired(base, base, seed=0), base) is None


def test_gaps_to_references_say_what_differs() -> None:
    trained = ("step-000001", evaluation("0011"))
    rows = compare.reference_rows("gsm8k", "/models/Llama-3.1-8B-Instruct", evaluation("0001"), trained)
    by_setting = {(row["setting"], row["source"]): row for row in rows}
    base = next(row for row in rows if row["setting"] == "base")
    assert (base["checkpoint"], base["gap"]) == ("base", pytest.approx(0.25 - 0.196))
    markovian = by_setting["markovian", compare.lookup("gsm8k", "Llama-3.1-8B")[4].source]
    assert markovian["gap"] == pytest.approx(0.5 - 0.571)
    assert any("CoT tokens, theirs 100" in text for text in markovian["differs_in"])
    assert any("fixed length" in text for text in markovian["differs_in"])
    assert compare.reference_rows("gsm8k", "gpt2", None, ("x", evaluation("1"))) == []


def test_a_run_from_before_there_was_an_end_is_read_as_it_was_made(tmp_path: Path) -> None:
    """No `objective.answer_end` in its configuration: open, and CoTs sampled at the temperature of training."""
    from markovlm.config import build_config, dump_yaml, load_recorded

    recorded = yaml.safe_load(dump_yaml(build_config({"rollouts": {"temperature": 0.7}})))
    del recorded["objective"]["answer_end"]
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(recorded))
    config = build_config(load_recorded(file))
    assert (config.objective.answer_end, config.evaluation.temperature) == ("open", "training")
    recorded["evaluation"]["decoding"] = "greedy"
    file.write_text(yaml.safe_dump(recorded))
    assert build_config(load_recorded(file)).evaluation.temperature is None
    recorded["objective"]["answer_end"] = "scored"
    file.write_text(yaml.safe_dump(recorded))
    assert build_config(load_recorded(file)).objective.answer_end == "scored"


def test_readings_kept_before_there_was_an_end_are_found_again(tmp_path: Path) -> None:
    """The name of an open evaluation's file, and rows without the newer fields, are those of earlier versions."""
    how = How("sampled", 1.0, 48, False, (), "actor", "markovian", "compact", None, 0)
    label = Label("base", 0, "test", "arithmetic", {}, None, False, "embedded", "x", how)
    assert label.file == "base-test-2d6f5026.jsonl"  # as version 0.1 named it
    kept = Readings(tmp_path, label)
    example = Example("a", "1+2+3", "6")
    task = get_task("arithmetic")
    row = {"id": "a", "question": "1+2+3", "gold": "6", "cot": "", "cot_tokens": 0, "ended": True, "answer": "6", "logprob": -0.1,
           "extracted": dict.fromkeys(task.extractors, "6"), "correct": dict.fromkeys(task.extractors, True), "choices": [],
           "choice_logprobs": {}, "failure": None}  # fmt: skip
    header = {"kind": "evaluation", **asdict(label)}
    del header["how"]["answer_end"]
    kept.path.write_text("".join(json.dumps(one) + "\n" for one in (header, row)))
    known = kept.known(task, [example])
    assert known["a"].logprob == -0.1
    assert known["a"].exact is None
    assert known["a"].answer_ended is None
    assert [one.label.how.answer_end for one in rescore(tmp_path)] == ["open"]
    assert replace(label, how=replace(how, answer_end="<eos>")).file != label.file
