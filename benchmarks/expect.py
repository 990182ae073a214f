"""What a step needs on a card, by formula: memory (the estimate of `train --dry-run`) and the least time that the card's data sheet allows.

    python benchmarks/expect.py          # no GPU, no weights: seconds

The floor: decoding reads the weights and the cache once a token of the CoTs; prefill and scoring compute two operations a weight
and token, and two more where a gradient goes back (the base's weights have none of their own), with checkpointing two more again.
Nobody reaches a floor; a step far above it has something to gain. Configuration: configs/recommended/gsm8k.yaml, prompts of 256
tokens, answers of 8.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from step import SIZES
from training_runs import markdown

from markovlm.config import RunConfig, build_config, load_yaml, nest
from markovlm.training.cards import CARDS, fits, needed, on_gpu
from markovlm.training.estimate import Memory, Workload, estimate
from markovlm.training.plan import tokens_per_step
from markovlm.training.shapes import Shape, read_shape

ROOT = Path(__file__).resolve().parents[1]
SHAPES = {
    "1B": SIZES["1b"], "8B": SIZES["8b"],
    "70B": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8},
}  # fmt: skip
VOCABULARY = 128256
STEPS = ((1, 12, 100), (1, 32, 100), (4, 16, 100), (1, 32, 400))  # questions, CoTs a question, tokens a CoT
LOADINGS: dict[str, dict[str, Any]] = {
    "bfloat16": {},
    "bfloat16, checkpointing": {"loading.gradient_checkpointing": True},
    "nf4, checkpointing": {"loading.gradient_checkpointing": True, "loading.quantization": "nf4"},
}
DATA_SHEETS = {  # bytes a second, bfloat16 operations a second without sparsity
    "RTX 4090 24 GB": (1.008e12, 165e12),
    "A100 80 GB": (2.039e12, 312e12),
    "H100 80 GB": (3.35e12, 989e12),
    "H200 141 GB": (4.8e12, 989e12),
}


@dataclass(frozen=True)
class Floor:
    """Seconds of a step that a card can't go below."""

    decoding: float
    arithmetic: float

    def __str__(self) -> str:
        return f"{self.decoding:.2f} + {self.arithmetic:.2f}"


def floor(config: RunConfig, shape: Shape, work: Workload, memory: Memory, card: str) -> Floor:
    bandwidth, operations = DATA_SHEETS[card]
    samples = config.rollouts.questions_per_step * config.rollouts.group_size
    tokens = tokens_per_step(config, work)
    cache = 2 * 2 * shape.key * shape.layers  # bytes a token of past
    read = work.cot * (memory.weights + samples * (work.prompt + work.cot / 2) * cache)
    again = 1 if config.loading.gradient_checkpointing else 0
    passes = tokens["scored_with_gradient"] * (2 + again) + tokens["scored_without_gradient"] + tokens["prompts"]
    return Floor(read / bandwidth, (passes + tokens["sampled"]) * 2 * shape.parameters / operations)


def rows(model: Path, name: str) -> list[list[str]]:
    found = []
    for questions, group, cot in STEPS:
        for loading, keys in LOADINGS.items():
            flat = {
                "model": str(model), "loading.dtype": "bfloat16", "rollouts.questions_per_step": questions,
                "rollouts.group_size": group, "rollouts.max_cot_tokens": cot, **keys,
            }  # fmt: skip
            config = on_gpu(build_config(load_yaml(ROOT / "configs" / "recommended" / "gsm8k.yaml"), nest(flat)))
            shape, work = read_shape(config), Workload(256, 64, cot, 8, "assumed")
            memory = estimate(config, shape, work)
            cards = [card for card in CARDS if fits(memory)[card]]
            floors = [str(floor(config, shape, work, memory, card)) if card in cards else "-" for card in DATA_SHEETS]
            bounds = floor(config, shape, work, memory, "H200 141 GB")
            limit = "memory's speed" if bounds.decoding > bounds.arithmetic else "arithmetic"
            found.append(
                [
                    name,
                    f"{questions} x {group} x {cot}",
                    loading,
                    f"{needed(memory) / 1e9:.1f} GB, {memory.peak_phase}",
                    *floors,
                    limit,
                ]
            )
    return found


def main() -> None:
    table: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, sizes in SHAPES.items():
            model = Path(folder) / name
            model.mkdir()
            config = {
                "model_type": "llama",
                "architectures": ["LlamaForCausalLM"],
                "vocab_size": VOCABULARY,
                "max_position_embeddings": 131072,
            }
            (model / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": name == "1B", **sizes}))
            table += rows(model, name)
    columns = ("model", "step", "base", "needs, in which phase", *DATA_SHEETS, "the larger part")
    print(markdown(columns, table))
    print("\nLowest possible seconds per step, decoding + arithmetic; - where the card is too small.")


if __name__ == "__main__":
    sys.exit(main())
