"""One optimisation step: sample, score, credit, loss, step — in that order, as METHOD §2 writes it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from markovlm.config import RunConfig
from markovlm.errors import RunFailed
from markovlm.evaluation.answering import answers_are_right
from markovlm.models.load import LanguageModel
from markovlm.models.logprobs import token_stats
from markovlm.models.memory import is_out_of_memory, map_splitting, release_memory
from markovlm.models.sequences import Sharing, batch_of, span_hidden
from markovlm.objectives import Credit, Objective, PolicyBatch
from markovlm.objectives.loss import LossTerms, Weights, loss_terms
from markovlm.objectives.rewards import likelihood_reward
from markovlm.rollouts.prompter import Prompter
from markovlm.rollouts.reader import answer_batch, score_answers
from markovlm.rollouts.streams import torch_seed
from markovlm.rollouts.types import CoT, Decoding, Sampler, SampleRequest
from markovlm.tasks.base import Example
from markovlm.training.distributed import World


@dataclass(slots=True)
class Learner:
    """Everything a step needs that outlives it."""

    config: RunConfig  # resolved
    lm: LanguageModel
    prompter: Prompter
    sampler: Sampler
    objective: Objective
    optimizer: torch.optim.Optimizer
    world: World
    sharing: Sharing
    lr_scale: float = 1.0  # halved by every rollback
    attempt: int = 0  # rollbacks so far: after one, the same steps draw other CoTs

    @property
    def weights_live(self) -> bool:
        """Does the actor-reward term exist at all in this run?"""
        return self.config.objective.actor_reward_weight.maximum > 0


@dataclass(slots=True)
class Sample:
    """One CoT of a step and all that was found out about it. Plain numbers, so that it can travel between processes."""

    example: Example
    number: int  # among the CoTs of its question in this step
    cot: CoT
    reward: float = 0.0  # r
    baseline: float | None = None  # b, where it was computed this step
    baseline_cot: str | None = None
    baseline_logprob: float | None = None  # ln pi'(a|z') per answer token
    answer_logprob: float = 0.0  # ln pi(a|z) per answer token, by the reader
    correct: bool = False
    answer_probability: float = 0.0  # pi(a|z)
    advantage: float = 0.0
    stats: dict[str, float] = field(default_factory=dict)  # of the training pass, by metric name

    @property
    def name(self) -> str:
        return f"{self.example.id}#{self.number}"


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step leaves for the log."""

    samples: list[Sample]  # of all processes, question by question
    grad_norm: float
    seconds: dict[str, float]  # phase -> seconds on this process
    splits: int  # times the work was split for memory
    passes: list[dict[str, float]]  # means of behavior_kl and the ratio statistics in each pass that was applied
    term_norms: dict[str, float]  # gradient norm of each loss term, where it was asked for


class _Clock:
    """Seconds by phase."""

    def __init__(self, device: torch.device):
        self.seconds: dict[str, float] = {}
        self.cuda = device.type == "cuda"
        self.last = time.perf_counter()

    def mark(self, phase: str) -> None:
        if self.cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self.last
        self.last = now


def take_step(learner: Learner, questions: Sequence[Example], step: int) -> StepResult:
    """Step `step` (1-based) on `questions`, those of all processes. Raises RunFailed on a loss or gradient that is not finite."""
    config, world = learner.config, learner.world
    torch.manual_seed(torch_seed(config.seed, "torch", step, world.rank))  # LoRA dropout: the only use of torch's generator
    clock = _Clock(learner.lm.device)
    splits, sampler_splits = _Counter(), learner.sampler.splits

    groups = _sample_groups(learner, questions, step)
    clock.mark("sampling")
    if _baseline_due(learner, step):
        _read_baselines(learner, groups, splits)
        clock.mark("baseline")
    mine = [sample for group in groups for sample in group]
    plan = _microbatches(learner, mine)
    live = _score(learner, mine, keep_graph=len(plan) == 1, splits=splits)
    clock.mark("scoring")
    credit = _credit(learner, groups)
    norm, passes, term_norms = 0.0, list[dict[str, float]](), dict[str, float]()
    while len(passes) < learner.objective.passes and not credit.idle:
        gradients = _gradients(learner, mine, plan, credit, live, step, splits)
        stats = _pass_stats(learner, groups)
        if passes and not learner.objective.goes_on(stats["behavior_kl"]):
            break
        passes.append(stats)
        clock.mark("training")
        term_norms = term_norms or gradients.term_norms
        norm = _apply(learner, gradients.total, mine, step)
        clock.mark("optimizer")
    if credit.idle:
        for part in plan:
            map_splitting(lambda some: _measure(learner, mine, some, credit, step), part, lambda _: splits.add())
    gathered = [sample for group in world.gather(groups) for sample in group]
    halved = splits.count + learner.sampler.splits - sampler_splits
    return StepResult(gathered, norm, clock.seconds, halved, passes, term_norms)


# ---------------------------------------------------------------------------------------------------------- sample


def _sample_groups(learner: Learner, questions: Sequence[Example], step: int) -> list[list[Sample]]:
    """B CoTs for each of this process's questions; a draw depends on (seed, step, question, sample number) alone.

    A question that comes twice in one step (a small dataset, the border of an epoch) goes on counting its samples.
    """
    config, size = learner.config, learner.config.rollouts.group_size
    again = ("attempt", learner.attempt) if learner.attempt else ()
    numbered = [(q, size * sum(other.id == q.id for other in questions[:at])) for at, q in enumerate(questions)]
    mine = learner.world.share(numbered)
    requests = [
        SampleRequest(
            learner.prompter.cot_prompt(question),
            tuple((config.seed, *again, "cot", step, question.id, first + i) for i in range(size)),
        )
        for question, first in mine
    ]
    groups = learner.sampler.sample(requests, cot_decoding(config, step))
    return [
        [Sample(question, first + i, cot) for i, cot in enumerate(group)]
        for (question, first), group in zip(mine, groups, strict=True)
    ]


def cot_decoding(config: RunConfig, step: int, temperature: float | None = None) -> Decoding:
    """How CoTs are decoded in step `step`, or at another temperature."""
    rollouts = config.rollouts
    assert rollouts.max_cot_tokens is not None, "the configuration must be resolved"
    tau = rollouts.temperature.at(step, config.training.steps) if temperature is None else temperature
    return Decoding(rollouts.max_cot_tokens, tau, rollouts.fixed_length, rollouts.stop)


def _baseline_due(learner: Learner, step: int) -> bool:
    config = learner.config.objective
    return config.normalize_reward and (step - 1) % config.baseline_every == 0


@torch.no_grad()
def _read_baselines(learner: Learner, groups: list[list[Sample]], splits: _Counter) -> None:
    """b = reward of the frozen model's greedy CoT, read by the frozen model."""
    questions = [group[0].example for group in groups]
    requests = [SampleRequest(learner.prompter.cot_prompt(q), (("greedy",),)) for q in questions]
    with learner.lm.frozen():
        drawn = learner.sampler.sample(requests, cot_decoding(learner.config, 1, temperature=0.0))
        cots = [(q, group[0].ids) for q, group in zip(questions, drawn, strict=True)]
        read = map_splitting(lambda part: _frozen_rewards(learner, part), cots, lambda _: splits.add())
    for group, (_, ids), (reward, logprob) in zip(groups, cots, read, strict=True):
        text = learner.prompter.text(ids)
        for sample in group:
            sample.baseline, sample.baseline_cot, sample.baseline_logprob = reward, text, logprob


def _frozen_rewards(learner: Learner, cots: Sequence[tuple[Example, tuple[int, ...]]]) -> list[tuple[float, float]]:
    """(reward, ln pi' per answer token) of each CoT."""
    config = learner.config.objective
    scores = score_answers(learner.lm, answer_batch(learner.prompter, config.conditioning, cots), learner.sharing)
    if config.reward == "exact_match":
        rewards = [float(right) for right in answers_are_right(learner.sampler, learner.prompter, config.conditioning, cots)]
    else:
        rewards = likelihood_reward(config, scores.logp_sum, scores.logp_mean).tolist()
    return list(zip(rewards, scores.logp_mean.tolist(), strict=True))


# ----------------------------------------------------------------------------------------------------------- score


def _score(learner: Learner, mine: list[Sample], keep_graph: bool, splits: _Counter) -> list[Tensor]:
    """Fill in the rewards. Returns them [n] with gradient where the training pass can use them as they are.

    In a list of one (else an empty list), for its user to take out: a graph that memory ran out for must be let go of.
    """
    config = learner.config
    live = learner.weights_live and keep_graph and config.lora.dropout == 0 and not config.loading.gradient_checkpointing
    if live:
        try:
            rewards = _rewards_of(learner, mine)
            _fill_rewards(mine, rewards)
            return [rewards.live]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        release_memory()
        splits.add()
    with torch.no_grad(), learner.lm.frozen() if config.objective.reader == "frozen" else nullcontext():
        map_splitting(lambda part: _fill_rewards(part, _rewards_of(learner, part)), mine, lambda _: splits.add())
        if config.objective.reward == "exact_match":
            cots = [(sample.example, sample.cot.ids) for sample in mine]
            right = answers_are_right(learner.sampler, learner.prompter, config.objective.conditioning, cots)
            for sample, hit in zip(mine, right, strict=True):
                sample.reward = float(hit)
    return []


@dataclass(frozen=True, slots=True)
class _Rewards:
    live: Tensor  # [n] r, with gradient if gradients are on
    logprob: list[float]
    probability: list[float]
    correct: list[bool]


def _rewards_of(learner: Learner, samples: Sequence[Sample]) -> _Rewards:
    config = learner.config.objective
    batch = answer_batch(learner.prompter, config.conditioning, [(s.example, s.cot.ids) for s in samples])
    scores = score_answers(learner.lm, batch, learner.sharing)
    live = scores.logp_mean if config.reward == "exact_match" else likelihood_reward(config, scores.logp_sum, scores.logp_mean)
    return _Rewards(live, scores.logp_mean.tolist(), scores.logp_sum.exp().tolist(), scores.greedy.tolist())


def _fill_rewards(samples: Sequence[Sample], rewards: _Rewards) -> list[None]:
    values = rewards.live.tolist()
    for i, sample in enumerate(samples):
        sample.reward, sample.answer_logprob = values[i], rewards.logprob[i]
        sample.answer_probability, sample.correct = rewards.probability[i], rewards.correct[i]
    return [None] * len(samples)


# ---------------------------------------------------------------------------------------------------------- credit


def _credit(learner: Learner, groups: list[list[Sample]]) -> Credit:
    """Advantages from the rewards of all processes; returns the constants for this process's samples."""
    _require_finite_rewards([sample for group in groups for sample in group])
    rewards = [[sample.reward - (sample.baseline or 0.0) for sample in group] for group in groups]
    everyone = learner.world.gather(rewards)
    dtype = torch.promote_types(next(learner.lm.causal_lm.parameters()).dtype, torch.float32)
    reward = torch.tensor(everyone, dtype=dtype, device=learner.lm.device)
    credit = learner.objective.credit(reward)
    advantage = credit.advantage(reward)
    own = range(learner.world.rank, len(everyone), learner.world.size)
    for group, q in zip(groups, own, strict=True):
        for i, sample in enumerate(group):
            sample.advantage = advantage[q, i].item()
    width = reward.shape[1]
    index = torch.tensor([q * width + i for q in own for i in range(width)], dtype=torch.long, device=reward.device)
    return credit.select(index)


# ------------------------------------------------------------------------------------------------------------ loss


def _microbatches(learner: Learner, samples: Sequence[Sample]) -> list[list[int]]:
    """Indices of samples, neighbours together, so that CoT pass and answer pass fit the token budget."""
    budget = learner.config.training.microbatch_tokens
    plan: list[list[int]] = [[]]
    longest = 0
    for i, sample in enumerate(samples):
        size = _tokens(learner, sample)
        longest = max(longest, size)
        if plan[-1] and (len(plan[-1]) + 1) * longest > budget:
            plan.append([])
            longest = size
        plan[-1].append(i)
    return plan


def _tokens(learner: Learner, sample: Sample) -> int:
    """Of a sample's two continuations, and of its prompts where they are not shared."""
    prompter, cot = learner.prompter, len(sample.cot.tokens)
    answer = len(prompter.header_ids) + len(prompter.answer_ids(sample.example))
    own = 2 * cot + answer
    if learner.sharing == "padded":
        reader = prompter.reader_prompt(sample.example, learner.config.objective.conditioning)
        own += len(prompter.cot_prompt(sample.example)) + len(reader)
    return own


@dataclass(frozen=True, slots=True)
class _Gradients:
    total: list[Tensor]  # of each adapter parameter
    term_norms: dict[str, float]


def _gradients(
    learner: Learner, mine: list[Sample], plan: list[list[int]], credit: Credit, live: list[Tensor], step: int, splits: _Counter
) -> _Gradients:
    """Gradient of the mean loss over the samples of all processes; term by term in the steps that ask for it."""
    parameters = [parameter for _, parameter in learner.lm.adapter_parameters()]
    every = learner.config.health.gradient_shares_every
    by_term = bool(every) and step % every == 0
    sums: dict[str, list[Tensor]] = {}
    todo = list(plan)
    while todo:
        part = todo.pop(0)
        samples = [mine[i] for i in part]
        grads = _part_gradients(learner, samples, credit.select(_index(part, credit)), live, parameters, step, by_term)
        if grads is None:
            release_memory()
            splits.add()
            todo[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
            continue
        for term, of_term in grads.items():
            total = sums.setdefault(term, [torch.zeros_like(parameter) for parameter in parameters])
            for sum_so_far, gradient in zip(total, of_term, strict=True):
                if gradient is not None:
                    sum_so_far += gradient
            _require_finite_gradient(total, samples, step)
    for total in sums.values():
        learner.world.sum_gradients(total)
    if not by_term:
        return _Gradients(sums["loss"], {})
    norms = {term: torch.nn.utils.get_total_norm(total).item() for term, total in sums.items()}
    return _Gradients([torch.stack(list(of_one)).sum(0) for of_one in zip(*sums.values(), strict=True)], norms)


def _part_gradients(
    learner: Learner,
    samples: list[Sample],
    credit: Credit,
    live: list[Tensor],
    parameters: list[torch.nn.Parameter],
    step: int,
    by_term: bool,
) -> dict[str, Sequence[Tensor | None]] | None:
    """Of one micro-batch; None where memory ran out (when this returns, all that it held is free). Takes `live` out."""
    whole = learner.config.rollouts.questions_per_step * learner.config.rollouts.group_size
    try:
        terms = _losses(learner, samples, credit, live.pop() if live else None, step)
        _require_finite_loss(terms, samples, step)
        parts = terms.parts() if by_term else {"loss": terms.total()}
        return {
            name: torch.autograd.grad(part.sum() / whole, parameters, allow_unused=True, retain_graph=number + 1 < len(parts))
            for number, (name, part) in enumerate(parts.items())
        }
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(samples) == 1:
            raise RunFailed(
                f"step {step}: out of memory with the single sample {samples[0].name}; lower rollouts.max_cot_tokens, "
                "or set loading.gradient_checkpointing=true"
            ) from error
        return None


_PASS_STATS = ("behavior_kl", "ratio_mean", "ratio_clipped_fraction")


def _pass_stats(learner: Learner, groups: list[list[Sample]]) -> dict[str, float]:
    """Means of the pass just made over the samples of all processes; KL(behaviour || policy) in nats per token."""
    everyone = learner.world.gather([[sample.stats for sample in group] for group in groups])
    stats = [of_sample for group in everyone for of_sample in group]
    return {name: math.fsum(s[name] for s in stats) / len(stats) for name in _PASS_STATS if name in stats[0]}


def _index(part: Sequence[int], credit: Credit) -> Tensor:
    return torch.tensor(list(part), dtype=torch.long, device=credit.centre.device)


def _losses(learner: Learner, samples: list[Sample], credit: Credit, live: Tensor | None, step: int) -> LossTerms:
    """Loss terms of a micro-batch, with gradient; statistics of each sample are filled in."""
    config, steps = learner.config.objective, learner.config.training.steps
    weights = Weights(
        config.actor_reward_weight.at(step, steps), config.kl_weight.at(step, steps), config.entropy_weight.at(step, steps)
    )
    with learner.lm.training_mode():
        scores = score_cots(learner, samples, step)
        if learner.weights_live and live is None:
            live = _rewards_of(learner, samples).live
    baseline = torch.tensor([s.baseline or 0.0 for s in samples], dtype=credit.centre.dtype, device=credit.centre.device)
    advantage = torch.tensor([s.advantage for s in samples], dtype=credit.centre.dtype, device=credit.centre.device)
    mask = _mask(samples, scores.logp)
    behavior = _padded([s.cot.behavior_logp for s in samples], scores.logp)
    batch = PolicyBatch(scores.logp, behavior, scores.reference_logp, mask, advantage, credit.chosen)
    live_reward = None if live is None else live - baseline
    terms = loss_terms(learner.objective, batch, credit, live_reward, scores.kl, scores.entropy, weights)
    _fill_stats(samples, batch, terms, scores)
    return terms


@torch.no_grad()
def _measure(learner: Learner, mine: list[Sample], part: Sequence[int], credit: Credit, step: int) -> list[None]:
    """The statistics of a micro-batch that trains nothing."""
    _losses(learner, [mine[i] for i in part], credit.select(_index(part, credit)), None, step)
    return [None] * len(part)


@dataclass(frozen=True, slots=True)
class CotScores:
    """Of each sampled token; 0 past the end of a CoT. Nats."""

    logp: Tensor  # [n, T] ln u_theta
    reference_logp: Tensor  # [n, T] ln u'
    kl: Tensor  # [n, T] exact KL(u_theta || u')
    entropy: Tensor  # [n, T]


def score_cots(learner: Learner, samples: Sequence[Sample], step: int) -> CotScores:
    """Score sampled CoTs under the actor and the frozen policy, in the distribution that was sampled from."""
    config, lm = learner.config, learner.lm
    batch = batch_of([(learner.prompter.cot_prompt(s.example), s.cot.tokens, 0) for s in samples])
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
    )
    lengths = [len(s.cot.tokens) for s in samples]
    column = torch.cat([torch.arange(length, device=lm.device) for length in lengths])

    def padded(values: Tensor | None) -> Tensor:
        assert values is not None
        return values.new_zeros(len(samples), max(lengths)).index_put((span.row, column), values)

    return CotScores(padded(stats.logp), padded(stats.reference_logp), padded(stats.kl), padded(stats.entropy))


def _padded(rows: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    width = like.shape[1]
    return torch.tensor([list(row) + [0.0] * (width - len(row)) for row in rows], dtype=like.dtype, device=like.device)


def _mask(samples: Sequence[Sample], like: Tensor) -> Tensor:
    lengths = torch.tensor([len(s.cot.tokens) for s in samples], device=like.device)
    return (torch.arange(like.shape[1], device=like.device) < lengths[:, None]).to(like.dtype)


def _fill_stats(samples: list[Sample], batch: PolicyBatch, terms: LossTerms, scores: CotScores) -> None:
    """Numbers of the log, of each sample; one transfer from the device for each."""
    count = batch.mask.sum(-1)
    with torch.no_grad():
        zeros = torch.zeros_like(terms.policy)
        log_ratio = (batch.logp - batch.behavior_logp) * batch.mask
        frozen_log_ratio = ((batch.logp - batch.reference_logp) * batch.mask).sum(-1) / count
        values = {
            "loss_policy": terms.policy,
            "loss_actor_reward": zeros if terms.actor_reward is None else terms.actor_reward,
            "loss_kl": zeros if terms.kl is None else terms.kl,
            "loss_entropy": zeros if terms.entropy is None else terms.entropy,
            "kl": (scores.kl * batch.mask).sum(-1) / count,
            "kl_max": scores.kl.amax(-1),
            "entropy": (scores.entropy * batch.mask).sum(-1) / count,
            "behavior_gap": log_ratio.abs().sum(-1) / count,
            # Schulman's low-variance, nonnegative estimate of KL(behaviour || policy) from the sampled tokens
            "behavior_kl": ((log_ratio.exp() - 1 - log_ratio) * batch.mask).sum(-1) / count,
            "frozen_ratio": frozen_log_ratio.exp(),
            **terms.metrics,
        }
        columns = {name: value.detach().tolist() for name, value in values.items()}
    for i, sample in enumerate(samples):
        # losses, KL and entropy are those of the policy that sampled; later passes only tell how far it moved from it
        later = {name: column[i] for name, column in columns.items() if name.startswith(("ratio_", "behavior_"))}
        sample.stats |= later if sample.stats else {name: column[i] for name, column in columns.items()}


def _require_finite_rewards(samples: list[Sample]) -> None:
    """Before one bad reward spoils the mean, and so the loss, of its whole group."""
    bad = [s.name for s in samples if not (math.isfinite(s.reward) and math.isfinite(s.baseline or 0.0))]
    if bad:
        raise RunFailed(f"the reward is not finite for samples {_some(bad)}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _require_finite_loss(terms: LossTerms, samples: list[Sample], step: int) -> None:
    bad = [s.name for s, ok in zip(samples, torch.isfinite(terms.total()).tolist(), strict=True) if not ok]
    if bad:
        parts = [name for name in ("policy", "actor_reward", "kl", "entropy") if not _finite(getattr(terms, name))]
        raise RunFailed(f"step {step}: the loss is not finite (term {', '.join(parts)}) for samples {_some(bad)}")


def _finite(value: Tensor | None) -> bool:
    return value is None or bool(torch.isfinite(value).all())


def _require_finite_gradient(total: list[Tensor], samples: list[Sample], step: int) -> None:
    if not all(_finite(gradient) for gradient in total):
        raise RunFailed(
            f"step {step}: the gradient is not finite in the micro-batch of samples {_some([s.name for s in samples])}"
        )


# ------------------------------------------------------------------------------------------------------------ step


def _apply(learner: Learner, gradients: list[Tensor], mine: list[Sample], step: int) -> float:
    """Clip, set the learning rate of this step, update. Returns the norm before clipping."""
    training = learner.config.training
    _require_finite_gradient(gradients, mine, step)
    for (_, parameter), gradient in zip(learner.lm.adapter_parameters(), gradients, strict=True):
        parameter.grad = gradient
    norm = torch.nn.utils.clip_grad_norm_([p for _, p in learner.lm.adapter_parameters()], training.max_grad_norm)
    for group in learner.optimizer.param_groups:
        group["lr"] = learner.lr_scale * learning_rate(learner.config, step)
    learner.optimizer.step()
    learner.optimizer.zero_grad(set_to_none=True)
    return norm.item()


def learning_rate(config: RunConfig, step: int) -> float:
    """Of step `step`: the schedule, times a linear warm-up."""
    training = config.training
    warmup = min(1.0, step / (training.warmup_steps + 1)) if training.warmup_steps else 1.0
    return training.lr.at(step, training.steps) * warmup


class _Counter:
    """Counts splits for memory."""

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> None:
        self.count += 1
