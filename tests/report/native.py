"""Native run directories made for tests."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CONFIG = """\
task: arithmetic
model: embedded
seed: 0
lora: {rank: 8, alpha: 16}
objective: {name: grpo, kl_weight: 0.1, std_floor: 0.1}
rollouts: {group_size: 16, max_cot_tokens: 48}
training: {steps: 300, lr: 0.001}
"""


def metric_row(step: int, **more: float | None) -> dict[str, float | None]:
    """A healthy row that learns."""
    done = min(1.0, step / 100)
    wobble = 0.05 * math.sin(step)
    row: dict[str, float | None] = {
        "step": step, "loss": 0.1, "reward_mean": -1.6 + 1.3 * done + wobble, "reward_std": 0.4,
        "reward_min": -3.0, "reward_max": -0.1,
        "normalized_reward_mean": 1.3 * done + wobble, "answer_logprob": -1.6 + 1.3 * done + wobble,
        "baseline_answer_logprob": -1.6 if step % 5 == 0 else None, "answer_correct_fraction": 0.1 + 0.6 * done, "kl": 0.2 * done,
        "entropy": 0.6, "ratio_mean": 1.0, "cot_length": 20.0, "distinct_bigram_fraction": 0.9, "longest_char_run": 2.0,
        "compression_ratio": 0.8, "identical_cot_fraction": 0.1, "grad_norm": 0.8, "groups_without_spread": 0.0,
        "step_seconds": 0.5,
    }  # fmt: skip
    return row | more


def sample_row(step: int, **more: Any) -> dict[str, Any]:
    """One sampled CoT."""
    row = {
        "step": step, "question_id": f"train/{step}", "sample": 0, "question": f"17+4+{step}",
        "cot": f"17+4=21,21+{step}={21 + step}",
        "baseline_cot": "17 4 big", "answer": str(21 + step), "reward": -1.0 + step / 1000, "normalized_reward": step / 1000,
        "advantage": 0.0, "answer_logprob": -1.0, "correct": step % 2 == 0, "cot_tokens": 18,
        **({"answered": f"{21 + step}"} if step % 20 == 0 else {}),  # runs of before have none
    }  # fmt: skip
    return row | more


def eval_row(step: int, accuracy: float, n: int = 200, **more: Any) -> dict[str, Any]:
    """One evaluation with two extractors."""
    entry = {"accuracy": accuracy, "ci95": [max(0.0, accuracy - 0.05), min(1.0, accuracy + 0.05)], "no_answer": 0.01}
    row = {
        "step": step, "split": "dev", "n": n, "checkpoint": f"step-{step:06d}" if step else "base", "accuracy": accuracy,
        "ci95": entry["ci95"], "logprob": -0.5, "how": {"decoding": "sampled", "temperature": 1.0, "reader": "actor", "seed": 0},
        "extractors": {"anchor": entry, "simple": entry | {"accuracy": max(0.0, accuracy - 0.01)}},
    }  # fmt: skip
    return row | more


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_native(
    folder: Path,
    steps: int = 300,
    change: Callable[[int], dict[str, Any]] | None = None,
    samples: Sequence[dict[str, Any]] | None = None,
    evals: Sequence[dict[str, Any]] | None = None,
    config: str = CONFIG,
) -> Path:
    """A run directory; `change(step)` overrides values of a metrics row."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config)
    (folder / "environment.json").write_text('{"torch": "2.13.0"}')
    write_jsonl(folder / "metrics.jsonl", [metric_row(s, **(change(s) if change else {})) for s in range(1, steps + 1)])
    write_jsonl(folder / "samples.jsonl", samples if samples is not None else [sample_row(s) for s in range(10, steps + 1, 10)])
    default = [eval_row(0, 0.1), eval_row(100, 0.6), eval_row(200, 0.68), eval_row(300, 0.7)]
    write_jsonl(folder / "evals.jsonl", evals if evals is not None else default)
    write_jsonl(folder / "events.jsonl", [{"time": "2026-01-01T00:00:00Z", "step": steps, "kind": "end", "message": "done"}])
    for step in (100, 200, 300):
        (folder / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
    return folder
