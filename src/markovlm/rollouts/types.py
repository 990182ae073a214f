"""The records that travel from sampling to scoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from markovlm.rollouts.streams import Key

if TYPE_CHECKING:
    from markovlm.config import RunConfig
    from markovlm.config.rollouts import RolloutConfig
    from markovlm.models.language import LanguageModel


@dataclass(frozen=True, slots=True)
class CoT:
    """One sampled chain of thought.

    `CoT(tokens=(17, 4, 2), kept=2, behavior_logp=(-0.1, -0.3, -0.05), ended=True)`: token 2 ended it, counts in ln u and is
    dropped before the answer header.
    """

    tokens: tuple[int, ...]  # all that was sampled, an end token included; at least one
    kept: int  # tokens[:kept] go before the answer header
    behavior_logp: tuple[float, ...]  # ln u of each token when it was sampled
    ended: bool  # by itself (end token or stop string), not by the budget

    @property
    def ids(self) -> tuple[int, ...]:
        """The CoT as the reader sees it."""
        return self.tokens[: self.kept]


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One prompt and a random stream for each CoT wanted from it (greedy decoding reads no stream, only their number)."""

    prompt: tuple[int, ...]
    streams: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How CoTs or answers are decoded."""

    max_tokens: int
    temperature: float  # 0: greedy
    fixed_length: bool = False  # mask end tokens: exactly max_tokens
    stop: tuple[str, ...] = ()
    stop_after_text: bool = False  # a stop string counts only behind something that is not white space


class Sampler(Protocol):
    """Anything that turns requests into groups of CoTs, in order."""

    splits: int  # times a batch was halved for memory, so far

    def sample(self, requests: Sequence[SampleRequest], decoding: Decoding) -> list[list[CoT]]: ...


@dataclass(frozen=True, slots=True)
class SamplerPlace:
    """What a sampler is built from."""

    lm: LanguageModel  # the trainer's own; what it is at the moment (adapter, frozen) is what must be sampled
    config: RunConfig  # resolved
    folder: Path  # for files that another program must read

    @property
    def rollouts(self) -> RolloutConfig:
        return self.config.rollouts
