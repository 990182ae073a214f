"""What a run needs on its machine besides its tensors, which GPUs suffice, and settings with which a smaller one would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markovlm.config import RunConfig
from markovlm.training.estimate import ALONE, Memory, Spread, Workload, estimate
from markovlm.training.shapes import Shape

_MIB = 1 << 20
CARDS = {  # bytes, as nvidia-smi counts them
    "RTX 4090 24 GB": 24564 * _MIB,
    "A100 40 GB": 40960 * _MIB,
    "L40S 48 GB": 46068 * _MIB,
    "A100 80 GB": 81920 * _MIB,
    "H100 80 GB": 81559 * _MIB,
    "H200 141 GB": 143771 * _MIB,
}
CONTEXT = 600_000_000  # CUDA's own, before a tensor is made
FRAGMENTATION = 0.05  # of the estimate: what the allocator can't hand out
PROCESS = 450_000_000  # resident before a model is loaded: the interpreter, torch, transformers, PEFT (Linux, torch's CPU build)
# of the largest phase: what glibc's heap holds beside live tensors (docs/performance.md, Memory, has the measurements)
HEAP = 0.4

# what may be changed, the cheapest first; "sizes" are halved until they fit
_TRIES: tuple[tuple[dict[str, Any], bool], ...] = (
    ({}, True),
    ({"loading.gradient_checkpointing": True}, False),
    ({"loading.gradient_checkpointing": True}, True),
    ({"loading.quantization": "nf4"}, False),
    ({"loading.quantization": "nf4"}, True),
    ({"loading.quantization": "nf4", "loading.gradient_checkpointing": True}, False),
    ({"loading.quantization": "nf4", "loading.gradient_checkpointing": True}, True),
)
_SIZES = {  # phase -> the key that bounds it, and its least value
    "training": ("training.microbatch_tokens", 1024),
    "sampling": ("rollouts.batch_tokens", 64),
    "evaluation": ("evaluation.batch_size", 1),
}


@dataclass(frozen=True, slots=True)
class Advice:
    """Why a card is too small, and settings with which it would suffice."""

    card: str
    phase: str  # the one that does not fit
    missing: int  # bytes
    settings: dict[str, Any]  # empty: nothing of what is tried here is enough
    peak: int  # with them


def on_gpu(config: RunConfig) -> RunConfig:
    """The run as it would be on a GPU, whatever this machine has."""
    if config.loading.device.startswith("cuda"):
        return config
    return _with(config, {"loading.device": "cuda"})


def needed(memory: Memory) -> int:
    """Bytes of memory that a card must have."""
    return CONTEXT + round(memory.peak * (1 + FRAGMENTATION))


def resident(memory: Memory) -> int:
    """Bytes that a process on a CPU comes to have resident: with its libraries, and with what glibc's malloc does not give back.

    Tensors of some megabytes come from one heap, which shrinks only at its end: what sampling used stays beside the later phases, and the
    largest phase leaves holes. With MALLOC_MMAP_THRESHOLD_ set they are mapped one by one, and this is `PROCESS` + `peak`.
    """
    phases = memory.phases
    left = 0 if memory.peak_phase == "sampling" else phases["sampling"]
    return PROCESS + memory.weights + memory.adapter + left + round(phases[memory.peak_phase] * (1 + HEAP))


def fits(memory: Memory) -> dict[str, bool]:
    """Card -> whether it is large enough."""
    return {card: needed(memory) <= size for card, size in CARDS.items()}


def advise(config: RunConfig, shape: Shape, work: Workload, spread: Spread = ALONE) -> Advice | None:
    """About the smallest card that is too small; None if there is none."""
    now = estimate(config, shape, work, spread)
    card = next((card for card, fit in fits(now).items() if not fit), None)
    if card is None:
        return None
    missing = needed(now) - CARDS[card]
    for change, sizes in _TRIES:
        settings = _settings(config, shape, work, spread, change, CARDS[card], sizes)
        if settings is not None:
            return Advice(card, now.peak_phase, missing, settings, estimate(_with(config, settings), shape, work, spread).peak)
    return Advice(card, now.peak_phase, missing, {}, now.peak)


def _settings(
    config: RunConfig, shape: Shape, work: Workload, spread: Spread, change: dict[str, Any], size: int, halve: bool
) -> dict[str, Any] | None:
    """`change`, and with `halve` smaller sizes, until the run fits into `size` bytes; None if it does not."""
    if change and all(_value(config, key) == value for key, value in change.items()):
        return None  # it is so already
    if "loading.quantization" in change and (config.loading.dtype == "float64" or spread.dealt):
        return None  # a quantized base is not sharded
    found = dict(change)
    while True:
        memory = estimate(_with(config, found), shape, work, spread)
        if needed(memory) <= size:
            return found
        key, least = _SIZES.get(memory.peak_phase, ("", 0))
        at = found.get(key) or (_value(config, key) if key else 0)
        if not halve or not key or at // 2 < least:
            return None
        found[key] = at // 2


def _value(config: RunConfig, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def _with(config: RunConfig, settings: dict[str, Any]) -> RunConfig:
    for key, value in settings.items():
        section, _, name = key.partition(".")
        config = config.model_copy(update={section: getattr(config, section).model_copy(update={name: value})})
    return config
