"""An estimate of the memory of a training run, by formula: no weights are loaded. Bytes throughout.

    peak = weights + adapter + max(sampling, scoring, training, evaluation)

    weights      parameters * bytes of their type; with loading.quantization the linear maps in 4.13 or 8 bits, the rest as before
    adapter      20 a trainable parameter: itself, Adam's two moments, the gradient and its sum over micro-batches
    sampling     KV cache of the rows sampled at once, the distribution over the vocabulary of one token of each, and (small full-precision
                 models) merged copies of the adapted weights
    scoring      the answers of all CoTs, read at once: their KV cache, what one layer works with, the logits; where the whole step is one
                 micro-batch, what autograd keeps of it instead, since the training pass uses it
    training     what autograd keeps of a micro-batch (below), and beside it the largest of: a chunk of logits; the frozen policy's pass;
                 with checkpointing one layer, computed again, and its gradients
    evaluation   as sampling, for its own number of rows

Where decoding keeps a cache of one shape (rollouts.static_cache: on a GPU) that of sampling stays beside all phases.

Over N processes each has the questions of a step divided by N, rounded up; with fsdp2 1/N of the weights and twice the largest piece that is
gathered (`held_weights`; by formula, not measured).

What autograd keeps, a token and a layer, in a gated decoder with adapters on all its linear maps (H hidden, I inner, Q
query width, K key width that attention sees, c bytes of the type that is computed in): the inputs of both norms, of every adapter
(adapters compute in float32, so a base in less is copied for each), of attention and of the gate:

    float32 base    4 (4 H + 3 Q + 4 I) + 8 Q                      every linear map shares its input with its neighbours
    smaller base    28 H + 4 Q + (4 + 3 c) I + c (2 Q) + 2 c Q     each adapter has its own float32 copy

where the last term (keys and values) also counts the shared prompt, which is repeated for every row; on a CPU, where it is long, its keys
and values stand once and unrepeated instead, 4 c K (`shared_prefix`). With checkpointing a layer keeps
c H a token, and of a shared prompt its keys and values, once. int8 keeps c (2 H + Q + I) more: bitsandbytes holds every input, checkpointing
or not. CUDA's own context or Python's libraries, and what the allocator can't hand out, come on top (`cards`). Measured against the live tensors of
whole steps in tests/training/test_estimate.py and benchmarks/memory.py.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import torch

from markovlm.config import RunConfig
from markovlm.models.language import MERGE_LIMIT
from markovlm.models.logprobs import chunk_elements
from markovlm.models.quantization import BITS
from markovlm.models.shared_prefix import saves_enough
from markovlm.rollouts.static import shape_for
from markovlm.training.shapes import Shape, WeightCounts, read_weights

ADAPTER_BYTES = 20  # a trainable parameter, all in float32
_LOGIT_COPIES = 7  # float32 tensors as large as the logits that exist at once, where one chunk holds all: both policies, KL, entropy, gradient
_CHUNK_COPIES = 5  # the same where there are several chunks, each with its gradient and gone before the next
_DRAW_BYTES = 24  # a vocabulary entry while a token is drawn: logits, ln p, p, and p and its running sum in float64
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}


@dataclass(frozen=True, slots=True)
class Workload:
    """Token counts of one question's parts; the CoT budget counts as fully used."""

    prompt: int
    reader_prompt: int  # question hidden (or not, where conditioning is non-Markovian)
    cot: int
    answer: int  # header and gold answer
    source: str  # how the lengths are known
    header: int = 0  # of `answer`: tokens that nobody scores


@dataclass(frozen=True, slots=True)
class Spread:
    """The number of processes (one per GPU), and whether the frozen base is sharded over them (fsdp2) or on each (ddp)."""

    processes: int = 1
    dealt: bool = False


ALONE = Spread()


@dataclass(frozen=True, slots=True)
class Memory:
    """Estimated bytes. `peak` is the largest sum of what exists at once, `peak_phase` when that is."""

    weights: int
    adapter: int
    sampling_cache: int
    kept_cache: int  # of it, what a recorded shape keeps from one step's sampling to the next
    sampling_logits: int
    merged_weights: int  # copies made for sampling
    scoring: int
    activations: int  # what autograd keeps of a micro-batch
    logits_chunk: int
    reference_pass: int  # the frozen policy's, beside the activations
    recomputed_layer: int  # with checkpointing: a layer in backward, beside the activations
    evaluation: int
    microbatch_rows: int
    peak: int
    peak_phase: str  # sampling, scoring, training or evaluation

    @property
    def phases(self) -> dict[str, int]:
        """Bytes besides weights and adapter, by phase."""
        beside = max(self.logits_chunk, self.reference_pass, self.recomputed_layer)
        return {
            "sampling": self.sampling_cache + self.sampling_logits + self.merged_weights,
            "scoring": self.scoring + self.kept_cache,
            "training": self.activations + beside + self.kept_cache,
            "evaluation": self.evaluation + self.kept_cache,
        }

    def to_json(self) -> dict[str, int | str]:
        return asdict(self)


def estimate(config: RunConfig, shape: Shape, work: Workload, spread: Spread = ALONE) -> Memory:
    """Peak memory of a run on one device; with several processes, on the one with the most questions of a step."""
    if spread.dealt:  # rows behind a prompt have copies of its keys
        shape = replace(shape, plain_attention=False)
    weights, adapter = held_weights(config, shape, spread), shape.adapter_parameters * ADAPTER_BYTES
    samples = math.ceil(config.rollouts.questions_per_step / spread.processes) * config.rollouts.group_size
    rows = _microbatch_rows(config, work, samples)
    merged = _merged(config, shape)
    cache, logits = _sampling(config, shape, work, samples, _prompts(config, samples))
    at_once = config.evaluation.batch_size
    evaluation = sum(_sampling(config, shape, work, at_once, at_once)) + merged if config.training.eval_every else 0
    parts = Memory(
        weights=weights,
        adapter=adapter,
        sampling_cache=cache,
        kept_cache=cache if _in_one_shape(config) and not spread.dealt else 0,
        sampling_logits=logits,
        merged_weights=merged,
        scoring=_scoring(config, shape, work, samples),
        activations=_activations(config, shape, work, rows),
        logits_chunk=_logits(config, shape, rows * work.cot),
        reference_pass=_without_gradient(config, shape, rows, _prompts(config, rows), work.prompt, work.cot),
        recomputed_layer=_recomputed(config, shape, work, rows),
        evaluation=evaluation,
        microbatch_rows=rows,
        peak=0,
        peak_phase="",
    )
    phase, largest = max(parts.phases.items(), key=lambda pair: pair[1])
    return Memory(**{**parts.to_json(), "peak": weights + adapter + largest, "peak_phase": phase})  # pyright: ignore[reportArgumentType]


def _tokens_at_once(config: RunConfig, shape: Shape) -> int:
    """As `models.logprobs.tokens_at_once`."""
    return max(1, chunk_elements("cuda" if on_cuda(config) else "cpu") // shape.vocabulary)


def _logits(config: RunConfig, shape: Shape, tokens: int) -> int:
    """What exists at once while so many tokens are scored with gradient."""
    at_once = _tokens_at_once(config, shape)
    copies = _CHUNK_COPIES if tokens > at_once else _LOGIT_COPIES
    return min(tokens, at_once) * shape.vocabulary * 4 * copies


def element_bytes(config: RunConfig) -> int:
    """Bytes per number of what the base computes in: as `loading.dtype` says, and as its `auto` picks by device."""
    dtype = config.loading.dtype
    if dtype != "auto":
        return _BYTES[dtype]
    return 2 if on_cuda(config) else 4


def on_cuda(config: RunConfig) -> bool:
    """Whether the run will use a CUDA device of this machine."""
    device = config.loading.device
    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())


def weight_bytes(config: RunConfig, sizes: Shape | WeightCounts) -> int:
    """Bytes of the frozen base: its linear maps as quantized, embeddings, norms and head in the dtype of the arithmetic."""
    size, kind = element_bytes(config), config.loading.quantization
    if kind == "none":
        return sizes.parameters * size
    scales = 4 * sizes.outputs if kind == "int8" else 0
    return (sizes.parameters - sizes.linear) * size + round(sizes.linear * BITS[kind] / 8) + scales


def held_weights(config: RunConfig, shape: Shape, spread: Spread) -> int:
    """The base on one process: all of it, or its part and, while a pass is in it, the largest of the pieces that are gathered (a layer, the
    embeddings), once as it arrives and once as it is used."""
    whole = weight_bytes(config, shape)
    if not spread.dealt:
        return whole
    piece = max(shape.linear // shape.layers, shape.vocabulary * shape.hidden) * element_bytes(config)
    return whole // spread.processes + 2 * piece


def base_bytes(config: RunConfig) -> int:
    """`weight_bytes` of any model that can be made, whether or not the rest can be estimated. UserError as `read_shape`."""
    return weight_bytes(config, read_weights(config))


def _shared(config: RunConfig) -> bool:
    return config.training.prompt_sharing != "padded"


def _merged(config: RunConfig, shape: Shape) -> int:
    """Copies of the adapted weights while a small full-precision model samples."""
    small = shape.parameters + shape.adapter_parameters <= MERGE_LIMIT
    size = element_bytes(config)
    return shape.adapted * size if small and size >= 4 and config.loading.quantization == "none" else 0


def _prompts(config: RunConfig, rows: int) -> int:
    """Of so many CoTs."""
    return -(-rows // config.rollouts.group_size)


def _shares_keys(config: RunConfig, shape: Shape, rows: int, prefixes: int, prefix: int) -> bool:
    """Do rows look at the keys of a prefix in one place (`shared_prefix.can_share`, `pays`), if they share it at all?"""
    cpu = config.loading.device == "cpu" or (config.loading.device == "auto" and not on_cuda(config))
    plain = cpu and config.loading.attention in ("auto", "sdpa") and shape.plain_attention
    return plain and saves_enough(rows, prefixes, prefix, shape.key)


def _sampling(config: RunConfig, shape: Shape, work: Workload, wanted: int, prompts: int) -> tuple[int, int]:
    """KV cache and draw of the rows that are sampled at once."""
    length = work.prompt + work.cot
    rows = max(1, min(wanted, config.rollouts.batch_tokens // length))
    tokens = math.prod(shape_for(rows, length)) if _in_one_shape(config) else rows * length
    if rows == wanted and not _in_one_shape(config) and _shares_keys(config, shape, rows, prompts, work.prompt):
        tokens = rows * work.cot + prompts * work.prompt
    return tokens * _cache_bytes(config, shape), rows * shape.vocabulary * (_DRAW_BYTES + element_bytes(config))


def _in_one_shape(config: RunConfig) -> bool:
    """Does decoding keep a cache of one shape (`rollouts.static_cache`)? Taken to be so where a GPU's architecture allows it."""
    if config.rollouts.foreign or config.loading.quantization != "none" or config.loading.attention.startswith("flash"):
        return False
    setting = config.rollouts.static_cache
    return setting == "on" or (setting == "auto" and on_cuda(config))


def _scoring(config: RunConfig, shape: Shape, work: Workload, rows: int) -> int:
    """The answer pass over all samples of a step, and a chunk of logits; with its graph where that is kept for the training pass."""
    chunk = min(rows * (work.answer - work.header), _tokens_at_once(config, shape)) * shape.vocabulary * 4
    if _holds_graph(config, work, rows):
        return kept(config, shape, rows, 1, work.reader_prompt, work.cot + work.answer) + chunk * 4 + _dequantized(config, shape)
    return _without_gradient(config, shape, rows, 1, work.reader_prompt, work.cot + work.answer) + chunk * 3


def _holds_graph(config: RunConfig, work: Workload, samples: int) -> bool:
    """As `training.scoring` decides: one micro-batch, a live reward that the actor reads, no dropout."""
    live = config.objective.actor_reward_weight.maximum > 0 and config.objective.reader == "actor"
    return live and config.lora.dropout == 0 and _microbatch_rows(config, work, samples) == samples


def _without_gradient(config: RunConfig, shape: Shape, rows: int, prefixes: int, prefix: int, length: int) -> int:
    """A pass without gradient: what one layer works with, and the cache where prompts are shared."""
    own = length + (0 if _shared(config) else prefix)
    layer = rows * own * 3 * (shape.hidden + shape.inner) * element_bytes(config)
    once = _shares_keys(config, shape, rows, prefixes, prefix)
    cached = rows * length + (prefixes if once else rows) * prefix
    cache = cached * _cache_bytes(config, shape) if _shared(config) else 0
    return layer + cache + _dequantized(config, shape)


def _cache_bytes(config: RunConfig, shape: Shape) -> int:
    """Keys and values of one token in all layers."""
    return 2 * shape.key * shape.layers * element_bytes(config)


def _dequantized(config: RunConfig, shape: Shape) -> int:
    """One map's weights as they are multiplied with."""
    return 0 if config.loading.quantization == "none" else shape.largest * element_bytes(config)


# ------------------------------------------------------------------------------------------------------- with gradient


def _microbatch_rows(config: RunConfig, work: Workload, samples: int) -> int:
    own = 2 * work.cot + work.answer + (0 if _shared(config) else work.prompt + work.reader_prompt)
    return max(1, min(samples, config.training.microbatch_tokens // own))


def _passes(config: RunConfig, work: Workload, rows: int) -> list[tuple[int, int, int]]:
    """Those that are differentiated: number of prompts, their tokens, tokens of a continuation."""
    found = [(_prompts(config, rows), work.prompt, work.cot)]
    if config.objective.actor_reward_weight.maximum > 0:
        found.append((1, work.reader_prompt, work.cot + work.answer))
    return found


def _activations(config: RunConfig, shape: Shape, work: Workload, rows: int) -> int:
    """What autograd keeps of a micro-batch."""
    return sum(kept(config, shape, rows, *one) for one in _passes(config, work, rows))


def kept(config: RunConfig, shape: Shape, rows: int, prefixes: int, prefix: int, length: int) -> int:
    """Bytes that one pass keeps: `rows` continuations of `length` tokens after `prefixes` prompts."""
    tokens = _tokens(config, rows, prefixes, prefix, length)
    if not config.loading.gradient_checkpointing:
        return _layer(config, shape, rows, prefixes, prefix, length) * shape.layers
    # the last norm keeps its input and its result as well
    inputs = tokens * shape.hidden * element_bytes(config) * (shape.layers + 2)
    prompts = prefixes * prefix * _cache_bytes(config, shape) if _shared(config) else 0
    return inputs + prompts + tokens * _held_by_int8(config, shape) * shape.layers


def _tokens(config: RunConfig, rows: int, prefixes: int, prefix: int, length: int) -> int:
    return rows * length + prefixes * prefix if _shared(config) else rows * (length + prefix)


def _layer(config: RunConfig, shape: Shape, rows: int, prefixes: int, prefix: int, length: int) -> int:
    """What autograd keeps of one layer."""
    tokens = _tokens(config, rows, prefixes, prefix, length)
    keys = _seen_by_rows(config, shape, rows, prefixes, prefix, length)
    keys += prefixes * prefix * _key_bytes(config, shape) if _shared(config) else 0  # as the prompts' own pass looks at them
    layer = tokens * (_token_bytes(config, shape) + _held_by_int8(config, shape)) + keys
    if config.loading.attention == "eager":
        heads = max(1, shape.query // 64)
        layer += tokens * (length + prefix) * heads * (4 + element_bytes(config))
    return layer


def _seen_by_rows(config: RunConfig, shape: Shape, rows: int, prefixes: int, prefix: int, length: int) -> int:
    """Keys and values of a layer that the rows look at: each its own and a prefix; a prefix in one place is not repeated for heads either."""
    if _shared(config) and _shares_keys(config, shape, rows, prefixes, prefix):
        return (rows * length + prefixes * prefix) * 2 * shape.key * element_bytes(config)
    return rows * (length + prefix) * _key_bytes(config, shape)


def _recomputed(config: RunConfig, shape: Shape, work: Workload, rows: int) -> int:
    """With checkpointing: the largest part of a pass in backward, one layer of it with the gradients of its widest tensors."""
    if not config.loading.gradient_checkpointing:
        return _dequantized(config, shape)
    largest = 0
    for prefixes, prefix, length in _passes(config, work, rows):
        own = rows * (length + (0 if _shared(config) else prefix))
        keys = _seen_by_rows(config, shape, rows, prefixes, prefix, length)
        layer = own * (_token_bytes(config, shape) + _held_by_int8(config, shape)) + keys
        gradients = own * 2 * shape.inner * max(4, element_bytes(config))
        prompts = (
            prefixes * prefix * _cache_bytes(config, shape) if _shared(config) else 0
        )  # gradients of keys and values, so far
        largest = max(largest, layer + gradients + prompts)
    return largest + _dequantized(config, shape)


def _token_bytes(config: RunConfig, shape: Shape) -> int:
    """A token and a layer, keys and values apart (the module's docstring derives it)."""
    size = element_bytes(config)
    h, q, i = shape.hidden, shape.query, shape.inner
    inputs = 5 * h + q + i  # of the seven adapters
    # dropout keeps its mask, a byte an element on CUDA, and an input of its own for every adapter
    mask = 0 if config.lora.dropout == 0 else 1 if on_cuda(config) else max(size, 4)
    if size >= 4 and not mask:
        return size * (4 * h + 3 * q + 4 * i)
    if size >= 4:  # the adapters' inputs are kept behind dropout instead
        return size * (2 * h + 2 * q + 3 * i) + inputs * (size + mask)
    return 8 * h + (4 + mask) * inputs + 3 * size * i + 2 * size * q


def _held_by_int8(config: RunConfig, shape: Shape) -> int:
    """A token and a layer: inputs of the maps, which a float32 base keeps anyway but for checkpointing."""
    size = element_bytes(config)
    if config.loading.quantization != "int8" or (size >= 4 and not config.loading.gradient_checkpointing):
        return 0
    return size * (2 * shape.hidden + shape.query + shape.inner)


def _key_bytes(config: RunConfig, shape: Shape) -> int:
    """Key and value of one position in a layer; all but flash attention see them repeated for every query head, a single one as a view."""
    width = shape.key if config.loading.attention == "flash_attention_2" or shape.key_heads == 1 else shape.query
    return 2 * width * element_bytes(config)
