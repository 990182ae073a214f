"""What the studies of chains share: one checkpoint with a chain over each text, whose states are read again and continued from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from markovlm.analysis.study import Counting, bar
from markovlm.chains.prompter import ChainPrompter, ChainTarget, Ids, chain_prompter_of
from markovlm.chains.walk import Walk
from markovlm.evaluation.chains import ChainReading, read_jobs, walk_texts
from markovlm.evaluation.evaluate import How, how_evaluated
from markovlm.rollouts.types import Sampler
from markovlm.runs.setup import Setup

Job = tuple[Walk, int, Ids, ChainTarget]  # what is predicted from this state, put in place of the one written after chunk t
By = Literal["reader", "writer"]
_ROWS = 256  # read at once


@dataclass(slots=True)
class ChainStudy:
    """One checkpoint, loaded, with a chain over each text."""

    setup: Setup
    prompter: ChainPrompter
    sampler: Sampler
    how: How
    walks: list[Walk]
    counting: Counting | None = None
    _known: dict[bytes, ChainReading] = field(default_factory=dict[bytes, ChainReading])

    def read(self, jobs: Sequence[Job], doing: str, by: By = "reader") -> list[ChainReading]:
        """Read everything named by this checkpoint's reader or writer; what comes to the same tokens is read once."""
        keys = [_key(job, by) for job in jobs]
        todo = list({key: job for key, job in zip(keys, jobs, strict=True) if key not in self._known}.items())
        lm = self.setup.lm
        with bar(self.counting, doing, len(todo)) as advance, torch.no_grad():
            for at in range(0, len(todo), _ROWS):
                few = todo[at : at + _ROWS]
                with lm.frozen() if by == "reader" and self.how.reader == "frozen" else lm.merged():
                    found = read_jobs(lm, self.sampler, self.prompter, [job for _, job in few], "own")
                self._known |= {key: reading for (key, _), reading in zip(few, found, strict=True)}
                advance(len(few))
        return [self._known[key] for key in keys]

    def go_on(self, starts: Sequence[tuple[Walk, Ids]], first: int) -> list[Walk]:
        """Continue chains from these states, turn `first` next, with the random streams of the unperturbed chains."""
        texts, states = [one.text for one, _ in starts], [state for _, state in starts]
        return walk_texts(self.sampler, self.prompter, texts, self.how, first=first, start=states)

    def targets(self, one: Walk, t: int) -> tuple[ChainTarget, ...]:
        return self.prompter.targets(one.text, t, self.how.conditioning, all_kinds=True)

    def all_jobs(self, walks: Sequence[Walk]) -> list[Job]:
        """Everything that is predicted from every state of these walks."""
        return [
            (one, t, one.state(t + 1), target)
            for one in walks
            for t in range(one.first, one.text.states + 1)
            for target in self.targets(one, t)
        ]

    @property
    def digest(self) -> str:
        """A hash that distinguishes the texts of two studies."""
        texts = [
            (w.text.id, w.text.chunks, w.text.start, [(q.question, q.answer, q.after) for q in w.text.queries])
            for w in self.walks
        ]
        return hashlib.blake2b(json.dumps(texts).encode(), digest_size=8).hexdigest()


def open_chain_study(setup: Setup, examples: Sequence[Any], counting: Counting | None) -> ChainStudy:
    """Write the states of every text. Raises UserError for a run that has no chains."""
    prompter, sampler = chain_prompter_of(setup.prompter), setup.sampler()
    how = how_evaluated(setup.config, prompter)
    walks = walk_texts(sampler, prompter, [prompter.text_of(example) for example in examples], how)
    return ChainStudy(setup, prompter, sampler, how, walks, counting)


def _key(job: Job, by: By) -> bytes:
    """All that decides a reading."""
    one, t, state, target = job
    about = (
        by,
        one.text.id,
        t,
        target.kind,
        target.query and target.query.question,
        target.prefix,
        state,
        target.between,
        target.tokens,
    )
    return hashlib.blake2b(repr(about).encode("utf-8", "surrogatepass"), digest_size=16).digest()
