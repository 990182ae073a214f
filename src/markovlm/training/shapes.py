"""Sizes of a model from its config.json alone: no weights are loaded, nothing else is fetched."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Any

from markovlm.config import RunConfig
from markovlm.config.model import Lora
from markovlm.errors import UserError
from markovlm.models.adapters import LOAD_ERRORS
from markovlm.models.load import explain_load_error
from markovlm.models.registry import check_path, resolve
from markovlm.models.shared_prefix import has_window

# Shapes of the models that the paper names, so that nobody needs to ask the Hub. Facts of their config.json.
_LLAMA_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 128256, "max_position_embeddings": 131072, "tie_word_embeddings": False,
}  # fmt: skip
_QWEN_4B = {
    "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960, "tie_word_embeddings": True,
}  # fmt: skip
_SMOLLM2 = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    "vocab_size": 49152, "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip
_GEMMA3_270M = {
    "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1,
    "head_dim": 256, "vocab_size": 262144, "max_position_embeddings": 32768, "sliding_window": 512, "tie_word_embeddings": True,
}  # fmt: skip
KNOWN_SHAPES: dict[str, tuple[str, dict[str, Any]]] = {  # model -> transformers' model_type and its configuration
    "meta-llama/Llama-3.1-8B": ("llama", _LLAMA_8B),
    "meta-llama/Llama-3.1-8B-Instruct": ("llama", _LLAMA_8B),
    "Qwen/Qwen3-4B": ("qwen3", _QWEN_4B),
    "smollm2": ("llama", _SMOLLM2),
    "gemma3-270m": ("gemma3_text", _GEMMA3_270M),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder: sizes, and how many parameters it and its adapter have."""

    source: str  # where the sizes come from
    parameters: int
    adapter_parameters: int
    layers: int
    hidden: int
    inner: int
    query: int  # heads * head size
    key: int  # key-value heads * head size
    key_heads: int
    vocabulary: int
    linear: int  # parameters of linear maps between embeddings and head: what quantization touches
    outputs: int  # of those maps, features in all: what int8 has a scale for
    largest: int  # parameters of the largest of them
    adapted: int  # parameters of the maps that carry an adapter
    plain_attention: bool = True  # torch's own, over keys and values of all columns


@dataclass(frozen=True, slots=True)
class WeightCounts:
    """How many parameters a model has, and where."""

    parameters: int
    linear: int  # of linear maps between embeddings and head: what quantization touches
    outputs: int  # features of those maps in all: what int8 has a scale for


def read_weights(config: RunConfig) -> WeightCounts:
    """Parameter counts of any causal model. Raises UserError as `read_shape`."""
    return _weights(_without_weights(config, _model_config(config)[0]))


def read_shape(config: RunConfig) -> Shape:
    """Sizes of the model from the table above or its config.json (the Hub's, if need be); weights are never loaded.

    Raises UserError if neither knows the model, or it has no attention, which the estimate's formulas are of.
    """
    found, source = _model_config(config)
    model = _without_weights(config, found)
    text = found.get_text_config()
    heads = getattr(text, "num_attention_heads", None)
    if not heads:
        raise UserError(f"model: {config.model!r} has only recurrent layers, for which there is no memory estimate")
    head = getattr(text, "head_dim", None) or text.hidden_size // heads
    maps, counted = _linear_maps(model), _weights(model)
    key_heads = getattr(text, "num_key_value_heads", None) or heads
    return Shape(
        source=source,
        parameters=counted.parameters,
        adapter_parameters=adapter_parameters(model, config.lora),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or 4 * text.hidden_size,
        query=heads * head,
        key=key_heads * head,
        key_heads=key_heads,
        vocabulary=text.vocab_size,
        linear=counted.linear,
        outputs=counted.outputs,
        largest=max((weight.numel() for _, weight in maps), default=0),
        adapted=sum(weight.numel() for name, weight in maps if _is_target(name, config.lora)),
        plain_attention=_plain_attention(model, text),
    )


def _plain_attention(model: Any, text: Any) -> bool:
    """As far as it is seen without weights. Falcon knows sdpa, but calls it by itself."""
    looked_up = hasattr(sys.modules[type(model).__module__], "ALL_ATTENTION_FUNCTIONS")
    latents = getattr(text, "kv_lora_rank", None)
    return bool(getattr(model, "_supports_sdpa", False) and looked_up and not latents and not has_window(text))


def _weights(model: Any) -> WeightCounts:
    maps = _linear_maps(model)
    return WeightCounts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        linear=sum(weight.numel() for _, weight in maps),
        outputs=sum(weight.shape[0] for _, weight in maps),
    )


def _without_weights(config: RunConfig, found: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(found, trust_remote_code=config.loading.trust_remote_code)
    except (ValueError, ImportError, TypeError, AttributeError) as error:
        raise UserError(f"model: {config.model!r} is not a causal language model: {' '.join(str(error).split()):.160}") from None


def _model_config(config: RunConfig) -> tuple[Any, str]:
    from transformers import AutoConfig

    loading = config.loading
    options: Any = {"trust_remote_code": loading.trust_remote_code, "revision": loading.revision}
    if config.model in KNOWN_SHAPES:
        kind, sizes = KNOWN_SHAPES[config.model]
        return AutoConfig.for_model(kind, **sizes), "the package's table of known models"
    check_path(config.model)
    try:
        found = AutoConfig.from_pretrained(resolve(config.model), **options)
    except LOAD_ERRORS as error:  # not there, gated, offline, or of an unknown kind
        raise UserError(explain_load_error(config.model, error)) from None
    return found, "the model's config.json"


def adapter_parameters(model: Any, lora: Lora) -> int:
    """Trainable parameters that LoRA adds: rank * (inputs + outputs) of every linear map it goes on."""
    return sum(lora.rank * sum(weight.shape) for name, weight in _linear_maps(model) if _is_target(name, lora))


def _linear_maps(model: Any) -> list[tuple[str, Any]]:
    """Name and weight of every linear map but the output head."""
    head = model.get_output_embeddings()
    return [
        (name, module.weight)
        for name, module in model.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D") and module is not head
    ]


def _is_target(name: str, lora: Lora) -> bool:
    """As PEFT reads `target_modules`: all linear maps, a pattern for whole names, or last parts of names."""
    if isinstance(lora.targets, str):
        return lora.targets == "all-linear" or re.fullmatch(lora.targets, name) is not None
    return name.rpartition(".")[2] in lora.targets
