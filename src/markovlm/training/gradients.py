"""The gradient of the loss, micro-batch by micro-batch, and the numbers that are recorded for each CoT on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from markovlm.errors import RunFailed
from markovlm.models.logprobs import Statistic
from markovlm.models.memory import is_out_of_memory, map_splitting, release_memory
from markovlm.objectives import Credit, PolicyBatch
from markovlm.objectives.base import RATIO_METRICS
from markovlm.objectives.loss import LossTerms, Weights, loss_terms
from markovlm.training.crediting import some
from markovlm.training.importance import correct, weighted
from markovlm.training.records import OWN_METRIC, Learner, Retries, Sample
from markovlm.training.scoring import CotScores, HeldGraph, score_cots, surrogates

_PASS_STATS = ("behavior_kl", "ratio_mean", "ratio_clipped_fraction")


@dataclass(frozen=True, slots=True)
class Gradients:
    """Summed over all processes: the gradient of the mean loss over all samples."""

    total: list[Tensor]  # of each adapter parameter
    term_norms: dict[str, float]  # loss term -> norm, in the steps that ask for it


def loss_gradients(
    learner: Learner,
    samples: Sequence[Sample],
    plan: Sequence[list[int]],
    credit: Credit,
    held: HeldGraph,
    step: int,
    retries: Retries,
) -> Gradients:
    """Gradient of the mean loss over the samples of all processes; term by term in steps that ask for it."""
    parameters = [parameter for _, parameter in learner.lm.adapter_parameters()]
    every = learner.config.health.gradient_shares_every
    by_term = bool(every) and step % every == 0
    sums: dict[str, list[Tensor]] = {}
    todo = list(plan)
    while todo:
        part = todo.pop(0)
        few = [samples[i] for i in part]
        grads = _part_gradients(learner, few, credit.select(_index(part, credit)), held, parameters, step, by_term)
        if grads is None:
            learner.lm.recover()
            release_memory()
            retries.add()
            todo[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
            continue
        for term, of_term in grads.items():
            total = sums.setdefault(term, [torch.zeros_like(parameter) for parameter in parameters])
            for sum_so_far, gradient in zip(total, of_term, strict=True):
                if gradient is not None:
                    sum_so_far += gradient
            require_finite_gradient(total, few, step)
    for total in sums.values():
        learner.world.sum_gradients(total)
    if not by_term:
        return Gradients(sums["loss"], {})
    norms = {term: torch.nn.utils.get_total_norm(total).item() for term, total in sums.items()}
    return Gradients([torch.stack(list(of_one)).sum(0) for of_one in zip(*sums.values(), strict=True)], norms)


def _part_gradients(
    learner: Learner,
    samples: list[Sample],
    credit: Credit,
    held: HeldGraph,
    parameters: list[torch.nn.Parameter],
    step: int,
    by_term: bool,
) -> dict[str, Sequence[Tensor | None]] | None:
    """Of one micro-batch; None where memory ran out (when this returns, all that it held is free)."""
    whole = learner.config.rollouts.questions_per_step * learner.config.rollouts.group_size
    try:
        terms = _losses(learner, samples, credit, held.take(), step)
        _require_finite_loss(terms, samples, step)
        parts = terms.parts() if by_term else {"loss": terms.total()}
        return {
            name: torch.autograd.grad(part.sum() / whole, parameters, allow_unused=True, retain_graph=number + 1 < len(parts))
            if part.requires_grad  # a term of weight 0 may have none
            else [None] * len(parameters)
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


def measure_only(
    learner: Learner, samples: Sequence[Sample], plan: Sequence[list[int]], credit: Credit, step: int, retries: Retries
) -> None:
    """The statistics of a step that trains nothing (a warm-up that only gathers rewards)."""

    @torch.no_grad()
    def measure(part: Sequence[int]) -> list[None]:
        _losses(learner, [samples[i] for i in part], credit.select(_index(part, credit)), None, step)
        return [None] * len(part)

    for part in plan:
        map_splitting(measure, part, retries.add)


def pass_means(learner: Learner, groups: Sequence[Sequence[Sample]]) -> dict[str, float]:
    """Means of the pass just made over the samples of all processes; KL(behaviour || policy) in nats per token."""
    everyone = learner.world.gather([[sample.stats for sample in group] for group in groups])
    stats = [of_sample for group in everyone for of_sample in group]
    return {name: math.fsum(s[name] for s in stats) / len(stats) for name in _PASS_STATS if name in stats[0]}


def _index(part: Sequence[int], credit: Credit) -> Tensor:
    return torch.tensor(list(part), dtype=torch.long, device=credit.centre.device)


def _losses(learner: Learner, samples: list[Sample], credit: Credit, surrogate: Tensor | None, step: int) -> LossTerms:
    """Loss terms of a micro-batch, with gradient; statistics of each sample are filled in."""
    config, steps = learner.config.objective, learner.config.training.steps
    weights = Weights(
        config.actor_reward_weight.at(step, steps), config.kl_weight.at(step, steps), config.entropy_weight.at(step, steps)
    )
    with learner.lm.training_mode():
        scores = score_cots(learner, samples, step, _trained(weights))
        if learner.reward_trains and surrogate is None:
            surrogate = surrogates(learner, samples)
            if not surrogate.requires_grad:  # states of chains from which nothing is predicted
                surrogate = None

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(list(values), dtype=credit.centre.dtype, device=credit.centre.device)

    baseline, advantage = column([s.baseline or 0.0 for s in samples]), column([s.advantage for s in samples])
    mask = _mask(samples, scores.logp)
    corrected = correct(learner, samples, scores, mask, step)
    logp = weighted(scores.logp, corrected.token)
    batch = PolicyBatch(logp, corrected.behavior, scores.reference_logp, mask, advantage, credit.chosen)
    live = (
        None if surrogate is None else weighted(surrogate, corrected.cot) * column([s.reward_weight for s in samples]) - baseline
    )
    if live is not None and learner.config.chain.on:
        live = live + column([s.future for s in samples])
    terms = loss_terms(learner.objective, batch, credit, live, scores.kl, scores.entropy, weights)
    if learner.config.chain.on:
        terms = terms.weighted(column([s.loss_weight for s in samples]))
    _fill_stats(samples, batch, terms, scores, corrected.stats)
    return terms


def _trained(weights: Weights) -> list[Statistic]:
    """What the loss differentiates: KL and entropy are only measured where they weigh nothing."""
    return ["logp", *(name for name in ("kl", "entropy") if getattr(weights, name))]  # pyright: ignore[reportReturnType]


def _mask(samples: Sequence[Sample], like: Tensor) -> Tensor:
    lengths = torch.tensor([len(s.cot.tokens) for s in samples], device=like.device)
    return (torch.arange(like.shape[1], device=like.device) < lengths[:, None]).to(like.dtype)


@torch.no_grad()
def _fill_stats(
    samples: list[Sample], batch: PolicyBatch, terms: LossTerms, scores: CotScores, compared: dict[str, Tensor]
) -> None:
    """Numbers of the log, of each sample; one transfer from the device for each."""
    count = batch.mask.sum(-1)
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
        **compared,
        **{name if name in RATIO_METRICS else OWN_METRIC + name: value for name, value in terms.metrics.items()},
    }
    columns = {name: value.detach().tolist() for name, value in values.items()}
    for i, sample in enumerate(samples):
        # losses, KL and entropy are those of the policy that sampled; later passes only tell how far it moved from it
        later = {name: column[i] for name, column in columns.items() if name.startswith(("ratio_", "behavior_", OWN_METRIC))}
        sample.stats |= later if sample.stats else {name: column[i] for name, column in columns.items()}


def _require_finite_loss(terms: LossTerms, samples: list[Sample], step: int) -> None:
    bad = [s.name for s, ok in zip(samples, torch.isfinite(terms.total()).tolist(), strict=True) if not ok]
    if bad:
        parts = [name for name in ("policy", "actor_reward", "kl", "entropy") if not _finite(getattr(terms, name))]
        raise RunFailed(f"step {step}: the loss is not finite (term {', '.join(parts)}) for samples {some(bad)}")


def _finite(value: Tensor | None) -> bool:
    return value is None or bool(torch.isfinite(value).all())


def require_finite_gradient(total: list[Tensor], samples: Sequence[Sample], step: int) -> None:
    """Raises RunFailed naming the micro-batch where a gradient is not finite."""
    if not all(_finite(gradient) for gradient in total):
        raise RunFailed(
            f"step {step}: the gradient is not finite in the micro-batch of samples {some([s.name for s in samples])}"
        )
