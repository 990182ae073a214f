"""A frozen base in 4 or 8 bits: what is refused and passed on (without bitsandbytes), and a whole life with it (`make test-quant`)."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from markovlm.cli import main
from markovlm.config.model import Loading, Lora
from markovlm.errors import UserError
from markovlm.models import quantization
from markovlm.models.fingerprint import base_fingerprint
from markovlm.models.language import LanguageModel
from markovlm.models.load import load_model
from markovlm.models.logprobs import token_stats
from markovlm.models.sequences import batch_of, span_hidden
from markovlm.runs.rows import read_rows
from markovlm.training.loop import train
from support import runs, step_memory, tiny

here = importlib.util.find_spec("bitsandbytes") is not None
KINDS = ("nf4", "int8")
BATCH = batch_of([((5, 6, 7, 8, 9), (7, 8, 9, 10), 0), ((20, 21, 22), (7, 8), 1), ((5, 6, 7, 8, 9), (50, 60, 70), 2)])


def needs_it(test: Any) -> Any:
    return pytest.mark.quant(pytest.mark.skipif(not here, reason="bitsandbytes is not installed: make test-quant")(test))


# --------------------------------------------------------------------------------------------------- without the package


def test_what_bitsandbytes_is_told() -> None:
    nf4 = quantization.options("nf4", torch.bfloat16)
    assert nf4 == {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": torch.bfloat16,
    }
    assert quantization.options("int8", torch.bfloat16) == {"load_in_8bit": True}
    assert quantization.quantized_arguments("m", "none", torch.float32, torch.device("cpu")) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_loading_passes_it_on(kind: str, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    seen: dict[str, Any] = {}

    def load(*_: Any, **arguments: Any) -> Any:
        seen.update(arguments)
        raise OSError("far enough")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)
    with pytest.raises(UserError, match="far enough"):
        load_model(str(tiny_models["llama"]), Loading(device="cpu", dtype="bfloat16", quantization=kind))
    assert (seen["dtype"], seen["device_map"]) == (torch.bfloat16, {"": torch.device("cpu")})
    config = seen["quantization_config"]
    assert config.quantization_method() == {"nf4": "nf4", "int8": "llm_int8"}[kind]
    assert config.bnb_4bit_use_double_quant is (kind == "nf4")
    if kind == "nf4":
        assert config.bnb_4bit_compute_dtype == torch.bfloat16


def test_without_the_package_there_is_one_line(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    out = tmp_path / "run"
    flags = ["train", "--model", str(tiny_models["llama"]), "--loading.quantization", "nf4", "--out", str(out)]
    assert main([*flags, "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "loading.quantization: nf4 needs bitsandbytes: pip install 'markovlm[quantization]'" in said
    assert not out.exists()


def test_weights_that_are_quantized_already(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Path(shutil.copytree(tiny_models["llama"], tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (model / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))
    with pytest.raises(UserError, match="are already quantized"):
        load_model(str(model), Loading(device="cpu", quantization="int8"))


def test_export_of_a_quantized_run(tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only its configuration is looked at: the adapter leaves with what its base must be; merged it would be another model."""
    run = tmp_path / "run"
    train(runs.run_config(tiny_models["llama"], training__steps=1, training__eval_every=0), run)
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("quantization: none", "quantization: nf4"))
    for extra in ([], ["--dry-run"]):
        assert main(["export", str(run), "--to", str(tmp_path / "merged"), "--merge", *extra]) == 2
        assert "trained on a base in nf4; merged into full weights, it would be a different model" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()
    assert main(["export", str(run), "--to", str(tmp_path / "adapter")]) == 0
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "base quantized to nf4 by bitsandbytes" in card
    assert 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)' in card


def test_layers_stay_in_eval_mode() -> None:
    """As bitsandbytes' layers behave: what they compute depends on their mode."""

    class Layer(torch.nn.Linear):
        support_avx512bf16_for_cpu = True

    Layer.__module__ = "bitsandbytes.nn.modules"
    model = torch.nn.Sequential(Layer(2, 2), torch.nn.Dropout())
    quantization.settle("m", model)
    model.train()
    assert (model[0].training, model[1].training, model[0].support_avx512bf16_for_cpu) == (False, True, False)
    with pytest.raises(UserError, match="no linear layers that can be quantized"):
        quantization.settle("m", torch.nn.Sequential(torch.nn.Linear(2, 2)))


# ------------------------------------------------------------------------------------------------------ with the package


def loaded(directory: Path, kind: str, checkpointing: bool = False) -> LanguageModel:
    loading = Loading(device="cpu", dtype="float32", quantization=kind, gradient_checkpointing=checkpointing)  # pyright: ignore[reportArgumentType]
    lm = load_model(str(directory), loading, lora=Lora(rank=2, alpha=4))
    tiny.shake(lm)
    return lm


def scored(lm: LanguageModel, sharing: Any = "shared", mode: bool = False) -> tuple[Tensor, Tensor]:
    """ln p of the scored tokens, and the gradient of their sum."""
    lm.model.train(mode)
    span = span_hidden(lm, BATCH, sharing)
    logp = token_stats(lm, span.hidden, span.targets).logp
    lm.model.eval()
    parameters = [parameter for _, parameter in lm.adapter_parameters()]
    return logp.detach(), torch.cat([part.reshape(-1) for part in torch.autograd.grad(logp.sum(), parameters)])


@needs_it
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_shared_and_padded_agree(kind: str, architecture: str, tiny_models: dict[str, Path]) -> None:
    """nf4 to float32's rounding; int8 rounds activations by what stands beside them: 0.05 nats a token, gradient 10 %.

    Measured on 2026-11-25: nf4 3e-7 nats and 1e-6, int8 5e-3 nats and 1e-2.
    """
    lm = loaded(tiny_models[architecture], kind)
    assert (lm.caching, lm.dtype) == ("padded", torch.float32)
    before = base_fingerprint(lm)
    (logp, gradient), (padded, expected) = scored(lm), scored(lm, "padded")
    nats, share = (1e-4, 1e-4) if kind == "nf4" else (0.05, 0.1)
    assert (logp - padded).abs().max() < nats
    assert (gradient - expected).norm() < share * expected.norm()
    assert torch.equal(scored(lm, mode=True)[0], logp)  # one arithmetic, whatever the mode
    with torch.no_grad():
        span_hidden(lm, BATCH)
    assert base_fingerprint(lm) == before  # forward passes leave the weights alone
    again, recomputed = scored(loaded(tiny_models[architecture], kind, checkpointing=True))
    assert torch.equal(again, logp)
    assert torch.equal(recomputed, gradient)


@needs_it
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_estimate_of_memory(kind: str, checkpointing: bool, tmp_path: Path) -> None:
    """Weights as they are stored, and the peak of a step beside them, within 15 %."""
    shape = {"layers": 4, "hidden": 192, "inner": 512, "heads": 6, "kv_heads": 2, "vocabulary": 2000}
    model = step_memory.random_llama(tmp_path / "model", **shape)
    keys = {"loading__dtype": "bfloat16", "loading__quantization": kind, "loading__gradient_checkpointing": checkpointing}
    measured, found = step_memory.measure(model, 60, rollouts__group_size=8, rollouts__max_cot_tokens=24, **keys)
    assert max(found.phases.values()) == pytest.approx(max(measured.values()), rel=0.15)
    lm = load_model(str(model), Loading(device="cpu", dtype="bfloat16", quantization=kind))  # pyright: ignore[reportArgumentType]
    # the tables of each map, 1.3 KB, are nothing at 8B and something here
    stored = [tensor for name, tensor in lm.base_parameters() if "quant_map" not in name and "quant_state" not in name]
    assert found.weights == pytest.approx(sum(tensor.numel() * tensor.element_size() for tensor in stored), rel=0.01)


@needs_it
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_loss(kind: str, tiny_models: dict[str, Path]) -> None:
    """Central differences along the gradient; and the base is near the one that it was made of, but not the same."""
    lm, plain = loaded(tiny_models["llama"], kind), loaded(tiny_models["llama"], "none")
    _, gradient = scored(lm)
    size, values = 1e-2, []
    parameters = [parameter for _, parameter in lm.adapter_parameters()]
    start = torch.nn.utils.parameters_to_vector(parameters).detach()
    for sign in (1, -1):
        torch.nn.utils.vector_to_parameters(start + sign * size * gradient / gradient.norm(), parameters)
        values.append(scored(lm)[0].double().sum())
    slope = (values[0] - values[1]) / (2 * size)
    assert slope == pytest.approx(float(gradient.norm()), rel=0.02 if kind == "nf4" else 0.25)
    torch.nn.utils.vector_to_parameters(start, parameters)
    ids = torch.arange(4, 36).reshape(2, 16)
    with torch.no_grad():
        ours, theirs = (m.logits(m.decode(ids, use_cache=False).last_hidden_state) for m in (lm, plain))
    # weights this random have no structure that four bits could spare
    assert torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1] > (0.5 if kind == "nf4" else 0.99)
    assert not torch.equal(ours, theirs)
    assert base_fingerprint(lm) != base_fingerprint(plain)


@needs_it
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_and_what_follows(
    kind: str, tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained with its self-checks, stopped and resumed to the same bits, evaluated on the quantized base."""
    keys = {"loading__quantization": kind, "lora__dropout": 0.0, "training__steps": 4, "training__checkpoint_every": 2}
    config = runs.run_config(tiny_models["llama"], **keys)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(config, whole)
    with pytest.raises(runs.Crash):
        train(config, broken, progress=runs.CrashAfter(3))
    capsys.readouterr()
    assert main(["train", "--resume", str(broken)]) == 0
    saved = [(run / "checkpoints" / "step-000004" / "adapter_model.safetensors").read_bytes() for run in (whole, broken)]
    assert saved[0] == saved[1]
    environment = json.loads((whole / "environment.json").read_text())
    assert environment["quantization"] == kind
    assert environment["bitsandbytes"]
    capsys.readouterr()
    assert main(["eval", str(whole), "--limit", "4", "--json"]) == 0
    found = read_rows(whole / "evals.jsonl")
    assert main(["eval", str(whole), "--limit", "4", "--json", "--loading.quantization", "none"]) == 0
    other = read_rows(whole / "evals.jsonl")
    assert found[-1]["logprob"] != other[-1]["logprob"]  # kept readings of the other base are not taken for its own
    assert "quantization" not in found[-1]["how"]
    assert other[-1]["how"]["quantization"] == "none"
