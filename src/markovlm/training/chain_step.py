"""One optimisation step on chains: walk, read every state, credit by reward to go, loss, update.

    G_t = sum_{k>=t} gamma^(k-t) R_k                                   reward to go of the state written at t;  R_t = r_t - b_t
    L   = mean_i sum_t gamma^(t-1) ( L_PG + L_AR + beta KL - alpha H )  of chain i's state at t
    L_PG = - ln u(s_{t+1} | o_t, s_t) A_t     A_t: the objective's advantage of G_t among the chains of the same text at the same t
    L_AR = - w (r_t live) / scale_t           the reader's share of the gradient: only r_t is read from s_{t+1}

With rloo, w = 1, no KL: exactly the gradient of J = E sum_t gamma^(t-1) R_t (tests/chains/test_exact_chains.py). Given the text the
other chains' G_t do not depend on this chain's state, so the leave-one-out baseline is unbiased at every t. The KL penalty is discounted
like the reward, so that their ratio is the same at every t.

Each state is a sample of its own: prompt, CoT and targets are known, and gradient flows through no state. Micro-batches never hold two
steps of a chain, so memory does not grow with T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from markovlm.chains.prompter import ChainPrompter, Turn
from markovlm.chains.texts import ChainText
from markovlm.chains.walk import Walk, walk
from markovlm.models.memory import map_splitting
from markovlm.objectives import Credit
from markovlm.objectives.base import credit_of
from markovlm.rollouts.reader import ends_reply
from markovlm.rollouts.streams import Key, torch_seed
from markovlm.tasks.base import Example
from markovlm.training.agreement import begin_sampling, check_received
from markovlm.training.crediting import require_finite_rewards
from markovlm.training.gradients import microbatches
from markovlm.training.passes import apply_passes
from markovlm.training.records import Clock, Learner, Retries, Sample, StepResult
from markovlm.training.sampling import baseline_is_due, cot_decoding
from markovlm.training.scoring import HeldGraph, worth_of_samples


@dataclass(slots=True)
class _Group:
    """The B chains of one text: `at[t - 1]` are their samples at step t."""

    at: list[list[Sample]]

    def samples(self) -> list[Sample]:
        return [sample for samples in self.at for sample in samples]


def take_chain_step(learner: Learner, questions: Sequence[Example], step: int) -> StepResult:
    """As `take_step`, on texts."""
    torch.manual_seed(torch_seed(learner.config.seed, "torch", step, learner.world.rank))
    clock, retries = Clock(learner.lm.device), Retries(learner.sampler)

    # s_{t+1} ~ u_theta(. | o_t, s_t), t = 1 .. T, for B chains of each text of this process
    begin_sampling(learner, step)
    groups = _sample(learner, questions, step)
    check_received(learner, [sample for group in groups for sample in group.samples()], step)
    clock.mark("sampling")

    # b_t: the frozen model's own greedy chain, read by the frozen model
    if baseline_is_due(learner.config, step):
        _read_baselines(learner, groups, retries)
        clock.mark("baseline")

    # r_t = ln pi_theta(what comes next | s_{t+1})
    with learner.room.reading(learner.lm, learner.room.main):
        _read(learner, [sample for group in groups for sample in group.samples()], retries)
    clock.mark("scoring")

    # A_t from G_t; samples by t, so that a micro-batch holds one step of a chain
    samples, credit = _credit(learner, groups)
    plan = _plan(learner, samples)
    clock.mark("scoring")

    by_text = [group.samples() for group in groups]
    update = apply_passes(learner, by_text, samples, plan, credit, HeldGraph(), step, retries, clock.mark)
    everyone = [sample for group in learner.world.gather(by_text) for sample in group]
    return StepResult(everyone, update.grad_norm, clock.seconds, retries.count, update.passes, update.term_norms)


def chain_prompter(learner: Learner) -> ChainPrompter:
    assert isinstance(learner.prompter, ChainPrompter)
    return learner.prompter


def _sample(learner: Learner, questions: Sequence[Example], step: int) -> list[_Group]:
    """B chains of each text; a text that comes twice in one step goes on counting its chains."""
    config, size, prompter = learner.config, learner.config.rollouts.group_size, chain_prompter(learner)
    again = ("attempt", learner.attempt) if learner.attempt else ()
    numbered = [(q, size * sum(other.id == q.id for other in questions[:at])) for at, q in enumerate(questions)]
    chains = [(prompter.text_of(q), first + i) for q, first in learner.world.share(numbered) for i in range(size)]

    def key(text: ChainText, number: int, t: int) -> Key:
        return (config.seed, *again, "chain", step, text.id, number, t)

    walks = walk(learner.sampler, prompter, chains, cot_decoding(config, step), key)
    return [_group(learner, walks[at : at + size]) for at in range(0, len(walks), size)]


def _group(learner: Learner, walks: Sequence[Walk]) -> _Group:
    prompter, how = chain_prompter(learner), learner.config.objective.conditioning
    return _Group(
        [
            [Sample(prompter.turn(one.text, t, one.state(t), how), one.number, one.written[t - 1]) for one in walks]
            for t in range(1, walks[0].text.states + 1)
        ]
    )


@torch.no_grad()
def _read(learner: Learner, samples: Sequence[Sample], retries: Retries) -> None:
    """Fill in r_t, read by the policy that the model is now."""

    def read(part: Sequence[int]) -> list[None]:
        few = [samples[i] for i in part]
        worth = worth_of_samples(learner, few)
        columns = (worth.reward, worth.logprob, worth.probability, worth.correct)
        values = zip(*(column.tolist() for column in columns), strict=True)
        each = zip(few, worth.scored, worth.follows, values, strict=True)
        for sample, scored, follows, (earned, logprob, probability, correct) in each:
            sample.reward, sample.scored, sample.answer_logprob = earned, scored, logprob
            sample.answer_probability, sample.correct = probability, correct
            ends = all(ends_reply(learner.lm, learner.prompter, token) for token in follows)
            sample.exact = correct and ends if follows else None
        return [None] * len(part)

    for part in microbatches(learner, samples):
        map_splitting(read, part, retries.add)


def _read_baselines(learner: Learner, groups: Sequence[_Group], retries: Retries) -> None:
    prompter = chain_prompter(learner)
    texts = [prompter.text_of(_text_example(group)) for group in groups]
    with learner.lm.frozen():
        decoding = cot_decoding(learner.config, 1, temperature=0.0)
        walks = walk(learner.sampler, prompter, [(text, 0) for text in texts], decoding, lambda *_: ("greedy",))
        alone = [_group(learner, [one]) for one in walks]
        _read(learner, [sample for group in alone for sample in group.samples()], retries)
    for group, greedy in zip(groups, alone, strict=True):
        for samples, (one,) in zip(group.at, greedy.at, strict=True):
            for sample in samples:
                sample.baseline, sample.baseline_logprob = one.reward, one.answer_logprob
                sample.baseline_cot = prompter.text(one.cot.ids)


def _text_example(group: _Group) -> Example:
    turn = group.at[0][0].example
    assert isinstance(turn, Turn)
    assert turn.source is not None
    return turn.source


def _credit(learner: Learner, groups: Sequence[_Group]) -> tuple[list[Sample], Credit]:
    """Advantages of the rewards to go; the samples by t (then by text and chain), and their credit in that order."""
    gamma = learner.config.chain.gamma
    require_finite_rewards([sample for group in groups for sample in group.samples()])
    credits: dict[int, list[tuple[list[Sample], Credit]]] = {}
    dtype = torch.promote_types(learner.lm.dtype, torch.float32)
    for group in groups:
        for i in range(len(group.at[0])):
            later = 0.0
            for samples in reversed(group.at):
                samples[i].future = gamma * later
                later = samples[i].reward - (samples[i].baseline or 0.0) + gamma * later
        for t, samples in enumerate(group.at, 1):
            to_go = [s.reward - (s.baseline or 0.0) + s.future for s in samples]
            reward = torch.tensor([to_go], dtype=dtype, device=learner.lm.device)
            credit = credit_of(learner.objective, reward)
            for sample, advantage in zip(samples, credit.advantage(reward)[0].tolist(), strict=True):
                sample.advantage, sample.loss_weight = advantage, gamma ** (t - 1)
            credits.setdefault(t, []).append((samples, credit))
    ordered = [pair for t in sorted(credits) for pair in credits[t]]
    samples = [sample for some, _ in ordered for sample in some]
    centre = torch.cat([credit.centre.reshape(-1) for _, credit in ordered])
    scale = torch.cat([credit.scale.reshape(-1) for _, credit in ordered])
    chosen = [credit.chosen for _, credit in ordered]
    picked = torch.cat([one.reshape(-1) for one in chosen if one is not None]) if None not in chosen else None
    return samples, Credit(centre, scale, picked)


def _plan(learner: Learner, samples: Sequence[Sample]) -> list[list[int]]:
    """Micro-batches of the samples of one t after another."""
    plan: list[list[int]] = []
    begin = 0
    while begin < len(samples):
        t = _step_of(samples[begin])
        end = next((i for i in range(begin, len(samples)) if _step_of(samples[i]) != t), len(samples))
        plan += [[begin + i for i in part] for part in microbatches(learner, samples[begin:end])]
        begin = end
    return plan


def _step_of(sample: Sample) -> int:
    assert isinstance(sample.example, Turn)
    return sample.example.t
