"""Checkpoints: a plain PEFT adapter beside the trainer's state, written beside and renamed into place."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from markovlm.errors import UserError
from markovlm.models.adapters import save_adapter
from markovlm.models.language import LanguageModel
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import replace_whole, writing

STATE_FILE = "trainer_state.json"
OPTIMIZER_FILE = "optimizer.pt"


def save_checkpoint(
    run: RunDirectory,
    step: int,
    lm: LanguageModel,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    more: Sequence[Callable[[Path], None]] = (),
) -> Path:
    """Write `checkpoints/step-NNNNNN`; `more` writes other files beside the adapter.

    A crash in the middle leaves only a `.tmp` that the next start removes.
    """
    final = run.checkpoint(step)
    beside = run.checkpoints / f".{final.name}.tmp"
    with writing(final), _cleared(beside):
        beside.mkdir()
        save_adapter(lm, beside)
        for save in more:
            save(beside)
        moments = io.BytesIO()  # torch.save onto a full disk raises anything but an OSError
        torch.save(optimizer.state_dict(), moments)
        (beside / OPTIMIZER_FILE).write_bytes(moments.getbuffer())
        (beside / STATE_FILE).write_text(json.dumps({"step": step, **state}, indent=1), encoding="utf-8")
        _sync(beside)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(beside, final)
    return final


@contextlib.contextmanager
def _cleared(directory: Path) -> Iterator[None]:
    """The directory is absent before, and after a failure: a half-written checkpoint must not fill the disk."""
    shutil.rmtree(directory, ignore_errors=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _sync(directory: Path) -> None:
    for path in directory.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def load_state(directory: Path) -> dict[str, Any]:
    """trainer_state.json. Raises UserError where it is missing or torn."""
    try:
        return json.loads((directory / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(directory / STATE_FILE, error) from None


def update_state(directory: Path, state: dict[str, Any]) -> None:
    """Rewrite trainer_state.json of a checkpoint, whole or not at all."""
    text = json.dumps({"step": load_state(directory)["step"], **state}, indent=1)
    replace_whole(directory / STATE_FILE, text.encode("utf-8"))


def load_adapter(lm: LanguageModel, directory: Path) -> None:
    """Put the adapter weights of a checkpoint into the adapter that is there."""
    from peft.utils import load_peft_weights, set_peft_model_state_dict

    set_peft_model_state_dict(lm.model, load_peft_weights(str(directory), device=str(lm.device)))


def restore_optimizer(directory: Path, optimizer: torch.optim.Optimizer) -> None:
    """Load the optimizer's moments, each to where its parameter is, and the counts of steps to the CPU, where AdamW reads them.

    Unpickled weights-only.
    """
    try:
        optimizer.load_state_dict(torch.load(directory / OPTIMIZER_FILE, map_location="cpu", weights_only=True))
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise _unreadable(directory / OPTIMIZER_FILE, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(f"{path}: cannot be read ({reason:.120}); choose an earlier checkpoint by deleting this one")
