"""The estimate of memory against what is measured: kept activations, adapter sizes, the peak of a whole step."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from markovlm.cli.main import main
from markovlm.errors import UserError
from markovlm.models.sequences import batch_of, span_hidden
from markovlm.runs.setup import prepare
from markovlm.terminal.plan import show_plan
from markovlm.training.cards import fits, resident
from markovlm.training.estimate import Spread, Workload, estimate
from markovlm.training.estimate import kept as kept_bytes
from markovlm.training.plan import plan, tokens_per_step
from markovlm.training.shapes import Shape, read_shape
from support import architectures, peak, tiny

ROWS, COT, PROMPT = 12, 40, 60


@pytest.fixture(scope="module")
def middle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return peak.save(tmp_path_factory.mktemp("middle"))


class Kept:
    """Bytes of the tensors that autograd keeps, each storage once, weights left out."""

    def __init__(self, model: torch.nn.Module):
        self.own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.storages: dict[int, int] = {}

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.own:
            self.storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    @property
    def bytes(self) -> int:
        return sum(self.storages.values())


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("sharing", ["shared", "padded"])
def test_kept_activations(middle: Path, sharing: str, dtype: str, dropout: float) -> None:
    """Within 15 % of what autograd holds after a forward pass."""
    config = tiny.config(middle, loading__dtype=dtype, lora__rank=8, lora__dropout=dropout, training__prompt_sharing=sharing)
    lm = prepare(config, trainable=True).lm
    prompts = [tuple(range(5, 5 + PROMPT)), tuple(range(6, 6 + PROMPT))]
    batch = batch_of([(prompts[row % 2], tuple(range(5, 5 + COT)), 0) for row in range(ROWS)])
    kept = Kept(lm.model)
    with lm.training_mode(), torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        hidden = span_hidden(lm, batch, sharing).hidden  # pyright: ignore[reportArgumentType]
    assert hidden.requires_grad
    estimated = kept_bytes(config, read_shape(config), ROWS, 2, PROMPT, COT)
    assert estimated == pytest.approx(kept.bytes, rel=0.15)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")
@pytest.mark.parametrize(
    ("weight", "microbatch"),
    [
        (1.0, 16384),
        pytest.param(0.0, 16384, marks=pytest.mark.long),
        pytest.param(1.0, 256, marks=pytest.mark.long),  # two CoTs at a time
        pytest.param(0.0, 256, marks=pytest.mark.long),  # the reading of all answers, without gradient, is the peak
    ],
)
def test_the_peak_of_a_step(middle: Path, weight: float, microbatch: int) -> None:
    """Within 25 % of the high-water mark of a process that makes one step.

    A tensor smaller than the allocator's threshold comes from memory that the step before has left behind, and is not seen.
    """
    overrides = {
        "rollouts__questions_per_step": 2, "rollouts__group_size": 16, "rollouts__max_cot_tokens": 48, "lora__rank": 8,
        "loading__dtype": "float32", "objective__actor_reward_weight": weight, "training__microbatch_tokens": microbatch,
    }  # fmt: skip
    least = "262144" if microbatch > 1000 else "8192"
    threshold = {"MALLOC_MMAP_THRESHOLD_": least, "MALLOC_TRIM_THRESHOLD_": least}
    done = subprocess.run(
        [sys.executable, peak.__file__, str(middle), json.dumps(overrides)],
        capture_output=True, text=True, check=True, env={**os.environ, **threshold},
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["estimated"] == pytest.approx(found["measured"], rel=0.25)


_RUN = """
import json, re, sys, tempfile
from pathlib import Path
from markovlm.api.training import configure, train
from markovlm.training.plan import plan
config = configure(over=json.loads(sys.argv[1]))
needed = plan(config)["memory"]["needed"]
train(config, Path(tempfile.mkdtemp()) / "run")
print(json.dumps([needed, int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux only")
@pytest.mark.parametrize(
    ("model", "rollouts"),
    [
        pytest.param("embedded", {}, marks=pytest.mark.slow),
        pytest.param("smollm2", {"questions_per_step": 1, "fixed_length": True}, marks=pytest.mark.real),
    ],
)
def test_what_a_process_needs(model: str, rollouts: dict[str, object]) -> None:
    """Within 30 % of the peak of a process that trains one step, from its first import on."""
    over = {"model": model, "loading": {"device": "cpu"}, "rollouts": rollouts, "training": {"steps": 1, "eval_every": 0}}
    done = subprocess.run([sys.executable, "-c", _RUN, json.dumps(over)], capture_output=True, text=True, check=True)
    needed, measured = json.loads(done.stdout.splitlines()[-1])
    assert needed == pytest.approx(measured, rel=0.3)


def test_what_stays_in_the_heap_by_hand(middle: Path) -> None:
    config = tiny.config(middle, rollouts__group_size=8, rollouts__max_cot_tokens=20, loading__device="cpu")
    found = estimate(config, read_shape(config), Workload(50, 30, 20, 4, ""))
    assert found.peak_phase == "training"
    sampling = found.sampling_cache + found.sampling_logits + found.merged_weights
    assert resident(found) == pytest.approx(
        450_000_000 + found.weights + found.adapter + sampling + 1.4 * (found.activations + found.logits_chunk), abs=1
    )


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("some", [False, True])
def test_sizes_are_those_of_the_loaded_model(tiny_models: dict[str, Path], architecture: str, some: bool) -> None:
    named = ("c_attn",) if architecture == "gpt2" else ("q_proj", "v_proj")
    config = tiny.config(tiny_models[architecture], lora__targets=named if some else "all-linear")
    lm = prepare(config, trainable=True).lm
    shape = read_shape(config)
    assert shape.adapter_parameters == sum(p.numel() for _, p in lm.adapter_parameters())
    base = {id(p): p.numel() for p in lm.causal_lm.parameters() if not p.requires_grad}
    assert shape.parameters == sum(base.values())
    assert shape.vocabulary == lm.vocabulary
    assert shape.plain_attention == lm.shares_keys


@pytest.mark.parametrize(
    ("model", "parameters"),
    # as the model cards count them; Llama by hand: 2 * 128256 * 4096 + 32 (2 * 4096² + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096) + 4096
    [("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248), ("Qwen/Qwen3-4B", 4_022_468_096)],
)
def test_known_models_need_no_network(model: str, parameters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *_, **__: pytest.fail("asked the Hub"))
    shape = read_shape(tiny.config(model, lora__rank=8))
    assert shape.parameters == parameters
    if "Llama" in model:  # rank 8: 8 * (q, o 8192 each; k, v 5120 each; gate, up, down 18432 each) * 32 layers
        assert shape.adapter_parameters == 8 * (2 * 8192 + 2 * 5120 + 3 * 18432) * 32


def test_an_unknown_model_is_no_guess(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_shape(tiny.config(tmp_path / "nothing"))


def test_recurrent_layers_have_no_estimate(tmp_path: Path) -> None:
    """But a plan."""
    found = plan(tiny.config(architectures.save_family("mamba", tmp_path / "mamba"), task="gsm8k"))
    assert found["memory"]["estimate"] is None
    assert "has only recurrent layers" in found["memory"]["note"]


def test_more_of_anything_costs_more(middle: Path) -> None:
    config = tiny.config(middle, rollouts__group_size=8, rollouts__max_cot_tokens=20)
    shape, work = read_shape(config), Workload(50, 30, 20, 4, "")
    usual = estimate(config, shape, work).peak
    assert estimate(config, shape, replace(work, cot=200)).peak > usual
    assert estimate(tiny.config(middle, rollouts__group_size=16, rollouts__max_cot_tokens=20), shape, work).peak > usual
    small = tiny.config(middle, rollouts__group_size=8, rollouts__max_cot_tokens=20, training__microbatch_tokens=64)
    assert estimate(small, shape, work).peak < usual
    assert estimate(small, shape, work).microbatch_rows == 1


def test_tokens_of_a_step_by_hand(middle: Path) -> None:
    # 2 questions of 50 prompt tokens, 3 CoTs of 10 each: 60 sampled; CoT pass 100 + 60 = 160 by the actor and by the frozen
    # model; answer pass 30 + 6 * (10 + 4) = 114 with gradient while the actor reward is live
    config = tiny.config(middle, rollouts__questions_per_step=2, rollouts__group_size=3)
    work = Workload(50, 30, 10, 4, "")
    live = tokens_per_step(config, work)
    assert live == {
        "sampled": 60,
        "prompts": 100,
        "scored_with_gradient": 160 + 114,
        "scored_without_gradient": 160,
        "total": 60 + 100 + 160 + 114 + 160,
    }
    off = {"rollouts__questions_per_step": 2, "rollouts__group_size": 3, "objective__actor_reward_weight": 0}
    dead = tokens_per_step(tiny.config(middle, **off), work)
    assert dead["total"] == live["total"]
    assert dead["scored_with_gradient"] == 160


def test_a_dry_run_counts_and_writes_nothing(
    tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("markovlm.models.load.load_model", lambda *_, **__: pytest.fail("weights were loaded"))
    arguments = [
        "train",
        "--model",
        str(tiny_models["llama"]),
        "--dry-run",
        "--training.steps",
        "10",
        "--training.eval_every",
        "4",
    ]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["splits"] == {"train": None, "dev": 200, "test": 500}
    assert (found["evaluations"], found["checkpoints"]) == (4, 2)  # steps 0, 4, 8, 10; 0 and 10
    assert found["memory"]["needed"] > found["memory"]["estimate"]["peak"] > 0
    assert found["prompt_tokens"]["source"] == "measured on 64 questions"
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "ESTIMATE for this run on this machine's CPU: peak about" in text
    assert "the process needs about" in text
    assert list(tmp_path.iterdir()) == []
    for asked, there in ((50, 50), (1000, 200)):  # dev has 200
        assert main([*arguments, "--json", "--evaluation.dev_size", str(asked)]) == 0
        assert json.loads(capsys.readouterr().out)["evaluation_questions"] == there


def test_a_dry_run_of_what_can_not_run(tmp_path: Path, tiny_models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    model = str(tiny_models["llama"])
    for flags, message in (
        (["--task", "gsm8k", "--data", str(tmp_path / "no")], "no such file"),
        (["--task", "custom"], "give --data FILE"),
        (["--training.steps", "0"], "training.steps"),
        (["--evaluation.extractors", "nope"], "no extractor 'nope'"),
        (["--data.train_split", "test"], "trained on, it can't be held out"),
        (["--model", "/nonexistent"], "does not exist"),
    ):
        assert main(["train", "--model", model, "--dry-run", *flags]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", None, "has no tokenizer that transformers can read"),
        ("config.json", "[]", "cannot be loaded as a causal language model"),
        ("config.json", '{"model_type": "never heard of"}', "`never heard of`"),
        ("config.json", '{"model_type": "t5"}', "is not a causal language model"),
    ],
)
def test_a_dry_run_of_a_model_that_can_not_be_loaded(
    tmp_path: Path, tiny_models: dict[str, Path], capsys: pytest.CaptureFixture[str], file: str, content: str | None, message: str
) -> None:
    model = Path(shutil.copytree(tiny_models["llama"], tmp_path / "model"))
    (model / file).unlink() if content is None else (model / file).write_text(content)
    assert main(["train", "--model", str(model), "--dry-run"]) == 2
    assert message in capsys.readouterr().err


def test_a_plan_without_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub's data is not read; a model of the table is estimated, with assumed lengths that are called so."""
    found = plan(tiny.config("meta-llama/Llama-3.1-8B-Instruct", task="gsm8k", loading__dtype="bfloat16"))
    assert found["splits"] == {}
    assert "assumed" in found["prompt_tokens"]["source"]
    assert found["memory"]["estimate"]["weights"] == 2 * 8_030_261_248


def test_over_several_processes_each_has_its_share() -> None:
    """Of a 70B shape: two GPUs of 80 GB hold nothing with the base whole, eight do with the base dealt."""
    large = Shape(
        "by hand",
        70_000_000_000,
        100_000_000,
        80,
        8192,
        28672,
        8192,
        1024,
        8,
        128256,
        68_000_000_000,
        10_000_000,
        8192 * 28672,
        0,
    )
    config = tiny.config("m", loading__dtype="bfloat16", loading__device="cuda", rollouts__questions_per_step=8)
    work = Workload(100, 20, 100, 10, "by hand")
    alone = estimate(config, large, work)
    whole, dealt = (estimate(config, large, work, Spread(8, dealt)) for dealt in (False, True))
    assert whole.weights == alone.weights == 140_000_000_000
    piece = max(68_000_000_000 // 80, 128256 * 8192) * 2
    assert dealt.weights == 140_000_000_000 // 8 + 2 * piece
    assert dealt.sampling_cache == whole.sampling_cache
    assert whole.sampling_cache * 8 == alone.sampling_cache  # one question of eight
    assert not fits(whole)["H100 80 GB"]
    assert fits(dealt)["H100 80 GB"]
    uneven = estimate(config, large, work, Spread(3))
    assert uneven.sampling_cache * 8 == alone.sampling_cache * 3  # three, three and two questions


def test_a_dry_run_for_several_processes(capsys: pytest.CaptureFixture[str], tiny_models: dict[str, Path]) -> None:
    flags = [
        "train",
        "--dry-run",
        "--model",
        str(tiny_models["llama"]),
        "--rollouts.questions_per_step",
        "4",
        "--task",
        "arithmetic",
        "--json",
    ]
    found = {}
    for name, more in {
        "one": [],
        "two": ["--processes", "2"],
        "dealt": ["--processes", "2", "--distributed.strategy", "fsdp2"],
    }.items():
        assert main([*flags, *more]) == 0
        found[name] = json.loads(capsys.readouterr().out)["memory"]
    assert [(m["processes"], m["dealt"]) for m in found.values()] == [(1, False), (2, False), (2, True)]
    assert found["two"]["estimate"]["sampling_cache"] * 2 == found["one"]["estimate"]["sampling_cache"]
    assert found["two"]["estimate"]["weights"] == found["one"]["estimate"]["weights"]
    for more, said in (
        (["--processes", "8"], "at least the number of processes"),
        (["--distributed.strategy", "fsdp2"], "--processes N"),
    ):
        assert main([*flags, *more]) == 2
        assert said in capsys.readouterr().err
    assert main(["train", "--model", "embedded", "--processes", "2"]) == 2
    assert "belongs to --dry-run" in capsys.readouterr().err


def test_each_estimate_says_its_device_and_type(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU two estimates are printed, one for this CPU and one for a GPU; with one, they are the same run."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = plan(tiny.config("meta-llama/Llama-3.1-8B-Instruct", task="gsm8k", loading__device="auto", loading__dtype="auto"))
    show_plan(found)
    here, there = capsys.readouterr().out.split("on a GPU")
    assert "on this machine's CPU" in here
    assert "base in float32, 4 bytes" in here
    assert "instead of this CPU" in there
    assert "base in bfloat16, 2 bytes" in there
    show_plan(plan(tiny.config("meta-llama/Llama-3.1-8B-Instruct", task="gsm8k", loading__device="cuda", loading__dtype="auto")))
    text = capsys.readouterr().out
    assert "on this machine's GPU" in text
    assert "float32" not in text
    assert "instead of this CPU" not in text
