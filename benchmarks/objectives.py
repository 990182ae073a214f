"""Every objective on the embedded model, three seeds: accuracy from the CoT alone, steps and seconds to 0.8.

    python benchmarks/objectives.py --out DIR                     # about half an hour on two idle cores
    python benchmarks/objectives.py --out DIR --only ppo,ema --seeds 0,1,2 --steps 50

Run by run in DIR/NAME-seedN; a second call continues where the first one stopped and makes only the table again. Markdown goes
to standard output, numbers to DIR/objectives.json. Seconds are those of training steps alone, evaluations left out.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training_runs import Variant, chosen, dev_rows, embedded, made, markdown, test_accuracy, write_json

from markovlm.runs.rows import read_rows
from markovlm.statistics import wilson

GOAL = 0.8
DEV = 200


def measure(variant: Variant, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run, made or read, and what it came to."""
    out = arguments.out / f"{variant.name}-seed{seed}"
    config = embedded(
        variant,
        seed,
        {
            "training.steps": arguments.steps,
            "training.eval_every": arguments.eval_every,
            "training.checkpoint_every": max(arguments.steps // 2, 1),
            "evaluation.dev_size": DEV,
        },
    )
    failed = made(config, out)
    steps = read_rows(out / "metrics.jsonl")
    reached = next((row["step"] for row in dev_rows(out) if row["accuracy"] >= GOAL), None)
    seconds = None if reached is None else sum(row["step_seconds"] for row in steps if row["step"] <= reached)
    return {
        "name": variant.name,
        "seed": seed,
        "failed": failed,
        "test": None if failed else test_accuracy(config, out),
        "steps_to_goal": reached,
        "seconds_to_goal": seconds,
        "step_seconds": statistics.median(row["step_seconds"] for row in steps),
    }


def table_row(variant: Variant, runs: Sequence[dict[str, Any]]) -> list[str]:
    tests = [run["test"] for run in runs if run["test"]]
    right, n = sum(test["right"] for test in tests), sum(test["n"] for test in tests)
    low, high = wilson(right, n) if n else (float("nan"), float("nan"))
    accuracy = f"{right / n:.3f} [{low:.3f}, {high:.3f}] (n={n})" if n else "-"
    each = ", ".join("failed" if run["failed"] else f"{run['test']['accuracy']:.3f}" for run in runs)
    reached = [run for run in runs if run["steps_to_goal"] is not None]
    steps = ", ".join("-" if run["steps_to_goal"] is None else str(run["steps_to_goal"]) for run in runs)
    seconds = f"{statistics.median(run['seconds_to_goal'] for run in reached):.0f}" if reached else "-"
    per_step = f"{statistics.median(run['step_seconds'] for run in runs):.2f}"
    return [variant.name, variant.note, accuracy, each, steps, seconds, per_step]


COLUMNS = (
    "objective", "settings", "accuracy, seeds pooled", "seed by seed", f"steps to {GOAL} dev", f"seconds to {GOAL} dev (median)", "seconds per step",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="runs and objectives.json go here")
    parser.add_argument("--only", help="names, comma-separated")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--eval-every", type=int, default=5)
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    rows, record = [], []
    for variant in chosen(arguments.only):
        runs = [measure(variant, seed, arguments) for seed in seeds]
        record += runs
        rows.append(table_row(variant, runs))
        write_json(arguments.out / "objectives.json", {"steps": arguments.steps, "goal": GOAL, "runs": record})
    print(markdown(COLUMNS, rows))
    print(
        f"\nEmbedded model, {arguments.steps} steps, otherwise its defaults; seeds {arguments.seeds}. Accuracy from the CoT alone on "
        f"held-out questions, the CoT sampled at the training temperature, the answer greedy. The interval is Wilson's, 95 %, for the "
        f"questions pooled over seeds: it takes them as independent, so it is too narrow where seeds differ (compare the next column). "
        f"Dev accuracy is measured every {arguments.eval_every} steps on {DEV} questions; '-': not reached."
    )


if __name__ == "__main__":
    main()
