"""Score: what each CoT earned (the reader's pass), and each of its tokens under actor and frozen policy (the writer's pass)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from markovlm.chains.prompter import Turn
from markovlm.chains.reading import Worth, worth_of
from markovlm.evaluation.answering import read_answer
from markovlm.models.logprobs import Statistic, token_stats
from markovlm.models.memory import is_out_of_memory, map_splitting, release_memory
from markovlm.models.sequences import batch_of, each_once, span_hidden
from markovlm.rewards import Answers
from markovlm.rewards.base import Read, surrogate_of, value_of, weight_of
from markovlm.rollouts.prompter import encode_fragment
from markovlm.rollouts.reader import (
    AnswerScores,
    answer_batch,
    end_batch,
    ends_reply,
    greedy_prefix,
    greedy_reads,
    joined_scores,
    score_answers,
)
from markovlm.rollouts.types import CoT
from markovlm.tasks.base import Example
from markovlm.training.microbatches import within_budget
from markovlm.training.readers import OWN
from markovlm.training.records import Learner, Retries, Sample

# ------------------------------------------------------------------------------------------------------ the reader


@dataclass(slots=True)
class HeldGraph:
    """The answer pass of a step that fits one micro-batch, kept so that the training pass need not make it again.

    Who uses it takes it out: a graph that memory ran out for must be let go of.
    """

    surrogate: Tensor | None = None  # [n] with gradient

    def take(self) -> Tensor | None:
        found, self.surrogate = self.surrogate, None
        return found


def score_rewards(learner: Learner, samples: Sequence[Sample], one_microbatch: bool, retries: Retries) -> HeldGraph:
    """Fill in r of each sample: whole groups, those of this process. Keeps the graph if the training pass can use it."""
    config, held = learner.config, HeldGraph()
    if config.chain.on:
        with learner.room.reading(learner.lm, learner.room.main):
            score_alone(learner, samples, retries)
        return held
    dropout = config.lora.dropout > 0  # the training pass is then another one
    scores = None
    if learner.reward_trains and one_microbatch and not dropout and learner.room.main == "actor":
        scores = _with_graph(learner, samples, held)
        if scores is None:  # memory ran out, and all that this try held is free again
            release_memory()
            retries.add()
    with torch.no_grad(), learner.room.reading(learner.lm, learner.room.main):
        scores = scores or _scores_in_parts(learner, samples, retries)
        _fill(learner, samples, scores, config.rollouts.group_size, retries)
        _see_ends(learner, samples, scores, retries)
    return held


@torch.no_grad()
def score_alone(learner: Learner, samples: Sequence[Sample], retries: Retries) -> None:
    """Fill in r of CoTs by themselves, whatever their group, read by the policy that the model is now."""
    if learner.config.chain.on:
        for part in within_budget(learner, samples):
            map_splitting(lambda few: _fill_states(learner, few), [samples[i] for i in part], retries.add)
        return
    _fill(learner, samples, _scores_in_parts(learner, samples, retries), 1, retries)


def surrogates(learner: Learner, samples: Sequence[Sample]) -> Tensor:
    """[n] what L_AR differentiates, of a micro-batch whose rewards are known; with gradient."""
    if learner.config.chain.on:
        return _worth(learner, samples).reward
    return _surrogates(learner, samples, _answer_scores(learner, samples))


def _worth(learner: Learner, samples: Sequence[Sample]) -> Worth:
    """What the states of chains are worth to the policy that the model is now; with gradient if gradients are on."""
    states = [(s.cot.ids, s.example.targets if isinstance(s.example, Turn) else ()) for s in samples]
    return worth_of(learner.lm, learner.reward, states, learner.sharing)


def answers_of(
    learner: Learner,
    samples: Sequence[Sample],
    scores: AnswerScores,
    group_size: int,
    replies: Sequence[CoT | None] = (),
    direct: Answers | None = None,
    others: Mapping[str, Tensor] | None = None,
) -> Answers:
    """What the reward may look at; replies, direct answers and other readers if it asks for them."""
    read: tuple[Read, ...] = ()
    if learner.reward.needs_text or learner.reward.needs_reply:
        right = _likeliest(learner, scores)
        texts = [learner.prompter.text(sample.cot.ids) for sample in samples]
        read = tuple(
            Read(s.example, text, None, ok) if reply is None else _read_reply(learner, s.example, text, reply)
            for s, text, reply, ok in zip(samples, texts, replies or [None] * len(samples), right, strict=True)
        )
    return Answers(scores.logp_sum, scores.logp_mean, scores.token_logp, scores.row, group_size, read, direct, others or {})


def _likeliest(learner: Learner, scores: AnswerScores) -> list[bool]:
    """Of each CoT: are all tokens that are scored the likeliest?"""
    found = zip(scores.greedy.tolist(), scores.follows.tolist(), strict=True)
    return [greedy and (follows < 0 or ends_reply(learner.lm, learner.prompter, follows)) for greedy, follows in found]


def _read_reply(learner: Learner, example: Example, cot: str, reply: CoT) -> Read:
    task, text = learner.prompter.asks(example), learner.prompter.text(reply.ids)
    return Read(example, cot, text, read_answer(task, example, text, task.extractors[0], ended=reply.ended)[1])


def _with_graph(learner: Learner, samples: Sequence[Sample], held: HeldGraph) -> AnswerScores | None:
    try:
        scores = _answer_scores(learner, samples)
        held.surrogate = _surrogates(learner, samples, scores)
        return scores
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


def _surrogates(learner: Learner, samples: Sequence[Sample], scores: AnswerScores) -> Tensor:
    return surrogate_of(learner.reward, answers_of(learner, samples, scores, learner.config.rollouts.group_size))


def _answer_scores(learner: Learner, samples: Sequence[Sample]) -> AnswerScores:
    cots = [(sample.example, sample.cot.ids) for sample in samples]
    return score_answers(learner.lm, answer_batch(learner.prompter, learner.config.objective.conditioning, cots), learner.sharing)


def _replies(learner: Learner, samples: Sequence[Sample]) -> list[CoT | None]:
    if not learner.reward.needs_reply:
        return []
    cots = [(sample.example, sample.cot.ids) for sample in samples]
    budget = learner.prompter.task.max_answer_tokens
    return [*greedy_reads(learner.sampler, learner.prompter, learner.config.objective.conditioning, cots, budget)]


def _scores_in_parts(learner: Learner, samples: Sequence[Sample], retries: Retries) -> AnswerScores:
    return joined_scores(map_splitting(lambda part: [_answer_scores(learner, part)], samples, retries.add))


def _direct(learner: Learner, samples: Sequence[Sample], group_size: int, retries: Retries) -> Answers | None:
    """The answers of the groups' questions, read without a CoT by whoever reads now."""
    if not learner.reward.needs_direct:
        return None
    alone = [Sample(sample.example, 0, CoT((), 0, (), ended=True)) for sample in samples[::group_size]]
    found = _scores_in_parts(learner, alone, retries)
    return Answers(found.logp_sum, found.logp_mean, found.token_logp, found.row, 1)


def _others(learner: Learner, samples: Sequence[Sample], scores: AnswerScores, retries: Retries) -> dict[str, Tensor]:
    """Of reward=readers: ln pi(a|z) per answer token of every reader but the one that `scores` are of."""
    found: dict[str, Tensor] = {}
    for name in learner.config.objective.readers:
        if name == learner.room.main:
            found[name] = scores.logp_mean
        elif name in OWN:
            with learner.room.reading(learner.lm, name):
                found[name] = _scores_in_parts(learner, samples, retries).logp_mean
        else:
            read = _read_by_another_model(learner, name, samples, retries)
            found[name] = read.to(scores.logp_mean.device, scores.logp_mean.dtype)
    return found


@torch.no_grad()
def _read_by_another_model(learner: Learner, name: str, samples: Sequence[Sample], retries: Retries) -> Tensor:
    """[n] ln pi(a|z) per answer token of a model with a tokenizer of its own, which reads the CoTs' text."""
    setup = learner.room.others[name]
    texts = [learner.prompter.text(sample.cot.ids) for sample in samples]
    cots = [
        (sample.example, encode_fragment(setup.prompter.tokenizer, text, special=False) if text else ())
        for sample, text in zip(samples, texts, strict=True)
    ]
    conditioning = learner.config.objective.conditioning
    parts = map_splitting(
        lambda part: score_answers(setup.lm, answer_batch(setup.prompter, conditioning, part)).logp_mean.tolist(),
        cots,
        retries.add,
    )
    return torch.tensor(parts)


def _fill(learner: Learner, samples: Sequence[Sample], scores: AnswerScores, group_size: int, retries: Retries) -> None:
    """One transfer from the device for each column."""
    direct, others = _direct(learner, samples, group_size, retries), _others(learner, samples, scores, retries)
    replies = _replies(learner, samples)
    answers = answers_of(learner, samples, scores, group_size, replies, direct, others)
    reward, weight = value_of(learner.reward, answers), weight_of(learner.reward, answers)
    columns = (reward, scores.logp_mean, scores.logp_sum.exp(), scores.greedy)
    weights = [1.0] * len(samples) if weight is None else weight.tolist()
    values = zip(*(column.tolist() for column in columns), strict=True)
    for sample, one, (earned, logprob, probability, greedy) in zip(samples, weights, values, strict=True):
        sample.reward, sample.reward_weight = earned, one
        sample.answer_logprob, sample.answer_probability, sample.correct = logprob, probability, greedy
    best = iter(scores.best.tolist())
    for sample, reply in zip(samples, replies or [None] * len(samples), strict=True):
        of_gold = [*islice(best, len(learner.prompter.target_ids(sample.example)))]
        known = (
            greedy_prefix(learner.lm, learner.prompter, sample.example, of_gold) if reply is None else (reply.ids, reply.ended)
        )
        sample.answered, sample.answered_whole = known


def _fill_states(learner: Learner, samples: Sequence[Sample]) -> list[None]:
    """As `_fill` and `_see_ends`, of states of chains: r_t of everything that is predicted from each."""
    worth = _worth(learner, samples)
    columns = (worth.reward, worth.logprob, worth.probability, worth.correct)
    values = zip(*(column.tolist() for column in columns), strict=True)
    for sample, scored, follows, (earned, logprob, probability, correct) in zip(
        samples, worth.scored, worth.follows, values, strict=True
    ):
        sample.reward, sample.scored, sample.answer_logprob = earned, scored, logprob
        sample.answer_probability, sample.correct = probability, correct
        ends = all(ends_reply(learner.lm, learner.prompter, token) for token in follows)
        sample.exact = correct and ends if follows else None
    return [None] * len(samples)


def _see_ends(learner: Learner, samples: Sequence[Sample], scores: AnswerScores, retries: Retries) -> None:
    """Fill in `exact`: would the reply be the gold answer and then end?

    Where the end of the reply is not scored, a pass of its own asks for what follows the gold answer, of the CoTs whose gold tokens are
    all likeliest: the others' replies leave the gold answer before its end.
    """
    lm, prompter = learner.lm, learner.prompter
    follows = scores.follows.tolist()
    asked = [s for s, token in zip(samples, follows, strict=True) if token < 0 and prompter.end_after(s.example) is not None]
    cots = [(s.example, s.cot.ids) for s in asked if s.correct]

    def behind(part: Sequence[tuple[Example, tuple[int, ...]]]) -> list[int]:
        batch = end_batch(prompter, learner.config.objective.conditioning, part)
        return score_answers(lm, batch, learner.sharing).follows.tolist()

    found = iter(map_splitting(behind, cots, retries.add) if cots else ())
    for sample, token in zip(samples, follows, strict=True):
        if token >= 0 or prompter.end_after(sample.example) is not None:
            sample.exact = sample.correct and ends_reply(lm, prompter, token if token >= 0 else next(found))
            sample.answered_whole |= sample.exact


# ------------------------------------------------------------------------------------------------------ the writer


@dataclass(frozen=True, slots=True)
class CotScores:
    """Of each sampled token; 0 past the end of a CoT. Nats."""

    logp: Tensor  # [n, T] ln u_theta
    reference_logp: Tensor  # [n, T] ln u'
    kl: Tensor  # [n, T] exact KL(u_theta || u')
    entropy: Tensor  # [n, T]


def score_cots(
    learner: Learner, samples: Sequence[Sample], step: int, train: Collection[Statistic] = ("logp", "kl", "entropy")
) -> CotScores:
    """Score sampled CoTs under the actor and the frozen policy, in the distribution that was sampled from; equal ones once.

    `train`: which of the statistics carry gradient, where gradients are on.
    """
    config, lm = learner.config, learner.lm
    whole = batch_of([(learner.prompter.cot_prompt(s.example), s.cot.tokens, 0) for s in samples])
    batch, places = each_once(lm, whole)
    span = span_hidden(lm, batch, learner.sharing)
    with torch.no_grad(), lm.frozen():
        reference = span_hidden(lm, batch, learner.sharing).hidden
    stats = token_stats(
        lm,
        span.hidden,
        span.targets,
        temperature=config.rollouts.temperature.at(step, config.training.steps),
        banned=torch.tensor(lm.terminators if config.rollouts.fixed_length else (), dtype=torch.long, device=lm.device),
        reference_hidden=reference,
        entropy=True,
        train=train,
    )
    lengths = [len(row.tokens) for row in batch.rows]
    place = torch.tensor(places, device=lm.device)
    column = torch.cat([torch.arange(length, device=lm.device) for length in lengths])

    def padded(values: Tensor | None) -> Tensor:
        assert values is not None
        distinct = values.new_zeros(len(lengths), max(lengths)).index_put((span.row, column), values)
        return distinct if len(lengths) == len(samples) else distinct.index_select(0, place)

    return CotScores(padded(stats.logp), padded(stats.reference_logp), padded(stats.kl), padded(stats.entropy))
