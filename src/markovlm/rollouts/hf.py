"""Sampling from a transformers model: one pass over each distinct beginning of a CoT, and none over finished ones.

A group begins as one row, its prompt. On a CPU, where a pass costs what it computes, CoTs stay one row until they differ: with a nearly
deterministic policy, sixteen CoTs cost little more than one. On a GPU a decoding step costs the same for one row as for sixteen and
waiting for the device costs more: there the prompt's cache is repeated over the group at once. If more CoTs are wanted than fit side by
side, waiting ones take the places of finished ones (continuous batching, Yu et al. 2022, Orca).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from markovlm.errors import UserError
from markovlm.models.language import LanguageModel
from markovlm.models.logprobs import sampled_log_distribution
from markovlm.models.memory import map_splitting
from markovlm.rollouts.ends import finished, stop_start
from markovlm.rollouts.fronts import Front, start
from markovlm.rollouts.static import StaticDecoder, decodes_in_one_shape
from markovlm.rollouts.streams import Key, stream
from markovlm.rollouts.types import CoT, Decoding, SampleRequest, SamplerPlace

_REFILL = 1 / 8  # of the rows: so many have to be free before CoTs that wait begin in their places
_Job = tuple[tuple[int, ...], Key]  # one row: its prompt and its stream


class HFSampler:
    """Draws from exactly the distribution that `token_stats` scores. Samples whatever policy `lm` is at the moment.

    `joined`: CoTs of a batch are one row as long as they are the same; default on a CPU. `static_cache`: decode in one shape, on a GPU
    as a CUDA graph; `auto`: on a GPU, where the model can be decoded so. Raises UserError for `on` with a model that can't.
    """

    def __init__(
        self,
        lm: LanguageModel,
        batch_tokens: int = 32768,
        joined: bool | None = None,
        static_cache: Literal["auto", "on", "off"] = "auto",
    ):
        self.lm = lm
        self.batch_tokens = batch_tokens
        self.splits = 0  # times a batch was halved for memory
        self.decoder: StaticDecoder | None = None
        if static_cache == "on" or (static_cache == "auto" and lm.device.type == "cuda"):
            if decodes_in_one_shape(lm):
                self.decoder = StaticDecoder(lm)
            elif static_cache == "on":
                raise UserError(f"rollouts.static_cache: {lm.name!r} can't be decoded with a static cache; use auto")
        self.joined = (self.decoder is None and lm.device.type == "cpu") if joined is None else joined

    def release(self) -> None:
        """Free what is kept from one call to the next."""
        if self.decoder is not None:
            self.decoder.release()

    @torch.no_grad()
    def sample(self, requests: Sequence[SampleRequest], decoding: Decoding, rows: int | None = None) -> list[list[CoT]]:
        """One list of CoTs per request, one CoT per stream. Neither memory nor `rows` (how many fit side by side) changes a draw."""
        jobs = [(request.prompt, key) for request in requests for key in request.streams]
        cots: list[CoT] = []
        with self.lm.merged() if self.decoder is None else contextlib.nullcontext():  # merged weights lie elsewhere every time
            for lot in self._lots(jobs):
                cots += map_splitting(
                    lambda part, lot=lot: self._sample_jobs(part, decoding, self._room(rows, len(part) / len(lot))),
                    lot,
                    self._count_split,
                )
        drawn = iter(cots)
        return [[next(drawn) for _ in request.streams] for request in requests]

    def _sample_jobs(self, jobs: Sequence[_Job], decoding: Decoding, room: _Room) -> list[CoT]:
        """Waits for the device once a token, to hear who has ended (under a fixed length never), and once for all CoTs.

        Where CoTs are joined it reads every token, to hear which of them differ.
        """
        lm = self.lm
        uniforms = _uniforms(jobs, decoding, lm.device)
        banned = torch.tensor(lm.terminators if decoding.fixed_length else (), dtype=torch.long, device=lm.device)
        ends = _Ends(lm, decoding, len(jobs))
        width = [len(prompt) + decoding.max_tokens for prompt, _ in jobs]
        places = max(1, min(room.rows, room.tokens // max(width), len(width)))  # that may be filled at once, at least
        begin, room = self._begin(room, places, max(width), len(jobs) if len(jobs) <= places else 0)

        rows = _Rows(begin, self.joined)
        columns: list[tuple[list[int], Tensor, Tensor]] = []  # of each step: active jobs, the token of each, ln u
        active, begun = list[int](), 0
        began = [0] * len(jobs)  # of each job: the step in which its row began
        index = step = torch.zeros(0, dtype=torch.long, device=lm.device)  # of each active job: its number, and the tokens it has
        while True:
            if begun < len(jobs) and (not active or rows.open):
                count = room.admitted([width[job] for job in active], width[begun:])
                if not active or count >= places * _REFILL:
                    fresh = range(begun, begun + count)
                    began[begun : begun + count] = [len(columns)] * count
                    rows.join([jobs[job][0] for job in fresh])
                    active, begun = [*active, *fresh], begun + count
                    index = torch.tensor(active, device=lm.device)
                    step = torch.cat([step, step.new_zeros(count)])
            log_p = rows.of_each(sampled_log_distribution(lm.logits(rows.hidden), decoding.temperature or 1.0, banned))
            token = log_p.argmax(-1) if uniforms is None else _inverse_cdf(log_p, uniforms[index, step])
            columns.append((active, token, log_p.gather(-1, token[:, None])[:, 0]))
            ends.see(active, token)
            alive = [number for number, job in enumerate(active) if not ends.over[job]]
            if not alive:
                if begun == len(jobs):
                    return ends.cots(columns)
                rows, active, index, step = _Rows(begin, self.joined), [], index[:0], step[:0]
                continue
            gone = len(active) - len(alive)
            refill = begun < len(jobs) and rows.open and gone >= places * _REFILL
            # a row that is over goes along till its budget is used up and no longer: behind it the model may have no position
            if (
                gone >= len(alive)
                or refill
                or any(ends.over[job] and len(columns) - began[job] >= decoding.max_tokens for job in active)
            ):
                rows.keep(alive)
                kept = torch.tensor(alive, device=lm.device)
                token, index, step, active = token[kept], index[kept], step[kept], [active[number] for number in alive]
            rows.advance(token)
            step = (step + 1).clamp(max=decoding.max_tokens - 1)  # of those over, still there, nothing is read

    def _begin(
        self, room: _Room, places: int, columns: int, becoming: int
    ) -> tuple[Callable[[list[tuple[int, ...]]], Front], _Room]:
        """What begins a front, and the room in it: one shape has so many places and no more. `becoming`: all its rows, if none waits."""
        if self.decoder is None or columns > self.lm.context_tokens:  # behind its context a shape has no columns
            return functools.partial(start, self.lm, becoming=becoming), room
        return functools.partial(self.decoder.start, rows=places, columns=columns), replace(room, rows=places)

    def _count_split(self, _: int) -> None:
        self.splits += 1

    def _room(self, rows: int | None, share: float) -> _Room:
        """Less of it where a part of the work is done again because memory ran out."""
        return _Room(max(1, int((rows or self.batch_tokens) * share)), int(self.batch_tokens * share))

    def _lots(self, jobs: Sequence[_Job]) -> list[list[_Job]]:
        """All at once; neighbours with prompts of one length where the model's cache takes no others side by side."""
        if self.lm.caching in ("padded", "none"):
            return [[*jobs]] if jobs else []
        return [[*lot] for _, lot in groupby(jobs, key=lambda job: len(job[0]))]


@dataclass(frozen=True, slots=True)
class _Room:
    """How many rows may stand side by side, and how many tokens in them, those to come included."""

    rows: int
    tokens: int

    def admitted(self, standing: Sequence[int], waiting: Iterable[int]) -> int:
        """How many waiting CoTs may join the running ones, by the length each will have; at least one if none is running."""
        longest, count = max(standing, default=0), len(standing)
        for length in waiting:
            longest = max(longest, length)
            if count and (count == self.rows or (count + 1) * longest > self.tokens):
                break
            count += 1
        return count - len(standing)


def build_hf(place: SamplerPlace) -> HFSampler:
    """Build the sampler for `rollouts.backend: hf`."""
    return HFSampler(place.lm, place.rollouts.batch_tokens, static_cache=place.rollouts.static_cache)


class _Rows:
    """The rows of a front and which of them each CoT is: one a CoT, or one for all CoTs that are the same so far (`joined`)."""

    def __init__(self, begin: Callable[[list[tuple[int, ...]]], Front], joined: bool):
        self.begin, self.joined = begin, joined
        self.row: list[int] = []
        self.front: Front | None = None

    @property
    def hidden(self) -> Tensor:
        """[U, H] of each row."""
        assert self.front is not None
        return self.front.hidden

    @property
    def open(self) -> bool:
        """May CoTs join those that are under way?"""
        return self.front is not None and self.front.open

    def join(self, prompts: Sequence[tuple[int, ...]]) -> None:
        """CoTs that begin, behind those that are there."""
        number: dict[tuple[int, ...], int] = {}
        rows = [number.setdefault(prompt, len(number)) for prompt in prompts]
        if self.front is None:
            self.front, before = self.begin(list(number)), 0
        else:
            before = len(self.front.hidden)
            self.front.join(list(number))
        self.row += [before + row for row in rows]
        if not self.joined and len(number) < len(prompts):
            self.front.keep(self.row)
            self.row = list(range(len(self.row)))

    def of_each(self, values: Tensor) -> Tensor:
        """[U, ...] of each row -> [N, ...] of each CoT."""
        if len(values) == len(self.row):  # rows are numbered as CoTs come: then each is its own
            return values
        return values[torch.tensor(self.row, device=values.device)]

    def keep(self, alive: Sequence[int]) -> None:
        """Only these CoTs go on."""
        if self.joined:
            self.row = [self.row[number] for number in alive]
        else:
            assert self.front is not None
            self.front.keep(alive)
            self.row = list(range(len(alive)))

    def advance(self, token: Tensor) -> None:
        """Append token [N] to the CoTs; a row on which they differ becomes several, one on which none is left goes."""
        assert self.front is not None
        if self.joined:
            number: dict[tuple[int, int], int] = {}
            self.row = [number.setdefault(pair, len(number)) for pair in zip(self.row, token.tolist(), strict=True)]
            parents = [row for row, _ in number]
            if parents != list(range(len(self.front.hidden))):
                self.front.keep(parents)
            token = torch.tensor([one for _, one in number], device=token.device)
        self.front.advance(token)


class _Ends:
    """Who has ended, and where."""

    def __init__(self, lm: LanguageModel, decoding: Decoding, jobs: int):
        self.lm, self.decoding = lm, decoding
        self.ended = [False] * jobs  # by themselves
        self.over = [False] * jobs  # that, or at the budget
        self.length = [0] * jobs
        self._ids = torch.tensor(lm.terminators, dtype=torch.long, device=lm.device)
        self._written: list[list[int]] = [[] for _ in range(jobs)]  # where stop strings are looked for

    def see(self, active: Sequence[int], token: Tensor) -> None:
        """One more token of each active job."""
        ends = [False] * len(active) if self.decoding.fixed_length else torch.isin(token, self._ids).tolist()
        if self.decoding.stop:
            for row, (job, one) in enumerate(zip(active, token.tolist(), strict=True)):
                if not self.over[job]:
                    self._written[job].append(one)
                    ends[row] = ends[row] or stop_start(self.lm, self._written[job], self.decoding) is not None
        for job, end in zip(active, ends, strict=True):
            if not self.over[job]:
                self.length[job] += 1
                self.ended[job] = end
                self.over[job] = end or self.length[job] >= self.decoding.max_tokens

    def cots(self, columns: Sequence[tuple[list[int], Tensor, Tensor]]) -> list[CoT]:
        """Of all jobs; what a row went on to sample behind its end is left out."""
        tokens: list[list[int]] = [[] for _ in self.ended]
        logps: list[list[float]] = [[] for _ in self.ended]
        jobs = [job for active, _, _ in columns for job in active]
        sampled = torch.cat([token for _, token, _ in columns]).tolist()
        for job, token, logp in zip(jobs, sampled, torch.cat([logp for _, _, logp in columns]).tolist(), strict=True):
            if len(tokens[job]) < self.length[job]:
                tokens[job].append(token)
                logps[job].append(logp)
        return [finished(self.lm, t, lp, e, self.decoding) for t, lp, e in zip(tokens, logps, self.ended, strict=True)]


def _uniforms(jobs: Sequence[_Job], decoding: Decoding, device: torch.device) -> Tensor | None:
    """[N, T] one uniform number a token from each row's own stream; None for greedy decoding."""
    if decoding.temperature == 0:
        return None
    drawn = np.stack([stream(*key).random(decoding.max_tokens) for _, key in jobs])
    return torch.from_numpy(drawn).to(device, torch.float32 if device.type == "mps" else torch.float64)


def _inverse_cdf(log_p: Tensor, uniform: Tensor) -> Tensor:
    """The token whose interval of the cumulative distribution holds the uniform number: one draw, no [N, V] noise."""
    cumulative = log_p.exp().to(uniform.dtype).cumsum(-1)
    at = (uniform * cumulative[:, -1])[:, None]
    return torch.searchsorted(cumulative, at, right=True)[:, 0].clamp(max=log_p.shape[-1] - 1)
