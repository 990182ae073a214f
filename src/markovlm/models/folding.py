"""LoRA's linear layers as one matrix product, forward and back, where the weights are in full precision.

PEFT computes `x W^T + s (x A^T) B^T` as three products, a scaling and a sum, each over all tokens of a pass. Where tokens are many,
`x (W + s B A)^T` is the same and one product: folding costs no more than a few tokens do. The gradients of A and B are then products that
lie as `[rank, tokens]`, which BLAS computes several times as fast as the `[tokens, rank]` that autograd makes of PEFT's (docs/performance.md).
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

_FULL = (torch.float32, torch.float64)  # in lower precision the fold would round the adapter away


def fold_layers(model: Any) -> int:
    """Have PEFT's plain LoRA layers on torch's linear layers compute as one product. Their number; all others stay as they are."""
    layers = [module for module in model.modules() if type(module) is Linear and type(module.get_base_layer()) is nn.Linear]
    for layer in layers:
        layer.__class__ = FoldedLinear
    return len(layers)


def unfold_layers(model: Any) -> None:
    """Restore PEFT's own arithmetic."""
    layers: list[Any] = [module for module in model.modules() if type(module) is FoldedLinear]
    for layer in layers:
        layer.__class__ = Linear


class FoldedLinear(Linear):
    """PEFT's layer, in fewer operations wherever the adapter is plain LoRA."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        adapter = None if args or kwargs else self._plain_adapter()
        if adapter is None:
            return super().forward(x, *args, **kwargs)
        base: Any = self.get_base_layer()
        a: Any = self.lora_A[adapter].weight
        b: Any = self.lora_B[adapter].weight
        if _worth_a_fold(x, base.weight, a, b):
            return _Folded.apply(x, base.weight, base.bias, a, b, self.scaling[adapter])
        if torch.is_grad_enabled():
            return super().forward(x)
        # as PEFT rounds, with a third fewer operations to launch for a token
        return base(x).add_(linear(linear(x.to(a.dtype), a), b), alpha=self.scaling[adapter])

    def _plain_adapter(self) -> str | None:
        """The one active adapter, if that is all that there is to this layer."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        base: Any = self.get_base_layer()
        if base.weight.requires_grad or (base.bias is not None and base.bias.requires_grad):  # PEFT's bias="all"
            return None
        adapter = self.active_adapters[0]
        if adapter not in self.lora_A or adapter in self.lora_variant or self.lora_bias[adapter]:
            return None
        return None if self.training and not isinstance(self.lora_dropout[adapter], nn.Identity) else adapter


def _worth_a_fold(x: Tensor, weight: Tensor, a: Tensor, b: Tensor) -> bool:
    """r tokens (in + out) multiplications are saved, r in out are paid."""
    if x.dtype not in _FULL or any(tensor.dtype != x.dtype for tensor in (weight, a, b)):
        return False
    fan_out, fan_in = weight.shape
    return x.numel() // fan_in * (fan_in + fan_out) > fan_in * fan_out


class _Folded(torch.autograd.Function):
    """y = x (W + s B A)^T + bias. W [out, in] and bias are frozen, A [r, in] and B [out, r] train."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x, weight, a, b)
        ctx.scale = scale
        return linear(x, torch.addmm(weight, b, a, alpha=scale), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, a, b = ctx.saved_tensors
        rows_x, rows_g = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        grad_x = grad_a = grad_b = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ torch.addmm(weight, b, a, alpha=ctx.scale)
        if ctx.needs_input_grad[3]:
            grad_a = (b.t() @ rows_g.t()) @ rows_x * ctx.scale
        if ctx.needs_input_grad[4]:
            grad_b = ((a @ rows_x.t()) @ rows_g).t() * ctx.scale
        return grad_x, None, None, grad_a, grad_b, None
