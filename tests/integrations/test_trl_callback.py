"""The callback in TRL itself, training the embedded model; `make test-trl`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from markovlm.logs.find import find_runs, read_run, read_runs

ROOT = Path(__file__).parents[2]
here = importlib.util.find_spec("trl") is not None
pytestmark = [pytest.mark.trl, pytest.mark.long, pytest.mark.skipif(not here, reason="trl is not installed: make test-trl")]


def test_grpo_is_stopped_when_its_reward_is_gone(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from markovlm.integrations.trl import HealthCallback, HealthWarning

    calls = 0

    def paid(completions: list[str], **_: object) -> list[float]:
        nonlocal calls
        calls += 1
        return [0.9 + 0.01 * (i % 2) if calls <= 15 else 0.0 for i in range(len(completions))]

    config = GRPOConfig(
        output_dir=str(tmp_path), max_steps=60, logging_steps=1, save_strategy="no", per_device_train_batch_size=4, num_generations=4,
        max_completion_length=4, learning_rate=1e-6, report_to=[], use_cpu=True, bf16=False, disable_tqdm=True,
    )  # fmt: skip
    callback = HealthCallback("save-and-stop")
    model = str(ROOT / "src" / "markovlm" / "assets" / "arithmetic")
    data = Dataset.from_dict({"prompt": [f"{a}+{a + 1}" for a in range(10, 80)]})
    trainer = GRPOTrainer(model=model, reward_funcs=[paid], args=config, train_dataset=data, callbacks=[callback])
    with pytest.warns(HealthWarning, match="collapsed"):
        trainer.train()
    assert callback.stopped_at is not None
    assert 15 < callback.stopped_at < 60
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == [f"checkpoint-{callback.stopped_at}"]
    run = read_run(find_runs([tmp_path])[0])
    assert (run.framework, run.last_step) == ("TRL", callback.stopped_at)


def test_real_files_made_again_are_one_run_in_six_formats(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts" / "make_log_fixtures.py"), str(tmp_path)], check=True, timeout=900)
    assert {read_run(path).kind for path in find_runs([tmp_path])} == {
        "console", "mlflow", "trackio", "trainer_state", "tensorboard", "wandb",
    }  # fmt: skip
    assert [run.steps for run in read_runs([tmp_path])] == [8]
