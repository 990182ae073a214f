"""A sampler without a model: scripted CoTs, so that the loop can be tested in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markovlm.rollouts.types import CoT, Decoding, SampleRequest


class FakeSampler:
    """`script(prompt, sample number)` gives the token ids of each CoT; behaviour log-probs are a constant.

    A scripted id in `terminators` ends its CoT, as it would when sampled; under a fixed length there are none.
    """

    def __init__(
        self, script: Callable[[tuple[int, ...], int], Sequence[int]], logp: float = -1.0, terminators: Sequence[int] = ()
    ):
        self.script = script
        self.logp = logp
        self.terminators = tuple(terminators)
        self.splits = 0

    def sample(self, requests: Sequence[SampleRequest], decoding: Decoding) -> list[list[CoT]]:
        return [[self._cot(request.prompt, number, decoding) for number in range(len(request.streams))] for request in requests]

    def _cot(self, prompt: tuple[int, ...], number: int, decoding: Decoding) -> CoT:
        tokens = tuple(self.script(prompt, number))[: decoding.max_tokens]
        ends = [] if decoding.fixed_length else [at for at, token in enumerate(tokens) if token in self.terminators]
        if ends:
            tokens = tokens[: ends[0] + 1]
        return CoT(tokens, len(tokens) - bool(ends), (self.logp,) * len(tokens), ended=bool(ends))
