"""Score gold answers and decode greedy answers in one pass: the gold answer is the draft of the greedy one.

Speculative decoding (Leviathan et al. 2023, https://arxiv.org/abs/2211.17192) with a draft that is needed anyway: the pass that scores
the gold answer shows for each of its tokens whether it is the most likely one, and which token is if not. The greedy answer equals the
gold one up to there; only the rest of a wrong answer has to be decoded token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from markovlm.models.language import LanguageModel
from markovlm.models.logprobs import sampled_log_distribution, tokens_at_once
from markovlm.models.sequences import Batch, Prefilled, common_length, continued, each_once
from markovlm.rollouts.ends import cut_off, stop_start
from markovlm.rollouts.fronts import Cached, resumed
from markovlm.rollouts.types import CoT, Decoding

_WORTH_KEEPING = (
    0.75  # of the answers that are written: with fewer left, the places of the others are given up, which copies the cache
)


@dataclass(frozen=True, slots=True)
class DraftedRead:
    """For one row: the log-probs of its gold answer, and the greedy answer."""

    logp_mean: float  # ln pi(a|z) per answer token
    read: CoT  # decoded greedily to its end token or budget


def read_with_drafts(lm: LanguageModel, batch: Batch, decoding: Decoding) -> list[DraftedRead] | None:
    """Each row's scored tokens under the policy that `lm` is, and the greedy continuation, decoded as `decoding` says, in their place.

    None if the model's cache can't take a token back (recurrent states, sliding windows).
    """
    if not lm.takes_back:
        return None
    reading = DraftedReading(lm, decoding, len(batch.rows))
    reading.add(batch)
    return reading.finish()


class DraftedReading:
    """Rows of one batch after another: their drafts are scored batch by batch, and the answers that leave them are written together, up to
    `rows` side by side, because a pass over a few tokens costs as much as one over many. For models that can take a token back."""

    def __init__(self, lm: LanguageModel, decoding: Decoding, rows: int, tokens: int | None = None):
        """`tokens`: that may stand side by side while answers are written, padding with them; None: any number."""
        self.lm, self.decoding, self.rows, self.tokens = lm, decoding, rows, tokens
        self._found: list[tuple[float, _Answer]] = []  # of each row, in the order in which they came
        self._front: Cached | None = None  # of the answers that are still to be written
        self._going: list[_Answer] = []

    @torch.no_grad()
    def add(self, batch: Batch, prefilled: Prefilled | None = None, written: Sequence[bool] | None = None) -> None:
        """`prefilled`: as in `continued`. `written`: the rows of which a whole answer is wanted; of others it goes no further than their
        draft."""
        lm = self.lm
        few, places = each_once(lm, batch)
        passed = continued(lm, few, prefilled)
        assert passed is not None
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
        self._found += [(means[number], answers[number]) for number in places]
        wanted = set(places) if written is None else {place for place, one in zip(places, written, strict=True) if one}
        if going := [number for number in sorted(wanted) if answers[number].is_open(lm, self.decoding)]:
            ends = [row.start + len(answer.tokens) - 1 for row, answer in zip(few.rows, answers, strict=True)]
            front = resumed(lm, passed, ends)
            front.keep(going)
            self._await(front, [answers[number] for number in going])

    def _await(self, front: Cached, answers: list[_Answer]) -> None:
        """These answers are written together with those that wait, where there is room for both."""
        if self._front is not None:
            count = len(self._going) + len(answers)
            size = count * (max(self._front.columns(), front.columns()) + self.decoding.max_tokens)
            if not (self._front.open and front.open and count <= self.rows and (self.tokens is None or size <= self.tokens)):
                self._write()
        if self._front is None:
            self._front, self._going = front, answers
        else:
            self._front.take_in(front)
            self._going += answers

    def _write(self) -> None:
        """Decode the answers that wait, in place."""
        front, going, most = self._front, self._going, self.decoding.max_tokens
        self._front, self._going = None, []
        while front is not None and going:
            front.advance(torch.tensor([answer.tokens[-1] for answer in going], device=self.lm.device))
            logps, tokens = sampled_log_distribution(self.lm.logits(front.hidden)).max(-1)
            for answer, token, logp in zip(going, tokens.tolist(), logps.tolist(), strict=True):
                answer.tokens.append(token)
                answer.logps.append(logp)
            kept = [place for place, answer in enumerate(going) if answer.is_open(self.lm, self.decoding)]
            # an answer that is over goes along till its budget is used up and no longer: behind it the model may have no position
            if not kept or len(kept) <= _WORTH_KEEPING * len(going) or any(len(answer.tokens) >= most for answer in going):
                if 0 < len(kept) < len(going):
                    front.keep(kept)
                going = [going[place] for place in kept]

    @torch.no_grad()
    def finish(self) -> list[DraftedRead]:
        """Of all rows that were added, in order."""
        self._write()
        most = self.decoding.max_tokens
        return [
            DraftedRead(mean, cut_off(self.lm, answer.tokens[:most], answer.logps[:most], self.decoding))
            for mean, answer in self._found
        ]


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
