"""What a state is worth: the likelihood of what is predicted from it.

    r_t = mean over questions of ln pi(a | s_{t+1})  +  ln pi(o_{t+1} | s_{t+1})        whichever of the two `chain.reward` names

each per token or summed, as `objective.answer_logprob` says; 0 if nothing is predicted from a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from markovlm.chains.prompter import ChainTarget, Ids
from markovlm.config.base import Section
from markovlm.models.load import LanguageModel
from markovlm.models.sequences import Batch, Sharing, batch_of
from markovlm.rewards import Answers, Reward
from markovlm.rewards.base import surrogate_of, value_of
from markovlm.rollouts.reader import AnswerScores, score_answers


@dataclass(frozen=True, slots=True)
class Worth:
    """Of n states; with gradient if gradients are on."""

    reward: Tensor  # [n] r_t
    scored: list[bool]  # is anything predicted from this state?
    logprob: Tensor  # [n] nats per predicted token, mean over what is predicted
    probability: Tensor  # [n] mean over what is predicted of the probability of all its tokens
    correct: Tensor  # [n] every predicted token was the likeliest
    follows: list[tuple[int, ...]]  # of each state: the likeliest token behind each answer whose end is scored


def target_batch(states: Sequence[tuple[Ids, ChainTarget]]) -> Batch:
    """Prefix + state + what stands between + target of each, the target's tokens to be scored."""
    parts = []
    for state, target in states:
        before = state + target.between
        parts.append((target.prefix, before + target.tokens, len(before)))
    return batch_of(parts, [target.end for _, target in states])


def worth_of(
    lm: LanguageModel, reward: Reward[Section], states: Sequence[tuple[Ids, Sequence[ChainTarget]]], sharing: Sharing = "shared"
) -> Worth:
    """Of states with what is predicted from each."""
    dtype = next(lm.causal_lm.parameters()).dtype
    zeros = torch.zeros(len(states), dtype=torch.promote_types(dtype, torch.float32), device=lm.device)
    flat = [(state, target) for state, targets in states for target in targets]
    scored = [bool(targets) for _, targets in states]
    if not flat:
        return Worth(zeros, scored, zeros, zeros, zeros > 1, [()] * len(states))
    scores = score_answers(lm, target_batch(flat), sharing)
    answers = answers_of(scores)
    earned = surrogate_of(reward, answers) if torch.is_grad_enabled() else value_of(reward, answers)
    owner = torch.tensor([i for i, (_, targets) in enumerate(states) for _ in targets], device=lm.device)
    each = torch.tensor(
        [1 / sum(t.kind == target.kind for t in targets) for _, targets in states for target in targets],
        dtype=zeros.dtype,
        device=lm.device,
    )
    share = torch.tensor([1 / len(targets) for _, targets in states for _ in targets], dtype=zeros.dtype, device=lm.device)
    wrong = zeros.index_add(0, owner, (~scores.greedy).to(zeros.dtype))
    return Worth(
        zeros.index_add(0, owner, (earned * each).to(zeros.dtype)),
        scored,
        zeros.index_add(0, owner, (scores.logp_mean * share).to(zeros.dtype)),
        zeros.index_add(0, owner, (scores.logp_sum.exp() * share).to(zeros.dtype)),
        (wrong == 0) & torch.tensor(scored, device=lm.device),
        _by_state([len(targets) for _, targets in states], scores.follows.tolist()),
    )


def _by_state(counts: Sequence[int], follows: Sequence[int]) -> list[tuple[int, ...]]:
    """Of all targets, state after state -> those of each state that have an end."""
    rest = iter(follows)
    return [tuple(token for token in islice(rest, count) if token >= 0) for count in counts]


def answers_of(scores: AnswerScores) -> Answers:
    """Every target by itself, as a reward sees it."""
    return Answers(scores.logp_sum, scores.logp_mean, scores.token_logp, scores.row, 1)
