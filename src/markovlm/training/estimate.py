"""An estimate of the memory of a training run, by formula: no weights are loaded. Bytes throughout.

    peak = weights + adapter + max(sampling, scoring, training pass, evaluation)

    weights         parameters * bytes of their type
    adapter         20 a trainable parameter: itself, Adam's two moments, the gradient and its sum over micro-batches
    sampling        KV cache of the rows sampled at once, and the distribution over the vocabulary of one token of each
    scoring         the answers of all CoTs, read at once without gradient: their KV cache, what one layer works with, the logits
    training pass   what autograd keeps of a micro-batch (below), and one chunk of logits
    evaluation      as sampling, for its own number of rows

What autograd keeps, a token and a layer, in a gated decoder with adapters on all its linear maps (H hidden, I inner, Q
query width, K key width that attention sees, c bytes of the base's type): the inputs of both norms, of every adapter
(adapters compute in float32, so a base in less is copied for each), of attention and of the gate:

    float32 base    4 (4 H + 3 Q + 4 I) + 8 Q                      every linear map shares its input with its neighbours
    smaller base    28 H + 4 Q + (4 + 3 c) I + c (2 Q) + 2 c Q     each adapter has its own float32 copy

where the last term (keys and values) also counts the shared prompt, which is repeated for every row. CUDA's own context
(about half a GB) and the allocator's fragmentation come on top. Measured against peaks in tests/training/test_estimate.py.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from markovlm.config import RunConfig
from markovlm.config.model import Lora
from markovlm.errors import UserError
from markovlm.models.load import pick_device
from markovlm.models.logprobs import _CHUNK_ELEMENTS as CHUNK_ELEMENTS
from markovlm.models.registry import resolve

ADAPTER_BYTES = 20  # a trainable parameter, all in float32
_LOGIT_COPIES = 7  # float32 tensors as large as a chunk of logits that exist at once: both policies, KL, entropy, gradient
_DRAW_BYTES = 24  # a vocabulary entry while a token is drawn: logits, ln p, p, and p and its running sum in float64
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}

# Shapes of the models of METHOD §4, so that nobody needs to ask the Hub. Facts of their config.json.
_LLAMA_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 128256, "max_position_embeddings": 131072, "tie_word_embeddings": False,
}  # fmt: skip
_QWEN_4B = {
    "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960, "tie_word_embeddings": True,
}  # fmt: skip
KNOWN_SHAPES: dict[str, tuple[str, dict[str, Any]]] = {  # model -> transformers' model_type and its configuration
    "meta-llama/Llama-3.1-8B": ("llama", _LLAMA_8B),
    "meta-llama/Llama-3.1-8B-Instruct": ("llama", _LLAMA_8B),
    "Qwen/Qwen3-4B": ("qwen3", _QWEN_4B),
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
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Workload:
    """Tokens of one question's parts; the CoT budget counts as used up."""

    prompt: int
    reader_prompt: int  # question hidden (or not, where conditioning is non-Markovian)
    cot: int
    answer: int  # header and gold answer
    source: str  # how the lengths are known


@dataclass(frozen=True, slots=True)
class Memory:
    """Estimated bytes. `peak` is the largest sum of what exists at once."""

    weights: int
    adapter: int
    sampling_cache: int
    sampling_logits: int
    scoring: int
    activations: int
    logits_chunk: int
    evaluation: int
    microbatch_rows: int
    peak: int

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def estimate(config: RunConfig, shape: Shape, work: Workload) -> Memory:
    """Peak memory of a run on one device."""
    size = element_bytes(config)
    weights, adapter = shape.parameters * size, shape.adapter_parameters * ADAPTER_BYTES
    samples = config.rollouts.questions_per_step * config.rollouts.group_size
    cache, logits = _sampling(config, shape, work, samples)
    activations, chunk, rows = _training(config, shape, work, samples)
    evaluation = sum(_sampling(config, shape, work, config.evaluation.batch_size)) if config.training.eval_every else 0
    scoring = _scoring(config, shape, work, samples)
    peak = weights + adapter + max(cache + logits, scoring, activations + chunk, evaluation)
    return Memory(weights, adapter, cache, logits, scoring, activations, chunk, evaluation, rows, peak)


def element_bytes(config: RunConfig) -> int:
    """Of the base's weights: as `loading.dtype` says, and as its `auto` picks by device."""
    dtype = config.loading.dtype
    if dtype != "auto":
        return _BYTES[dtype]
    return 2 if pick_device(config.loading.device).type == "cuda" else 4


def _sampling(config: RunConfig, shape: Shape, work: Workload, rows: int) -> tuple[int, int]:
    """KV cache and draw of the rows that are sampled at once."""
    length = work.prompt + work.cot
    rows = max(1, min(rows, config.rollouts.batch_tokens // length))
    return rows * length * _cache_bytes(config, shape), rows * shape.vocabulary * (_DRAW_BYTES + element_bytes(config))


def _scoring(config: RunConfig, shape: Shape, work: Workload, rows: int) -> int:
    """The answer pass over all samples of a step: what one layer's gated map holds, the cache, a chunk of logits."""
    shared = config.training.prompt_sharing != "padded"
    own = work.cot + work.answer + (0 if shared else work.reader_prompt)
    layer = rows * own * 3 * (shape.hidden + shape.inner) * element_bytes(config)
    cache = rows * (work.reader_prompt + own) * _cache_bytes(config, shape) if shared else 0
    return layer + cache + min(rows * work.answer, max(1, CHUNK_ELEMENTS // shape.vocabulary)) * shape.vocabulary * 4 * 3


def _cache_bytes(config: RunConfig, shape: Shape) -> int:
    """Keys and values of one token in all layers."""
    return 2 * shape.key * shape.layers * element_bytes(config)


def _training(config: RunConfig, shape: Shape, work: Workload, samples: int) -> tuple[int, int, int]:
    """What autograd keeps of a micro-batch, the logits beside it, and the micro-batch's rows."""
    shared = config.training.prompt_sharing != "padded"
    own = 2 * work.cot + work.answer + (0 if shared else work.prompt + work.reader_prompt)
    rows = max(1, min(samples, config.training.microbatch_tokens // own))
    questions = -(-rows // config.rollouts.group_size)
    kept = _kept(config, shape, rows, questions, work.prompt, work.cot, shared)
    if config.objective.actor_reward_weight.maximum > 0:  # the answer's pass is differentiated too
        kept += _kept(config, shape, rows, 1, work.reader_prompt, work.cot + work.answer, shared)
    chunk = min(rows * work.cot, max(1, CHUNK_ELEMENTS // shape.vocabulary)) * shape.vocabulary * 4 * _LOGIT_COPIES
    reference = rows * (work.prompt + work.cot) * _cache_bytes(config, shape) if shared else 0  # of the frozen pass
    return kept, max(chunk, reference), rows


def _kept(config: RunConfig, shape: Shape, rows: int, prefixes: int, prefix: int, length: int, shared: bool) -> int:
    """Of one pass: `rows` continuations of `length` tokens behind `prefixes` prompts."""
    tokens = rows * length + prefixes * prefix if shared else rows * (length + prefix)
    keys = rows * (length + prefix) + (prefixes * prefix if shared else 0)  # positions that attention looks at
    layer = tokens * _token_bytes(config, shape) + keys * _key_bytes(config, shape)
    if config.loading.attention == "eager":
        heads = max(1, shape.query // 64)
        layer += tokens * (length + prefix) * heads * (4 + element_bytes(config))
    if config.loading.gradient_checkpointing:
        return tokens * shape.hidden * element_bytes(config) * shape.layers + layer
    return layer * shape.layers


def _token_bytes(config: RunConfig, shape: Shape) -> int:
    """A token and a layer, keys and values apart (the module's docstring derives it)."""
    size = element_bytes(config)
    h, q, i = shape.hidden, shape.query, shape.inner
    inputs = 5 * h + q + i  # of the seven adapters
    # dropout keeps its mask, a byte an element on CUDA, and an input of its own for every adapter
    mask = 0 if config.lora.dropout == 0 else 1 if pick_device(config.loading.device).type == "cuda" else max(size, 4)
    if size >= 4 and not mask:
        return size * (4 * h + 3 * q + 4 * i)
    if size >= 4:  # the adapters' inputs are kept behind dropout instead
        return size * (2 * h + 2 * q + 3 * i) + inputs * (size + mask)
    return 8 * h + (4 + mask) * inputs + 3 * size * i + 2 * size * q


def _key_bytes(config: RunConfig, shape: Shape) -> int:
    """Key and value of one position in a layer; all but flash attention see them repeated for every query head."""
    width = shape.key if config.loading.attention == "flash_attention_2" else shape.query
    return 2 * width * element_bytes(config)


# ------------------------------------------------------------------------------------------------------------ shape


def read_shape(config: RunConfig) -> Shape:
    """Sizes of the model from the table above or its config.json (the Hub's, if need be); weights are never loaded.

    UserError where neither knows the model.
    """
    found, source = _model_config(config)
    model = _without_weights(config, found)
    text = found.get_text_config()
    heads = text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Shape(
        source=source,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        adapter_parameters=adapter_parameters(model, config.lora),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or 4 * text.hidden_size,
        query=heads * head,
        key=(getattr(text, "num_key_value_heads", None) or heads) * head,
        vocabulary=text.vocab_size,
    )


def base_bytes(config: RunConfig) -> int:
    """Of the base's weights. UserError as `read_shape`."""
    model = _without_weights(config, _model_config(config)[0])
    return sum(parameter.numel() for parameter in model.parameters()) * element_bytes(config)


def _without_weights(config: RunConfig, found: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(found, trust_remote_code=config.loading.trust_remote_code)
    except (ValueError, ImportError, TypeError, AttributeError) as error:
        raise UserError(f"model: {config.model!r} is no causal language model: {' '.join(str(error).split()):.160}") from None


def _model_config(config: RunConfig) -> tuple[Any, str]:
    from transformers import AutoConfig

    loading = config.loading
    options: Any = {"trust_remote_code": loading.trust_remote_code, "revision": loading.revision}
    if config.model in KNOWN_SHAPES:
        kind, sizes = KNOWN_SHAPES[config.model]
        return AutoConfig.for_model(kind, **sizes), "the package's table of known models"
    try:
        found = AutoConfig.from_pretrained(resolve(config.model), **options)
    except (OSError, ValueError) as error:  # not there, gated, offline, or of an unknown kind
        reason = " ".join(str(error).split())
        raise UserError(f"model: the configuration of {config.model!r} can't be read ({reason:.120})") from None
    return found, "the model's config.json"


def adapter_parameters(model: Any, lora: Lora) -> int:
    """Trainable parameters that LoRA adds: rank * (inputs + outputs) of every linear map it goes on."""
    head = model.get_output_embeddings()
    total = 0
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        linear = type(module).__name__ in ("Linear", "Conv1D") and weight is not None and module is not head
        if linear and weight is not None and _is_target(name, lora):
            total += lora.rank * sum(weight.shape)
    return total


def _is_target(name: str, lora: Lora) -> bool:
    """As PEFT reads `target_modules`: all linear maps, a pattern for whole names, or last parts of names."""
    if isinstance(lora.targets, str):
        return lora.targets == "all-linear" or re.fullmatch(lora.targets, name) is not None
    return name.rpartition(".")[2] in lora.targets
