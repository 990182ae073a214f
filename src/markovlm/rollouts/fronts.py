"""Sequences while they grow: the state that predicts the next token of each, through the cache or without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from markovlm.models.caches import join_rows, keeps_all, select_rows, trim
from markovlm.models.language import LanguageModel
from markovlm.models.sequences import Continued, Prefilled, prefill
from markovlm.models.shared_prefix import share_if_it_pays


class Front(Protocol):
    """N growing sequences."""

    open: bool  # may sequences join?

    @property
    def hidden(self) -> Tensor:
        """[N, H] the state that predicts the next token of each."""
        ...

    def advance(self, token: Tensor) -> None:
        """Append token [N]."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Continue with these rows alone; a row may occur more than once."""
        ...

    def join(self, prompts: Sequence[tuple[int, ...]]) -> None:
        """Append new sequences."""
        ...


def start(lm: LanguageModel, prompts: Sequence[tuple[int, ...]], becoming: int = 0) -> Front:
    """One row per prompt. `becoming`: at most that many rows will come of them, and none will join: then no copies of a prompt's keys are needed."""
    if lm.caching == "none":
        return _Whole(lm, [list(prompt) for prompt in prompts])
    prefilled = prefill(lm, prompts)
    if becoming:
        share_if_it_pays(lm, prefilled.cache, range(len(prompts)), prefilled.mask, becoming)
    return Cached(lm, prefilled)


def resumed(lm: LanguageModel, passed: Continued, tokens: Sequence[int]) -> Cached:
    """Rows that were computed in one pass, each as it was after so many of its tokens: those behind are hidden."""
    return Cached(lm, passed.after(tokens))


class Cached:
    """Through the cache: a pass over one token a step."""

    def __init__(self, lm: LanguageModel, prefilled: Prefilled):
        self.lm, self.prefilled = lm, prefilled
        self.mask, self.position = prefilled.mask, prefilled.lengths
        self.hidden: Tensor = prefilled.last_hidden
        self.open = lm.caching == "padded" and keeps_all(prefilled.cache)

    def advance(self, token: Tensor) -> None:
        self.hidden = self.prefilled.go_on(self.lm, token[:, None], self.mask, self.position)[:, -1]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(token), 1)], dim=1)
        self.position = self.position + 1

    def keep(self, rows: Sequence[int]) -> None:
        index = torch.tensor(rows, device=self.lm.device)
        select_rows(self.prefilled.cache, index)
        self.mask, self.position, self.hidden = self.mask[index], self.position[index], self.hidden[index]
        if self.open and (columns := self.columns()) < self.mask.shape[1]:
            trim(self.prefilled.cache, columns)
            self.mask = self.mask[:, -columns:]

    def join(self, prompts: Sequence[tuple[int, ...]]) -> None:
        self.take_in(Cached(self.lm, prefill(self.lm, prompts)))

    def take_in(self, other: Cached) -> None:
        """All end at the same column: shorter ones get hidden columns in front, and columns that all hide go. Uses up `other`."""
        columns = max(self.columns(), other.mask.shape[1])
        join_rows(self.prefilled.cache, other.prefilled.cache, columns)
        self.mask = torch.cat([_last_columns(mask, columns) for mask in (self.mask, other.mask)])
        self.position = torch.cat([self.position, other.position])
        self.hidden = torch.cat([self.hidden, other.hidden])

    def columns(self) -> int:
        """Without those in front that are hidden from all rows."""
        return self.mask.shape[1] - int(self.mask.argmax(1).min())


def _last_columns(mask: Tensor, columns: int) -> Tensor:
    """[N, C] -> [N, columns], cut or hidden in front."""
    return torch.nn.functional.pad(mask, (columns - mask.shape[1], 0))


class _Whole:
    """For models whose past can't be copied: every step computes all sequences whole, padded on the right."""

    def __init__(self, lm: LanguageModel, sequences: list[list[int]]):
        self.lm, self.sequences, self.open = lm, sequences, True
        self._compute()

    def advance(self, token: Tensor) -> None:
        for sequence, one in zip(self.sequences, token.tolist(), strict=True):
            sequence.append(one)
        self._compute()

    def keep(self, rows: Sequence[int]) -> None:
        self.sequences = [[*self.sequences[row]] for row in rows]
        self.hidden = self.hidden[torch.tensor(rows, device=self.hidden.device)]

    def join(self, prompts: Sequence[tuple[int, ...]]) -> None:
        self.sequences += [[*prompt] for prompt in prompts]
        self._compute()

    def _compute(self) -> None:
        lengths = torch.tensor([len(sequence) for sequence in self.sequences], device=self.lm.device)
        longest = int(lengths.max())
        ids = [sequence + [self.lm.pad_id] * (longest - len(sequence)) for sequence in self.sequences]
        hidden = self.lm.decode(torch.tensor(ids, device=self.lm.device), use_cache=False).last_hidden_state
        self.hidden: Tensor = hidden[torch.arange(len(ids), device=hidden.device), lengths - 1]
