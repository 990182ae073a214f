"""Samplers with weights of their own: another program holds the base model and is sent the adapter.

Whatever policy the trainer's model is at the moment is sampled: the base inside `lm.frozen()`, else the adapter. Whether the other side
has that adapter is decided by the bits of its weights, so an update, a rollback, a resumed run and a reader with other weights are all
sent, and the same weights never twice. Every transfer has a name of its own, so that no cache of the other side can confuse two.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch

from markovlm.errors import RunFailed
from markovlm.models.adapters import save_adapter
from markovlm.models.language import LanguageModel
from markovlm.rollouts.streams import Key
from markovlm.rollouts.types import CoT, Decoding, SampleRequest

Job = tuple[tuple[int, ...], Key]  # one CoT: its prompt and its stream


class ForeignSampler(ABC):
    """The base of samplers with weights of their own: sends the adapter, and puts CoTs back into groups."""

    def __init__(self, lm: LanguageModel, folder: Path):
        self.lm = lm
        self.folder = folder  # where adapters are put for the other side to read
        self._made_folder = not folder.exists()
        self.splits = 0  # it looks after its own memory
        self.step = 0  # that the adapter has been trained; only its name says so
        self._run = secrets.token_hex(4)
        self._handed = 0
        self._has: tuple[str, bytes] | None = None  # name and digest of the adapter that the other side has

    def sample(self, requests: Sequence[SampleRequest], decoding: Decoding) -> list[list[CoT]]:
        """One list of CoTs per request, one CoT per stream. Raises RunFailed if the other side fails."""
        adapter = self._hand_over() if self.lm.has_adapter and self.lm.adapter_on else None
        drawn = iter(self.draw([(r.prompt, key) for r in requests for key in r.streams], decoding, adapter))
        return [[next(drawn) for _ in request.streams] for request in requests]

    def close(self) -> None:
        """Remove the adapter from the other side. Never raises: the other side may be gone."""
        if self._has is not None:
            self._forget(self._has[0])
            self._has = None
        if self._made_folder:
            with contextlib.suppress(OSError):  # never made, or another process's adapter is in it
                self.folder.rmdir()

    def _hand_over(self) -> str:
        """The name under which the other side knows the adapter's present weights."""
        digest = _digest(self.lm)
        if self._has is not None and self._has[1] == digest:
            return self._has[0]
        self._handed += 1
        name = f"markovlm-{self._run}-step-{self.step:06d}-{self._handed}"
        directory = self.folder / name
        try:
            directory.mkdir(parents=True)
            save_adapter(self.lm, directory)
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)
            raise RunFailed(f"{directory}: the sampler's adapter cannot be written: {error.strerror or error}") from error
        old = self._has
        try:
            self.load(name, directory)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        self._has = (name, digest)
        if old is not None:
            self._forget(old[0])
        return name

    def _forget(self, name: str) -> None:
        self.drop(name)
        shutil.rmtree(self.folder / name, ignore_errors=True)

    @abstractmethod
    def draw(self, jobs: Sequence[Job], decoding: Decoding, adapter: str | None) -> list[CoT]:
        """One CoT for each job, from the named adapter or the base."""

    @abstractmethod
    def load(self, name: str, directory: Path) -> None:
        """Give the other side an adapter. Raises RunFailed if it is not accepted."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Remove an adapter from the other side. Never raises."""


def _digest(lm: LanguageModel) -> bytes:
    """Of the adapter's weights."""
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in lm.adapter_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().to("cpu").contiguous().view(torch.uint8).numpy().tobytes())
    return digest.digest()
