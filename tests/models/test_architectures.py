"""Every family of models: sampler, shared and padded pass against the plain forward of one sequence, values and gradients."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from markovlm.config.model import Loading, Lora
from markovlm.models.load import LanguageModel, load_model
from markovlm.models.logprobs import token_stats
from markovlm.models.sequences import batch_of, forked_batch, span_hidden
from markovlm.rollouts.drafts import read_with_drafts
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.static import StaticDecoder, decodes_in_one_shape
from markovlm.rollouts.types import Decoding, SampleRequest
from support.architectures import FAMILIES, save_family
from support.tape import Tape, taped
from support.tiny import shake

PROMPTS = ((1, 20, 30, 40, 50, 60, 70, 80), (1, 9, 33), (1, 44, 45, 46, 47))
PARTS = (  # (prefix, continuation, start): a prompt shared by three, continuations of different lengths
    (PROMPTS[0], (7, 8, 9, 10, 11, 12, 13), 0),
    (PROMPTS[1], (7, 8), 1),
    (PROMPTS[0], (50, 60, 70), 2),
    (PROMPTS[0], (14,), 0),
)
SHORT = (
    "mixtral",
    "bloom",
    "qwen3_next",
    "mamba",
    "recurrent_gemma",
)  # one of each way to keep the past; `make test-long` has all
LONG = [pytest.param(name, marks=() if name in SHORT else pytest.mark.long) for name in FAMILIES]
PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"


@pytest.fixture(scope="module", params=LONG)
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    directory: Path = save_family(request.param, tmp_path_factory.mktemp(request.param))
    lora = Lora(rank=2, alpha=4, targets=FAMILIES[request.param].targets)
    found = load_model(str(directory), Loading(device="cpu", dtype="float64"), lora=lora)
    shake(found)
    assert found.caching == documented()[request.param]
    return found


def documented() -> dict[str, str]:
    """Family -> how its cache is used, as the page says."""
    return dict(re.findall(r"^\| `(\w+)` \| .* \| (\w+) \|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE))


def test_the_page_lists_the_families() -> None:
    assert list(documented()) == list(FAMILIES)


def plain(lm: LanguageModel, prefix: tuple[int, ...], tokens: tuple[int, ...], start: int) -> Tensor:
    """ln p of the tokens from `start` on, by transformers' own forward of one whole sequence."""
    ids = torch.tensor([prefix + tokens])
    logits = lm.causal_lm(input_ids=ids, use_cache=False).logits[0, len(prefix) - 1 + start : -1]
    return logits.double().log_softmax(-1).gather(-1, torch.tensor(tokens[start:])[:, None])[:, 0]


def gradient(lm: LanguageModel, logp: Tensor) -> Tensor:
    weights = torch.linspace(0.5, 1.5, len(logp), dtype=logp.dtype)
    parameters = [p for _, p in lm.adapter_parameters()]
    grads = torch.autograd.grad((logp * weights).sum(), parameters, allow_unused=True)
    return torch.cat([torch.zeros(p.numel()) if g is None else g.reshape(-1) for p, g in zip(parameters, grads, strict=True)])


def test_the_sampler_draws_from_what_the_plain_forward_says(lm: LanguageModel) -> None:
    requests = [SampleRequest(prompt, tuple(("arch", p, i) for i in range(3))) for p, prompt in enumerate(PROMPTS)]
    groups = HFSampler(lm).sample(requests, Decoding(12, 1.0))
    for prompt, group in zip(PROMPTS, groups, strict=True):
        assert len({cot.tokens for cot in group}) > 1
        for cot in group:
            with torch.no_grad():
                expected = plain(lm, prompt, cot.tokens, 0)
            assert torch.allclose(torch.tensor(cot.behavior_logp, dtype=torch.float64), expected, atol=1e-4), prompt
    one = HFSampler(lm).sample([requests[1]], Decoding(12, 1.0))
    assert [cot.tokens for cot in one[0]] == [cot.tokens for cot in groups[1]]  # whatever stands beside it in the batch
    tokens = [[cot.tokens for cot in group] for group in groups]
    few = HFSampler(lm).sample(requests, Decoding(12, 1.0), rows=2)  # and in whose place it begins
    assert [[cot.tokens for cot in group] for group in few] == tokens
    if decodes_in_one_shape(lm):
        shaped = HFSampler(lm, static_cache="on")
        played: list[Tape] = []
        shaped.decoder = StaticDecoder(lm, taped(played))
        assert [[cot.tokens for cot in group] for group in shaped.sample(requests, Decoding(12, 1.0))] == tokens
        assert played


def test_gold_answers_as_drafts_read_what_two_passes_read(lm: LanguageModel) -> None:
    """Where a token can be taken back from the cache; and rows that keep the front of a prompt alone hide tokens in the same way."""
    lm.terminators = tuple(range(2, 100, 7))
    rows = [(prompt, (7 + n, 8, 9)[: 1 + n % 3]) for n, prompt in enumerate(PROMPTS * 2)]
    batch = batch_of([(prompt, (*before, 40, 41, 42), len(before)) for prompt, before in rows])
    found = read_with_drafts(lm, batch, Decoding(6, 0.0))
    requests = [SampleRequest(prompt + before, (("greedy",),)) for prompt, before in rows]
    if found is not None:
        greedy = [group[0].tokens for group in HFSampler(lm).sample(requests, Decoding(6, 0.0))]
        assert [one.read.tokens for one in found] == greedy
    forked = forked_batch([(PROMPTS[0], (*PROMPTS[0][:5], 60), (61, 62)), (PROMPTS[0], (*PROMPTS[0], 70), (71,))])
    with torch.no_grad():
        shared, padded = (
            token_stats(lm, s.hidden, s.targets).logp for s in (span_hidden(lm, forked), span_hidden(lm, forked, "padded"))
        )
    torch.testing.assert_close(shared, padded, rtol=0, atol=1e-4)


@pytest.mark.parametrize("sharing", ["shared", "padded"])
def test_both_passes_give_the_plain_forwards_values_and_gradients(lm: LanguageModel, sharing: str) -> None:
    span = span_hidden(lm, batch_of(PARTS), sharing)
    logp = token_stats(lm, span.hidden, span.targets).logp
    expected = torch.cat([plain(lm, *part) for part in PARTS])
    assert torch.allclose(logp.double(), expected, atol=1e-4)  # some compute parts in float32 always
    ours, theirs = gradient(lm, logp), gradient(lm, expected)
    assert theirs.abs().max() > 0
    assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))
