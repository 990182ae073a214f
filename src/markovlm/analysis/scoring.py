"""Many variants of CoTs, read together: ln pi(a|variant) and the greedy answer of each.

The variants of one CoT fork off the intact one: what a variant shares with it is computed once for all of them. Variants
that come to the same tokens are read once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from markovlm.evaluation.answering import score_text
from markovlm.models.logprobs import by_row, token_stats
from markovlm.models.memory import map_splitting
from markovlm.models.sequences import common_length, forked_batch, span_hidden
from markovlm.rollouts.drafts import DraftedRead, read_with_drafts
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.prompter import Prompter, encode_fragment
from markovlm.rollouts.reader import answer_decoding, answer_request
from markovlm.rollouts.types import CoT, Sampler
from markovlm.runs.setup import Setup
from markovlm.tasks.base import LETTERS, LIKELIHOOD, Example

_WORTH_SHARING = 0.25  # of a variant: below that a pass over the trunk costs more than it saves (benchmarks/perturb.py)
_RAGGED = 1.5  # rows of one pass differ in length by at most this factor (and a few tokens)


@dataclass(frozen=True, slots=True)
class Variant:
    """A CoT as a reader gets it. `example.answer` is the answer whose likelihood is asked for."""

    example: Example
    number: int  # of the CoT among those of its question
    name: str  # such as "delete@0.4"
    ids: tuple[int, ...]
    trunk: tuple[int, ...]  # the CoT that this is a variant of
    conditioning: str
    write: bool = True  # have the greedy answer written too, not only the likelihood

    @property
    def key(self) -> tuple[Hashable, ...]:
        """What decides the reading."""
        return self.example.id, self.number, self.conditioning, self.example.answer, self.digest

    @property
    def digest(self) -> str:
        """Tells readings of one name apart: other tokens (the code that makes them changed), or the question was reworded."""
        parts = (" ".join(map(str, self.ids)), self.example.question, *self.example.choices)
        return hashlib.blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


@dataclass(frozen=True, slots=True)
class Scored:
    """What came of a variant; None where no answer was asked for or the task extracts none."""

    logprob: float  # ln pi(a|variant), nats per answer token
    answer: str | None = None  # raw greedy answer
    extracted: str | None = None  # by the task's default extractor
    correct: bool | None = None
    answer_ended: bool | None = None  # False: the token budget cut the answer

    @property
    def right(self) -> float | None:
        """1 or 0, to be averaged."""
        return None if self.correct is None else float(self.correct)


def read_variants(setup: Setup, sampler: Sampler, variants: Sequence[Variant]) -> list[Scored]:
    """Each variant read by the policy that `setup.lm` is now, in order."""
    rows = setup.config.evaluation.batch_size
    writing = [i for i, variant in enumerate(variants) if variant.write and setup.task.extractors]
    silent = [i for i in range(len(variants)) if i not in set(writing)]
    written = [variants[i] for i in writing]
    scores, replies = _scores_and_replies(setup, sampler, written, rows)
    found = dict(zip(silent, map(Scored, logprobs(setup, [variants[i] for i in silent], rows)), strict=True))
    answers = _answers(setup, written, scores, replies, rows)
    found |= dict(zip(writing, answers, strict=True))
    return [found[i] for i in range(len(variants))]


@torch.no_grad()
def _scores_and_replies(setup: Setup, sampler: Sampler, variants: Sequence[Variant], rows: int) -> tuple[list[float], list[CoT]]:
    """ln pi(a|variant) per answer token and the greedy answer of each: in one pass where this process samples with this model,
    the gold answer being the draft of the greedy one, else the one after the other."""
    if not (isinstance(sampler, HFSampler) and sampler.lm is setup.lm and setup.lm.takes_back):
        return logprobs(setup, variants, rows), _greedy(setup, sampler, variants, rows)
    sequences = [_sequence(setup.prompter, variant) for variant in variants]
    decoding = answer_decoding(setup.prompter, setup.task.max_answer_tokens)
    found: dict[int, DraftedRead] = {}

    def read(some: Sequence[int]) -> list[DraftedRead]:
        drafted = read_with_drafts(setup.lm, forked_batch([sequences[i] for i in some]), decoding)
        assert drafted is not None
        return drafted

    for part in _batches([_own_length(*sequence) for sequence in sequences], rows):
        found |= dict(zip(part, map_splitting(read, part), strict=True))
    return [found[i].logp_mean for i in range(len(variants))], [found[i].read for i in range(len(variants))]


# ------------------------------------------------------------------------------------------------------ likelihoods


@torch.no_grad()
def logprobs(setup: Setup, variants: Sequence[Variant], rows: int, reduction: str = "mean", *, end: bool = True) -> list[float]:
    """ln pi(a|variant), per answer token or their "sum", at most `rows` in one pass, those of like length together.

    `end`: with the end of the reply, where the run scores it.
    """
    found: list[float] = [0.0] * len(variants)
    sequences = [_sequence(setup.prompter, variant, end) for variant in variants]
    for part in _batches([_own_length(*sequence) for sequence in sequences], rows):
        scores = map_splitting(lambda some: _score(setup, [sequences[i] for i in some], reduction), part)
        for i, score in zip(part, scores, strict=True):
            found[i] = score
    return found


_Sequence = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # trunk, what precedes the answer, answer


def _sequence(prompter: Prompter, variant: Variant, end: bool = True) -> _Sequence:
    prompt = prompter.reader_prompt(variant.example, variant.conditioning)
    shared = common_length(variant.trunk, variant.ids)
    trunk = variant.trunk if shared >= _WORTH_SHARING * len(variant.ids) else ()
    answer = prompter.target_ids(variant.example) if end else prompter.answer_ids(variant.example)
    return prompt + trunk, prompt + variant.ids + prompter.header_ids, answer


def _own_length(trunk: tuple[int, ...], before: tuple[int, ...], answer: tuple[int, ...]) -> int:
    """Tokens that a sequence does not share with its trunk."""
    return len(before) - common_length(trunk, before) + len(answer)


def _score(setup: Setup, sequences: Sequence[_Sequence], reduction: str) -> list[float]:
    batch = forked_batch(sequences)
    span = span_hidden(setup.lm, batch)
    stats = token_stats(setup.lm, span.hidden, span.targets)
    return by_row(stats.logp, span.row, len(batch.rows), reduction).tolist()


def _batches(lengths: Sequence[int], rows: int) -> Iterator[list[int]]:
    """Indices by length, so that little padding is computed."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) == rows or lengths[i] > _RAGGED * lengths[batch[0]] + 8):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


# ---------------------------------------------------------------------------------------------------------- answers


def _answers(
    setup: Setup, variants: Sequence[Variant], scores: Sequence[float], replies: Sequence[CoT], rows: int
) -> list[Scored]:
    """What the task's default extractor reads from the greedy answers."""
    prompter, task = setup.prompter, setup.task
    method = task.extractors[0] if task.extractors else ""
    choices = _choice_logprobs(setup, variants, rows) if method == LIKELIHOOD else [dict[str, float]()] * len(variants)
    found: list[Scored] = []
    for variant, score, reply, letters in zip(variants, scores, replies, choices, strict=True):
        text = prompter.text(reply.ids)
        scored = score_text(task, variant.example, prompter.text(variant.ids), text, letters, ended=reply.ended)
        found.append(Scored(score, text, scored.extracted[method], scored.correct[method], reply.ended))
    return found


def read_again(setup: Setup, variant: Variant, one: Scored) -> Scored:
    """The same greedy answer as the task's default extractor reads it now: one of the text, not `likelihood`."""
    text, method = setup.prompter.text(variant.ids), setup.task.extractors[0]
    scored = score_text(setup.task, variant.example, text, one.answer or "", {}, ended=one.answer_ended is not False)
    return replace(one, extracted=scored.extracted[method], correct=scored.correct[method])


def _greedy(setup: Setup, sampler: Sampler, variants: Sequence[Variant], rows: int) -> list[CoT]:
    prompter = setup.prompter
    requests = [answer_request(prompter, variant.conditioning, variant.example, variant.ids) for variant in variants]
    decoding = answer_decoding(prompter, setup.task.max_answer_tokens)
    found: dict[int, CoT] = {}
    for part in _batches([len(request.prompt) for request in requests], rows):
        groups = sampler.sample([requests[i] for i in part], decoding)
        found |= {i: group[0] for i, group in zip(part, groups, strict=True)}
    return [found[i] for i in range(len(variants))]


def _choice_logprobs(setup: Setup, variants: Sequence[Variant], rows: int) -> list[dict[str, float]]:
    """ln pi(letter | variant) of every choice, for tasks whose default extractor goes by likelihood."""
    asked: list[Variant] = []
    for variant in variants:
        letters = LETTERS[: len(variant.example.choices)]
        asked += [replace(variant, example=replace(variant.example, answer=letter)) for letter in letters]
    scores = iter(logprobs(setup, asked, rows, "sum", end=False))
    return [{letter: next(scores) for letter in LETTERS[: len(variant.example.choices)]} for variant in variants]


def encode_cot(prompter: Prompter, text: str) -> tuple[int, ...]:
    """Ids of a CoT given as text. Strings in it that look like special tokens are plain text."""
    return encode_fragment(prompter.tokenizer, text, special=False) if text else ()
