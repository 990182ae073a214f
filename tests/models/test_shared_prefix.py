"""Rows that look at one prefix without copies of its keys: the values, gradients and draws of rows that have copies."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from markovlm.config.model import Loading, Lora
from markovlm.errors import UserError
from markovlm.models import probes, shared_prefix
from markovlm.models.caches import select_rows
from markovlm.models.language import LanguageModel
from markovlm.models.load import load_model
from markovlm.models.probes import can_share, near, same_with_gradient
from markovlm.models.sequences import Batch, batch_of, continued, forked_batch, prefill, span_hidden
from markovlm.models.shared_prefix import Groups, Prefix, groups_of, pays, share_if_it_pays
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.types import Decoding, SampleRequest
from markovlm.training.shapes import read_shape
from support import architectures, naive, tiny

PROMPTS = (tuple(range(10, 24)), (30, 31, 32), (40, 41, 42, 43, 44, 45, 46))
RAGGED = batch_of(  # rows of a prompt side by side and apart, one prompt with one row
    [
        (PROMPTS[0], (50, 51, 52, 53, 54, 55, 56, 57), 0),
        (PROMPTS[1], (60,), 0),
        (PROMPTS[0], (50, 51), 1),
        (PROMPTS[2], (70, 71, 72, 73), 2),
        (PROMPTS[1], (61, 62, 63, 64, 65, 66, 67), 3),
    ]
)
EVEN = batch_of([(PROMPTS[0], (50, 51), 0), (PROMPTS[0], (52, 53, 54), 0)])
BATCHES = {"ragged": RAGGED, "one prompt": EVEN}
WINDOWS = ("mistral", "ministral", "gemma2", "gemma3", "gemma3n", "olmo3", "cohere2", "exaone4", "gpt_oss", "llama4")
OTHERS = ("gpt_neo", "gptj", "bloom", "falcon", "mpt", "deepseek_v2", "deepseek_v3")  # biases, attention of their own, latents
STATES = ("jamba", "bamba", "qwen3_next", "falcon_h1", "granitemoehybrid", "lfm2", "recurrent_gemma", "mamba", "mamba2", "rwkv")
COPIES = frozenset((*WINDOWS, *OTHERS, *STATES))  # of the families of docs/architectures.md
SHARE = ("llama", "qwen3", "gpt2")  # Gemma 3 has a window


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Always share, where it can be done; the numbers of rows that did."""
    seen: list[int] = []

    def spy(lm: LanguageModel, cache: Any, owners: Sequence[int], mask: Tensor, becoming: int = 0) -> bool:
        if did := share_if_it_pays(lm, cache, owners, mask, becoming):
            seen.append(len(owners))
        return did

    monkeypatch.setattr(shared_prefix, "LEAST_SAVED", 0)
    for module in ("models.sequences", "rollouts.fronts"):
        monkeypatch.setattr(f"markovlm.{module}.share_if_it_pays", spy)
    return seen


def states(lm: LanguageModel, batch: Batch) -> Tensor:
    return lm.logits(span_hidden(lm, batch).hidden)


@pytest.mark.parametrize("alike", [1, 2])
@pytest.mark.parametrize("owner", [[0, 0, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1]], ids=["in order", "mixed", "one without rows"])
@pytest.mark.parametrize("columns", [1, 3])
def test_the_two_parts_are_one_softmax(owner: list[int], columns: int, alike: int) -> None:
    """Against scores over all columns, with padded prefixes, a causal mask, and heads that share a key; gradients by differences."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    rows, heads, length, own, width = len(owner), 2, 4, 5, 8
    inputs = (
        normal(rows, heads * alike, columns, width),
        normal(2, heads, length, width),
        normal(2, heads, length, width),
        normal(rows, heads, own, width),
        normal(rows, heads, own, width),
    )
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    seen = torch.ones(columns, own, dtype=torch.bool).tril(own - columns)
    index = torch.tensor(owner)
    hidden = torch.zeros(2, 1, 1, length, dtype=torch.float64).masked_fill(mask[:, None, None] == 0, float("-inf"))
    groups = Groups(owner, 2, index.device, hidden)

    def ours(query: Tensor, keys: Tensor, values: Tensor, own_keys: Tensor, own_values: Tensor) -> Tensor:
        own_keys = own_keys * 1  # a tensor of this call, as a layer's keys are
        setattr(own_keys, shared_prefix._PREFIX, Prefix(keys, values, groups))
        visible = torch.cat([mask[index][:, None, None].bool().expand(-1, 1, columns, -1), seen.expand(rows, 1, -1, -1)], dim=-1)
        return shared_prefix._attention(None, query, own_keys, own_values, visible, scaling=0.4)[0]

    def whole(query: Tensor, keys: Tensor, values: Tensor, own_keys: Tensor, own_values: Tensor) -> Tensor:
        keys = torch.cat([keys[index], own_keys], dim=2).repeat_interleave(alike, dim=1)
        values = torch.cat([values[index], own_values], dim=2).repeat_interleave(alike, dim=1)
        scores = query @ keys.mT * 0.4
        scores[..., :length] += hidden[index]
        scores[..., length:].masked_fill_(~seen, float("-inf"))
        return (scores.softmax(-1) @ values).transpose(1, 2)

    naive.assert_close(ours(*inputs), whole(*inputs), 1e-12)
    assert torch.autograd.gradcheck(ours, inputs, fast_mode=True)  # along random directions


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_values_and_gradients_are_those_of_copies(
    tiny_models: dict[str, Path], architecture: str, batch: str, dtype: Any, shared: list[int]
) -> None:
    lm = load_model(str(tiny_models[architecture]), Loading(device="cpu", dtype=dtype), lora=Lora(rank=2, alpha=4))
    tiny.shake(lm)
    assert lm.shares_keys == (architecture in SHARE)
    found = states(lm, BATCHES[batch])
    assert shared == [len(BATCHES[batch].rows)] * lm.shares_keys
    lm.shares_keys = False
    expected = states(lm, BATCHES[batch])
    assert len(shared) <= 1
    tolerance = 1e-10 if dtype == "float64" else naive.TOLERANCE["float32"]
    naive.assert_close(found, expected, tolerance)
    parameters = [parameter for _, parameter in lm.adapter_parameters()]
    weights = torch.linspace(-1, 1, found.numel(), dtype=found.dtype).reshape(found.shape).roll(5, 0)
    ours, theirs = (torch.autograd.grad((logits * weights).sum(), parameters) for logits in (found, expected))
    naive.assert_close(torch.cat([g.flatten() for g in ours]), torch.cat([g.flatten() for g in theirs]), tolerance)


def test_the_prefix_is_not_copied(tiny_models: dict[str, Path], shared: list[int]) -> None:
    """No tensor of all rows has the prompt's columns, in forward or backward."""
    lm = tiny.load(tiny_models["llama"], shaken=True)
    batch = batch_of([(tuple(range(5, 34)), (50 + i, 51, 52, 53), 0) for i in range(7)])
    found: list[tuple[int, ...]] = []

    class Shapes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            found.extend(tuple(one.shape) for one in (out if isinstance(out, tuple) else (out,)) if isinstance(one, Tensor))
            return out

    parameters = [parameter for _, parameter in lm.adapter_parameters()]
    with Shapes():
        torch.autograd.grad(states(lm, batch).sum(), parameters, allow_unused=True)
    assert shared == [7]
    copies = [shape for shape in found if len(shape) == 4 and shape[0] == 7 and shape[2] >= 29]
    assert not copies
    assert any(shape[:1] == (1,) and 29 in shape for shape in found)


def test_rows_that_leave_their_prefix_early_have_copies(tiny_models: dict[str, Path], shared: list[int]) -> None:
    lm = tiny.load(tiny_models["llama"])
    span_hidden(lm, forked_batch([(PROMPTS[0], (*PROMPTS[0][:4], 30), (31, 32)), (PROMPTS[0], (*PROMPTS[0], 40), (41,))]))
    assert not shared


def test_tokens_are_taken_back_behind_a_shared_prefix(tiny_models: dict[str, Path], shared: list[int]) -> None:
    """As where a draft is left: columns of a row's own tokens are hidden, and it goes on."""
    lm = tiny.load(tiny_models["llama"], shaken=True)
    batch = batch_of([(PROMPTS[0], (50, 51, 52), 0), (PROMPTS[0], (53, 54, 55), 0), (PROMPTS[1], (56, 57, 58), 0)])
    passed = continued(lm, batch)
    assert passed is not None
    assert shared == [3]
    at = passed.after([1, 3, 2])
    found = lm.logits(at.go_on(lm, torch.tensor([[60], [61], [62]]), at.mask, at.lengths)[:, 0])
    kept = ((PROMPTS[0], (50,), 60), (PROMPTS[0], (53, 54, 55), 61), (PROMPTS[1], (56, 57), 62))
    expected = torch.stack([naive.row_logits(lm, prompt, (*tokens, last, 1))[-1] for prompt, tokens, last in kept])
    naive.assert_close(found, expected, naive.TOLERANCE["float32"])


@pytest.mark.parametrize("joined", [True, False])
def test_draws_are_those_of_copies(tiny_models: dict[str, Path], joined: bool, shared: list[int]) -> None:
    """Rows end at different steps and groups shrink unevenly."""
    lm = tiny.load(tiny_models["qwen3"], shaken=True)
    lm.terminators = tuple(range(2, 100, 4))
    wanted = [SampleRequest(prompt, tuple((0, "cot", q, i) for i in range(4 + q))) for q, prompt in enumerate(PROMPTS)]
    found = HFSampler(lm, joined=joined).sample(wanted, Decoding(9, 1.0))
    assert shared == [3]  # a row a prompt, to begin with
    lm.shares_keys = False
    expected = HFSampler(lm, joined=joined).sample(wanted, Decoding(9, 1.0))
    assert shared == [3]
    assert [[cot.tokens for cot in group] for group in found] == [[cot.tokens for cot in group] for group in expected]
    assert len({len(cot.tokens) for group in found for cot in group}) > 3
    for ours, theirs in zip(itertools.chain(*found), itertools.chain(*expected), strict=True):
        assert ours.behavior_logp == pytest.approx(theirs.behavior_logp, abs=1e-4)


def test_a_sampler_whose_rows_wait_shares_nothing(tiny_models: dict[str, Path], shared: list[int]) -> None:
    """Those that come later have prompts of their own."""
    lm = tiny.load(tiny_models["llama"])
    HFSampler(lm).sample([SampleRequest(PROMPTS[0], tuple((0, "cot", i) for i in range(5)))], Decoding(4, 1.0), rows=4)
    assert not shared


def test_uneven_groups_have_copies(tiny_models: dict[str, Path], shared: list[int]) -> None:
    """Every prefix gets as much room as the largest group needs."""
    lm = tiny.load(tiny_models["llama"])
    prompts = [tuple(range(5 + i, 20 + i)) for i in range(12)]
    crowd = [(prompts[0], (50 + i, 60), 0) for i in range(20)]
    span_hidden(lm, batch_of([*crowd, *((prompt, (50, 60), 0) for prompt in prompts[1:])]))
    assert not shared
    span_hidden(lm, batch_of([(prompt, (50 + i, 60), 0) for prompt in prompts for i in range(2)]))
    assert shared == [24]


@pytest.mark.parametrize("rows", [[0, 1, 2, 2], [2, 3, 3], [*range(13), *[3] * 15]], ids=["as they are", "prompts go", "crowded"])
def test_rows_that_are_chosen_on_the_way(tiny_models: dict[str, Path], rows: list[int], shared: list[int]) -> None:
    """Prompts without rows go; where most places are empty rows get copies after all. What follows is what copies say."""
    lm = tiny.load(tiny_models["llama"], shaken=True)
    prompts = [tuple(range(5, 12)), (30, 31), (40, 41, 42), *(tuple(range(i, i + 5)) for i in range(50, 60))]
    index = torch.tensor(rows)
    found = []
    for on in (True, False):
        start = prefill(lm, prompts)
        if on:
            shared_prefix.share(start.cache, groups_of(start.cache, range(len(prompts)), start.mask))
        mask, position = start.mask, start.lengths
        start.go_on(lm, torch.full((len(prompts), 1), 60), mask, position)
        select_rows(start.cache, index)
        mask, position = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)[index], position[index] + 1
        found.append(lm.logits(start.go_on(lm, torch.arange(len(rows))[:, None] + 61, mask, position)))
        if on:
            prefix = start.cache.layers[1].prefix
            assert (prefix is None) == (len(rows) > 10)
            assert prefix is None or len(prefix.keys) == len(set(rows))
    naive.assert_close(found[0], found[1], 1e-10)


def test_columns_that_a_model_hides_itself_are_hidden(tiny_models: dict[str, Path]) -> None:
    """A mask that is not that of the padding is obeyed, with copies; one of other kinds is refused."""
    generator = torch.Generator().manual_seed(2)
    query, keys = (torch.randn(2, 2, 1, 8, generator=generator) for _ in range(2))
    before = torch.randn(1, 2, 4, 8, generator=generator)
    setattr(keys, shared_prefix._PREFIX, Prefix(before, before, Groups([0, 0], 1, query.device)))
    module = torch.nn.Module()
    window = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 1, 1]]).bool()[:, None, None]
    found, _ = shared_prefix._attention(module, query, keys, keys, window)
    whole = torch.cat([before.expand(2, -1, -1, -1), keys], dim=2)
    expected = torch.nn.functional.scaled_dot_product_attention(query, whole, whole, attn_mask=window)
    naive.assert_close(found, expected.transpose(1, 2), 1e-6)
    for mask in (torch.zeros(2, 1, 1, 5), torch.ones(2, 2, 1, 5, dtype=torch.bool)):
        with pytest.raises(ValueError, match="more than what is seen"):
            shared_prefix._attention(module, query, keys, keys, mask)


def test_only_the_text_model_attends_otherwise(tiny_models: dict[str, Path]) -> None:
    """And only within; transformers' setter of an outer configuration would reach all inner ones."""
    lm = tiny.load(tiny_models["llama"])
    config = lm.causal_lm.config.get_text_config()
    cache = lm.decode(torch.ones(1, 5, dtype=torch.long), use_cache=True).past_key_values
    with shared_prefix.attending(lm, cache):
        assert config._attn_implementation == "sdpa"
    shared_prefix.share(cache, groups_of(cache, [0, 0], torch.ones(1, 5, dtype=torch.long)))
    within = shared_prefix.attending(lm, cache)
    within.__enter__()
    assert config._attn_implementation != "sdpa"
    error = KeyError()
    assert not within.__exit__(KeyError, error, None)
    assert config._attn_implementation == "sdpa"


@pytest.mark.parametrize("architecture", SHARE)
def test_with_checkpointing_gradients_are_the_same_bit_for_bit(
    tiny_models: dict[str, Path], architecture: str, shared: list[int]
) -> None:
    found = []
    for on in (False, True):
        loading = Loading(device="cpu", dtype="float64", gradient_checkpointing=on)
        lm = load_model(str(tiny_models[architecture]), loading, lora=Lora(rank=2, alpha=4))
        tiny.shake(lm)
        assert lm.checkpointing == ("prompts" if on else "off")
        shared.clear()
        loss = states(lm, RAGGED).square().sum()
        assert shared == [5]
        found.append(torch.autograd.grad(loss, [parameter for _, parameter in lm.adapter_parameters()]))
    assert all(map(torch.equal, *found))
    assert max(part.abs().max() for part in found[0]) > 0


def test_few_or_short_prefixes_are_copied(tiny_models: dict[str, Path]) -> None:
    """Two products cost more than one until enough is saved; the limit is the benchmark's."""
    lm = tiny.load(tiny_models["llama"])
    cache = lm.decode(torch.ones(2, 50, dtype=torch.long), use_cache=True).past_key_values
    _, heads, columns, width = cache.layers[0].keys.shape
    enough = 2 + -(-shared_prefix.LEAST_SAVED // (heads * columns * width))
    assert pays(cache, enough)
    assert not pays(cache, enough - 1)
    assert not pays(cache, 0)


def test_models_that_disagree_have_copies(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Found out by trying: an attention with another scale, and one whose gradient forgets the prefix."""
    lm = tiny.load(tiny_models["llama"], shaken=True)
    assert probes._shares(lm)
    attention = shared_prefix._TwoParts.apply
    monkeypatch.setattr(shared_prefix._TwoParts, "apply", lambda query, *rest: attention(query, *rest[:6], 1.0))
    assert not probes._shares(lm)
    copies = probes.behind_prompts(lm, 2, shared=False)
    assert not near(lm, probes.behind_prompts(lm, 2, shared=True), copies)
    monkeypatch.setattr(shared_prefix._TwoParts, "apply", lambda query, keys, *rest: attention(query, keys.detach(), *rest))
    assert not probes._shares(lm)
    assert near(lm, probes.behind_prompts(lm, 2, shared=True), copies)


def test_the_trial_is_made_without_padding_too(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """An attention that goes wrong where no column is hidden, as where a model is given no mask then."""
    lm = tiny.load(tiny_models["llama"])
    attention = shared_prefix._TwoParts.apply

    def wrong(query: Tensor, *rest: Any) -> Tensor:
        found = attention(query, *rest)
        return found if rest[4].hidden is not None else 2 * found

    monkeypatch.setattr(shared_prefix._TwoParts, "apply", wrong)
    assert not probes._shares(lm)


@pytest.mark.parametrize(
    "config",
    [{"sliding_window": 4}, {"attention_chunk_size": 4}, {"layer_types": ["full_attention", "sliding_attention"]}],
    ids=str,
)
def test_windows_are_seen_in_the_configuration(tiny_models: dict[str, Path], config: dict[str, Any]) -> None:
    """A trial of a few tokens would not see them."""
    lm = tiny.load(tiny_models["llama"])
    assert can_share(lm)
    for name, value in {"layer_types": None, **config}.items():
        setattr(lm.causal_lm.config, name, value)
    assert not can_share(lm)


@pytest.mark.long
@pytest.mark.parametrize("name", architectures.FAMILIES)
def test_families(name: str, tmp_path: Path, shared: list[int]) -> None:
    """Those that can share find the values and gradients of copies, over prompts longer than the trial's."""
    family = architectures.FAMILIES[name]
    directory = architectures.save_family(name, tmp_path / "model")
    lm = load_model(str(directory), Loading(device="cpu", dtype="float32"), lora=Lora(rank=2, alpha=4, targets=family.targets))
    tiny.shake(lm)
    assert lm.shares_keys == (name not in COPIES)
    with contextlib.suppress(UserError):  # families that have no estimate
        assert read_shape(tiny.config(directory, lora__targets=family.targets)).plain_attention == lm.shares_keys
    if not lm.shares_keys:
        return
    batch = Batch(tuple(tuple(i % lm.vocabulary for i in prefix) for prefix in RAGGED.prefixes), RAGGED.rows)
    found = states(lm, batch)
    lm.shares_keys = False
    assert same_with_gradient(lm, found, states(lm, batch))
    assert shared == [5]
