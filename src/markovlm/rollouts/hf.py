"""Sampling from a transformers model: one pass over each distinct beginning of a CoT.

A group begins as one row, its prompt. On a CPU, where a pass costs what it computes, CoTs stay one row until they differ: once a policy has made up
its mind, sixteen CoTs cost little more than one. On a GPU a decoding step costs the same for one row as for sixteen and waiting for
the device costs more: there the prompt's cache is repeated over the group at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from markovlm.models.language import LanguageModel
from markovlm.models.logprobs import sampled_log_distribution
from markovlm.models.memory import map_splitting
from markovlm.rollouts.ends import finished, stop_start
from markovlm.rollouts.fronts import start
from markovlm.rollouts.streams import Key, stream
from markovlm.rollouts.types import CoT, Decoding, SampleRequest, SamplerPlace

_Job = tuple[tuple[int, ...], Key]  # one row: its prompt and its stream


class HFSampler:
    """Draws from exactly the distribution that `token_stats` scores. Samples whatever policy `lm` is at the moment.

    `joined`: CoTs of a batch are one row as long as they are the same; default on a CPU.
    """

    def __init__(self, lm: LanguageModel, batch_tokens: int = 32768, joined: bool | None = None):
        self.lm = lm
        self.batch_tokens = batch_tokens
        self.joined = lm.device.type == "cpu" if joined is None else joined
        self.splits = 0  # times a batch was halved for memory

    @torch.no_grad()
    def sample(self, requests: Sequence[SampleRequest], decoding: Decoding) -> list[list[CoT]]:
        """One list of CoTs a request, one CoT a stream. Splitting for size or memory changes no draw."""
        jobs = [(request.prompt, key) for request in requests for key in request.streams]
        cots: list[CoT] = []
        with self.lm.merged():
            for batch in self._batches(jobs, decoding.max_tokens):
                cots += map_splitting(lambda part: _sample_batch(self.lm, part, decoding, self.joined), batch, self._count_split)
        drawn = iter(cots)
        return [[next(drawn) for _ in request.streams] for request in requests]

    def _count_split(self, _: int) -> None:
        self.splits += 1

    def _batches(self, jobs: Sequence[_Job], max_tokens: int) -> Iterator[list[_Job]]:
        """Neighbours that fit the budget; prompts of one length where the model's cache takes no others side by side."""
        batch: list[_Job] = []
        longest = 0
        for job in jobs:
            alike = not batch or len(job[0]) == longest or self.lm.caching in ("padded", "none")
            longest = max(longest, len(job[0]))
            if batch and ((len(batch) + 1) * (longest + max_tokens) > self.batch_tokens or not alike):
                yield batch
                batch, longest = [], len(job[0])
            batch.append(job)
        if batch:
            yield batch


def build_hf(place: SamplerPlace) -> HFSampler:
    """`rollouts.backend: hf`."""
    return HFSampler(place.lm, place.rollouts.batch_tokens)


def _sample_batch(lm: LanguageModel, jobs: Sequence[_Job], decoding: Decoding, joined: bool) -> list[CoT]:
    """Waits for the device once a token, to hear who has ended (under a fixed length never), and once for all CoTs.

    Where CoTs are joined it reads every token, to hear which of them differ.
    """
    uniforms = _uniforms(jobs, decoding, lm.device)
    banned = torch.tensor(lm.terminators if decoding.fixed_length else (), dtype=torch.long, device=lm.device)
    ends = _Ends(lm, decoding, len(jobs))

    rows = _Rows(lm, [prompt for prompt, _ in jobs], joined)
    columns: list[tuple[list[int], Tensor, Tensor]] = []  # of each step: active jobs, the token of each, ln u
    active = list(range(len(jobs)))
    index = torch.arange(len(jobs), device=lm.device)  # the same on the device
    for step in range(decoding.max_tokens):
        log_p = rows.of_each(sampled_log_distribution(lm.logits(rows.hidden), decoding.temperature or 1.0, banned))
        token = log_p.argmax(-1) if uniforms is None else _inverse_cdf(log_p, uniforms[index, step])
        columns.append((active, token, log_p.gather(-1, token[:, None])[:, 0]))
        ends.see(active, token, step)
        alive = [number for number, job in enumerate(active) if not ends.ended[job]]
        if not alive or step + 1 == decoding.max_tokens:
            break
        if len(alive) <= len(active) // 2:  # drop finished CoTs once they are half of the batch
            rows.keep(alive)
            kept = torch.tensor(alive, device=lm.device)
            token, index, active = token[kept], index[kept], [active[number] for number in alive]
        rows.advance(token)
    return ends.cots(columns)


class _Rows:
    """The rows of a front and which of them each CoT is: one a CoT, or one for all CoTs that are the same so far (`joined`)."""

    def __init__(self, lm: LanguageModel, prompts: Sequence[tuple[int, ...]], joined: bool):
        number: dict[tuple[int, ...], int] = {}
        self.row = [number.setdefault(prompt, len(number)) for prompt in prompts]
        self.front, self.joined = start(lm, list(number)), joined
        if not joined and len(number) < len(prompts):
            self.front.keep(self.row)
            self.row = list(range(len(prompts)))

    @property
    def hidden(self) -> Tensor:
        """[U, H] of each row."""
        return self.front.hidden

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
            self.front.keep(alive)
            self.row = list(range(len(alive)))

    def advance(self, token: Tensor) -> None:
        """Append token [N] to the CoTs; a row on which they differ becomes several, one on which none is left goes."""
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
        self.ended = [False] * jobs
        self.length = [decoding.max_tokens] * jobs
        self._ids = torch.tensor(lm.terminators, dtype=torch.long, device=lm.device)
        self._written: list[list[int]] = [[] for _ in range(jobs)]  # where stop strings are looked for

    def see(self, active: Sequence[int], token: Tensor, step: int) -> None:
        """The tokens of step `step`, one of each active job."""
        over = [False] * len(active) if self.decoding.fixed_length else torch.isin(token, self._ids).tolist()
        if self.decoding.stop:
            for row, (job, one) in enumerate(zip(active, token.tolist(), strict=True)):
                if self.ended[job]:
                    continue
                self._written[job].append(one)
                over[row] = over[row] or stop_start(self.lm, self._written[job], self.decoding.stop) is not None
        for job, end in zip(active, over, strict=True):
            if end and not self.ended[job]:
                self.ended[job], self.length[job] = True, step + 1

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
