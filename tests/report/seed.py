"""The seed's runs as the research code would have logged them: its milestone numbers, settings, samples and evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SETTINGS = {
    "task_type": "gsm8k", "model_type": "llama", "resume": False, "use_ei": None, "use_ppo": False, "cot_length": 100, "r": 0.9,
    "temperature": 1.0, "kl_penalty": 0.1, "batch_size": 12, "normalize_loss": True, "lr": 1e-4, "num_batches": 100_000,
    "ppo_epsilon": 0.2, "checkpoint_frequency": 1000, "eval_frequency": None, "lora_rank": 8, "lora_alpha": 16,
    "parallel_samples": True, "actor_reward_weight": 1.0, "markovian": True,
}  # fmt: skip

# batch, loss, normalised reward, actor log-prob, PPO ratio
ARC = [
    (0, -0.0003, 0.2129, -1.6328, 1.0),
    (99, -0.0247, 0.2002, -1.875, 1.1719),
    (999, 6.6562, -39.25, -41.0, 21.75),
    (2999, 9.75, -33.5, -35.25, 26.25),
    (5999, -0.9688, -33.75, -35.5, 8.125),
]
GSM8K = [
    (0, 0.0457, -2.8125, -3.8125, None),
    (999, 0.0099, -0.3145, -3.3594, None),
    (3999, -0.098, 0.2314, -1.5312, None),
    (7999, -0.153, 0.3945, -0.0894, None),
]
GRACE = "So the steps you will take to solve the problem are 125, 125 * 4, 4 *125 = 500, 2 less than 500, 500 - 2 = 498..."


def record(batch: int, loss: float, reward: float, logprob: float, ratio: float | None, cot: str, task: str) -> dict[str, Any]:
    """One record of generation g4."""
    return {
        "Batch Index": batch,
        "Task Type": task,
        "Example": {"Question": "Grace weighs 125 pounds…", "Actor Reasoning": cot, "Critic Reasoning": "…", "Answer": "623",
                    "Contains Answer": 0.5},
        "Training Metrics": {
            "Loss": loss, "Policy Gradient Loss": loss, "Actor Reasoning Log Probs": -0.6, "Critic Reasoning Log Probs": -0.7,
            "Actor Answer Log Probs": logprob, "Critic Answer Log Probs": logprob - reward, "KL": 0.003, "KL Type": "Weighted KL",
            "PPO Ratio": ratio, "PPO Clipped Ratio": ratio and min(ratio, 1.2), "Advantage": 0.0, "Normalized Reward": reward,
            "Raw Loss": loss, "First Loss": loss, "Gradient Norm": 0.4, "Active Samples": {"Count": 12, "Fraction": 1.0},
        },
        "EI Metrics": {"Use EI": None, "EI Enabled": False, "Mean Previous Advantage": None,
                       "Std Previous Advantage": None, "Threshold": None},
        "Hyperparameters": {"Batch Size": 12, "CoT Length": 100, "Temperature": 1.0, "Use PPO": ratio is not None,
                            "Markovian": True},
    }  # fmt: skip


def write_run(folder: Path, settings: dict[str, Any], rows: list[tuple], cots: dict[int, str] | None = None) -> Path:
    """`folder/log.jsonl` with a header and one record per row."""
    folder.mkdir(parents=True)
    lines = [SETTINGS | settings]
    task = (SETTINGS | settings)["task_type"]
    lines += [record(*row, cot=(cots or {}).get(row[0], GRACE), task=task) for row in rows]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "log.jsonl"


def write_result(folder: Path, task: str, accuracy: float, n: int, batch: int, **more: float) -> None:
    """`folder/<task>_results_llama.jsonl` with one evaluation."""
    row = {"timestamp": "20251118_120000", "batch_index": batch, "accuracy": accuracy, "model_path": f"adapter_{batch}",
           "model_type": "llama", "total_examples": n, "results": [], **more}  # fmt: skip
    with open(folder / f"{task}_results_llama.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")


def write_seed(folder: Path) -> Path:
    """The seed's runs: ARC collapsed, GSM8K stable, three more that only have to differ."""
    fours = "4" * 150
    write_run(
        folder / "arc" / "run1",
        {"task_type": "arc", "use_ppo": True, "cot_length": 50},
        ARC,
        dict.fromkeys((999, 2999, 5999), fours),
    )
    write_result(folder / "arc" / "run1", "arc", 0.0, 294, 6000, accuracy_word_boundary=0.0)
    write_run(folder / "gsm8k" / "run1", {}, GSM8K)
    write_result(folder / "gsm8k" / "run1", "gsm8k", 0.0523, 1319, 8000)
    for task, accuracy, boundary, n in (("mmlu", 0.18, 0.24, 154), ("aqua", 0.0354, 0.1142, 254), ("svamp", 0.2333, None, 30)):
        rows = [(batch, 0.01, 0.1 + batch / 1e5, -1.2 + batch / 1e4, None) for batch in (0, 99, 999, 2999, 4999)]
        write_run(folder / task / "run1", {"task_type": task, "cot_length": 150 if task == "mmlu" else 50}, rows)
        extra = {} if boundary is None else {"accuracy_word_boundary": boundary}
        write_result(folder / task / "run1", task, accuracy, n, 5000, **extra)
    return folder
