"""Many variants of CoTs, read together: ln pi(a|variant) and the greedy answer of each.

The variants of one CoT fork off the intact one: what a variant shares with it is computed once for all of them. Variants
that come to the same tokens are read once.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch

from markovlm.evaluation.answering import score_text
from markovlm.models.language import LanguageModel
from markovlm.models.logprobs import by_row, token_stats
from markovlm.models.memory import map_splitting
from markovlm.models.sequences import Batch, common_length, forked_batch, prefill, span_hidden
from markovlm.rollouts.drafts import DraftedRead, DraftedReading
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.prompter import Prompter, encode_fragment
from markovlm.rollouts.reader import answer_decoding, answer_request
from markovlm.rollouts.types import CoT, Sampler
from markovlm.runs.setup import Setup
from markovlm.tasks.base import LETTERS, LIKELIHOOD, Example

# products of a query and a key that it must not see, for which computing a token of the trunk again would be cheaper
_UNSEEN = 4096
_PASS = 32  # tokens (measured with a model of 135 million parameters on a CPU: 29)


@dataclass(frozen=True, slots=True)
class Variant:
    """A CoT as a reader gets it. `example.answer` is the answer whose likelihood is computed."""

    example: Example
    number: int  # of the CoT among those of its question
    name: str  # such as "delete@0.4"
    ids: tuple[int, ...]
    trunk: tuple[int, ...]  # the CoT that this is a variant of
    conditioning: str
    write: bool = True  # have the greedy answer written too, not only the likelihood

    @property
    def key(self) -> tuple[Hashable, ...]:
        """What determines the result of reading."""
        return self.example.id, self.number, self.conditioning, self.example.answer, self.digest

    @property
    def digest(self) -> str:
        """Tells readings of one name apart: other tokens (the code that makes them changed), or the question was reworded."""
        parts = (" ".join(map(str, self.ids)), self.example.question, *self.example.choices)
        return hashlib.blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


@dataclass(frozen=True, slots=True)
class Scored:
    """The result of reading a variant; None if no answer was asked for or the task extracts none."""

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
    writes = [variant.write and bool(setup.task.extractors) for variant in variants]
    written = [variant for variant, write in zip(variants, writes, strict=True) if write]
    ours = isinstance(sampler, HFSampler) and sampler.lm is setup.lm
    if setup.lm.takes_back and (ours or not written):
        drafted = map_splitting(lambda some: _drafted(setup, some, rows), list(zip(variants, writes, strict=True)))
        scores = [one.logp_mean for one in drafted]
        replies = [one.read for one, write in zip(drafted, writes, strict=True) if write]
    else:
        scores, replies = logprobs(setup, variants, rows), _greedy(setup, sampler, written, rows)
    of_written = [score for score, write in zip(scores, writes, strict=True) if write]
    answers = iter(_answers(setup, written, of_written, replies, rows))
    return [next(answers) if write else Scored(score) for score, write in zip(scores, writes, strict=True)]


@torch.no_grad()
def _drafted(setup: Setup, asked: Sequence[tuple[Variant, bool]], rows: int) -> list[DraftedRead]:
    """ln pi(a|variant) per answer token of each and, where it is to be written, the greedy answer, of which the gold one is the draft.

    Every trunk is computed once; behind it those of its variants together that have like lengths; then all answers together.
    """
    lm, room, each = setup.lm, setup.config.rollouts.batch_tokens, _pass_costs(setup.lm)
    batch = forked_batch(_sequences(setup, [variant for variant, _ in asked]))
    reading = DraftedReading(lm, answer_decoding(setup.prompter, setup.task.max_answer_tokens), rows, room)
    order: list[int] = []
    for trunks in _batches([len(prefix) for prefix in batch.prefixes], rows, room, each):
        prefixes, place = tuple(batch.prefixes[trunk] for trunk in trunks), {trunk: at for at, trunk in enumerate(trunks)}
        prefilled = prefill(lm, prefixes)
        behind = [number for number, row in enumerate(batch.rows) if row.prefix in place]
        for part in _batches([len(batch.rows[number].tokens) for number in behind], rows, room, each):
            numbers = [behind[i] for i in part]
            some = tuple(replace(batch.rows[number], prefix=place[batch.rows[number].prefix]) for number in numbers)
            reading.add(Batch(prefixes, some), prefilled, [asked[number][1] for number in numbers])
            order += numbers
    found = dict(zip(order, reading.finish(), strict=True))
    return [found[number] for number in range(len(asked))]


# ------------------------------------------------------------------------------------------------------ likelihoods


@torch.no_grad()
def logprobs(setup: Setup, variants: Sequence[Variant], rows: int, reduction: str = "mean", *, end: bool = True) -> list[float]:
    """ln pi(a|variant), per answer token or their "sum", at most `rows` in one pass, those of like length together.

    `end`: with the end of the reply, where the run scores it.
    """
    found: list[float] = [0.0] * len(variants)
    sequences = _sequences(setup, variants, end)
    lengths = [len(before) - common_length(trunk, before) + len(answer) for trunk, before, answer in sequences]
    for part in _batches(lengths, rows, setup.config.rollouts.batch_tokens, _pass_costs(setup.lm)):
        scores = map_splitting(lambda some: _score(setup, [sequences[i] for i in some], reduction), part)
        for i, score in zip(part, scores, strict=True):
            found[i] = score
    return found


_Sequence = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # trunk, what precedes the answer, answer


def _sequences(setup: Setup, variants: Sequence[Variant], end: bool = True) -> list[_Sequence]:
    """Of each variant; its trunk is the one with which it shares most, of another CoT if need be, or its prompt alone."""
    prompter, hidden_size = setup.prompter, setup.lm.causal_lm.get_output_embeddings().weight.shape[1]
    prompts = [prompter.reader_prompt(variant.example, variant.conditioning) for variant in variants]
    trunks = sorted({prompt + variant.trunk for prompt, variant in zip(prompts, variants, strict=True)})
    found: list[_Sequence] = []
    for prompt, variant in zip(prompts, variants, strict=True):
        before = prompt + variant.ids + prompter.header_ids
        at = bisect_left(trunks, before)  # of a sorted list, what shares most with it stands beside it
        trunk = max(trunks[max(0, at - 1) : at + 1], key=lambda one: common_length(one, before))
        shared = common_length(trunk, before)
        unseen = (len(trunk) - shared) * (len(before) - shared)
        answer = prompter.target_ids(variant.example) if end else prompter.answer_ids(variant.example)
        found.append((trunk if unseen <= _UNSEEN * hidden_size * shared else prompt, before, answer))
    return found


def _score(setup: Setup, sequences: Sequence[_Sequence], reduction: str) -> list[float]:
    batch = forked_batch(sequences)
    span = span_hidden(setup.lm, batch)
    stats = token_stats(setup.lm, span.hidden, span.targets)
    return by_row(stats.logp, span.row, len(batch.rows), reduction).tolist()


def _batches(lengths: Sequence[int], rows: int, tokens: int, each: int) -> list[list[int]]:
    """Indices by length, in batches of at most `rows`, and of `tokens` with padding, so that the least is computed.

    A pass costs its tokens, padding with them, and as much as `each` tokens more.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    best, begin = [0], [0]  # of the first n: the least cost, and where their last batch begins
    for n in range(1, len(order) + 1):
        longest = lengths[order[n - 1]]
        room = max(1, min(rows, tokens // max(1, longest)))
        costs = [(best[i] + (n - i) * longest + each, i) for i in range(max(0, n - room), n)]
        least, at = min(costs)
        best.append(least)
        begin.append(at)
    found: list[list[int]] = []
    n = len(order)
    while n:
        found.append(order[begin[n] : n])
        n = begin[n]
    return found[::-1]


def _pass_costs(lm: LanguageModel) -> int:
    """Of a pass over few tokens: as much as so many in a large one. On a CPU it reads the weights, on a GPU it is started layer by layer."""
    return _PASS if lm.device.type == "cpu" else 16 * _PASS


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
    lengths = [len(request.prompt) for request in requests]
    for part in _batches(lengths, rows, setup.config.rollouts.batch_tokens, _pass_costs(setup.lm)):
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
