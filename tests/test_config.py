"""The configuration: round trips, one-line errors that name the field, and no key without an effect."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from markovlm.config import build_config, dump_yaml, flatten, keys, known_keys, load_yaml, merge, nest, objective_classes
from markovlm.errors import RunFailed, UserError
from markovlm.evaluation.evaluate import evaluate, how_evaluated
from markovlm.health import Evidence, Verdict
from markovlm.models.load import load_model
from markovlm.rollouts import hf
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.types import SamplerPlace
from markovlm.runs.directory import RunDirectory
from markovlm.runs.setup import prepare
from markovlm.tasks.base import DEFAULT_EXTRACTORS, Example
from markovlm.training.guard import Guard
from markovlm.training.loop import train
from markovlm.training.microbatches import microbatches
from markovlm.training.step import take_step
from support import runs, tiny
from support.fake import FakeSampler


def refused(*layers: dict[str, Any]) -> str:
    with pytest.raises(UserError) as error:
        build_config(*layers)
    assert "\n" not in str(error.value)
    return str(error.value)


# ------------------------------------------------------------------------------------------------------- reading and writing


@pytest.mark.parametrize("name", objective_classes())
def test_yaml_round_trip(name: str, tmp_path: Path) -> None:
    layer = {
        "objective": {"name": name, "entropy_weight": 0.0},
        "rollouts": {"group_size": 4, "temperature": "cosine 1.5 -> 0.7 over 20", "stop": ["\n\n", "é"]},
        "training": {"lr": "linear 1.5e-3 -> 0"},
        "task_options": {"max_terms": 4, "negative": True},
    }
    config = build_config(layer)
    (tmp_path / "config.yaml").write_text(dump_yaml(config), encoding="utf-8")
    again = build_config(load_yaml(tmp_path / "config.yaml"))
    assert again == config
    assert again.training.lr.end == 0.0
    assert again.rollouts.stop == ("\n\n", "é")


def test_nest_and_flatten_are_inverse() -> None:
    flat = {"seed": 1, "training.lr": 0.5, "objective.name": "rloo"}
    assert nest(flat) == {"seed": 1, "training": {"lr": 0.5}, "objective": {"name": "rloo"}}
    assert flatten(nest(flat)) == flat


def test_later_layers_win_and_another_objective_drops_foreign_keys() -> None:
    base = {"objective": {"name": "grpo", "std_floor": 0.3, "kl_weight": 0.2}, "training": {"steps": 5, "lr": 1}}
    merged = merge(base, {"objective": {"name": "rloo"}, "training": {"steps": 6}})
    assert merged == {"objective": {"name": "rloo", "kl_weight": 0.2}, "training": {"steps": 6, "lr": 1}}
    assert build_config(merged).objective.name == "rloo"
    assert base["training"] == {"steps": 5, "lr": 1}  # layers are left as they were


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        build_config().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [1", "not valid YAML"),
        (b"seed: 1\ntraining: {steps: 2}\ntraining: {lr: 1e-3}", ":3: not valid YAML: duplicate key training"),
        (b"training: {steps: 2, lr: 1, steps: 3}", ":1: not valid YAML: duplicate key steps"),
        (b"- 1\n- 2\n", "mapping of keys"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"seed: 1\n\tx: 2", ":2: not valid YAML"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        load_yaml(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="is a directory"):
        load_yaml(tmp_path)
    (tmp_path / "empty.yaml").touch()
    assert load_yaml(tmp_path / "empty.yaml") == {}


# ------------------------------------------------------------------------------------------------------- errors


def test_unknown_keys_suggest_the_nearest() -> None:
    assert refused({"training": {"setps": 5}}) == "configuration: training.setps: unknown key; did you mean training.steps?"
    assert "did you mean objective.kl_weight?" in refused({"objective": {"name": "rloo", "kl_wieght": 1}})
    assert "did you mean training?" in refused({"trainig": {"steps": 5}})
    assert "--help" in refused({"zzzzzz": 1})
    assert "objective.std_floor: unknown key" in refused({"objective": {"name": "rloo", "std_floor": 0.1}})


def test_unknown_objective_lists_those_there_are() -> None:
    said = refused({"objective": {"name": "magic"}})
    assert "objective.name" in said
    assert all(name in said for name in objective_classes())


@pytest.mark.parametrize(
    ("flat", "field"),
    [
        ({"training.steps": 0}, "training.steps"),
        ({"training.lr": "fast"}, "training.lr"),
        ({"training.lr": -1.0}, "lr"),
        ({"training.warmup_steps": 9, "training.steps": 5}, "warmup_steps"),
        ({"rollouts.group_size": 1}, "rollouts.group_size"),
        ({"rollouts.temperature": 0.0}, "temperature"),
        ({"rollouts.temperature": "linear 1 -> 0"}, "temperature"),
        ({"rollouts.fixed_length": True, "rollouts.stop": ["x"]}, "stop"),
        ({"objective.reader": "frozen"}, "actor_reward_weight"),
        ({"objective.reward": "exact_match"}, "actor_reward_weight"),
        ({"objective.reward": "prob", "objective.answer_logprob": "sum"}, "answer_logprob"),
        ({"objective.kl_weight": -0.1}, "kl_weight"),
        ({"objective.name": "ema", "objective.baseline_every": 5}, "baseline_every"),
        ({"objective.name": "ppo_frozen_anchor", "objective.kl_weight": 0.1}, "kl_weight"),
        ({"evaluation.decoding": "greedy", "evaluation.temperature": 1.0}, "evaluation.temperature"),
        ({"loading.attention": "eager", "loading.dtype": "float64"}, "attention"),
        ({"loading.quantization": "nf4", "loading.dtype": "float64"}, "dtype=float64"),
        ({"loading.quantization": "int8", "lora.targets": ["q_proj", "lm_head"]}, "lora.targets: lm_head"),
        ({"loading.quantization": "int4"}, "loading.quantization"),
        ({"lora.rank": 0}, "lora.rank"),
        ({"loading.dtype": "int8"}, "loading.dtype"),
        ({"seed": "many"}, "seed"),
    ],
)
def test_impossible_values_and_combinations_name_the_field(flat: dict[str, Any], field: str) -> None:
    assert field in refused(nest(flat))


def test_every_key_has_a_description_and_its_default_parses() -> None:
    for key in keys():
        assert key.description, key.name
        name = key.only_for[0] if key.only_for else None
        if key.name.startswith("objective.") and not key.only_for:
            continue  # its default may belong to another objective: covered by the classes themselves
        default = list(key.default) if isinstance(key.default, tuple) else key.default
        default = str(default) if type(default).__name__ == "Schedule" else default
        layers = [{"objective": {"name": name}}] if name else []
        if not key.only_for or key.name == "objective.decay":
            build_config(*layers, nest({key.name: default}))
    for cls in objective_classes().values():
        cls()
    assert {"training", "objective", "training.steps"} <= set(known_keys())
    assert len({key.name for key in keys()}) == len(keys())


# ------------------------------------------------------------------------------------------------------- effects

BASE: dict[str, Any] = {
    "loading.dtype": "float32",
    "rollouts.group_size": 3,
    "rollouts.max_cot_tokens": 6,
    "training.steps": 2,
    "training.checkpoint_every": 2,
    "training.max_grad_norm": 1.0,
    "evaluation.dev_size": 3,
    "logging.samples_every": 2,
    "objective.baseline_every": 2,
}
EVALUATED = {"training.eval_every": 2}  # a fifth of what a run takes: only where it is what is looked at
EI = {"objective.name": "expert_iteration", "objective.baseline_every": 1, "objective.warmup_batches": 1}
PPO = {"objective.name": "ppo", "objective.kl_bound": 100.0}

# key -> (another value, what else both runs are given): the run that is written must differ
MEAN_PROB = {"objective.reward": "mean_prob", "objective.actor_reward_weight": 0.0}
THINKING = {"chain.kind": "thinking", "chain.steps": 2, "rollouts.max_cot_tokens": None, "chain.state_tokens": 6}
NOTES = {"task": "ledger", "task_options": {"chunks": 2}, "chain.kind": "notes_then_questions"}
IN_A_RUN: dict[str, tuple[Any, dict[str, Any]]] = {
    "model": ("gpt2", {}),
    "seed": (1, {}),
    "task_options": ({"max_terms": 2, "min_terms": 2}, {}),
    "loading.dtype": ("float64", {}),
    "lora.rank": (3, {}),
    "lora.alpha": (32, {}),
    "lora.dropout": (0.3, {}),
    "lora.targets": (["q_proj"], {}),
    "prompt.answer_header": (" So:", {}),
    "prompt.mention_budget": (False, {}),
    "data.train_split": ("test", {"data.test_split": "dev"}),
    "data.dev_split": ("test", EVALUATED),
    "rollouts.questions_per_step": (3, {}),
    "rollouts.group_size": (4, {}),
    "rollouts.max_cot_tokens": (4, {}),
    "rollouts.fixed_length": (True, {}),
    "rollouts.temperature": (0.7, {}),
    "rollouts.importance": ("token", {}),
    "rollouts.stop": (list("abcdefghijklmnopqrstuvwxyz"), {}),
    "training.steps": (3, {}),
    "training.lr": (2e-2, {}),
    "training.warmup_steps": (2, {}),
    "training.weight_decay": (0.5, {}),
    "training.max_grad_norm": (1e-6, {}),
    "training.prompt_sharing": ("padded", {}),
    "training.eval_every": (1, EVALUATED),
    "training.checkpoint_every": (1, {}),
    "evaluation.dev_size": (2, EVALUATED),
    "evaluation.decoding": ("greedy", EVALUATED),
    "evaluation.temperature": (0.5, EVALUATED),
    "evaluation.reader": ("frozen", EVALUATED),
    "health.gradient_shares_every": (1, {}),
    "logging.samples_every": (1, {"training.steps": 3}),  # the first and the last are always kept
    "objective.name": ("rloo", {}),
    "objective.reward": ("prob", {}),
    "objective.reader": ("frozen", {"objective.actor_reward_weight": 0.0}),
    "objective.reader_decay": (0.1, {"objective.reader": "ema"}),
    "objective.readers": (["actor", "frozen"], {"objective.reward": "readers", "objective.readers": ["actor"]}),
    "objective.reward_options.debias": (False, MEAN_PROB),
    "objective.reward_options.std_filter": (5.0, MEAN_PROB),
    "objective.reward_options.filter_decay": (
        0.0,
        {**MEAN_PROB, "objective.reward_options.std_filter": 1.0, "training.steps": 3},
    ),
    "objective.conditioning": ("non_markovian", {}),
    "objective.actor_reward_weight": (0.5, {}),
    "objective.kl_weight": (0.5, {}),
    "objective.entropy_weight": (0.5, {}),
    "objective.cot_logprob": ("mean", {}),
    "objective.answer_logprob": ("sum", {}),
    "objective.normalize_reward": (False, {}),
    "objective.answer_end": ("open", {}),
    "objective.baseline_every": (1, {}),
    "objective.std_floor": (5.0, {}),
    "objective.decay": (0.5, {"objective.name": "ema", "objective.baseline_every": 1}),
    "objective.threshold_std": (-9.0, EI),
    "objective.warmup_batches": (2, {**EI, "objective.threshold_std": -9.0}),
    "objective.advantage": ("one", {**EI, "objective.threshold_std": -9.0}),
    "objective.clip": (1e-4, PPO),
    "objective.ratio": ("sequence", PPO),
    "objective.passes": (3, PPO),
    "objective.kl_bound": (1e-9, PPO),
    "chain.steps": (3, THINKING),
    "chain.state_tokens": (3, THINKING),
    "chain.gamma": (0.5, {**NOTES, "chain.reward": "both"}),
    "chain.reward": ("both", NOTES),
}


ECHOES = {"how", "lr", "temperature", "actor_reward_weight", "kl_weight"}  # columns that repeat the configuration prove nothing


def written(model: Path, flat: dict[str, Any], out: Path) -> str:
    """What a run computed: rows but for times and echoes, steps of checkpoints, the trained weights."""
    overrides = {key.replace(".", "__"): value for key, value in {**BASE, **flat}.items()}
    train(tiny.config(model, **overrides), out, check=False)
    files = [runs.rows(out, name) for name in ("metrics.jsonl", "evals.jsonl", "samples.jsonl")]
    rows = [[{key: value for key, value in row.items() if key not in ECHOES} for row in file] for file in files]
    steps = RunDirectory(out).saved_steps()
    return json.dumps([rows, steps, runs.checkpoint_bytes(out, steps[-1])["adapter_model.safetensors"].hex()])


@pytest.fixture(scope="module")
def reference(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Of the run that a key is compared with; each made once."""

    @cache
    def make(extra: str) -> str:
        return written(tiny_models["llama"], json.loads(extra), tmp_path_factory.mktemp("reference") / "run")

    return make


@pytest.mark.parametrize("name", IN_A_RUN)
def test_changing_a_key_changes_the_run(
    name: str, tiny_models: dict[str, Path], tmp_path: Path, reference: Callable[[str], str]
) -> None:
    value, extra = IN_A_RUN[name]
    model = tiny_models["gpt2"] if name == "model" else tiny_models["llama"]
    changed = extra if name == "model" else {**extra, name: value}
    assert written(model, changed, tmp_path / "run") != reference(json.dumps(extra, sort_keys=True))


def test_the_reference_run_repeats(tiny_models: dict[str, Path], tmp_path: Path, reference: Callable[[str], str]) -> None:
    """Or the comparisons above would show nothing."""
    assert written(tiny_models["llama"], EVALUATED, tmp_path / "run") == reference(json.dumps(EVALUATED))


def _task(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    assert prepare(tiny.config(models["llama"], task="gsm8k")).task.name == "gsm8k"


def _tasks(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """tests/training/test_mixture.py has the rest."""
    assert prepare(tiny.config(models["llama"], tasks={"gsm8k": 2, "svamp": 1}, task="gsm8k+svamp")).task.name == "gsm8k+svamp"


def _strategy(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """tests/training/test_fsdp2.py has the rest."""
    with pytest.raises(
        UserError, match=r"distributed.strategy=fsdp2 shards the weights over several processes, but this is a single one"
    ):
        train(tiny.config(models["llama"], distributed__strategy="fsdp2"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _plugins(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """A configuration can name code but not have it run (tests/test_plugins.py has the rest)."""
    (tmp_path / "mine.py").write_text("raise SystemExit('was run')")
    with pytest.raises(UserError, match=r"plug-in .*mine\.py; it is Python code, so load it yourself with --plugin"):
        build_config({"plugins": [str(tmp_path / "mine.py")]})


def _extractors(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    assert prepare(tiny.config(models["llama"])).task.extractors == DEFAULT_EXTRACTORS["number"]
    assert prepare(tiny.config(models["llama"], evaluation__extractors=["simple"])).task.extractors == ("simple",)


def _device(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"loading\.device"):
        prepare(tiny.config(models["llama"], loading__device="cuda:99"))


def _attention(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    for attention in ("eager", "sdpa"):
        lm = prepare(tiny.config(models["llama"], loading__attention=attention, loading__dtype="float32")).lm
        assert lm.causal_lm.config._attn_implementation == attention


def _checkpointing(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """tests/models/test_checkpointing.py has the rest."""
    for on in (False, True):
        lm = prepare(tiny.config(models["llama"], loading__gradient_checkpointing=on), trainable=True).lm
        assert lm.checkpointing == ("prompts" if on else "off")


def _quantization(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """tests/models/test_quantization.py has the rest."""
    patch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"loading\.quantization: nf4 needs bitsandbytes"):
        prepare(tiny.config(models["llama"], loading__dtype="float32", loading__quantization="nf4"))


def _passed_on(name: str, value: Any) -> Callable[..., None]:
    def check(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        seen: list[Any] = []
        for loader in (AutoConfig, AutoModelForCausalLM, AutoTokenizer):
            original = loader.from_pretrained

            def watched(*args: Any, original: Any = original, **kwargs: Any) -> Any:
                seen.append(kwargs.get(name))
                return original(*args, **kwargs)

            patch.setattr(loader, "from_pretrained", watched)
        config = tiny.config(models["llama"], **{f"loading__{name}": value})
        load_model(config.model, config.loading)
        assert seen[:3] == [value] * 3

    return check


def _style(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="chat template"):
        prepare(tiny.config(models["llama"], prompt__style="chat"))
    assert prepare(tiny.config("embedded", prompt__style="plain")).prompter.style == "plain"
    assert prepare(tiny.config("embedded")).prompter.style == "compact"


def _data(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    rows = [{"question": f"What is {i}+1?", "answer": str(i + 1)} for i in range(4)]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "not a row\n")
    keys = {"task": "custom", "data__path": str(path)}
    loaded = prepare(tiny.config(models["llama"], **keys)).load("test")
    assert {example.question for example in loaded.examples} <= {row["question"] for row in rows}
    assert len(loaded.examples) >= 1
    assert len(loaded.skipped) == 1
    with pytest.raises(UserError, match=r"mine\.jsonl"):
        prepare(tiny.config(models["llama"], data__strict=True, **keys)).load("test")


def _columns(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """tests/tasks/test_shapes.py has the rest."""
    path = tmp_path / "mine.csv"
    path.write_text("ask,gold,a,b\nWhich?,b,iron,wood\nWhat?,a,one,two\nWho?,a,x,y\n")
    columns = {"question": "ask", "answer": "gold", "choices": ["a", "b"]}
    run = tiny.config(models["llama"], task="custom", data__path=str(path), data__columns=columns, data__answer_kind="letter")
    setup = prepare(run)
    assert setup.task.answer_type == "letter"
    assert {(e.question, e.answer, e.choices) for e in setup.load("test", disjoint=False).examples} == {
        ("Which?", "B", ("iron", "wood")),
        ("What?", "A", ("one", "two")),
        ("Who?", "A", ("x", "y")),
    }


def _hub(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []
    patch.setattr(datasets, "get_dataset_split_names", lambda path, name: asked.append((path, name)) or ["test"])
    patch.setattr(datasets, "load_dataset", lambda path, name, split: [{"question": "1+1?", "answer": "2"}])
    run = tiny.config(models["llama"], task="custom", data__hub="org/mine", data__hub_subset="main")
    assert [e.id for e in prepare(run).load("test").examples] == ["custom/test/0"]
    assert set(asked) == {("org/mine", "main")}


def _evaluated(models: dict[str, Path], tmp_path: Path, *flags: str) -> dict[str, Any]:
    """What `markovlm eval MODEL --json` prints."""
    from click.testing import CliRunner

    from markovlm.cli.main import cli

    command = [
        "eval",
        str(models["llama"]),
        "--task",
        "arithmetic",
        "--out",
        str(tmp_path / "out"),
        "--rollouts.max_cot_tokens",
        "3",
        "--json",
    ]
    result = CliRunner().invoke(cli, [*command, *flags], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def _test_questions(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    printed = [
        json.dumps(_evaluated(models, tmp_path / split, "--evaluation.test_size", "3", "--data.test_split", split))
        for split in ("test", "dev")
    ]
    assert ['"n": 3' in text for text in printed] == [True, True]
    assert printed[0] != printed[1]


def _backend(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    (key,) = [key for key in keys() if key.name == "rollouts.backend"]
    assert key.choices == ("auto", "hf", "vllm", "server")  # another one needs a test like tests/rollouts/test_server.py
    for backend in ("auto", "hf"):
        setup = prepare(tiny.config(models["llama"], rollouts__backend=backend))
        assert setup.config.rollouts.backend == "hf"
        assert isinstance(setup.sampler(), HFSampler)


def _vllm_memory(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """tests/rollouts/test_vllm.py has what vLLM does with it."""
    with pytest.raises(UserError, match="vllm_memory has no effect"):
        tiny.config(models["llama"], rollouts__vllm_memory=0.5)


def _cap(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """With log-probs that are nobody's."""
    truncated = []
    for cap in (1.0, None):
        run = tiny.config(models["llama"], rollouts__importance="token", rollouts__importance_cap=cap)
        learner = tiny.learner(run, sampler=FakeSampler(lambda prompt, number: (40, 41, 42 + number), logp=-4.0))
        truncated.append(sum(s.stats["importance_truncated"] for s in take_step(learner, tiny.QUESTIONS[:2], 1).samples))
    assert truncated[0] > truncated[1] == 0


def _tolerance(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunFailed, match="tolerance 1e-15"):
        train(tiny.config(models["llama"], loading__dtype="float32", rollouts__gap_tolerance=1e-15), tmp_path / "run")


def _on_a_server(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """tests/rollouts/test_server.py has what they do; without a server they are refused."""
    for key in ("server_url", "adapter_dir"):
        with pytest.raises(UserError, match=f"{key} has no effect"):
            tiny.config(models["llama"], **{f"rollouts__{key}": "http://localhost:8000"})


def _static_cache(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    for setting, there in (("on", True), ("auto", False), ("off", False)):  # auto: on a GPU
        setup = prepare(tiny.config(models["llama"], rollouts__static_cache=setting))
        samplers = (setup.sampler(), hf.build_hf(SamplerPlace(setup.lm, setup.config, tmp_path)))
        assert [isinstance(one, hf.HFSampler) and one.decoder is not None for one in samplers] == [there, there]


def _batch_tokens(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    join = hf._Rows.join
    patch.setattr(hf._Rows, "join", lambda self, prompts: sizes.append(len(prompts)) or join(self, prompts))
    for tokens, expected in ((32768, [4, 2]), (64, [1] * 6)):  # six CoTs would be one batch but for the two baselines after them
        sizes.clear()
        learner = tiny.learner(tiny.config(models["llama"], rollouts__batch_tokens=tokens))
        take_step(learner, tiny.QUESTIONS[:2], 1)
        assert sizes == expected


def _microbatch(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    for tokens, parts in ((16384, 1), (64, 2)):
        learner = tiny.learner(tiny.config(models["llama"], training__microbatch_tokens=tokens))
        assert len(microbatches(learner, take_step(learner, tiny.QUESTIONS[:2], 1).samples)) == parts


def _batch_size(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    run = tiny.config(models["llama"], training__eval_every=1, evaluation__batch_size=3, training__steps=1)
    setup = prepare(run)
    batches: list[int] = []
    how = how_evaluated(setup.config, setup.prompter, step=0)
    evaluate(
        setup.lm, setup.sampler(), setup.prompter, tiny.QUESTIONS, how,
        batch_size=run.evaluation.batch_size, on_batch=lambda readings: batches.append(len(readings)),
    )  # fmt: skip
    assert batches == [3, 1]


def _health(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    assert not Guard(build_config({"health": {"policy": "off"}}).health).on
    assert Guard(build_config({"health": {"policy": "warn"}}).health).on
    for allowed, expected in ((2, 4), (1, None)):
        guard = Guard(build_config({"health": {"policy": "rollback", "max_rollbacks": allowed}}).health)
        guard.healthy, guard.rollbacks = [2, 4, 8], 1
        guard.verdict = Verdict("collapsed", 6, (Evidence("reward_mean", 6, -9.0, -2.0, "collapsed"),))
        assert guard.way_back([2, 4, 8]) == expected


def _trackers(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    train(tiny.config(models["llama"], logging__trackers=["tensorboard"], training__steps=1), tmp_path / "run", check=False)
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))


def _chain(models: dict[str, Path], tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    for size in (5, 7):
        chain = {"chain__kind": "notes", "chain__chunk_tokens": size}
        prompter: Any = prepare(tiny.config(models["llama"], task="custom", **chain)).prompter
        assert prompter.text_of(Example("x", "0123456789abcdefgh", "")).chunks[0] == "0123456789abcdefgh"[:size]


ELSEWHERE: dict[str, Callable[[dict[str, Path], Path, pytest.MonkeyPatch], None]] = {
    "task": _task,
    "tasks": _tasks,
    "plugins": _plugins,
    "evaluation.extractors": _extractors,
    "chain.kind": _chain,
    "chain.chunk_tokens": _chain,
    "loading.device": _device,
    "distributed.strategy": _strategy,
    "loading.attention": _attention,
    "loading.gradient_checkpointing": _checkpointing,
    "loading.quantization": _quantization,
    "loading.trust_remote_code": _passed_on("trust_remote_code", True),
    "loading.revision": _passed_on("revision", "main"),
    "prompt.style": _style,
    "data.path": _data,
    "data.strict": _data,
    "data.columns.question": _columns,
    "data.columns.answer": _columns,
    "data.columns.choices": _columns,
    "data.answer_kind": _columns,
    "data.hub": _hub,
    "data.hub_subset": _hub,
    "data.test_split": _test_questions,
    "evaluation.test_size": _test_questions,
    "evaluation.batch_size": _batch_size,
    "rollouts.backend": _backend,
    "rollouts.server_url": _on_a_server,
    "rollouts.adapter_dir": _on_a_server,
    "rollouts.vllm_memory": _vllm_memory,
    "rollouts.gap_tolerance": _tolerance,
    "rollouts.importance_cap": _cap,
    "rollouts.batch_tokens": _batch_tokens,
    "rollouts.static_cache": _static_cache,
    "training.microbatch_tokens": _microbatch,
    "health.policy": _health,
    "health.max_rollbacks": _health,
    "logging.trackers": _trackers,
}


@pytest.mark.parametrize("name", {check: name for name, check in ELSEWHERE.items()}.values())  # of several keys, once
def test_a_key_has_its_effect(name: str, tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ELSEWHERE[name](tiny_models, tmp_path, monkeypatch)


def test_every_key_has_an_entry() -> None:
    """A new key needs one: how is its effect seen?"""
    assert {key.name for key in keys()} == set(IN_A_RUN) | set(ELSEWHERE)


@pytest.mark.parametrize("name", objective_classes())
def test_the_documentation_says_the_defaults_of_every_objective(name: str) -> None:
    """Several have a key of one name and mean different things by it."""
    cls = objective_classes()[name]
    for key in keys():
        field = cls.model_fields.get(key.name.removeprefix("objective."))
        if not key.name.startswith("objective.") or field is None or key.name == "objective.name":
            continue
        said = next((other for names, other in key.otherwise if name in names), key)
        assert said.default == field.default, key.name
        assert said.description == field.description, key.name
        assert not key.only_for or name in key.only_for or key.only_for[0].startswith("reward"), key.name


def test_a_flag_takes_the_choices_of_every_objective() -> None:
    found = {key.name: key.choices for key in keys()}
    assert {"reward", "one", "grpo", "rloo", "dr_grpo"} == set(found["objective.advantage"])


def test_a_key_of_numbers_and_a_word_takes_both() -> None:
    """A closed list of choices at the command line would refuse the numbers."""
    found = {key.name: key.choices for key in keys()}
    assert found["evaluation.temperature"] == ()
    assert found["evaluation.decoding"] == ("sampled", "greedy")
    assert build_config(nest({"evaluation.temperature": "training"})).evaluation.temperature == "training"
    assert build_config(nest({"evaluation.temperature": 0.5})).evaluation.temperature == 0.5
    for wrong in ("hot", 0, -1, True, float("nan"), float("inf"), []):
        with pytest.raises(UserError, match=r"^configuration: evaluation\.temperature: must be a positive number, or training"):
            build_config(nest({"evaluation.temperature": wrong}))


@pytest.mark.parametrize("key", ["training.steps", "seed", "rollouts.max_cot_tokens", "training.max_grad_norm"])
def test_true_is_no_number(key: str) -> None:
    with pytest.raises(UserError, match=rf"^configuration: {key}: a number is needed \(got true\)$"):
        build_config(nest({key: True}))
    assert build_config(nest({"objective.normalize_reward": True})).objective.normalize_reward
