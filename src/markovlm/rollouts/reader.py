"""Reading a CoT: the log-likelihood of the gold answer after it, and the greedy answer.

The reader sees the reader prompt (question redacted if Markovian), the CoT's sampled ids, the answer header. Which
policy reads — the actor or the frozen base — is the caller's `with lm.frozen()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from markovlm.models.language import LanguageModel
from markovlm.models.logprobs import by_row, token_stats
from markovlm.models.sequences import Batch, Sharing, batch_of, each_once, span_hidden
from markovlm.rollouts.prompter import Prompter
from markovlm.rollouts.streams import Key
from markovlm.rollouts.types import CoT, Decoding, Sampler, SampleRequest
from markovlm.tasks.base import LETTERS, Example


@dataclass(frozen=True, slots=True)
class AnswerScores:
    """Scores of n CoTs; nats, temperature 1. The end of the reply counts as an answer token if `objective.answer_end` is scored."""

    logp_sum: Tensor  # [n] ln pi(a|z)
    logp_mean: Tensor  # [n] per answer token
    greedy: Tensor  # [n] bool: every gold token (the end of the reply apart) is the most likely one
    token_logp: Tensor  # [M] ln pi of each answer token, CoT after CoT
    best: Tensor  # [M] the most likely token in the place of each
    row: Tensor  # [M] which of the n CoTs it belongs to
    follows: Tensor  # [n] the most likely token behind the gold answer; -1 where the end of the reply is not scored


def answer_batch(prompter: Prompter, conditioning: str, cots: Sequence[tuple[Example, tuple[int, ...]]]) -> Batch:
    """Reader prompt + CoT + header + gold answer of each (example, CoT ids), the answer's tokens to be scored; the end of the reply too
    where `prompter.answer_end` says so."""
    parts, ends = [], []
    for example, cot in cots:
        before = cot + prompter.header_ids
        parts.append((prompter.reader_prompt(example, conditioning), before + prompter.target_ids(example), len(before)))
        ends.append(len(prompter.end_ids(example)))
    return batch_of(parts, ends)


def end_batch(prompter: Prompter, conditioning: str, cots: Sequence[tuple[Example, tuple[int, ...]]]) -> Batch:
    """The end of the reply behind the gold answer of each, and nothing else, to be scored. Every example must have one."""
    parts = []
    for example, cot in cots:
        before, end = cot + prompter.header_ids + prompter.answer_ids(example), prompter.end_after(example)
        assert end is not None
        parts.append((prompter.reader_prompt(example, conditioning), (*before, end), len(before)))
    return batch_of(parts, [1] * len(parts))


def choice_batch(prompter: Prompter, conditioning: str, cots: Sequence[tuple[Example, tuple[int, ...]]]) -> Batch:
    """As `answer_batch`, once for every choice letter of each example, letters of an example in order."""
    parts = []
    for example, cot in cots:
        reader, before = prompter.reader_prompt(example, conditioning), cot + prompter.header_ids
        letters = LETTERS[: len(example.choices)]
        parts += [(reader, before + prompter.answer_ids(example, letter), len(before)) for letter in letters]
    return batch_of(parts)


def score_answers(lm: LanguageModel, batch: Batch, sharing: Sharing = "shared") -> AnswerScores:
    """Score the answers of a batch, with gradients if they are enabled. Equal rows are computed once."""
    few, places = each_once(lm, batch)
    span = span_hidden(lm, few, sharing)
    stats = token_stats(lm, span.hidden, span.targets)
    rows = len(few.rows)
    is_end = torch.tensor(
        [place >= len(row.tokens) - row.end for row in few.rows for place in range(row.start, len(row.tokens))], device=lm.device
    )
    wrong = by_row(((stats.best != span.targets) & ~is_end).to(stats.logp.dtype), span.row, rows)
    total, mean = by_row(stats.logp, span.row, rows), by_row(stats.logp, span.row, rows, "mean")
    follows = torch.full((rows,), -1, device=lm.device).index_put((span.row[is_end],), stats.best[is_end])
    scores = AnswerScores(total, mean, wrong == 0, stats.logp, stats.best, span.row, follows)
    return scores if rows == len(batch.rows) else _spread(scores, places, few)


def _spread(scores: AnswerScores, places: Sequence[int], few: Batch) -> AnswerScores:
    """Scores of distinct rows, given to every row that is one of them."""
    counts = [len(row.tokens) - row.start for row in few.rows]
    firsts = list(accumulate(counts, initial=0))
    device = scores.row.device
    row = torch.tensor(places, device=device)
    token = torch.tensor([firsts[place] + i for place in places for i in range(counts[place])], device=device)
    owner = torch.tensor([number for number, place in enumerate(places) for _ in range(counts[place])], device=device)
    return AnswerScores(
        scores.logp_sum.index_select(0, row),
        scores.logp_mean.index_select(0, row),
        scores.greedy.index_select(0, row),
        scores.token_logp.index_select(0, token),
        scores.best.index_select(0, token),
        owner,
        scores.follows.index_select(0, row),
    )


def joined_scores(parts: Sequence[AnswerScores]) -> AnswerScores:
    """The scores of the parts of a batch, concatenated into those of the whole."""
    offsets = [sum(len(part.logp_sum) for part in parts[:number]) for number in range(len(parts))]
    return AnswerScores(
        torch.cat([part.logp_sum for part in parts]),
        torch.cat([part.logp_mean for part in parts]),
        torch.cat([part.greedy for part in parts]),
        torch.cat([part.token_logp for part in parts]),
        torch.cat([part.best for part in parts]),
        torch.cat([part.row + offset for part, offset in zip(parts, offsets, strict=True)]),
        torch.cat([part.follows for part in parts]),
    )


def greedy_prefix(lm: LanguageModel, prompter: Prompter, example: Example, best: Sequence[int]) -> tuple[tuple[int, ...], bool]:
    """The greedy answer as far as scoring the gold one shows it: up to the first different token; and whether it is complete.

    `best`: `AnswerScores.best` of the example. What follows a token that is not the gold one was never computed.
    """
    target, end = prompter.target_ids(example), len(prompter.end_ids(example))
    for place, (gold, likeliest) in enumerate(zip(target, best, strict=True)):
        if gold != likeliest:
            before = target[:place]
            ends = likeliest in lm.terminators or (prompter.is_end(likeliest) and prompter.text(before).strip() != "")
            return (before, True) if ends else ((*before, likeliest), False)
    return target[: len(target) - end], end > 0


def ends_reply(lm: LanguageModel, prompter: Prompter, token: int) -> bool:
    """Whether a reply ends with this token, by the model's own end tokens or by the style's."""
    return token in lm.terminators or prompter.is_end(token)


def greedy_reads(
    sampler: Sampler, prompter: Prompter, conditioning: str, cots: Sequence[tuple[Example, tuple[int, ...]]], max_tokens: int
) -> list[CoT]:
    """The answer that the current policy reads from each CoT, decoded greedily to its end or budget."""
    requests = [answer_request(prompter, conditioning, example, cot) for example, cot in cots]
    return [group[0] for group in sampler.sample(requests, answer_decoding(prompter, max_tokens))]


def answer_decoding(prompter: Prompter, max_tokens: int) -> Decoding:
    """How an answer is decoded: greedily, to its end or the budget."""
    return Decoding(max_tokens, temperature=0.0, stop=prompter.answer_stop, stop_after_text=True)


def answer_request(prompter: Prompter, conditioning: str, example: Example, cot: tuple[int, ...]) -> SampleRequest:
    """What a greedy answer is decoded from: reader prompt, CoT, header."""
    key: Key = ("greedy answer",)
    return SampleRequest(prompter.reader_prompt(example, conditioning) + cot + prompter.header_ids, (key,))


def logprob_of_greedy(answer: Sequence[int], read: CoT) -> float | None:
    """ln pi(a|z) per answer token if the greedy answer begins with all of the gold one, which decoding then computed anyway."""
    end = len(answer)
    return sum(read.behavior_logp[:end]) / end if read.tokens[:end] == tuple(answer) else None
