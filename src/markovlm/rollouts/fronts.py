"""Sequences while they grow: the state that predicts the next token of each, through the cache or without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from markovlm.models.caches import select_rows
from markovlm.models.language import LanguageModel
from markovlm.models.sequences import Prefilled, prefill


class Front(Protocol):
    """N growing sequences."""

    hidden: Tensor  # [N, H] the state that predicts the next token of each

    def advance(self, token: Tensor) -> None:
        """Append token [N]."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """These take the place of all; a row may be there more than once."""
        ...


def start(lm: LanguageModel, prompts: Sequence[tuple[int, ...]]) -> Front:
    """A row a prompt."""
    if lm.caching == "none":
        return _Whole(lm, [list(prompt) for prompt in prompts])
    return _Cached(lm, prefill(lm, prompts))


class _Cached:
    """Through the cache: a pass over one token a step."""

    def __init__(self, lm: LanguageModel, prefilled: Prefilled):
        self.lm, self.prefilled = lm, prefilled
        self.mask, self.position, self.hidden = prefilled.mask, prefilled.lengths, prefilled.last_hidden

    def advance(self, token: Tensor) -> None:
        self.hidden = self.prefilled.go_on(self.lm, token[:, None], self.mask, self.position)[:, -1]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(token), 1)], dim=1)
        self.position = self.position + 1

    def keep(self, rows: Sequence[int]) -> None:
        index = torch.tensor(rows, device=self.lm.device)
        select_rows(self.prefilled.cache, index)
        self.mask, self.position, self.hidden = self.mask[index], self.position[index], self.hidden[index]


class _Whole:
    """For models whose past can't be copied: every step computes all sequences whole, padded on the right."""

    def __init__(self, lm: LanguageModel, sequences: list[list[int]]):
        self.lm, self.sequences = lm, sequences
        self._compute()

    def advance(self, token: Tensor) -> None:
        for sequence, one in zip(self.sequences, token.tolist(), strict=True):
            sequence.append(one)
        self._compute()

    def keep(self, rows: Sequence[int]) -> None:
        self.sequences = [[*self.sequences[row]] for row in rows]
        self.hidden = self.hidden[torch.tensor(rows, device=self.hidden.device)]

    def _compute(self) -> None:
        lengths = torch.tensor([len(sequence) for sequence in self.sequences], device=self.lm.device)
        longest = int(lengths.max())
        ids = [sequence + [self.lm.pad_id] * (longest - len(sequence)) for sequence in self.sequences]
        hidden = self.lm.decode(torch.tensor(ids, device=self.lm.device), use_cache=False).last_hidden_state
        self.hidden = hidden[torch.arange(len(ids), device=hidden.device), lengths - 1]
