"""The estimate of memory that `markovlm train --dry-run` gives, against the live tensors of whole steps on the CPU.

    OMP_NUM_THREADS=1 python benchmarks/memory.py                      # about a minute
    OMP_NUM_THREADS=1 python benchmarks/memory.py --quantized          # needs bitsandbytes (make test-quant has an environment)

Random Llamas of several shapes train two steps; in the second every tensor that an operation makes is counted until nobody holds it
(tests/support/live.py). Weights, adapter and optimizer are counted apart, by their sizes. What a kernel uses inside itself and what a GPU's
allocator can't hand out are not seen.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.step_memory import PHASES, measure, random_llama

SHAPES: dict[str, dict[str, int]] = {
    "192x4": {"hidden": 192, "inner": 512, "layers": 4, "heads": 6, "kv_heads": 2, "vocabulary": 2000},
    "256x8": {"hidden": 256, "inner": 704, "layers": 8, "heads": 4, "kv_heads": 4, "vocabulary": 500},
    "128x12": {"hidden": 128, "inner": 448, "layers": 12, "heads": 4, "kv_heads": 1, "vocabulary": 8000},
}
BATCHES = ((24, 8), (96, 4))  # CoT tokens, group size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quantized", action="store_true", help="bases in nf4 and int8 instead of float32 and bfloat16")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="some of them")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments = parser.parse_args()
    kinds = [("bfloat16", "nf4"), ("bfloat16", "int8")] if arguments.quantized else [("float32", "none"), ("bfloat16", "none")]
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as root:
        for name in arguments.shapes.split(","):
            folder = random_llama(Path(root) / name, **SHAPES[name])
            for (dtype, quantization), checkpointing, sharing, (cot, group) in itertools.product(
                kinds, (False, True), ("shared", "padded"), BATCHES
            ):
                row = one(folder, dtype, quantization, checkpointing, sharing, cot, group)
                ratios.append(row["ratio"])
                label = f"{name:7} {quantization if quantization != 'none' else dtype:9} checkpointing {checkpointing!s:5} {sharing:6}"
                phases = ", ".join(f"{p} {row['estimated'][p] / 1e6:.1f} / {row['measured'][p] / 1e6:.1f}" for p in PHASES)
                text = f"{label} T {cot:3} B {group}: ratio {row['ratio']:.2f}; MB estimated / measured: {phases}"
                print(json.dumps({"shape": name, **row}) if arguments.json else text, flush=True)
    print(f"n = {len(ratios)}: ratio of the peaks {min(ratios):.2f} to {max(ratios):.2f}", file=sys.stderr)


def one(folder: Path, dtype: str, quantization: str, checkpointing: bool, sharing: str, cot: int, group: int) -> dict[str, Any]:
    """Both numbers of a step, by phase, and the ratio of the peaks."""
    measured, found = measure(
        folder, 60, loading__dtype=dtype, loading__quantization=quantization, loading__gradient_checkpointing=checkpointing,
        training__prompt_sharing=sharing, rollouts__questions_per_step=2, rollouts__max_cot_tokens=cot, rollouts__group_size=group,
    )  # fmt: skip
    return {
        "dtype": dtype, "quantization": quantization, "checkpointing": checkpointing, "sharing": sharing, "cot_tokens": cot,
        "group_size": group, "estimated": found.phases, "measured": measured,
        "ratio": max(found.phases.values()) / max(measured.values()),
    }  # fmt: skip


if __name__ == "__main__":
    main()
