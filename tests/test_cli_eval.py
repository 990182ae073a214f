"""`markovlm eval` and `markovlm tasks` as a user runs them, on tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from markovlm.cli.main import main
from markovlm.models.registry import KNOWN, KnownModel
from markovlm.runs.rows import read_rows

FIXTURES = Path(__file__).parent / "fixtures"
SIZES = {
    "rollouts.questions_per_step": 2, "rollouts.group_size": 2, "rollouts.max_cot_tokens": 4, "training.steps": 2,
    "training.eval_every": 1, "training.checkpoint_every": 1, "evaluation.dev_size": 4, "evaluation.batch_size": 4,
    "lora.rank": 2, "loading.device": "cpu",
}  # fmt: skip
SMALL = [word for key, value in SIZES.items() for word in (f"--{key}", value)]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`call("eval", …)` -> (exit code, standard output, standard error), in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def llama(tiny_models: dict[str, Path]) -> Path:
    return tiny_models["llama"]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Questions with column names of their own, one row malformed."""
    rows = [{"prompt": f"{i} apples and {i + 1} pears?", "gold": str(2 * i + 1)} for i in range(30)]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": "no answer"}]), encoding="utf-8")
    return path


COLUMNS = ("--option", "question=prompt", "--option", "answer=gold")


def test_own_questions_from_training_to_the_table(call, llama: Path, mine: Path) -> None:
    code, out, err = call(
        "train", "--task", "custom", "--model", llama, "--data", mine, *COLUMNS, *SMALL, "--out", "run", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["steps"] == 2
    assert "skipped: " in err
    assert "train: 60 % of the questions" in err
    code, out, err = call("eval", "run", "--checkpoints", "all", "--baseline", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["task"], report["n"], report["skipped"]) == ("custom", 9, 1)  # 30 % of 30
    assert [row["checkpoint"] for row in report["results"]] == ["base", "step-000000", "step-000001", "step-000002"]
    assert report["best"] in {row["checkpoint"] for row in report["results"][1:]}
    assert report["selection"]["source"] == "training"
    row = report["results"][2]
    assert set(row["extractors"]) == {"final_number", "anchor", "simple", "math_verify"}
    assert set(row["extractors"]["anchor"]) == {"accuracy", "ci95", "no_answer"}
    assert row["vs_base"]["n"] == 9
    assert sum(row["failures"].values()) == 9 - round(9 * row["extractors"]["final_number"]["accuracy"])
    assert row["answer_run_on_fraction"] == row["answer_correct_fraction"] - row["answer_exact_fraction"]
    assert report["power"]["needed"] > 9
    code, out, _ = call("eval", "run", "--checkpoints", "all", "--baseline")
    assert code == 0
    assert "custom, test split" in out
    assert "runs on" in out
    assert "log-likelihood of the gold answer and the end " in out
    assert "* best of 3 checkpoints, evaluated during training on 3 dev questions" in out
    assert "warning: n = 9 is too small to show a difference of 0.05" in out
    assert "malformed rows were left out" in out
    assert "Wrong answers by kind" in out
    code, again, _ = call("eval", "run", "--rescore", "--json")
    assert code == 0
    assert json.loads(again)["results"] == report["results"]


def test_a_plain_model_its_controls_and_where_its_readings_go(call, llama: Path) -> None:
    arguments = ("--task", "arc", "--data", FIXTURES / "arc" / "hub.jsonl", "--rollouts.max_cot_tokens", 4, "--device", "cpu")
    hows = []
    for flags in ((), ("--non-markovian",), ("--no-cot",)):
        code, out, err = call("eval", llama, *arguments, *flags, "--json")
        assert code == 0, err
        hows.append(json.loads(out)["results"][0]["how"])
    assert [(how["conditioning"], how["cot_tokens"]) for how in hows] == [
        ("markovian", 4),
        ("non_markovian", 4),
        ("non_markovian", 0),
    ]
    [folder] = Path("runs/evaluations").iterdir()
    assert len(list(folder.glob("*.jsonl"))) == 3
    code, out, _ = call("eval", llama, *arguments, "--rescore")
    assert code == 0
    assert "3 different ways" in out
    code, out, _ = call("eval", llama, *arguments, "--out", "mine")
    assert code == 0
    assert list(Path("mine").glob("base-test-*.jsonl"))


def test_a_directory_of_adapters(call, llama: Path, mine: Path) -> None:
    call("train", "--task", "custom", "--model", llama, "--data", mine, *COLUMNS, *SMALL, "--out", "run")
    Path("old").mkdir()
    for step in (1, 2):
        Path(f"run/checkpoints/step-00000{step}").rename(f"old/adapter_{step}")
    flags = ("--task", "custom", "--data", mine, *COLUMNS, "--rollouts.max_cot_tokens", 4, "--device", "cpu")
    code, out, err = call("eval", "old", "--checkpoints", "all", "--baseline", *flags, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert [row["checkpoint"] for row in report["results"]] == ["base", "adapter_1", "adapter_2"]
    assert report["n"] == 30
    assert report["selection"]["source"] == "reported"  # all of the only file is reported: nothing is left to choose on
    assert report["selection"]["optimistic"]
    files = ("--task", "custom", "--data", split_files(mine), *COLUMNS, "--rollouts.max_cot_tokens", 4, "--device", "cpu")
    code, out, err = call("eval", "old", "--checkpoints", "all", *files)
    assert code == 0, err
    assert "* best of 2 checkpoints, evaluated now on" in out


def split_files(mine: Path) -> Path:
    """The same questions as a directory with a file of train and one of test."""
    lines = mine.read_text().splitlines(keepends=True)[:30]
    folder = mine.with_name("files")
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(lines[:20]))
    (folder / "test.jsonl").write_text("".join(lines[20:]))
    return folder


def test_letters_and_texts_of_ones_own(call, llama: Path, tmp_path: Path) -> None:
    letters = FIXTURES / "custom" / "letters.jsonl"
    columns = [f"--option={pair}" for pair in ("answer_type=letter", "question=q", "choices=opts", "answer=key")]
    code, out, err = call("tasks", "custom", "--data", letters, *columns, "--json", "--limit", 1)
    assert code == 0, err
    assert json.loads(out)["examples"][0]["choices"]
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"question": f"Say {w}", "answer": w}) + "\n" for w in ("yes", "no", "maybe")))
    code, out, err = call(
        "eval",
        llama,
        "--task",
        "custom",
        "--data",
        texts,
        "--option",
        "answer_type=text",
        "--rollouts.max_cot_tokens",
        3,
        "--json",
    )
    assert code == 0, err
    assert list(json.loads(out)["results"][0]["extractors"]) == ["final_text", "first_line"]


def test_previews_say_what_was_left_out(call) -> None:
    code, out, _ = call("tasks", "gsm8k", "--data", FIXTURES / "gsm8k", "--split", "train", "--json")
    assert code == 0
    preview = json.loads(out)
    assert (preview["task"], preview["split"], preview["n"], preview["skipped"]) == ("gsm8k", "train", 3, 5)
    assert set(preview["examples"][0]) == {"id", "question", "choices", "answer"}
    assert "<Redacted>" in preview["prompts"][0]["reader_prompt"]
    code, out, _ = call("tasks", "gsm8k", "--data", FIXTURES / "gsm8k", "--split", "train", "--limit", 1)
    assert "3 examples, 5 rows skipped" in out
    assert "questions removed because they are also in test: 1" in out
    assert "train.jsonl:4: 'answer' ends in" in out


def test_previews_show_the_prompts_that_the_model_is_sent(call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model known by name brings its own defaults: options of the task, and prompts that mention no budget."""
    own = {"task": "words", "task_options": {"max_steps": 1, "distractors": 0}, "prompt": {"mention_budget": False}}
    monkeypatch.setitem(KNOWN, "small", KnownModel("small", "made up", asset="words", defaults=own))
    code, out, err = call("tasks", "words", "--model", "small", "--style", "plain", "--json")
    assert code == 0, err
    shown = json.loads(out)
    assert all("which you have to work through" in p["cot_prompt"] for p in shown["prompts"])
    assert all(e["question"].count(".") + e["question"].count("?") <= 3 for e in shown["examples"])  # one step
    more = ("--prompt.mention_budget", "true", "--rollouts.max_cot_tokens", 7, "--prompt.answer_header", " So:")
    code, out, err = call("tasks", "words", "--model", "small", "--style", "plain", *more, "--limit", 1)
    assert code == 0, err
    assert "which you have 7 tokens" in out
    assert "<CoT> So: " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("eval MODEL --task gsm8k --data /nowhere", "/nowhere: no such file or directory"),
        ("eval MODEL --task gsm8k --data GSM8K --split tst", "has no split 'tst'; splits: train, dev, test"),
        ("eval MODEL --task gsm8k --data GSM8K --limit 0", "--limit 0: must be at least 1"),
        ("eval MODEL --task gms8k", "no task 'gms8k' (did you mean 'gsm8k'?)"),
        ("eval MODEL --task gsm8k --option x=1", "gsm8k has no option 'x'"),
        ("eval MODEL", "so a task is needed"),
        ("eval MODEL --task gsm8k --checkpoints 100", "is a plain model and has no checkpoint"),
        ("eval MODEL --task gsm8k --data GSM8K --out FILE", "--out FILE: is a file"),
        ("eval FILE --task gsm8k", "is a file, not a run directory, model directory, GGUF file or Hub id"),
        ("eval MODEL --task gsm8k --difference 2", "--difference 2.0: must be between 0 and 0.5"),
        ("eval MODEL --task gsm8k --rescore", "no kept answers"),
        ("eval MODEL --task gsm8k --rescore --limit 3", "--rescore applies to all kept answers"),
        ("eval MODEL --task wiki --data GSM8K/test.jsonl", "no usable example"),
        ("eval MODEL --task custom --data GSM8K/test.jsonl --option answer_type=word", "it must be number, letter or text"),
        ("tasks gsm8k --data GSM8K --limit 0", "--limit 0: must be at least 1"),
        ("tasks gsm8k --data /nowhere", "/nowhere: no such file or directory"),
        ("tasks custom", "give --data FILE"),
        ("train --task gsm8k --model MODEL --data GSM8K --data.dev_split train", "are both 'train'"),
    ],
)
def test_wrong_inputs_are_one_line(call, llama: Path, arguments: str, message: str) -> None:
    Path("FILE").write_text("text")
    words = [word.replace("MODEL", str(llama)).replace("GSM8K", str(FIXTURES / "gsm8k")) for word in arguments.split()]
    code, out, err = call(*words)
    assert code == 2, err
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


_ORIGINALS = {task: task for task in ("gsm8k", "svamp", "aqua", "mathqa", "arc", "mmlu")} | {"wiki": "wikipedia/wiki.test.raw"}


@pytest.mark.parametrize("task", [pytest.param(task, marks=pytest.mark.data(path)) for task, path in _ORIGINALS.items()])
def test_every_task_trains_and_evaluates_from_its_original_files(call, real: Path, llama: Path, task: str) -> None:
    data = real / _ORIGINALS[task]
    extra = ("--option", "context_tokens=40", "--option", "target_tokens=8") if task == "wiki" else ()
    extra += ("--option", "subject=anatomy") if task == "mmlu" else ()
    code, _, err = call("train", "--task", task, "--model", llama, "--data", data, *SMALL, *extra, "--out", "run")
    assert code == 0, err
    code, out, err = call("eval", "run", "--checkpoints", "all", "--baseline", "--limit", 5, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["task"], report["n"]) == (task, 5)
    assert report["best"]
    row = report["results"][-1]
    if task == "wiki":
        assert row["extractors"] == {}
        assert row["vs_base"]["accuracy"] is None
        assert row["vs_base"]["logprob_ci95"][0] <= row["vs_base"]["logprob"] <= row["vs_base"]["logprob_ci95"][1]
        assert report["power"] is None
    else:
        assert 0 <= row["extractors"][next(iter(row["extractors"]))]["accuracy"] <= 1
    code, out, _ = call("eval", "run", "--checkpoints", "all", "--baseline", "--limit", 5)
    assert code == 0
    assert f"{task}, test split" in out
    dev = [row for row in read_rows(Path("run/evals.jsonl")) if row["role"] == "dev"]
    assert [row["step"] for row in dev] == [0, 1, 2]


def test_several_processes_would_write_the_same_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main(["eval", "embedded"]) == 2
    assert capsys.readouterr().err == ("markovlm: eval runs in one process, but torchrun started 2; only train can use several\n")
