"""Things from outside the package: the templates of docs/plugins.md as they stand, entry points, and what goes wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from string import Template
from typing import Any

import pytest
import torch

from markovlm.cli import main
from markovlm.config import build_config
from markovlm.errors import UserError
from markovlm.plugins import _loaded, load_plugin, require_tensor
from markovlm.registry import ALL, OBJECTIVES, REWARDS
from markovlm.tasks.answers import extract
from markovlm.training.step import take_step
from support import tiny

DOCS = Path(__file__).parents[1] / "docs" / "plugins.md"
KINDS = ("objective", "its test", "reward", "task", "extractor", "perturbation", "study", "its own test", "reader", "sampler")
BLOCKS = dict(zip(KINDS, re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL), strict=True))


pytestmark = pytest.mark.usefixtures("forgotten")


@pytest.fixture
def plugin(tmp_path: Path):
    """Writes a template, or any text, into a file."""

    def write(text: str) -> str:
        path = tmp_path / f"mine_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(BLOCKS.get(text, text), encoding="utf-8")
        return str(path)

    return write


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def trained(tiny_models: dict[str, Path], out: Path, *flags: str) -> Path:
    run = ["train", "--model", str(tiny_models["llama"]), "--training.steps", "1", "--training.eval_every", "0"]
    sizes = ["--rollouts.group_size", "2", "--rollouts.questions_per_step", "2", "--rollouts.max_cot_tokens", "5"]
    assert main([*run, *sizes, "--health.policy", "off", "--out", str(out), *flags]) == 0
    return out


@pytest.fixture(scope="module")
def plain(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny_models, tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture
def run(plain: Path, tmp_path: Path) -> Path:
    """A run without plug-ins: a copy, to which studies may be added."""
    return Path(shutil.copytree(plain, tmp_path / "run"))


# --------------------------------------------------------------------------------------------------- the templates


def test_an_objective(plugin, tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = plugin("objective")
    run = trained(tiny_models, tmp_path / "run", "--plugin", file, "--objective.name", "cispo", "--objective.weight_high", "1.5")
    assert "name: cispo" in (run / "config.yaml").read_text()
    assert "weight_high: 1.5" in (run / "config.yaml").read_text()
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert row["passes"] == 2
    assert row["ratio_clipped_fraction"] is not None
    capsys.readouterr()
    assert main(["train", "--help", "--plugin", file]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--objective.weight_high VALUE largest importance weight of a token (only cispo) [default 2.0]" in shown
    with pytest.raises(UserError, match=r"objective\.weight_high: Input should be greater than 1"):
        build_config({"objective": {"name": "cispo", "weight_high": 0.5}})
    with pytest.raises(UserError, match=r"objective\.weight_high: unknown key; it belongs to cispo"):
        build_config({"objective": {"weight_high": 1.5}})


@pytest.mark.parametrize(
    ("template", "module", "test", "name"),
    [
        ("objective", "cispo", "its test", "test_cispo_is_its_formula"),
        ("study", "spacing", "its own test", "test_spacing_removes_the_spaces"),
    ],
)
def test_the_test_of_a_template(
    template: str, module: str, test: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{module}.py").write_text(BLOCKS[template], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, Any] = {}
    exec(BLOCKS[test], names)
    names[name]()
    del sys.modules[module]


LOGS_ITS_OWN = '''
from markovlm import Credit, ObjectiveConfig, PolicyGradient, PolicyLoss, register

class OwnConfig(ObjectiveConfig):
    """Logs two numbers."""
    name: str = "own"

@register.objective
class Own(PolicyGradient[OwnConfig]):
    Config = OwnConfig

    def credit(self, reward):
        return Credit(reward * 0, reward * 0 + 1)

    def policy_loss(self, batch):
        return PolicyLoss(-batch.logp.sum(-1) * batch.advantage, {"kl": batch.advantage * 0 + 7, "tokens": batch.mask.sum(-1)})
'''


def test_what_an_objective_logs_is_kept_and_hides_nothing(plugin, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    run = trained(tiny_models, tmp_path / "run", "--plugin", plugin(LOGS_ITS_OWN), "--objective.name", "own")
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert (row["objective_kl"], row["objective_tokens"]) == (7.0, row["cot_length"])
    assert abs(row["kl"]) < 1e-3  # the actor is the base yet
    assert main(["diagnose", str(run)]) == 0


def test_a_reward(plugin, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    dear = ("--objective.reward", "brief", "--objective.reward_options.budget", "0", "--objective.reward_options.price", "1")
    run = trained(tiny_models, tmp_path / "run", "--plugin", plugin("reward"), *dear, "--logging.samples_every", "1")
    for line in (run / "samples.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row["reward"] == pytest.approx(row["answer_logprob"] - len(row["cot"]), abs=1e-5)
    with pytest.raises(
        UserError,
        match=r"reward_options\.price: Input should be greater than or equal to 0 \(options of reward brief: budget, price",
    ):
        build_config({"objective": {"reward": "brief", "reward_options": {"price": -1}}})


def test_a_task(plugin, tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = plugin("task")
    shown = printed(capsys, "tasks", "digits", "--plugin", file, "--option", "terms=4", "--limit", "5")
    assert shown["n"] == 200
    assert [eval(e["question"]) == int(e["answer"]) and e["question"].count("+") == 3 for e in shown["examples"]] == [True] * 5
    assert any(
        row["name"] == "digits" and row["options"] == {"terms": "digits in a sum"}
        for row in printed(capsys, "tasks", "--plugin", file)["tasks"]
    )
    run = trained(tiny_models, tmp_path / "run", "--plugin", file, "--task", "digits")
    done = printed(capsys, "eval", str(run), "--plugin", file, "--limit", "3")
    assert (done["task"], done["n"]) == ("digits", 3)
    assert main(["tasks", "digits", "--plugin", file, "--option", "terms=9"]) == 2
    assert "task digits: option terms: Input should be less than or equal to 6; options: terms" in capsys.readouterr().err


def test_train_holds_no_question_of_dev_or_test(plugin) -> None:
    from markovlm.tasks import get_task
    from markovlm.tasks.base import LoadRequest

    load_plugin(plugin("task"))
    task = get_task("digits", {"terms": 2})  # 81 sums in all, so that the splits would share most
    held = {e.question for split in ("dev", "test") for e in task.load(LoadRequest(split, options={"terms": 2})).examples}
    assert len(held) == 81
    with pytest.raises(UserError, match="no question that is not held out"):
        task.load(LoadRequest("train", options={"terms": 2}))
    wide = get_task("digits", {"terms": 5})
    held = {e.question for split in ("dev", "test") for e in wide.load(LoadRequest(split, options={"terms": 5})).examples}
    train = wide.load(LoadRequest("train", limit=500, seed=1, options={"terms": 5})).examples
    assert len(train) == 500
    assert not held & {e.question for e in train}


def test_an_extractor(plugin, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = plugin("extractor")
    flags = ("--limit", "2", "--plugin", file, "--evaluation.extractors", "last_integer,anchor")
    done = printed(capsys, "eval", str(run), *flags)
    assert list(done["results"][0]["extractors"]) == ["last_integer", "anchor"]
    again = printed(capsys, "eval", str(run), "--rescore", "--plugin", file, "--evaluation.extractors", "last_integer")
    assert list(again["results"][0]["extractors"]) == ["last_integer"]
    assert main(["eval", str(run), "--limit", "2", "--evaluation.extractors", "word_boundary"]) == 2
    assert "word_boundary reads answers of type letter, but those of arithmetic are of type number" in capsys.readouterr().err


def test_a_perturbation(plugin, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = plugin("perturbation")
    done = printed(capsys, "perturb", str(run), "--plugin", file, "--perturbations", "shout", "--limit", "2")
    rows = [(row["perturbation"], row["severity"]) for row in done["rows"]]
    assert rows == [("shout", 0.0), ("shout", 0.5), ("shout", 1.0)]


def test_a_study(plugin, run: Path, tiny_models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    file = plugin("study")
    small = ("--limit", "2", "--perturbations", "delete", "--severities", "1.0", "--readers", str(tiny_models["llama"]))
    found = printed(capsys, "loadbearing", str(run), "--plugin", file, *small)["spacing"]
    assert found["question"] == "Is the answer still read when the CoT has no spaces?"
    written, bare = found["rows"]
    assert (written["CoT"], bare["CoT"]) == ("as written", "no spaces")
    own = json.loads(next((run / "loadbearing").glob("bypass-*.json")).read_text())["rows"]
    hidden = next(row for row in own if row["control"] == "own" and row["reader"] == "question hidden")
    assert written["ln pi(answer)"]["mean"] == pytest.approx(hidden["logprob"]["mean"], rel=1e-4)  # the CoT's own text is the CoT
    kept = json.loads(next((run / "loadbearing").glob("own-spacing-*.json")).read_text())
    assert kept["rows"] == found["rows"]
    assert main(["loadbearing", str(run), "--plugin", file, *small]) == 0
    shown = capsys.readouterr().out
    assert "Is the answer still read when the CoT has no spaces?" in shown
    assert "as written" in shown
    page, table = run / "report" / "report.html", run / "report" / "tables" / "loadbearing-own.csv"
    assert "Is the answer still read when the CoT has no spaces?" in page.read_text(encoding="utf-8")
    assert "spacing,1,CoT" in table.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 3", "returned int; it must return a list of rows, each a dict"),
        ("return [{'a': float('nan')}]", "a: 'nan'; a value must be text, a number, None, or a result of study.estimate"),
        ("return [3]", "a row must be a dict of at most 20 columns, not '3'"),
        ("raise KeyError('x')", "it raised KeyError: 'x'"),
    ],
)
def test_a_study_that_gives_no_table_is_named(
    body: str, said: str, plugin, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = plugin(f"from markovlm import register\n\n@register.study('odd')\ndef odd(study):\n    {body}\n")
    assert main(["loadbearing", str(run), "--plugin", file, "--limit", "1"]) == 2
    error = capsys.readouterr().err
    assert f"study 'odd' (from {Path(file).name})" in error
    assert said in error


@pytest.mark.parametrize("name", ["leak", "../up", "Big"])
def test_the_name_of_a_study_is_its_own(name: str, plugin, tmp_path: Path) -> None:
    file = plugin(f"from markovlm import register\n\n@register.study({name!r})\ndef odd(study):\n    return []\n")
    with pytest.raises(UserError, match=f"study {name!r}"):
        load_plugin(file)


def test_a_reader(plugin, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "run.jsonl"
    log.write_text("".join(json.dumps({"it": s, "R": -1.0 - s % 3 * 0.1 if s < 100 else -30.0}) + "\n" for s in range(1, 200)))
    assert main(["diagnose", str(log), "--plugin", plugin("reader"), "--json"]) == 3
    [run] = json.loads(capsys.readouterr().out)["runs"]
    assert run["verdict"] == "collapsed"
    assert 90 <= run["onset_step"] <= 110


def test_a_sampler(plugin, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """It is given the adapter in every step, and draws what the trainer's own would."""
    file = plugin("sampler")
    sizes = ["--training.steps", "2", "--training.lr", "1e-2", "--loading.dtype", "float32"]
    rows = {}
    for name, flags in {"ours": [], "theirs": ["--plugin", file, "--rollouts.backend", "other_device"]}.items():
        run = trained(tiny_models, tmp_path / name, *sizes, *flags)
        rows[name] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert "backend: other_device" in (run / "config.yaml").read_text()
    assert [row["reward_mean"] for row in rows["theirs"]] == pytest.approx([row["reward_mean"] for row in rows["ours"]], abs=1e-4)
    assert all(row["sampler_gap"] < 1e-5 for row in rows["theirs"])


# ------------------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nowhere_at_all", r":\d+: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("x = 1\n\ndef broken(:\n", r"\.py:3: SyntaxError"),
        ("x = 1\nraise RuntimeError('two\\nlines')", r"\.py:2: RuntimeError: two lines"),
        ("from markovlm import register\n@register.reward('prob')\nclass P: pass", r"reward 'prob' must be a subclass of markovlm\.Reward"),
        (
            "from markovlm import Reward, register\n@register.reward('prob')\nclass P(Reward):\n    def value(self, answers): ...",
            r"the reward 'prob' already exists \(from markovlm\); choose another name",
        ),
        ("from markovlm import register\n@register.objective\nclass O: pass", r"needs a class attribute Config"),
        ("from markovlm import *\nclass C(ObjectiveConfig):\n    name: str = 'o'\n@register.objective\nclass O(PolicyGradient):\n    Config = C",
            r"objective 'o' has no method credit\(self, reward\), which gives a markovlm\.Credit$"),
        ("from markovlm import register\n@register.extractor('a b', answer_type='text')\ndef e(t, c): 0", "'a b' is not a valid name"),
        ("from markovlm import register\nregister.task(3)", r"a task needs name, summary, prompt_kind"),
        ("from markovlm import register\n@register.task('t', answer_type='number')\ndef t(split): 0",
            r"the generator of task 't' is called as \(split, seed, options\): too many positional arguments"),
        ("from markovlm import register\nregister.task('t', answer_type='number', prompt_kind='riddle')(print)",
            r"task 't': prompt_kind 'riddle' is not one of arithmetic, reasoning, multiple_choice, continuation$"),
        ("from markovlm import register\nregister.task('t', answer_type='number', extractors=['anchr'])(print)",
            r"task 't': no extractor 'anchr' \(did you mean 'anchor'\?\)"),
        ("from markovlm import register\n@register.extractor('e', answer_type='image')\ndef e(t, c): 0", "'image' is not one of number"),
    ],
)  # fmt: skip
def test_a_bad_plugin_is_one_line_and_registers_nothing(plugin, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = [set(registry) for registry in ALL]
    both = BLOCKS["extractor"] + "\n" + text if not text.startswith("x") else text
    assert main(["tasks", "--plugin", plugin(both)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(said, error), error
    assert [set(registry) for registry in ALL] == before


NO_TEXT = """
from markovlm import register

@register.perturbation("mute", severities=(1.0,))
def mute(text, severity, rng, context):
    "Forgets its return."
"""


def test_a_perturbation_that_gives_no_text_is_named(plugin, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = plugin(NO_TEXT)
    capsys.readouterr()
    assert main(["perturb", str(run), "--plugin", file, "--perturbations", "mute", "--limit", "2"]) == 2
    assert f"perturbation 'mute' (from {Path(file).name}) returned NoneType; it must return a str\n" in capsys.readouterr().err


WRONG = """
import torch
from markovlm import Credit, ObjectiveConfig, PolicyGradient, PolicyLoss, Reward, register

class WrongConfig(ObjectiveConfig):
    "Gives what is asked of it."
    name: str = "wrong"

@register.objective
class Wrong(PolicyGradient[WrongConfig]):
    Config = WrongConfig

    def credit(self, reward):
        ok = reward * 0 + 1
        return $credit

    def policy_loss(self, batch):
        ok = -batch.logp.sum(-1) * batch.advantage
        return $loss

@register.reward("wrong_reward")
class WrongReward(Reward):
    def __init__(self, options, config):  # without that of Reward
        pass

    def value(self, answers):
        ok = answers.logp
        return $value

    def surrogate(self, answers):
        ok = answers.logp
        return $surrogate

    def weight(self, answers):
        ok = answers.logp.detach() * 0 + 1
        return $weight

    def keep(self, reward):
        ok = reward.amax(1) < 1
        return $keep
"""
RIGHT = {"credit": "Credit(ok, ok, ok > 0)", "loss": "PolicyLoss(ok, {'a': ok}, ok.detach() * 0 + 1)"}
RIGHT |= dict.fromkeys(("value", "surrogate", "weight", "keep"), "ok")
A_NUMBER_A_COT = r"it must be a tensor of shape \[4\]"


def one_step(plugin, tiny_models: dict[str, Path], **body: str) -> None:
    """Two questions, two CoTs each, in one micro-batch."""
    load_plugin(plugin(Template(WRONG).substitute({**RIGHT, **body})))
    keys = {"name": "wrong", "reward": "wrong_reward", "normalize_reward": False}  # no baseline, which has a CoT a question
    config = tiny.config(tiny_models["llama"], **{f"objective__{key}": value for key, value in keys.items()})
    take_step(tiny.learner(config), tiny.QUESTIONS[:2], 1)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"value": "ok[:1]"}, rf"reward 'wrong_reward' \(from mine_0\.py\): value has shape \[1\]; {A_NUMBER_A_COT}"),
        ({"value": "ok.repeat(2)"}, rf"value has shape \[8\]; {A_NUMBER_A_COT}"),
        ({"value": "ok[:, None]"}, rf"value has shape \[4, 1\]; {A_NUMBER_A_COT}"),
        ({"value": "ok.sum()"}, rf"value has shape \[\]; {A_NUMBER_A_COT}"),
        ({"value": "0.5"}, rf"value is float; {A_NUMBER_A_COT}"),
        ({"value": "ok.tolist()"}, rf"value is list; {A_NUMBER_A_COT}"),
        ({"surrogate": "ok.mean()"}, rf"surrogate has shape \[\]; {A_NUMBER_A_COT}"),
        ({"weight": "1.0"}, rf"weight is float; {A_NUMBER_A_COT}"),
        ({"keep": "reward < 1"}, r"keep has shape \[2, 2\]; it must be a boolean tensor of shape \[2\]"),
        ({"keep": "ok.float()"}, r"keep is of float32; it must be a boolean tensor of shape \[2\]"),
        ({"credit": "None"}, r"objective 'wrong' \(from mine_0\.py\): credit is NoneType; it must be a Credit"),
        ({"credit": "Credit(0.0, 1.0)"}, r"centre of its credit is float; it must be a tensor of shape \[2, 2\]"),
        ({"credit": "Credit(ok, ok.mean())"}, r"scale of its credit has shape \[\]; it must be a tensor of shape \[2, 2\]"),
        ({"credit": "Credit(ok.mean(1, keepdim=True), ok)"}, r"centre of its credit has shape \[2, 1\]"),
        ({"credit": "Credit(ok, ok, ok)"}, r"chosen of its credit is of float(32|64); it must be a boolean tensor"),
        ({"loss": "ok"}, "policy_loss is Tensor; it must be a PolicyLoss"),
        ({"loss": "PolicyLoss(-batch.logp, {})"}, rf"loss of its policy_loss has shape \[4, \d\]; {A_NUMBER_A_COT}"),
        ({"loss": "PolicyLoss(ok.mean(), {})"}, rf"loss of its policy_loss has shape \[\]; {A_NUMBER_A_COT}"),
        ({"loss": "PolicyLoss(ok, None)"}, "metrics of its policy_loss is NoneType; it must be a Mapping"),
        ({"loss": "PolicyLoss(ok, {'a': 1.0})"}, rf"metric 'a' of its policy_loss is float; {A_NUMBER_A_COT}"),
        ({"loss": "PolicyLoss(ok, {}, 1.0)"}, rf"reward_weight of its policy_loss is float; {A_NUMBER_A_COT}"),
    ],
)
def test_what_a_plugin_gives_of_the_wrong_shape_is_one_line_with_its_name(
    plugin, tiny_models: dict[str, Path], body: dict[str, str], said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        one_step(plugin, tiny_models, **body)
    assert "\n" not in str(caught.value)


def test_what_a_plugin_gives_of_the_right_shape_is_taken(plugin, tiny_models: dict[str, Path]) -> None:
    one_step(plugin, tiny_models)


VALUE_ALONE = """
from markovlm import Reward, register

@register.reward("alone")
class Alone(Reward):
    def value(self, answers):
        return answers.logp.sum()
"""


def test_a_reward_without_a_surrogate_of_its_own_is_told_of_its_value(plugin, tiny_models: dict[str, Path]) -> None:
    """Its gradient is asked for first."""
    load_plugin(plugin(VALUE_ALONE))
    with pytest.raises(UserError, match=r"reward 'alone' \(from mine_0\.py\): value has shape \[\]"):
        take_step(tiny.learner(tiny.config(tiny_models["llama"], objective__reward="alone")), tiny.QUESTIONS[:2], 1)


TASK = """
from markovlm import Example, register

@register.task("odd", answer_type="$answer_type")
def odd(split, seed, options):
    n = 1
    while True:
        n += 1
        yield $example
"""


@pytest.mark.parametrize(
    ("answer_type", "example", "said"),
    [
        ("number", "Example('', f'{n}+1', n + 1)", r"an Example whose answer is 3 \(int\); it must be a str"),
        ("number", "Example('', f'{n}+1', 'many')", "an Example whose answer is 'many'; answer_type number needs a number"),
        ("number", "Example('', ' ', '3')", "an Example whose question is empty"),
        ("number", "(f'{n}+1', '3')", r"tuple; it must be a markovlm\.Example"),
        ("letter", "Example('', f'{n}+1?', 'A')", "an Example with 0 choices; answer_type letter needs 2 to 10"),
        (
            "letter",
            "Example('', f'{n}+1?', 'C', choices=('3', '4'))",
            "an Example whose answer is 'C'; it must be one of the letters A, B",
        ),
        (
            "letter",
            "Example('', f'{n}+1?', 'A', choices=['3', '4'])",
            r"whose choices is \['3', '4'\]; it must be a tuple of str",
        ),
        (
            "text",
            "Example('', f'{n}', 1 // 0)",
            r"its generator raised ZeroDivisionError: .* \(mine_0\.py:9; MARKOVLM_LOG=debug shows",
        ),
    ],
)
def test_what_a_task_yields_is_looked_at(
    plugin, answer_type: str, example: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = plugin(Template(TASK).substitute(answer_type=answer_type, example=example))
    assert main(["tasks", "odd", "--plugin", file]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(rf"task 'odd' \(from mine_0\.py\).*{said}", error), error


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 42", r"extractor 'odd' \(from mine_0\.py\) returned int; it must return a str, or None if there is no answer"),
        ("return text[1000]", r"extractor 'odd' \(from mine_0\.py\): it raised IndexError: .* \(mine_0\.py:4; "),
    ],
)
def test_what_an_extractor_gives_is_looked_at(plugin, body: str, said: str) -> None:
    load_plugin(
        plugin(
            f"from markovlm import register\n@register.extractor('odd', answer_type='number')\ndef odd(text, choices):\n    {body}"
        )
    )
    with pytest.raises(UserError, match=said):
        extract("Answer: 42", "odd")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return {'metrics': []}", r"reader 'odd' \(from mine_0\.py\) returned dict; it must return a markovlm\.RunData"),
        (
            "import polars; return RunData(path=path, kind='native', name='a', metrics=polars.DataFrame({'it': [1]}))",
            "its metrics are not a polars DataFrame with a column step; they must have a column `step` of integers",
        ),
    ],
)
def test_what_a_reader_gives_is_looked_at(
    plugin, tmp_path: Path, body: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    head = (
        "from markovlm import RunData, register\n@register.reader('odd', recognises=lambda path, rows: 'it' in (rows or [{}])[0])"
    )
    file, log = plugin(f"{head}\ndef read(path, max_samples):\n    {body}"), tmp_path / "a.jsonl"
    log.write_text('{"it": 1}\n', encoding="utf-8")
    assert main(["diagnose", str(log), "--plugin", file]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(said, error), error


def test_a_reader_that_raises_is_a_problem_of_that_file(plugin, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = "from markovlm import register\n@register.reader('odd', recognises=lambda path, rows: True)"
    file, log = plugin(f"{head}\ndef read(path, max_samples):\n    raise KeyError('it')"), tmp_path / "a.jsonl"
    log.write_text('{"it": 1}\n', encoding="utf-8")
    assert main(["diagnose", str(log), "--plugin", file]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "reading a.jsonl: reader 'odd' (from mine_0.py): it raised KeyError: 'it' (mine_0.py:4; " in said


def test_an_objective_is_tried_before_the_first_evaluation(plugin, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    file = plugin(Template(WRONG).substitute({**RIGHT, "loss": "PolicyLoss(ok.mean(), {})"}))
    flags = ["--plugin", file, "--objective.name", "wrong", "--model", str(tiny_models["llama"]), "--training.eval_every", "1"]
    assert main(["train", *flags, "--training.steps", "1", "--out", str(tmp_path / "run")]) == 2
    assert not list(tmp_path.glob("run/**/*.jsonl"))


def test_looking_at_shapes_waits_for_no_device() -> None:
    """A meta tensor has no numbers: whoever looks at one raises."""
    require_tensor(torch.empty(2, 2, device="meta"), (2, 2), REWARDS, "prob", "value")
    with pytest.raises(UserError, match=r"^reward 'prob' \(from markovlm\): value has shape \[4\]"):
        require_tensor(torch.empty(4, device="meta"), (2, 2), REWARDS, "prob", "value")


def test_wrong_ways_to_name_a_plugin(tmp_path: Path, plugin, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["tasks", "--plugin", str(tmp_path / "no.py")], "no such file"),
        (["tasks", "--plugin"], "--plugin: name a Python file"),
        (["tasks", f"--plugin={tmp_path}"], "no such file; name a Python file"),
    ):
        assert main(arguments) == 2
        assert said in capsys.readouterr().err


def test_a_run_asks_for_the_plugin_it_was_made_with(
    plugin, tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run directory may come from anywhere: what it names is never run unasked."""
    file = plugin("reward")
    run = trained(tiny_models, tmp_path / "run", "--plugin", file, "--objective.reward", "brief")
    for registry, name in ((REWARDS, "brief"),):
        registry.remove([name])
    sys.modules.pop(_loaded.pop(Path(file).resolve()))
    assert main(["eval", str(run), "--limit", "1"]) == 2
    assert (
        f"needs the plug-in {Path(file).resolve()}; it is Python code, so load it yourself with --plugin"
        in capsys.readouterr().err
    )
    assert main(["eval", str(run), "--limit", "1", "--plugin", file]) == 0


def test_a_configuration_file_names_plugins_beside_it(plugin, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    file = Path(plugin("reward"))
    config = tmp_path / "config.yaml"
    config.write_text(f"plugins: [{file.name}]\nobjective: {{reward: brief}}\n")
    from markovlm import configure

    assert configure(config).objective.reward == "brief"
    assert configure(config).plugins == (str(file.resolve()),)


def test_a_run_with_a_plugin_is_reproducible(plugin, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    file = plugin("objective")
    flags = ("--plugin", file, "--objective.name", "cispo", "--seed", "3")
    one, other = (
        trained(tiny_models, tmp_path / name, *flags) / "checkpoints/step-000001/adapter_model.safetensors" for name in "ab"
    )
    assert one.read_bytes() == other.read_bytes()


# ------------------------------------------------------------------------------------------------------- entry points

_DIST = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"


def distribution(root: Path, name: str, points: str, **modules: str) -> None:
    folder = root / f"{name}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(_DIST.format(name=name))
    (folder / "entry_points.txt").write_text(points)
    for module, text in modules.items():
        (root / f"{module}.py").write_text(text)


def run_with(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, "-m", "markovlm", *arguments], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_installed_distributions_are_known_without_being_named(tmp_path: Path) -> None:
    distribution(
        tmp_path, "cispo-for-markovlm", "[markovlm.objectives]\ncispo = cispo_plugin:Cispo\n", cispo_plugin=BLOCKS["objective"]
    )
    distribution(
        tmp_path,
        "bad",
        "[markovlm.objectives]\nworse = bad_plugin:It\n[markovlm.rewards]\nprob = bad_plugin:P\n",
        bad_plugin="1/0\n",
    )
    done = run_with(tmp_path, "train", "--help")
    assert done.returncode == 0
    assert "--objective.weight_high" in done.stdout
    assert "bad: the objective 'worse' cannot be imported from bad_plugin:It (ZeroDivisionError: division by zero)" in done.stderr
    assert "bad: the reward 'prob' already exists (from markovlm); its author must rename it" in done.stderr
    asked = run_with(tmp_path, "train", "--objective.name", "worse", "--dry-run")
    assert asked.returncode == 2
    assert asked.stderr.count("\n") == 1


def test_tiny_learner_and_registry_agree() -> None:
    """The registry's names are the objectives that the package documents."""
    config = tiny.config("embedded")
    assert config.objective.name in OBJECTIVES
    assert list(OBJECTIVES)[:7] == ["grpo", "rloo", "dr_grpo", "ema", "expert_iteration", "ppo", "ppo_frozen_anchor"]


def test_all_missing_plugins_are_named_at_once(plugin) -> None:
    first, second = plugin("x = 1"), plugin("y = 1")
    with pytest.raises(UserError) as caught:
        build_config({"plugins": [first, second, first]}, source="run/config.yaml")
    assert str(caught.value).endswith(
        f"{first}, {second}; they are Python code, so load them yourself with --plugin {first} --plugin {second}"
    )
