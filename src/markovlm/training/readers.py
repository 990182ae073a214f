"""Who reads the CoTs of a run: the actor, the frozen policy, a copy that follows the actor slowly, other models.

The slow reader avoids two failures: a reader that learns with the writer can come to share a private code with it, and one that never
learns can't follow what the writer improves. It is a copy of the adapter, theta_r <- d theta_r + (1 - d) theta after every step, and
costs an adapter's memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from markovlm.errors import UserError
from markovlm.models.language import LanguageModel
from markovlm.runs.manifest import READER_FILE

if TYPE_CHECKING:
    from markovlm.runs.setup import Setup

OWN = ("actor", "frozen", "ema")  # readers that are this model
DECAY = 0.98  # of the slow reader: half of the way in 34 steps


class SlowReader:
    """An exponential moving average of the adapter's weights."""

    def __init__(self, lm: LanguageModel, decay: float):
        self.decay = decay
        self.lm = lm
        self.weights = {name: parameter.detach().clone() for name, parameter in lm.adapter_parameters()}

    @torch.no_grad()
    def follow(self) -> None:
        """Called after an update of the actor."""
        for name, parameter in self.lm.adapter_parameters():
            self.weights[name].lerp_(parameter, 1 - self.decay)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """A context in which the model's adapter is the slow one. For passes without gradient."""
        own = {name: parameter.data for name, parameter in self.lm.adapter_parameters()}
        try:
            for name, parameter in self.lm.adapter_parameters():
                parameter.data = self.weights[name]
            yield
        finally:
            for name, parameter in self.lm.adapter_parameters():
                parameter.data = own[name]

    def save(self, folder: Path) -> None:
        """Save it beside the adapter of a checkpoint."""
        from safetensors.torch import save_file

        save_file({name: value.contiguous() for name, value in self.weights.items()}, folder / READER_FILE)

    def load(self, folder: Path) -> None:
        """Load what `save` wrote. Raises ValueError if it belongs to another adapter."""
        from safetensors.torch import load_file

        saved = load_file(folder / READER_FILE, device=str(self.lm.device))
        if {name: value.shape for name, value in saved.items()} != {name: value.shape for name, value in self.weights.items()}:
            raise ValueError("its tensors do not fit this adapter")
        for name, value in saved.items():
            self.weights[name].copy_(value)


@dataclass(slots=True)
class ReadingRoom:
    """The set of readers of a run."""

    main: str  # whose likelihood is the reward (but for reward=readers), and is logged
    slow: SlowReader | None
    others: dict[str, Setup]  # models of their own, by name

    @contextlib.contextmanager
    def reading(self, lm: LanguageModel, name: str) -> Iterator[None]:
        """A context in which `lm` is the policy of one of our own readers."""
        if name == "frozen":
            with lm.frozen():
                yield
        elif name == "ema":
            assert self.slow is not None
            with self.slow.reading():
                yield
        else:
            yield


def reading_room(setup: Setup) -> ReadingRoom:
    """The readers that a resolved configuration names; loads other models. Raises UserError in one line for one that does not exist."""
    from markovlm.runs.targets import open_targets

    objective = setup.config.objective
    slow = SlowReader(setup.lm, objective.reader_decay or DECAY) if objective.slow_reader else None
    others: dict[str, Setup] = {}
    for name in objective.readers:
        if name in OWN:
            continue
        try:
            taken = {
                "task": setup.config.task,
                "tasks": {name: share.model_dump(mode="json") for name, share in setup.config.tasks.items()},
                "task_options": dict(setup.config.task_options),
                "data": setup.config.data.model_dump(),
            }
            taken["objective"] = {"answer_end": objective.answer_end}
            loading = setup.config.loading.model_dump(include={"device", "dtype"})
            others[name] = open_targets(name, "last", {**taken, "loading": loading})[0].prepare()
        except UserError as error:
            raise UserError(f"objective.readers: {error}") from error
    return ReadingRoom(objective.reader, slow, others)
