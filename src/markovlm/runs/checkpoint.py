"""Checkpoints: a plain PEFT adapter and the trainer's state, written to a temporary directory and renamed into place.

`manifest` decides whether a checkpoint is whole; this module writes and reads it. The contents of the files are checked here too,
because checkpoints of earlier versions have no manifest and `--force` skips it.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from markovlm.content import read_content
from markovlm.errors import MarkovlmError
from markovlm.models.adapters import NOT_TENSORS, check_adapter, save_adapter, set_adapter
from markovlm.models.language import LanguageModel
from markovlm.runs.directory import RunDirectory
from markovlm.runs.manifest import (
    OPTIMIZER_FILE,
    STATE_FILE,
    check_checkpoint,
    damaged,
    recorded,
    replace_file,
    write_manifest,
)
from markovlm.runs.rows import whole_directory, writing


class Best(BaseModel):
    """The evaluation on dev questions that chose the best checkpoint so far."""

    model_config = ConfigDict(strict=True, extra="allow")

    step: int = Field(ge=0)
    score: list[float] = Field(min_length=2, max_length=2)  # accuracy (0 where there is none), then log-likelihood
    accuracy: float | None = None
    logprob: float | None = None


class GuardState(BaseModel):
    """What the health guard remembers."""

    model_config = ConfigDict(strict=True, extra="allow")

    monitor: dict[str, Any]  # `HealthMonitor.state_dict`
    healthy: list[int]
    rollbacks: int = Field(ge=0)


class TrainerState(BaseModel):
    """trainer_state.json: everything besides adapter and optimizer that a run needs to continue."""

    model_config = ConfigDict(strict=True, extra="allow")

    step: int = Field(ge=0)
    objective: dict[str, Any]  # of the objective and the reward, which may be plug-ins: checked by what reads them
    reward: dict[str, Any] = {}
    lr_scale: FiniteFloat = Field(gt=0)
    attempt: int = Field(ge=0)
    guard: GuardState
    best: Best | None
    base_fingerprint: str = ""


def save_checkpoint(
    run: RunDirectory,
    step: int,
    lm: LanguageModel,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    more: Sequence[Callable[[Path], None]] = (),
    *,
    interim: bool = False,
) -> Path:
    """Write `checkpoints/step-NNNNNN`; `more` writes further files beside the adapter. `interim`: as in `Manifest`.

    A crash in the middle leaves only a `.tmp` directory, which the next start removes.
    """
    final = run.checkpoint(step)
    with whole_directory(final) as beside:
        save_adapter(lm, beside)
        for save in more:
            save(beside)
        moments = io.BytesIO()  # torch.save onto a full disk raises anything but an OSError
        torch.save(optimizer.state_dict(), moments)
        (beside / OPTIMIZER_FILE).write_bytes(moments.getbuffer())
        (beside / STATE_FILE).write_text(json.dumps({"step": step, **state}, indent=1), encoding="utf-8")
        write_manifest(beside, recorded(run.path), step, interim=interim)
        shutil.rmtree(final, ignore_errors=True)
    return final


def drop_checkpoint(run: RunDirectory, step: int) -> None:
    """Remove a checkpoint. If the process is killed halfway, the checkpoint is gone all the same."""
    gone = run.checkpoints / f".{run.checkpoint(step).name}.tmp"
    with writing(run.checkpoint(step)):
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(run.checkpoint(step), gone)
        shutil.rmtree(gone)


@contextlib.contextmanager
def reading_checkpoint(directory: Path, name: str) -> Iterator[None]:
    """Turn whatever exception a damaged file causes into one line that names the file (DamagedCheckpoint)."""
    try:
        yield
    except (MarkovlmError, MemoryError, torch.OutOfMemoryError):
        raise
    except pickle.UnpicklingError as error:  # torch advises to load it all the same
        raise damaged(directory, NOT_TENSORS.format(name)) from error
    except Exception as error:  # torch, PEFT, pydantic and plug-ins each have their own kinds
        raise damaged(directory, f"{name} cannot be read ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}, got {first['input']!r:.40}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return " ".join(f"{type(error).__name__}: {error}".split())[:120]


def load_state(directory: Path) -> TrainerState:
    """Read trainer_state.json. Raises DamagedCheckpoint if it is missing, truncated, or belongs to another step."""
    with reading_checkpoint(directory, STATE_FILE):
        state = TrainerState.model_validate(json.loads(read_content(directory / STATE_FILE)))
    if directory.name.startswith("step-") and directory.name != f"step-{state.step:06d}":
        raise damaged(directory, f"{STATE_FILE} belongs to step {state.step}")
    return state


def update_state(directory: Path, state: dict[str, Any]) -> None:
    """Rewrite trainer_state.json of a checkpoint, atomically."""
    text = json.dumps({"step": load_state(directory).step, **state}, indent=1)
    replace_file(directory, STATE_FILE, text.encode("utf-8"))


def load_adapter(lm: LanguageModel, directory: Path, *, training: bool = False) -> None:
    """Load the adapter weights of a checkpoint into the adapter of `model`. Raises DamagedCheckpoint."""
    check_checkpoint(directory, training=training)
    with reading_checkpoint(directory, "the adapter"):
        fault = set_adapter(lm.model, directory, str(lm.device)) or check_adapter(lm.model)
    if fault:
        raise damaged(directory, fault, training=training)


def restore_optimizer(directory: Path, optimizer: torch.optim.Optimizer) -> None:
    """Load the optimizer's moments onto the device of their parameters, and the step counts onto the CPU, where AdamW reads them.
    Unpickled weights-only. Raises DamagedCheckpoint if the state does not belong to this optimizer.
    """
    with reading_checkpoint(directory, OPTIMIZER_FILE):
        saved = torch.load(directory / OPTIMIZER_FILE, map_location="cpu", weights_only=True)
        fault = _not_of(optimizer, saved)
        if fault is None:
            optimizer.load_state_dict(saved)
    if fault is not None:
        raise damaged(directory, f"{OPTIMIZER_FILE} {fault}")


def _not_of(optimizer: torch.optim.Optimizer, saved: Any) -> str | None:
    """Why this is not a state of `optimizer`, whose own check compares only how many parameters there are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not isinstance(saved, dict) or not isinstance(saved.get("state"), dict) or not isinstance(saved.get("param_groups"), list):
        return f"does not hold an optimizer's state ({type(saved).__name__})"
    named = [number for group in saved["param_groups"] for number in group["params"]]
    if len(named) != len(parameters) or not set(saved["state"]) <= set(named):
        return f"has {len(named)} parameters, but the adapter has {len(parameters)}"
    shapes = dict(zip(named, (parameter.shape for parameter in parameters), strict=True))
    for number, moments in saved["state"].items():
        for key, value in moments.items():
            if not isinstance(value, torch.Tensor) or (value.dim() and value.shape != shapes[number]):
                shape = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
                return f"has {key} of {shape} for a parameter of {list(shapes[number])}"
            if not math.isfinite(float(value.double().sum())):
                return f"has {key} that is not finite"
    return None
