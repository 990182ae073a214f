"""Runs for `benchmarks/detection.py`: the embedded model, healthy and destroyed, as compact metric rows in `benchmarks/data/`.

    python benchmarks/detection_runs.py --out DIR [--only NAME,NAME] [--minutes 8]      # about a minute a run on one core
    python benchmarks/detection_runs.py --out DIR --pack                                # write benchmarks/data/detection.jsonl.gz

A run that is there is left alone, so that the command can be repeated until all are made. The guard is off: what is recorded
is what happens when nobody intervenes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from training_runs import VARIANTS, dev_rows, embedded, ended, made

from markovlm.runs.rows import read_rows

PACKED = Path(__file__).parent / "data" / "detection.jsonl.gz"
DEV = 100
HEALTHY = "linear 2e-3 -> 0"  # the default
# variant, learning rates, seeds, steps: in the order in which they are made. 1e-2 destroys, 4e-3 shakes, the default is healthy.
PLAN: tuple[tuple[str, tuple[str, ...], tuple[int, ...], int], ...] = (
    ("grpo", ("1e-2",), (0, 1, 2), 50),
    ("ppo", ("1e-2",), (0, 1), 50),
    ("grpo", (HEALTHY,), (0,), 60),
    ("ema", ("1e-2", HEALTHY), (0,), 50),
    ("ppo_frozen_anchor", ("1e-2", HEALTHY), (0,), 50),
    ("rloo", (HEALTHY,), (0,), 50),
    ("ppo", (HEALTHY,), (0,), 30),
    ("ema", ("1e-2",), (1,), 50),
    ("ppo_frozen_anchor", ("1e-2",), (1,), 50),
    ("dr_grpo", (HEALTHY,), (0,), 30),
    ("exact_match", (HEALTHY,), (0,), 30),
    ("ppo", ("1e-2",), (2,), 50),
    ("ema", ("1e-2",), (2,), 50),
    ("ppo_frozen_anchor", ("1e-2",), (2,), 50),
    ("grpo", (HEALTHY,), (1, 2), 60),
    ("prob", (HEALTHY, "1e-2"), (0,), 50),
    ("expert_iteration", (HEALTHY, "1e-2"), (0,), 50),
    ("rloo", ("1e-2",), (0,), 50),
    ("exact_match", ("1e-2",), (0,), 50),
    ("dr_grpo", ("1e-2",), (0,), 50),
    ("grpo", ("4e-3", "3e-4"), (0,), 80),
    ("ppo", ("4e-3",), (0, 1), 60),
    ("grpo", ("2e-2",), (0,), 40),
    ("non_markovian", ("1e-2",), (0,), 40),
)


def planned() -> Iterator[tuple[str, str, str, int, int]]:
    """(name of the run, variant, learning rate, seed, steps)"""
    for variant, rates, seeds, steps in PLAN:
        for rate in rates:
            for seed in seeds:
                short = rate.removeprefix("linear ").removesuffix(" -> 0")
                yield f"{variant}-{short}-seed{seed}", variant, rate, seed, steps


def rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def compact(out: Path, name: str, variant: str, rate: str, seed: int) -> dict[str, Any]:
    """One run as a JSON object: the columns a verdict can use, and the dev evaluations."""
    rows = read_rows(out / "metrics.jsonl")
    left_out = ("_seconds", "_per_second", "_memory")
    keys = [key for key in rows[0] if not key.endswith(left_out) and not key.startswith(("pass", "grad_norm_"))]
    columns = {key: [rounded(row.get(key)) for row in rows] for key in keys}
    same = {key: values[0] for key, values in columns.items() if key != "step" and len(set(values)) == 1}
    return {
        "name": name, "family": variant, "lr": rate, "seed": seed, "constant": same,
        "columns": {key: values for key, values in columns.items() if key not in same},
        "dev": [[row["step"], rounded(row["accuracy"]), row["n"]] for row in dev_rows(out)],
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="run directories go here")
    parser.add_argument("--only", help="names, comma-separated")
    parser.add_argument("--minutes", type=float, default=8.0, help="start no run after this time")
    parser.add_argument(
        "--pack", action="store_true", help="write the rows of the runs that are at their last step, train nothing"
    )
    arguments = parser.parse_args(argv)
    by_name = {variant.name: variant for variant in VARIANTS}
    wanted = arguments.only.split(",") if arguments.only else None
    until, packed = time.monotonic() + 60 * arguments.minutes, []
    for name, variant, rate, seed, steps in planned():
        out = arguments.out / name
        if arguments.pack:
            if ended(out) == "":
                packed.append(compact(out, name, variant, rate, seed))
            continue
        if (wanted and name not in wanted) or time.monotonic() > until:
            continue
        more = {
            "training.steps": steps, "training.lr": rate, "training.eval_every": 4, "training.checkpoint_every": steps,
            "evaluation.dev_size": DEV, "health.policy": "off",
        }  # fmt: skip
        made(embedded(by_name[variant], seed, more), out)
    if arguments.pack:
        PACKED.parent.mkdir(exist_ok=True)
        lines = "".join(json.dumps(run) + "\n" for run in packed)
        PACKED.write_bytes(gzip.compress(lines.encode(), 9, mtime=0))
        print(f"{PACKED}: {len(packed)} runs, {PACKED.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
