"""Gold answers scored and greedy answers decoded in one pass: the gold answer is the draft of the greedy one.

Speculative decoding (Leviathan et al. 2023, https://arxiv.org/abs/2211.17192) with a draft that is wanted anyway: the pass that scores
the gold answer says of each of its tokens whether it is the most likely one, and which token is in its place where it is not. The greedy
answer is the gold one up to there; only what a wrong answer goes on with has to be decoded token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from markovlm.models.language import LanguageModel
from markovlm.models.logprobs import sampled_log_distribution, tokens_at_once
from markovlm.models.sequences import Batch, Continued, common_length, continued, each_once
from markovlm.rollouts.ends import cut_off, stop_start
from markovlm.rollouts.fronts import resumed
from markovlm.rollouts.types import CoT, Decoding


@dataclass(frozen=True, slots=True)
class DraftedRead:
    """Of one row: what the policy says of its gold answer, and what it answers itself."""

    logp_mean: float  # ln pi(a|z) per answer token
    read: CoT  # decoded greedily to its end token or budget


@torch.no_grad()
def read_with_drafts(lm: LanguageModel, batch: Batch, decoding: Decoding) -> list[DraftedRead] | None:
    """Each row's scored tokens under the policy that `lm` is, and the greedy continuation, decoded as `decoding` says, in their place.

    None where the model's cache can't take a token back (recurrent states, sliding windows).
    """
    few, places = each_once(lm, batch)
    passed = continued(lm, few)
    if passed is None:
        return None
    drafts = [row.tokens[row.start :] for row in few.rows]
    likeliest = _likeliest(lm, passed.hidden[_predictors(few, lm.device)], _targets(drafts, lm))
    best, logp_of_best, logp_of_draft = iter(likeliest[0]), iter(likeliest[1]), iter(likeliest[2])
    means: list[float] = []
    answers: list[_Answer] = []
    for draft in drafts:
        along = len(draft) + 1  # its tokens, and the one behind it
        tokens, logps, of_draft = [*islice(best, along)], [*islice(logp_of_best, along)], [*islice(logp_of_draft, along)]
        # the first that differs is the greedy one; those behind it follow a draft that is not the answer
        kept = 1 + common_length(draft, tokens)
        answers.append(_Answer(tokens[:kept], logps[:kept]))
        means.append(sum(of_draft[:-1]) / len(draft))
    _go_on(lm, few, passed, answers, decoding)
    max_tokens = decoding.max_tokens
    reads = [cut_off(lm, answer.tokens[:max_tokens], answer.logps[:max_tokens], decoding) for answer in answers]
    return [DraftedRead(means[number], reads[number]) for number in places]


@dataclass(frozen=True, slots=True)
class _Answer:
    """As far as it is decoded."""

    tokens: list[int]
    logps: list[float]

    def is_open(self, lm: LanguageModel, decoding: Decoding) -> bool:
        if len(self.tokens) >= decoding.max_tokens or set(self.tokens) & set(lm.terminators):
            return False
        return not decoding.stop or stop_start(lm, self.tokens, decoding) is None


def _predictors(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of each draft token and of the token behind each draft: its row, and the index of the state that predicts it."""
    numbers = [number for number, row in enumerate(batch.rows) for _ in range(row.start, len(row.tokens) + 1)]
    places = [place for row in batch.rows for place in range(row.start, len(row.tokens) + 1)]
    return torch.tensor(numbers, device=device), torch.tensor(places, device=device)


def _targets(drafts: Sequence[Sequence[int]], lm: LanguageModel) -> Tensor:
    """Every draft with one more token, of which nothing is asked."""
    return torch.tensor([token for draft in drafts for token in (*draft, lm.pad_id)], device=lm.device)


def _likeliest(lm: LanguageModel, hidden: Tensor, targets: Tensor) -> tuple[list[int], list[float], list[float]]:
    """Of each state [M, H]: the most likely token, its log-probability, and that of the target [M]. One transfer each."""
    columns: list[tuple[Tensor, Tensor, Tensor]] = []
    size = tokens_at_once(lm)
    for few, wanted in zip(hidden.split(size), targets.split(size), strict=True):
        log_p = sampled_log_distribution(lm.logits(few))
        logp, best = log_p.max(-1)
        columns.append((best, logp, log_p.gather(-1, wanted[:, None])[:, 0]))
    best, logp_of_best, logp_of_target = (torch.cat(column).tolist() for column in zip(*columns, strict=True))
    return best, logp_of_best, logp_of_target


def _go_on(lm: LanguageModel, batch: Batch, passed: Continued, answers: Sequence[_Answer], decoding: Decoding) -> None:
    """Decode the answers that have left their draft and not ended, in place."""
    going = [number for number, answer in enumerate(answers) if answer.is_open(lm, decoding)]
    if not going:
        return
    front = resumed(lm, passed, [row.start + len(answer.tokens) - 1 for row, answer in zip(batch.rows, answers, strict=True)])
    front.keep(going)
    while going:
        front.advance(torch.tensor([answers[number].tokens[-1] for number in going], device=lm.device))
        logps, tokens = sampled_log_distribution(lm.logits(front.hidden)).max(-1)
        for number, token, logp in zip(going, tokens.tolist(), logps.tolist(), strict=True):
            answers[number].tokens.append(token)
            answers[number].logps.append(logp)
        kept = [place for place, number in enumerate(going) if answers[number].is_open(lm, decoding)]
        if 0 < len(kept) < len(going):
            front.keep(kept)
        going = [going[place] for place in kept]
