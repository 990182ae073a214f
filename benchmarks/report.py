"""Time and memory of `write_report` at the scale of the seed: 10 native runs, 84,852 steps, samples included; and ten times that.

    python benchmarks/report.py [--scale 1] [--scale 10] [--keep DIR]

Logs are made of random numbers in the shape of a real run (42 columns a step, a group of 12 samples every 10 steps). The
report is written by a fresh process, whose wall time and peak memory are printed as one JSON object a scale.
Limits of issue 5 at scale 1: 10 s and 1 GB on 2 cores; beyond them the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = (8056, 5908, 5675, 8672, 13195, 10566, 16355, 6828, 4393, 5204)  # the seed's runs, 84,852 in all
TASKS = ("gsm8k", "mmlu", "mmlu", "aqua", "aqua", "svamp", "svamp", "arc", "mathqa", "wiki")
GROUP, EVERY = 12, 10
KEYS = (
    *("loss", "loss_policy", "loss_actor_reward", "loss_kl", "loss_entropy", "reward_std", "reward_min", "reward_max"),
    *("groups_without_spread", "advantage_abs_mean", "reader_calibration", "kl", "kl_max", "entropy"),
    *("ratio_min", "ratio_mean", "ratio_max", "ratio_clipped_fraction", "no_gradient_fraction", "behavior_kl"),
    *("cot_length", "cot_length_saturated_fraction", "distinct_bigram_fraction", "longest_char_run"),
    *("compression_ratio", "identical_cot_fraction", "grad_norm", "grad_norm_policy", "grad_norm_actor_reward"),
    *("grad_norm_kl", "lr", "temperature", "actor_reward_weight", "kl_weight", "questions", "samples", "cot_tokens"),
    *("step_seconds", "tokens_per_second", "peak_memory"),
)
HEALTHY = {
    "kl": 0.1, "kl_max": 2.0, "entropy": 0.8, "ratio_min": 0.7, "ratio_mean": 1.0, "ratio_max": 1.6, "cot_length": 80.0,
    "distinct_bigram_fraction": 0.9, "longest_char_run": 3.0, "compression_ratio": 0.5, "grad_norm": 0.8, "lr": 1e-4,
}  # fmt: skip
WORDS = ("so", "we", "add", "the", "first", "number", "to", "it", "and", "get", "a", "total", "of", "then", "which", "is")


def write_run(folder: Path, index: int, steps: int, rng: random.Random) -> None:
    """One run directory: settings, metrics, samples, evaluations, events."""
    folder.mkdir(parents=True)
    task, collapses = TASKS[index % len(TASKS)], index % len(TASKS) == 7
    (folder / "config.yaml").write_text(
        f"task: {task}\nmodel: meta-llama/Llama-3.1-8B-Instruct\nseed: {index}\nlora: {{rank: 8, alpha: 16}}\n"
        f"objective: {{name: {'ppo_frozen_anchor' if collapses else 'grpo'}, kl_weight: 0.1, actor_reward_weight: 1.0}}\n"
        f"rollouts: {{group_size: {GROUP}, max_cot_tokens: 100}}\ntraining: {{steps: {steps}, lr: 1.0e-4}}\n"
    )
    (folder / "environment.json").write_text('{"torch": "2.13.0", "device": "cuda"}')
    with open(folder / "metrics.jsonl", "w") as metrics, open(folder / "samples.jsonl", "w") as samples:
        for step in range(1, steps + 1):
            row = _metrics(step, steps, collapses, rng)
            metrics.write(json.dumps(row) + "\n")
            if step % EVERY == 0:
                samples.writelines(json.dumps(_sample(step, row, rng)) + "\n" for _ in range(GROUP))
    with open(folder / "evals.jsonl", "w") as evals:
        for step in range(0, steps, 1000):
            evals.write(json.dumps(_evaluation(step, steps)) + "\n")
    (folder / "events.jsonl").write_text(
        json.dumps({"time": "2026-01-01T00:00:00Z", "step": steps, "kind": "end", "message": ""}) + "\n"
    )


def _metrics(step: int, steps: int, collapses: bool, rng: random.Random) -> dict[str, float | int | None]:
    row: dict[str, float | int | None] = {"step": step}
    level = -4.0 + 3.5 * step / steps
    if collapses and step > 950:
        level = -40.0
    for key in KEYS:
        row[key] = HEALTHY[key] * rng.uniform(0.9, 1.1) if key in HEALTHY else rng.random() * 0.1
    row["answer_logprob"] = row["reward_mean"] = level + rng.gauss(0.0, 0.4)
    row["normalized_reward_mean"] = level + 3.0 + rng.gauss(0.0, 0.4)
    row["baseline_answer_logprob"] = rng.gauss(-3.0, 0.3) if step % 5 == 0 else None
    row["answer_correct_fraction"] = min(1.0, max(0.0, 0.1 + 0.5 * step / steps + rng.gauss(0.0, 0.1)))
    if collapses and step > 950:
        row |= {"ratio_mean": 21.0, "longest_char_run": 150.0, "distinct_bigram_fraction": 0.02, "answer_correct_fraction": 0.0}
    return row


def _sample(step: int, row: dict[str, float | int | None], rng: random.Random) -> dict[str, object]:
    reward = rng.gauss(float(row["reward_mean"] or 0.0), 0.5)
    return {
        "step": step, "question_id": f"train/{rng.randrange(7473)}", "sample": 0, "question": " ".join(rng.choices(WORDS, k=45)),
        "cot": " ".join(rng.choices(WORDS, k=80)), "baseline_cot": " ".join(rng.choices(WORDS, k=60)),
        "answer": str(rng.randrange(999)), "reward": reward, "normalized_reward": reward + 3.0, "advantage": rng.gauss(0.0, 1.0),
        "answer_logprob": reward,
        "correct": rng.random() < 0.4, "cot_tokens": 100,
    }  # fmt: skip


def _evaluation(step: int, steps: int) -> dict[str, object]:
    accuracy = round(0.2 + 0.35 * step / steps, 4)
    entry = {"accuracy": accuracy, "ci95": [accuracy - 0.03, accuracy + 0.03], "no_answer": 0.02}
    return {
        "step": step, "split": "dev", "n": 1000, "checkpoint": f"step-{step:06d}", "accuracy": accuracy, "ci95": entry["ci95"],
        "logprob": -1.0, "how": {"decoding": "sampled", "temperature": 1.0, "reader": "actor", "seed": 0},
        "extractors": {"anchor": entry, "simple": entry | {"accuracy": accuracy - 0.02}},
    }  # fmt: skip


def generate(folder: Path, scale: int) -> int:
    """`scale` times ten runs; the bytes written."""
    rng = random.Random(0)
    for copy in range(scale):
        for index, steps in enumerate(STEPS):
            write_run(folder / f"{TASKS[index]}-{index}-{copy}", index, steps, rng)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


_CHILD = """
import json, resource, sys, time
started = time.perf_counter()
from markovlm.report import write_report
result = write_report([sys.argv[1]], sys.argv[2])
row = {k: v for k, v in result.as_json().items() if k in ("runs", "steps", "seconds")}
row["process_seconds"] = round(time.perf_counter() - started, 2)
row["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
row["html_mb"] = round(result.html.stat().st_size / 1e6, 2)
print(json.dumps(row))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, action="append", help="times ten runs; may be given more than once (default 1)")
    parser.add_argument("--keep", type=Path, help="generate here and keep logs and report")
    arguments = parser.parse_args()
    slow = False
    for scale in arguments.scale or [1]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = (arguments.keep or Path(temporary)) / f"scale-{scale}"
            started = time.perf_counter()
            size = 0 if (folder / "runs").exists() else generate(folder / "runs", scale)
            print(f"scale {scale}: {size / 1e6:.0f} MB of logs in {time.perf_counter() - started:.0f} s", file=sys.stderr)
            command = [sys.executable, "-c", _CHILD, str(folder / "runs"), str(folder / "report")]
            row = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            print(json.dumps({"scale": scale} | row), flush=True)
            slow = slow or (scale == 1 and (row["process_seconds"] > 10 or row["peak_mb"] > 1000))
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
