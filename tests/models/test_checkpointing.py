"""Gradient checkpointing together with a shared prompt: the same gradients, bit for bit, and less memory."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from markovlm.config.model import Loading, Lora
from markovlm.errors import UserError
from markovlm.models import checkpointing, load
from markovlm.models.language import LanguageModel
from markovlm.models.load import load_model
from markovlm.models.logprobs import token_stats
from markovlm.models.sequences import Batch, Row, batch_of, forked_batch, span_hidden
from markovlm.training.loop import train
from markovlm.training.step import take_step
from support import architectures, peak, tiny
from support.live import LiveBytes

PROMPTS = (tuple(range(5, 17)), tuple(range(20, 25)))
BATCH = batch_of(
    [
        (PROMPTS[0], (7, 8, 9, 10), 0),
        (PROMPTS[1], (7, 8), 1),
        (PROMPTS[0], (50, 60, 70), 2),
        (PROMPTS[0], (14,), 0),
    ]
)


def loaded(directory: Path, on: bool, dropout: float = 0.0, dtype: Any = "float64") -> LanguageModel:
    loading = Loading(device="cpu", dtype=dtype, gradient_checkpointing=on)
    lm = load_model(str(directory), loading, lora=Lora(rank=2, alpha=4, dropout=dropout))
    tiny.shake(lm)
    return lm


def gradient(lm: LanguageModel, batch: Batch, sharing: Any = "shared", after: Any = None) -> Tensor:
    with lm.training_mode(), torch.random.fork_rng():
        torch.manual_seed(3)
        span = span_hidden(lm, batch, sharing)
        logp = token_stats(lm, span.hidden, span.targets).logp
    if after is not None:
        after(lm)
    weights = torch.linspace(0.5, 1.5, len(logp), dtype=logp.dtype, device=logp.device)
    parameters = [parameter for _, parameter in lm.adapter_parameters()]
    return torch.cat([part.reshape(-1) for part in torch.autograd.grad((logp * weights).sum(), parameters)])


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_are_the_same_bit_for_bit(tiny_models: dict[str, Path], architecture: str, dropout: float) -> None:
    """Backward comes after the model is in eval mode again, as in a step; Gemma-3's window is shorter than the first prompt."""
    plain, checkpointed = (loaded(tiny_models[architecture], on, dropout) for on in (False, True))
    assert (plain.checkpointing, checkpointed.checkpointing) == ("off", "prompts")
    for sharing in ("shared", "padded"):
        expected = gradient(plain, BATCH, sharing)
        assert expected.abs().max() > 0
        assert torch.equal(gradient(checkpointed, BATCH, sharing), expected)


def test_rows_that_leave_their_prompt_early(tiny_models: dict[str, Path]) -> None:
    batch = forked_batch([(PROMPTS[0], (*PROMPTS[0][:4], 30), (31, 32)), (PROMPTS[0], (*PROMPTS[0][:9], 40), (41,))])
    plain, checkpointed = (gradient(loaded(tiny_models["llama"], on), batch) for on in (False, True))
    assert torch.equal(checkpointed, plain)


def test_a_fixed_order_of_rows_is_no_accident(tiny_models: dict[str, Path]) -> None:
    """As many rows as prompts, the other way round: forgetting to choose rows would not change a shape."""
    batch = Batch((PROMPTS[0][:5], PROMPTS[1]), (Row(1, (7, 8, 9)), Row(0, (9, 8))))
    plain, checkpointed = (gradient(loaded(tiny_models["llama"], on), batch) for on in (False, True))
    assert torch.equal(checkpointed, plain)


def test_several_gradients_of_one_graph(tiny_models: dict[str, Path]) -> None:
    """As in the steps that ask for the gradient of each loss term."""
    keys = {"health__gradient_shares_every": 1, "lora__dropout": 0.0}
    found = []
    for on in (False, True):
        learner = tiny.learner(tiny.config(tiny_models["llama"], loading__gradient_checkpointing=on, **keys))
        take_step(learner, tiny.QUESTIONS[:2], 1)
        assert isinstance(learner.optimizer, tiny.RecordingSGD)
        found.append(learner.optimizer.flat())
    assert torch.equal(*found)


def test_backward_under_another_policy_is_an_error(tiny_models: dict[str, Path]) -> None:
    lm = loaded(tiny_models["llama"], True)
    with pytest.raises(RuntimeError, match="adapter switched otherwise"):
        gradient(lm, BATCH, after=lambda lm: setattr(lm, "adapter_on", False))


def test_layers_that_disagree_with_their_cache_are_not_shared(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Found out by trying; each sequence is then computed whole, and the run says so."""
    monkeypatch.setattr(checkpointing, "_copy", lambda cache, layers: None)
    lm = loaded(tiny_models["llama"], True)
    assert lm.checkpointing == "whole"
    assert not lm.shares_prompts
    with torch.no_grad():
        assert lm.shares_prompts
    assert torch.equal(gradient(lm, BATCH), gradient(loaded(tiny_models["llama"], False), BATCH, "padded"))
    config = tiny.config(tiny_models["llama"], loading__gradient_checkpointing=True, training__steps=1)
    train(config, tmp_path / "run", check=False)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert any("with gradient checkpointing its cache can't be used" in str(event) for event in events)


def test_a_model_without_layers_is_refused(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "_layers", lambda lm: [])
    with pytest.raises(UserError, match=r"loading\.gradient_checkpointing: .* no layers that can be recomputed"):
        loaded(tiny_models["llama"], True)
    assert load.load_model(str(tiny_models["llama"]), Loading(device="cpu", gradient_checkpointing=True))  # nothing trains


def test_a_prompt_is_kept_once_for_its_group(tmp_path: Path) -> None:
    """What lives after forward, and the peak through backward: less than without, and no copy of the prompt for every row."""
    rows, prompt, cot = 16, 60, 10
    batch = batch_of([(tuple(range(5, 5 + prompt)), tuple(range(5 + row, 5 + row + cot)), 0) for row in range(rows)])
    kept, peaks = {}, {}
    folder = peak.save(tmp_path / "middle")
    for on in (False, True):
        lm = loaded(folder, on, dtype="float32")
        parameters = [parameter for _, parameter in lm.adapter_parameters()]
        gc.collect()
        with LiveBytes([*lm.model.parameters(), *lm.model.buffers()]) as live:
            hidden = span_hidden(lm, batch).hidden
            kept[on] = live.now
            torch.autograd.grad(hidden.sum(), parameters)
            peaks[on] = live.peak
    sizes = peak.SIZES
    width, layers = sizes["hidden_size"], sizes["num_hidden_layers"]
    inputs = (
        4 * (layers + 2) * width * (prompt + rows * (cot - 1))
    )  # of every layer and of the last norm, and its result; float32
    keys = 4 * layers * 2 * 64 * prompt  # two heads of 32, keys and values
    assert kept[True] == pytest.approx(inputs + keys, rel=0.1)  # the rest: masks, angles
    assert kept[True] < kept[False] / 8
    assert peaks[True] < peaks[False] / 2


@pytest.mark.parametrize("family", ["mixtral", "gemma2", "qwen3_next", "mpt"])
@pytest.mark.long
def test_other_families(family: str, tmp_path: Path) -> None:
    """Every family but four agreed bit for bit on 2026-11-25 (docs/architectures.md)."""
    directory = architectures.save_family(family, tmp_path / family)
    plain, checkpointed = (gradient(loaded(directory, on), BATCH) for on in (False, True))
    assert torch.allclose(checkpointed, plain, rtol=1e-6, atol=1e-6 * float(plain.abs().max()))
