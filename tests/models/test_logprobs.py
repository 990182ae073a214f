"""Per-token log-probs, exact KL and entropy against the naive full-logit computation in float64, values and gradients."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from markovlm.models import logprobs
from markovlm.models.load import LanguageModel
from markovlm.models.logprobs import TokenStats, by_row, sampled_log_distribution, token_stats
from markovlm.models.sequences import Batch, Sharing, batch_of, span_hidden
from support import naive, tiny

PROMPTS = (tuple(range(10, 20)), (30, 31, 32))  # one longer than Gemma-3's window, one shorter
BATCH = batch_of(
    [(PROMPTS[0], (50, 51, 52, 53, 54), 0), (PROMPTS[1], (60, 61), 0), (PROMPTS[0], (55,), 0), (PROMPTS[1], (62, 63, 64, 65), 2)]
)
ROWS = [0] * 5 + [1] * 2 + [2] + [3] * 2
SETTINGS = {"plain": (1.0, ()), "hot, banned": (1.7, (2, 5)), "cold": (0.6, ())}


@pytest.fixture(scope="module", params=tiny.ARCHITECTURES)
def model(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> tuple[str, LanguageModel]:
    return request.param, tiny.load(tiny_models[request.param], shaken=True)


def ours(lm: LanguageModel, tau: float, banned: tuple[int, ...], chunk: int | None, sharing: Sharing = "shared") -> TokenStats:
    span = span_hidden(lm, BATCH, sharing)
    with torch.no_grad(), lm.frozen():
        reference = span_hidden(lm, BATCH, sharing).hidden
    banned_ids = torch.tensor(banned, dtype=torch.long)
    return token_stats(
        lm, span.hidden, span.targets, temperature=tau, banned=banned_ids, reference_hidden=reference, entropy=True, chunk=chunk
    )


def naively(lm: LanguageModel, tau: float, banned: tuple[int, ...], batch: Batch = BATCH) -> tuple[Tensor, Tensor, Tensor]:
    """ln p, KL and entropy of each scored token, position by position."""
    logp, kls, entropies = [], [], []
    for row in batch.rows:
        prefix = batch.prefixes[row.prefix]
        policy = naive.distribution(naive.row_logits(lm, prefix, row.tokens), tau, banned)
        with torch.no_grad(), lm.frozen():
            frozen = naive.distribution(naive.row_logits(lm, prefix, row.tokens), tau, banned)
        kl_T = naive.kl(policy, frozen)
        for t in range(row.start, len(row.tokens)):
            logp.append(policy[t, row.tokens[t]])
            kls.append(kl_T[t])
            entropies.append(torch.stack([-p.exp() * p for p in policy[t] if p.item() > -math.inf]).sum())
    return torch.stack(logp), torch.stack(kls), torch.stack(entropies)


@pytest.mark.parametrize("chunk", [1, 3, None])
@pytest.mark.parametrize("setting", SETTINGS)
def test_values_and_gradients(model: tuple[str, LanguageModel], setting: str, chunk: int | None) -> None:
    name, lm = model
    tau, banned = SETTINGS[setting]
    expected = naively(lm, tau, banned)
    stats = ours(lm, tau, banned, chunk)
    found = (stats.logp, stats.kl, stats.entropy)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine is not None
        naive.assert_close(mine.detach(), theirs.detach(), naive.TOLERANCE[name])
    if setting == "cold" or chunk == 3:
        return  # gradients: every chunk size and both settings once is enough
    weights = torch.linspace(-1, 2, len(ROWS), dtype=torch.float64)
    for i in range(3):
        mine_g = naive.gradient(lm, lambda i=i: (_columns(ours(lm, tau, banned, chunk))[i] * weights).sum())
        theirs_g = naive.gradient(lm, lambda i=i: (naively(lm, tau, banned)[i] * weights).sum())
        assert theirs_g.abs().max() > 1e-3
        naive.assert_close(mine_g, theirs_g, naive.TOLERANCE[name])


def _columns(stats: TokenStats) -> tuple[Tensor, Tensor, Tensor]:
    assert stats.kl is not None
    assert stats.entropy is not None
    return stats.logp, stats.kl, stats.entropy


def test_kl_is_zero_with_a_fresh_adapter_and_positive_after(tiny_models: dict[str, Path]) -> None:
    lm = tiny.load(tiny_models["gemma3"], lora=tiny.Lora(rank=2, alpha=4))
    fresh = ours(lm, 1.3, (2,), None).kl
    assert fresh is not None
    assert fresh.abs().max() == 0
    tiny.shake(lm)
    shaken = ours(lm, 1.3, (2,), None).kl
    assert shaken is not None
    assert shaken.min() > 0


def test_kl_belongs_to_the_position_that_predicts_the_token(tiny_models: dict[str, Path]) -> None:
    """Change a CoT's third token: the KL of the tokens up to it stays, that of those after it moves."""
    lm = tiny.load(tiny_models["gpt2"], shaken=True)

    def kl_of(cot: tuple[int, ...]) -> Tensor:
        batch = batch_of([(PROMPTS[0], cot, 0)])
        with torch.no_grad():
            hidden = span_hidden(lm, batch)
            with lm.frozen():
                reference = span_hidden(lm, batch).hidden
            kl = token_stats(lm, hidden.hidden, hidden.targets, reference_hidden=reference).kl
        assert kl is not None
        return kl

    change = (kl_of((50, 51, 52, 53, 54)) - kl_of((50, 51, 99, 53, 54))).abs()
    assert change[:3].max() < 1e-12
    assert change[3:].min() > 1e-4


def test_a_banned_token_has_no_probability() -> None:
    log_p = sampled_log_distribution(torch.tensor([[0.0, 0.0, 5.0]]), 2.0, torch.tensor([2]))
    assert log_p.tolist() == [[pytest.approx(-math.log(2)), pytest.approx(-math.log(2)), -math.inf]]


def test_temperature_divides_the_logits() -> None:
    # softmax([2, 0] / 2) = [e, 1] / (e + 1)
    log_p = sampled_log_distribution(torch.tensor([2.0, 0.0], dtype=torch.float64), 2.0)
    assert log_p.exp().tolist() == pytest.approx([math.e / (math.e + 1), 1 / (math.e + 1)])


def test_greedy_marks_the_most_likely_token(tiny_models: dict[str, Path]) -> None:
    lm = tiny.load(tiny_models["llama"])
    with torch.no_grad():
        best = naive.row_logits(lm, PROMPTS[0], (50,)).argmax(-1).item()
        for token, expected in ((best, True), ((best + 1) % 100, False)):
            span = span_hidden(lm, batch_of([(PROMPTS[0], (int(token),), 0)]))
            assert (token_stats(lm, span.hidden, span.targets).best == span.targets).tolist() == [expected]


def test_only_what_is_asked_for_is_computed(tiny_models: dict[str, Path]) -> None:
    lm = tiny.load(tiny_models["llama"])
    span = span_hidden(lm, BATCH)
    stats = token_stats(lm, span.hidden, span.targets)
    assert stats.kl is None
    assert stats.entropy is None


def test_the_full_logits_never_exist(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """No projection takes more tokens than a chunk, and none is made again in backward."""
    lm = tiny.load(tiny_models["llama"], shaken=True)
    sizes: list[int] = []
    logits = LanguageModel.logits
    monkeypatch.setattr(LanguageModel, "logits", lambda self, hidden: sizes.append(len(hidden)) or logits(self, hidden))
    monkeypatch.setattr(logprobs, "chunk_elements", lambda device: 4 * lm.vocabulary)
    span = span_hidden(lm, BATCH)
    token_stats(lm, span.hidden, span.targets).logp.sum().backward()
    assert sizes == [4, 4, 2]  # ten tokens in chunks of four


def test_what_is_not_trained_is_measured_alone(tiny_models: dict[str, Path]) -> None:
    """The same values, no gradient through them, and one product less with the vocabulary's matrix for each."""
    lm = tiny.load(tiny_models["llama"], shaken=True)
    everything = ours(lm, 1.7, (2, 5), 3)
    span = span_hidden(lm, BATCH)
    with torch.no_grad(), lm.frozen():
        reference = span_hidden(lm, BATCH).hidden
    settings = {"temperature": 1.7, "banned": torch.tensor([2, 5]), "reference_hidden": reference, "entropy": True}
    for chunk in (3, None):
        some = token_stats(lm, span.hidden, span.targets, train=("logp",), chunk=chunk, **settings)
        for one, other in zip(_columns(some), _columns(everything), strict=True):
            torch.testing.assert_close(one.detach(), other.detach(), rtol=1e-12, atol=1e-12)
        assert [column.requires_grad for column in _columns(some)] == [True, False, False]
        assert some.reference_logp is not None
        assert not some.reference_logp.requires_grad
    made = _columns(everything)[0].grad_fn
    assert made is not None
    kept = list(made.saved_tensors)  # pyright: ignore[reportAttributeAccessIssue]
    assert [tuple(t.shape) for t in kept] == [(len(ROWS), span.hidden.shape[1])] * 3  # a state for each statistic, no logits


def test_a_gradient_asked_for_twice_is_the_same(tiny_models: dict[str, Path]) -> None:
    """Term by term over one graph, as the steps do that measure the share of each term."""
    lm = tiny.load(tiny_models["gpt2"], shaken=True)
    parameters = [parameter for _, parameter in lm.adapter_parameters()]
    stats = ours(lm, 1.3, (), 4)
    apart = [torch.autograd.grad(column.sum(), parameters, retain_graph=True) for column in _columns(stats)]
    together = torch.autograd.grad(sum(column.sum() for column in _columns(stats)), parameters)
    for parts, whole in zip(zip(*apart, strict=True), together, strict=True):
        torch.testing.assert_close(torch.stack(list(parts)).sum(0), whole, rtol=1e-9, atol=1e-12)


def test_by_row() -> None:
    values, row = torch.tensor([1.0, 2.0, 4.0, 8.0], requires_grad=True), torch.tensor([0, 0, 2, 2])
    assert by_row(values, row, 4).tolist() == [3.0, 0.0, 12.0, 0.0]  # a row without tokens is 0
    assert by_row(values, row, 4, "mean").tolist() == [1.5, 0.0, 6.0, 0.0]
    by_row(values, row, 4, "mean")[2].backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 0.0, 0.5, 0.5]
