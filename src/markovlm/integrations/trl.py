"""The guard as a callback of the Hugging Face Trainer, and so of TRL, ms-swift and everything else that builds on it.

from markovlm.integrations.trl import HealthCallback

trainer = GRPOTrainer(..., callbacks=[HealthCallback("save-and-stop")])
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import torch
from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from markovlm.errors import UserError
from markovlm.health import Verdict
from markovlm.integrations.watch import Watcher

Policy = Literal["warn", "stop", "save-and-stop"]
POLICIES: tuple[Policy, ...] = ("warn", "stop", "save-and-stop")


class HealthWarning(UserWarning):
    """The verdict on a run in training changed for the worse."""


class HealthCallback(TrainerCallback):
    """Judges every logged row; on a collapse it warns, stops, or saves a checkpoint and stops.

    A warning (`HealthWarning`) is given whenever the verdict gets worse, whatever the policy. `verdict` is the last one. With several
    processes the main one decides and all stop at the same step. It only needs what the Trainer logs: set `logging_steps` low.
    """

    def __init__(self, policy: Policy = "warn", columns: Mapping[str, str] | None = None) -> None:
        if policy not in POLICIES:
            raise UserError(f"HealthCallback: unknown policy {policy!r}; known are {', '.join(POLICIES)}")
        self.policy: Policy = policy
        self._watcher = Watcher(columns, self._changed)
        self._step = 0
        self.stopped_at: int | None = None

    @property
    def verdict(self) -> Verdict | None:
        """The judgement on what was logged so far; None before the first row."""
        return self._watcher.verdict

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Called by the Trainer."""
        self._step = state.global_step
        collapsed = False
        if state.is_world_process_zero and logs:
            collapsed = self._watcher(logs, state.global_step).verdict == "collapsed"
        if self.policy == "warn" or not _agreed(collapsed):
            return
        self.stopped_at = state.global_step
        control.should_training_stop = True
        control.should_save = control.should_save or self.policy == "save-and-stop"

    def _changed(self, verdict: Verdict, before: Verdict | None) -> None:
        rank = {"unknown": 0, "healthy": 0, "warn": 1, "collapsed": 2}
        if rank[verdict.verdict] > rank[before.verdict if before is not None else "unknown"]:
            action = {"warn": "", "stop": "; training stops", "save-and-stop": "; a checkpoint is saved and training stops"}
            done = action[self.policy] if verdict.verdict == "collapsed" else ""
            warnings.warn(f"step {self._step}: {verdict.describe()}{done}", HealthWarning, stacklevel=2)


def _agreed(collapsed: bool) -> bool:
    """The main process's word, in every process."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return collapsed
    said = [collapsed]
    torch.distributed.broadcast_object_list(said, src=0)
    return bool(said[0])
