"""Sampling from a transformers model: one prefill a question, its KV cache repeated over the group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from markovlm.models.language import LanguageModel
from markovlm.models.logprobs import sampled_log_distribution
from markovlm.models.memory import map_splitting
from markovlm.rollouts.fronts import start
from markovlm.rollouts.streams import Key, stream
from markovlm.rollouts.types import CoT, Decoding, SampleRequest

_Job = tuple[tuple[int, ...], Key]  # one row: its prompt and its stream


class HFSampler:
    """Draws from exactly the distribution that `token_stats` scores. Samples whatever policy `lm` is at the moment."""

    def __init__(self, lm: LanguageModel, batch_tokens: int = 32768):
        self.lm = lm
        self.batch_tokens = batch_tokens
        self.splits = 0  # times a batch was halved for memory

    @torch.no_grad()
    def sample(self, requests: Sequence[SampleRequest], decoding: Decoding) -> list[list[CoT]]:
        """One list of CoTs a request, one CoT a stream. Splitting for size or memory changes no draw."""
        jobs = [(request.prompt, key) for request in requests for key in request.streams]
        cots: list[CoT] = []
        with self.lm.merged():
            for batch in self._batches(jobs, decoding.max_tokens):
                cots += map_splitting(lambda part: _sample_batch(self.lm, part, decoding), batch, self._count_split)
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


def _sample_batch(lm: LanguageModel, jobs: Sequence[_Job], decoding: Decoding) -> list[CoT]:
    uniforms = _uniforms(jobs, decoding, lm.device)
    banned = torch.tensor(lm.terminators if decoding.fixed_length else (), dtype=torch.long, device=lm.device)
    ends = torch.tensor(lm.terminators, dtype=torch.long, device=lm.device)

    front = start(lm, [prompt for prompt, _ in jobs])
    tokens: list[list[int]] = [[] for _ in jobs]
    logps: list[list[float]] = [[] for _ in jobs]
    ended = [False] * len(jobs)
    active = list(range(len(jobs)))  # rows of the front, by job
    for step in range(decoding.max_tokens):
        log_p = sampled_log_distribution(lm.logits(front.hidden), decoding.temperature or 1.0, banned)
        token = log_p.argmax(-1) if uniforms is None else _inverse_cdf(log_p, uniforms[active, step])
        logp = log_p.gather(-1, token[:, None])[:, 0]
        done = torch.isin(token, ends) if not decoding.fixed_length else torch.zeros_like(token, dtype=torch.bool)
        for job, t, lp, end in zip(active, token.tolist(), logp.tolist(), done.tolist(), strict=True):
            if ended[job]:
                continue
            tokens[job].append(t)
            logps[job].append(lp)
            ended[job] = end or (bool(decoding.stop) and _stop_start(lm, tokens[job], decoding.stop) is not None)
        alive = [row for row, job in enumerate(active) if not ended[job]]
        if not alive or step + 1 == decoding.max_tokens:
            break
        if len(alive) <= len(active) // 2:  # drop finished rows once they are half of the batch
            front.keep(alive)
            token = token[alive]
            active = [active[row] for row in alive]
        front.advance(token)
    return [_finish(lm, t, lp, e, decoding) for t, lp, e in zip(tokens, logps, ended, strict=True)]


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


def _stop_start(lm: LanguageModel, tokens: Sequence[int], stop: Sequence[str]) -> int | None:
    """Where the earliest stop string begins in the decoded text."""
    text = lm.tokenizer.decode(tokens)
    found = [at for at in (text.find(s) for s in stop) if at >= 0]
    return min(found) if found else None


def _finish(lm: LanguageModel, tokens: list[int], logps: list[float], ended: bool, decoding: Decoding) -> CoT:
    kept = len(tokens)
    if ended and tokens[-1] in lm.terminators:
        kept -= 1
    elif ended:
        cut = _stop_start(lm, tokens, decoding.stop)
        assert cut is not None
        while kept and len(lm.tokenizer.decode(tokens[:kept])) > cut:
            kept -= 1
    return CoT(tuple(tokens), kept, tuple(logps), ended)
