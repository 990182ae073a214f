"""Per-token log-probabilities, exact KL and entropy of the distribution that is sampled from.

That distribution is softmax(logits / temperature) with banned tokens (end tokens under a fixed CoT length) taken out:
the sampler and the scorer both get it from `sampled_log_distribution`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from markovlm.models.language import LanguageModel


def chunk_elements(device: str) -> int:
    """Logits in one chunk, by the type of the device: 32 MB in float32 on a CPU, about its cache; 128 MB where launches cost more than memory."""
    return 1 << 23 if device == "cpu" else 1 << 25


def tokens_at_once(lm: LanguageModel) -> int:
    """Tokens whose logits exist at once."""
    return max(1, chunk_elements(lm.device.type) // lm.vocabulary)


Statistic = Literal["logp", "kl", "entropy"]


@dataclass(frozen=True, slots=True)
class TokenStats:
    """Of M scored tokens; nats."""

    logp: Tensor  # [M] ln of the token's probability
    kl: Tensor | None  # [M] KL(policy || reference) over the whole vocabulary at this position
    entropy: Tensor | None  # [M]
    best: Tensor  # [M] the most likely token
    reference_logp: Tensor | None = None  # [M] ln of the token's probability under the reference


def sampled_log_distribution(logits: Tensor, temperature: float = 1.0, banned: Tensor | None = None) -> Tensor:
    """[..., V] logits -> ln of the distribution that is sampled from (banned tokens: -inf)."""
    if temperature != 1.0:
        logits = logits / temperature
    if banned is not None and banned.numel():
        logits = logits.index_fill(-1, banned, float("-inf"))
    return torch.log_softmax(logits, dim=-1)


def token_stats(
    lm: LanguageModel,
    hidden: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    banned: Tensor | None = None,
    reference_hidden: Tensor | None = None,
    entropy: bool = False,
    train: Collection[Statistic] = ("logp", "kl", "entropy"),
    chunk: int | None = None,
) -> TokenStats:
    """Statistics of `targets` [M] under the states `hidden` [M, H] that predict them.

    The projection to the vocabulary runs in chunks of tokens, and no [M, V] tensor is ever kept: where there are several chunks, the
    gradient of each statistic with respect to its own state is computed beside its value (`_ValuesAndGradients`).
    With `reference_hidden` [M, H] (the frozen model's states at the same positions) the KL to it is exact.
    `train`: the statistics through which gradients flow, if any do; the others cost no product with the vocabulary's matrix for it.
    """
    size = chunk or tokens_at_once(lm)
    with_gradient = torch.is_grad_enabled() and hidden.requires_grad
    asked: dict[Statistic, bool] = {"logp": True, "kl": reference_hidden is not None, "entropy": entropy}
    wanted: tuple[Statistic, ...] = tuple(name for name, there in asked.items() if there)
    trained: tuple[Statistic, ...] = tuple(name for name in wanted if name in train and with_gradient)
    settings = _Settings(lm, temperature, banned, wanted, trained)
    if len(targets) <= size:
        parts = [_values(settings, hidden, targets, reference_hidden)]
    elif not with_gradient:
        parts = [_values(settings, *piece) for piece in _pieces(size, hidden, targets, reference_hidden)]
    elif lm.shards is None:
        parts = [_ValuesAndGradients.apply(settings, size, hidden, targets, reference_hidden)]
    else:  # the head's weights come and go with a pass of their own: they are asked for again in backward
        pieces = _pieces(size, hidden, targets, reference_hidden)
        parts = [checkpoint(_values, settings, *piece, use_reentrant=False) for piece in pieces]
    columns = [torch.cat(column) if len(parts) > 1 else column[0] for column in zip(*parts, strict=True)]
    *of_wanted, best, reference_logp = columns
    found = dict(zip(wanted, of_wanted, strict=True))
    kept = {name: value if name in trained else value.detach() for name, value in found.items()}
    return TokenStats(
        kept["logp"], kept.get("kl"), kept.get("entropy"), best, None if reference_hidden is None else reference_logp
    )


@dataclass(frozen=True, slots=True)
class _Settings:
    lm: LanguageModel
    temperature: float
    banned: Tensor | None
    wanted: tuple[Statistic, ...]
    trained: tuple[Statistic, ...]


def _pieces(
    size: int, hidden: Tensor, targets: Tensor, reference: Tensor | None
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    for at in range(0, len(targets), size):
        piece = slice(at, at + size)
        yield hidden[piece], targets[piece], None if reference is None else reference[piece]


def _values(settings: _Settings, hidden: Tensor, targets: Tensor, reference: Tensor | None) -> tuple[Tensor, ...]:
    """Of one chunk: each statistic that is wanted, the most likely token, ln of the target under the reference; with gradient if gradients are on."""
    lm, wanted = settings.lm, settings.wanted
    log_p = sampled_log_distribution(lm.logits(hidden), settings.temperature, settings.banned)
    found = {"logp": log_p.gather(-1, targets[:, None])[:, 0]}
    best = log_p.detach().argmax(-1)
    p = log_p.exp() if len(wanted) > 1 else None
    reference_logp = log_p.new_zeros(0)
    if "kl" in wanted and p is not None and reference is not None:
        log_q = sampled_log_distribution(lm.logits(reference), settings.temperature, settings.banned)
        reference_logp = log_q.gather(-1, targets[:, None])[:, 0]
        # banned tokens have p = 0 and add nothing, but -inf minus -inf would be NaN
        found["kl"] = (p * (log_p - log_q).masked_fill(p == 0, 0.0)).sum(-1)
    if "entropy" in wanted and p is not None:
        found["entropy"] = -(p * log_p.masked_fill(p == 0, 0.0)).sum(-1)
    return (*(found[name] for name in wanted), best, reference_logp)


class _ValuesAndGradients(torch.autograd.Function):
    """`_values` chunk by chunk, and with each value of a token its gradient with respect to that token's state.

    A statistic s_m depends on the state h_m alone, so dL/dh_m = sum_s (dL/ds_m) ds_m/dh_m, and ds_m/dh_m [H] is all that backward needs: a
    hundredth of what the logits take, and no projection is made twice. With z the logits over the temperature, p their softmax:

        d ln p_a / dz = 1_a - p        d KL(p || q) / dz = p (ln p - ln q - KL)        d H(p) / dz = -p (ln p + H)
    """

    @staticmethod
    def forward(ctx: Any, settings: _Settings, size: int, hidden: Tensor, targets: Tensor, reference: Tensor | None) -> Any:
        parts: list[tuple[Tensor, ...]] = []
        gradients: dict[Statistic, list[Tensor]] = {name: [] for name in settings.trained}
        for piece in _pieces(size, hidden, targets, reference):
            values, of_states = _with_gradients(settings, *piece)
            parts.append(values)
            for name, gradient in of_states.items():
                gradients[name].append(gradient)
        ctx.save_for_backward(*(torch.cat(of_one) for of_one in gradients.values()))
        ctx.places = [settings.wanted.index(name) for name in settings.trained]
        columns = tuple(torch.cat(column) for column in zip(*parts, strict=True))
        ctx.mark_non_differentiable(*columns[-2:])  # the most likely token, and what the frozen policy says
        return columns

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = None
        for place, gradient in zip(ctx.places, ctx.saved_tensors, strict=True):
            part = (grads[place][:, None] * gradient).to(gradient.dtype)
            total = part if total is None else total.add_(part)
        return None, None, total, None, None


def _with_gradients(
    settings: _Settings, hidden: Tensor, targets: Tensor, reference: Tensor | None
) -> tuple[tuple[Tensor, ...], dict[Statistic, Tensor]]:
    """`_values` of a chunk, and of each trained statistic its gradient with respect to the states [m, H]."""
    lm, tau, banned, wanted = settings.lm, settings.temperature, settings.banned, settings.wanted
    with torch.enable_grad():
        states = hidden.detach().requires_grad_()
        logits = lm.logits(states)
    log_p = sampled_log_distribution(logits.detach(), tau, banned)
    best = log_p.argmax(-1)
    logp, reference_logp = log_p.gather(-1, targets[:, None])[:, 0], log_p.new_zeros(0)
    p = log_p.exp()
    if banned is not None and banned.numel():
        log_p = log_p.index_fill(-1, banned, 0.0)  # where p = 0: -inf times 0 would be NaN
    found: dict[Statistic, Tensor] = {"logp": logp}
    of_states: dict[Statistic, Tensor] = {}

    def pull_back(name: Statistic, of_logits: Tensor) -> None:
        if tau != 1.0:
            of_logits /= tau
        (of_states[name],) = torch.autograd.grad(logits, states, of_logits.to(logits.dtype), retain_graph=True)

    if "kl" in wanted and reference is not None:
        log_q = sampled_log_distribution(lm.logits(reference), tau, banned)
        reference_logp = log_q.gather(-1, targets[:, None])[:, 0]
        if banned is not None and banned.numel():
            log_q = log_q.index_fill(-1, banned, 0.0)
        log_ratio = torch.sub(log_p, log_q, out=log_q)
        found["kl"] = torch.linalg.vecdot(p, log_ratio)
        if "kl" in settings.trained:
            pull_back("kl", log_ratio.sub_(found["kl"][:, None]).mul_(p))
        del log_q, log_ratio
    if "entropy" in wanted:
        found["entropy"] = -torch.linalg.vecdot(p, log_p)
        if "entropy" in settings.trained:
            pull_back("entropy", (log_p + found["entropy"][:, None]).mul_(p).neg_())
    if "logp" in settings.trained:
        of_logp = p.neg_()
        of_logp[torch.arange(len(targets), device=targets.device), targets] += 1.0
        pull_back("logp", of_logp)
    return (*(found[name] for name in wanted), best, reference_logp), of_states


def by_row(values: Tensor, row: Tensor, rows: int, reduction: str = "sum") -> Tensor:
    """[M] token values -> [N] sums or means over the tokens of each row."""
    total = values.new_zeros(rows).index_add(0, row, values)
    if reduction == "sum":
        return total
    return total / torch.bincount(row, minlength=rows).clamp(min=1)
