"""In several processes the main one decides."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import sys, torch.distributed as dist
from datetime import timedelta
from transformers import TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState
from markovlm.integrations.trl import HealthCallback
import warnings; warnings.simplefilter("ignore")

rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=60))
callback, control = HealthCallback("stop"), TrainerControl()
for step in range(1, 81):
    state = TrainerState(global_step=step, is_world_process_zero=rank == 0)
    reward = 0.8 + 0.02 * (step % 5) if step < 50 else 0.0
    callback.on_log(None, state, control, logs={"reward": reward, "loss": 0.1, "grad_norm": 0.5} if rank == 0 else {})
    if control.should_training_stop:
        break
print(step)
"""


@pytest.mark.distributed
@pytest.mark.long
def test_all_processes_stop_at_the_step_at_which_the_main_one_sees_the_collapse(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PROGRAM]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True, env=env)
        for rank in (0, 1)
    ]
    main, other = (process.communicate(timeout=120)[0].strip() for process in started)
    assert main == other
    assert 50 <= int(main) < 80
