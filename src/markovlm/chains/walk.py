"""Sampling chains: state after state, all chains at one t together.

A draw depends on its key alone (seed, step, text, sample, t): batching, the number of processes and the length of other chains change
nothing. The cost is linear in T, and no prompt is longer than a state and a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markovlm.chains.prompter import ChainPrompter, Ids
from markovlm.chains.texts import ChainText
from markovlm.rollouts.streams import Key
from markovlm.rollouts.types import CoT, Decoding, Sampler, SampleRequest


@dataclass(slots=True)
class Walk:
    """One chain: the states that were written, s_2 first."""

    text: ChainText
    number: int  # among the chains of its text
    start: Ids  # s_1 (of a walk that begins later: the state it begins from)
    first: int = 1  # the step it begins with
    written: list[CoT] = field(default_factory=list[CoT])

    def state(self, t: int) -> Ids:
        """s_t, from which chunk t is read."""
        return self.start if t == self.first else self.written[t - self.first - 1].ids


def walk(
    sampler: Sampler,
    prompter: ChainPrompter,
    chains: Sequence[tuple[ChainText, int]],
    decoding: Decoding,
    key: Callable[[ChainText, int, int], Key],
    *,
    first: int = 1,
    start: Sequence[Ids] | None = None,
) -> list[Walk]:
    """One walk for each (text, number). `first`, `start`: begin at step `first` from these states (damage studies)."""
    begun = start or [prompter.start(text) for text, _ in chains]
    walks = [Walk(text, number, state, first) for (text, number), state in zip(chains, begun, strict=True)]
    last = max((one.text.states for one in walks), default=0)
    for t in range(first, last + 1):
        active = [one for one in walks if one.text.states >= t]
        requests = [
            SampleRequest(
                prompter.write_prompt(one.text, t, one.state(t)),
                (key(one.text, one.number, t),),
            )
            for one in active
        ]
        for one, group in zip(active, sampler.sample(requests, decoding), strict=True):
            one.written.append(group[0])
    return walks
