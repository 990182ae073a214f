"""A frozen base in 4 or 8 bits (bitsandbytes): quantized while it is read, so that it is never whole in memory.

nf4: linear layers in blocks of 64 normal-float values, their scales quantized again (about 4.13 bits a weight); arithmetic in
`loading.dtype`. int8: LLM.int8(), weights and activations in 8 bits row by row, columns with outliers in float16; arithmetic in
float16. Embeddings, norms and the output head keep their type, and so does the adapter.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from typing import Any

import torch

from markovlm.errors import UserError

BITS = {"nf4": 4 + 8 / 64 + 32 / (64 * 256), "int8": 8.0}  # a weight of a linear layer; int8 also 32 an output feature


def quantized_arguments(name: str, quantization: str, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` takes beside the dtype; nothing for none. Raises UserError in one line without bitsandbytes."""
    if quantization == "none":
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"loading.quantization: {quantization} needs bitsandbytes: pip install 'markovlm[quantization]' (or leave it at none)"
        )
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)  # at every layer: that int8 computes in float16
    from transformers import BitsAndBytesConfig

    try:
        config = BitsAndBytesConfig(**options(quantization, dtype))
    except (ImportError, ValueError) as error:  # a bitsandbytes that is too old
        raise UserError(f"loading.quantization: {name!r}: {' '.join(str(error).split()):.200}") from None
    return {"quantization_config": config, "device_map": {"": device}}


def settle(name: str, model: Any) -> None:
    """One arithmetic in every pass, and weights that stay what they are. Raises UserError if no layer was quantized.

    In eval mode on a CPU with AVX512-BF16 bitsandbytes repacks 4-bit weights when they are first used, rounds their scales, and
    computes without a gradient, silently; on any CPU its int8 layers leave activations alone in training mode, where sampling
    rounds them.
    """
    layers = [module for module in model.modules() if type(module).__module__.startswith("bitsandbytes.")]
    if not layers:
        raise UserError(f"loading.quantization: {name!r} has no linear layers that can be quantized; use none")
    for layer in layers:
        layer.eval()
        layer.train = functools.partial(_stay, layer)
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def _stay(module: Any, mode: bool = True) -> Any:
    return module


def options(quantization: str, dtype: torch.dtype) -> dict[str, Any]:
    """Of transformers' BitsAndBytesConfig."""
    if quantization == "int8":
        return {"load_in_8bit": True}
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": dtype,
    }


def check_unquantized(name: str, config: Any, quantization: str) -> None:
    """Raise UserError for weights that are already quantized."""
    if quantization != "none" and getattr(config, "quantization_config", None) is not None:
        raise UserError(
            f"loading.quantization: the weights of {name!r} are already quantized; set loading.quantization=none, "
            "or name the model they were made from"
        )


def loading_snippet(quantization: str) -> str:
    """Python for a model card: the argument that loads the base as it was in training."""
    if quantization == "int8":
        return "quantization_config=BitsAndBytesConfig(load_in_8bit=True)"
    return 'quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)'
