"""LoRA's layers as one product: PEFT's values and gradients, and PEFT's own arithmetic wherever the fold would be another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn

from markovlm.models import folding
from markovlm.models.folding import FoldedLinear, fold_layers, unfold_layers
from markovlm.models.language import LanguageModel
from markovlm.models.logprobs import token_stats
from markovlm.models.sequences import batch_of, span_hidden
from support import tiny

PROMPTS = (tuple(range(5, 17)), tuple(range(20, 25)))
BATCH = batch_of([(PROMPTS[n % 2], tuple(range(30 + n, 38 + n)), 0) for n in range(12)])


def scored(lm: LanguageModel, sharing: Any = "shared") -> tuple[Tensor, Tensor]:
    """Log-probs, and the whole gradient of a sum of them with uneven weights."""
    span = span_hidden(lm, BATCH, sharing)
    logp = token_stats(lm, span.hidden, span.targets).logp
    weights = torch.linspace(0.5, 1.5, len(logp), dtype=logp.dtype)
    parameters = [parameter for _, parameter in lm.adapter_parameters()]
    return logp.detach(), torch.cat([g.reshape(-1) for g in torch.autograd.grad((logp * weights).sum(), parameters)])


@pytest.fixture
def folded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each pass through a fold."""
    rows: list[int] = []
    apply = folding._Folded.apply
    monkeypatch.setattr(folding._Folded, "apply", lambda x, *rest: (rows.append(x.numel() // x.shape[-1]), apply(x, *rest))[1])
    return rows


@pytest.mark.parametrize("sharing", ["shared", "padded"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3"])
def test_values_and_gradients_are_those_of_peft(
    tiny_models: dict[str, Path], architecture: str, sharing: str, folded: list[int]
) -> None:
    lm = tiny.load(tiny_models[architecture], shaken=True, dtype="float64")
    ours = scored(lm, sharing)
    assert folded
    seen = len(folded)
    unfold_layers(lm.model)
    theirs = scored(lm, sharing)
    assert len(folded) == seen
    for one, other in zip(ours, theirs, strict=True):
        assert other.abs().max() > 0.1
        torch.testing.assert_close(
            one, other, rtol=1e-5, atol=1e-6 * float(other.abs().max())
        )  # norms are float32 in transformers


def layer(bias: bool = False, dropout: float = 0.0, dtype: torch.dtype = torch.float64, **options: Any) -> Linear:
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=7, lora_dropout=dropout, **options)
    made = Linear(nn.Linear(6, 10, bias=bias, dtype=dtype), "default", config, r=3, lora_alpha=7)
    for weights in (made.lora_A, made.lora_B):
        weights["default"].weight.data = torch.randn_like(weights["default"].weight).to(torch.promote_types(dtype, torch.float32))
    made.get_base_layer().requires_grad_(False)
    return made.eval()


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_alone_to_the_last_digits_of_float64(bias: bool, folded: list[int]) -> None:
    made = layer(bias)
    x = torch.randn(5, 4, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 4, 10, dtype=torch.float64)

    def both() -> list[Tensor]:
        y = made(x)
        return [y, *torch.autograd.grad((y * weights).sum(), [x, made.lora_A["default"].weight, made.lora_B["default"].weight])]

    plain = both()
    assert not folded
    fold_layers(nn.ModuleList([made]))
    for one, other in zip(both(), plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert folded == [20]
    assert torch.autograd.gradcheck(made, x)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"dtype": torch.bfloat16}, "the fold would round the adapter away"),
        ({"dropout": 0.5}, "a mask on the adapter's input alone"),
        ({"lora_bias": True}, "a trained bias of the adapter"),
        ({"bias": True, "trained": True}, "a trained bias of the layer"),
    ],
    ids=["bfloat16", "dropout", "adapter's bias", "layer's bias"],
)
def test_other_layers_compute_as_peft_does(change: dict[str, Any], why: str, folded: list[int]) -> None:
    made = layer(**{name: value for name, value in change.items() if name != "trained"})
    made.train()
    if "trained" in change:
        made.get_base_layer().bias.requires_grad_(True)
    x = torch.randn(40, 6, dtype=made.get_base_layer().weight.dtype)
    torch.manual_seed(1)
    plain = made(x)
    assert fold_layers(nn.ModuleList([made])) == 1
    torch.manual_seed(1)
    assert torch.equal(made(x), plain), why
    assert not folded


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_token_without_gradient_is_what_peft_makes_of_it(dtype: torch.dtype) -> None:
    made = layer(bias=True, dtype=dtype)
    x = torch.randn(3, 1, 6, dtype=dtype)
    with torch.no_grad():
        plain = made(x)
        fold_layers(nn.ModuleList([made]))
        ours = made(x)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, plain)
    assert not torch.allclose(ours, made.get_base_layer()(x))


def test_few_tokens_are_not_worth_a_fold(folded: list[int]) -> None:
    made = layer()
    fold_layers(nn.ModuleList([made]))
    made(torch.randn(3, 6, dtype=torch.float64))
    assert not folded  # 3 (6 + 10) < 6 x 10
    made(torch.randn(4, 6, dtype=torch.float64))
    assert folded == [4]


def test_the_frozen_policy_and_a_switched_off_adapter_leave_it_out(tiny_models: dict[str, Path], folded: list[int]) -> None:
    lm = tiny.load(tiny_models["llama"], shaken=True)
    with lm.frozen(), torch.no_grad():
        frozen = token_stats(lm, span_hidden(lm, BATCH).hidden, span_hidden(lm, BATCH).targets).logp
    assert not folded
    assert not torch.allclose(frozen, scored(lm)[0])
    assert folded


def test_layers_stay_what_peft_knows(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """Saved, merged and looked for as PEFT's own."""
    lm = tiny.load(tiny_models["llama"], shaken=True)
    layers = [module for module in lm.model.modules() if isinstance(module, FoldedLinear)]
    assert len(layers) == 14
    assert all(isinstance(one, Linear) for one in layers)
    ours = scored(lm)[0]
    merged = LanguageModel("x", lm.model.merge_and_unload(), lm.tokenizer, lm.terminators, has_adapter=False)
    span = span_hidden(merged, BATCH)
    torch.testing.assert_close(ours, token_stats(merged, span.hidden, span.targets).logp, rtol=1e-4, atol=1e-4)
