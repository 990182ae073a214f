"""Real log files of other programs, made on the spot: the embedded model trained a few steps with TRL's GRPOTrainer.

    python scripts/make_log_fixtures.py OUT

needs trl, tensorboard, wandb, trackio and mlflow (an environment of its own) and no network: W&B runs offline, trackio and MLflow keep
their files in OUT. OUT gets `trl/` (the output directory with a checkpoint, completion tables and the TensorBoard files), `console.log`,
`wandb/`, `trackio/`, `mlruns/`, and `trl_embedded.tar.gz` of all but weights: `tests/fixtures/logs` has that file.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tarfile
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "src" / "markovlm" / "assets" / "arithmetic"
STEPS = 8


def train(out: Path) -> None:
    """One GRPO run, logged to every tracker."""
    os.environ |= {
        "WANDB_MODE": "offline", "WANDB_DIR": str(out), "WANDB_SILENT": "true", "WANDB_PROJECT": "sums",
        "TRACKIO_DIR": str(out / "trackio"), "TRACKIO_PROJECT": "sums", "MLFLOW_TRACKING_URI": (out / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true", "TENSORBOARD_LOGGING_DIR": str(out / "trl" / "runs"), "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    def right(completions: list[str], answer: list[str], **_: object) -> list[float]:
        return [float(text.strip().endswith(gold)) for text, gold in zip(completions, answer, strict=True)]

    def short(completions: list[str], **_: object) -> list[float]:
        return [-len(text) / 100 for text in completions]

    questions = [(a, b) for a in range(11, 19) for b in range(21, 25)]
    data = Dataset.from_dict({"prompt": [f"{a}+{b}" for a, b in questions], "answer": [str(a + b) for a, b in questions]})
    config = GRPOConfig(
        output_dir=str(out / "trl"), run_name="sums", max_steps=STEPS, logging_steps=1, save_steps=4, save_total_limit=1,
        per_device_train_batch_size=8, num_generations=4, max_completion_length=12, learning_rate=1e-4, beta=0.01, seed=1,
        report_to=["tensorboard", "wandb", "trackio", "mlflow"], log_completions=True, use_cpu=True, bf16=False, save_only_model=True,
    )  # fmt: skip
    trainer = GRPOTrainer(model=str(ASSETS), reward_funcs=[right, short], args=config, train_dataset=data)
    trainer.train()


def main() -> None:
    """Train, with what is printed kept as a console log."""
    out = Path(sys.argv[1]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "console.log", "w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        train(out)
    kept = ("trainer_state.json", "console.log", ".parquet", ".wandb", ".db", "meta.yaml", "mlflow.runName", "README.md")
    with tarfile.open(out / "trl_embedded.tar.gz", "w:gz") as archive:
        for path in sorted(out.rglob("*")):
            name = path.relative_to(out).as_posix()
            if path.is_file() and (name.endswith(kept) or "tfevents" in name or "/metrics/" in name or "/params/" in name):
                archive.add(path, name)


if __name__ == "__main__":
    main()
