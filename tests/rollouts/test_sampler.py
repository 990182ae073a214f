"""The sampler draws from the distribution that the scorer scores, and nothing but its streams decides what is drawn."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from markovlm.models.load import LanguageModel
from markovlm.models.logprobs import token_stats
from markovlm.models.sequences import batch_of, span_hidden
from markovlm.rollouts import fronts, hf
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.streams import stream, torch_seed
from markovlm.rollouts.types import CoT, Decoding, SampleRequest
from support import naive, tiny
from support.fake import FakeSampler

PROMPTS = (tuple(range(10, 22)), (30, 31, 32), (40, 41, 42, 43, 44, 45))
FREE = Decoding(8, temperature=1.0)


def requests(per_prompt: int = 3) -> list[SampleRequest]:
    return [SampleRequest(prompt, tuple((0, "cot", q, i) for i in range(per_prompt))) for q, prompt in enumerate(PROMPTS)]


@pytest.fixture(scope="module", params=tiny.ARCHITECTURES)
def model(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> tuple[str, LanguageModel]:
    return request.param, tiny.load(tiny_models[request.param], shaken=True)


@pytest.fixture(scope="module")
def llama(tiny_models: dict[str, Path]) -> LanguageModel:
    return tiny.load(tiny_models["llama"], shaken=True)


ENDERS = ("gpt2", "gemma3")


def made_ender(directory: Path) -> LanguageModel:
    """Any of 25 tokens ends a CoT: about a quarter of the rows end at each step."""
    lm = tiny.load(directory, shaken=True)
    lm.terminators = tuple(range(2, 100, 4))
    return lm


@pytest.fixture(scope="module", params=ENDERS)
def ender(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> LanguageModel:
    return made_ender(tiny_models[request.param])


@pytest.fixture(scope="module", params=[*tiny.ARCHITECTURES, *(f"{name} that ends early" for name in ENDERS)])
def either(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> LanguageModel:
    """Each architecture as it is, and those of `ender`."""
    name, _, ends = request.param.partition(" ")
    return made_ender(tiny_models[name]) if ends else tiny.load(tiny_models[name], shaken=True)


@pytest.fixture(scope="module")
def six_at_once() -> Callable[[LanguageModel, Decoding], list[list[CoT]]]:
    """Six CoTs of each prompt in one batch: drawn once for all that are compared with them."""
    return cache(lambda lm, decoding: draw(lm, decoding, requests(6)))


def draw(
    lm: LanguageModel, decoding: Decoding, wanted: Sequence[SampleRequest] | None = None, batch_tokens: int = 32768
) -> list[list[CoT]]:
    return HFSampler(lm, batch_tokens).sample(requests() if wanted is None else wanted, decoding)


def assert_same_draws(ours: list[list[CoT]], theirs: list[list[CoT]]) -> None:
    """The same tokens; the log-probs to the rounding of other batch shapes."""
    seen = [[[(c.tokens, c.kept, c.ended) for c in group] for group in groups] for groups in (ours, theirs)]
    assert seen[0] == seen[1]
    for one, other in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
        assert one.behavior_logp == pytest.approx(other.behavior_logp, abs=1e-4)


@pytest.mark.parametrize(
    "decoding",
    [FREE, Decoding(8, 0.6, fixed_length=True), Decoding(7, 1.8), Decoding(1, 1.0)],
    ids=["free", "cold, fixed", "hot", "one token"],
)
def test_behaviour_logprobs_are_those_of_the_scorer(model: tuple[str, LanguageModel], decoding: Decoding) -> None:
    name, lm = model
    groups = draw(lm, decoding)
    parts = [(prompt, cot.tokens, 0) for prompt, group in zip(PROMPTS, groups, strict=True) for cot in group]
    span = span_hidden(lm, batch_of(parts), "padded")
    banned = torch.tensor(lm.terminators if decoding.fixed_length else (), dtype=torch.long)
    scored = token_stats(lm, span.hidden, span.targets, temperature=decoding.temperature, banned=banned).logp
    behaved = torch.tensor([lp for group in groups for cot in group for lp in cot.behavior_logp], dtype=torch.float64)
    naive.assert_close(behaved, scored.detach(), naive.TOLERANCE[name])
    assert len({cot.tokens for cot in itertools.chain(*groups)}) > 3  # not all the same by some degenerate model


def test_the_adapter_is_sampled_from_and_frozen_leaves_it_out(llama: LanguageModel) -> None:
    actor = draw(llama, FREE)
    with llama.frozen():
        frozen = draw(llama, FREE)
    assert actor != frozen
    plain = LanguageModel("x", llama.causal_lm, llama.tokenizer, llama.terminators, has_adapter=False)
    assert_same_draws(draw(plain, FREE), actor)  # the module with the adapter's layers in it


@pytest.mark.parametrize("batch_tokens", [64, 25, 45])
def test_batching_changes_no_draw(model: tuple[str, LanguageModel], batch_tokens: int) -> None:
    """All at once, or (batch of 25) one row at a time: the longest prompt and eight tokens are 20."""
    assert_same_draws(draw(model[1], FREE, batch_tokens=batch_tokens), draw(model[1], FREE))


@pytest.mark.parametrize("temperature", [0.05, 1.0], ids=["nearly alike", "all different"])
def test_cots_that_begin_alike_are_drawn_as_if_they_were_apart(either: LanguageModel, temperature: float) -> None:
    for decoding in (Decoding(8, temperature), Decoding(8, temperature, fixed_length=True)):
        joined, apart = (HFSampler(either, joined=one).sample(requests(6), decoding) for one in (True, False))
        assert_same_draws(joined, apart)


def test_prompts_that_are_all_different_are_not_copied(llama: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an evaluation on a GPU: the cache of the prompts is the rows' own."""
    monkeypatch.setattr(fronts, "select_rows", lambda cache, rows: pytest.fail("the cache was copied"))
    for joined in (True, False):
        HFSampler(llama, joined=joined).sample(requests(1), Decoding(4, 1.0, fixed_length=True))


def test_a_pass_computes_each_beginning_once(llama: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, rows = LanguageModel.decode, []

    def watched(self: LanguageModel, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        rows.append(len(input_ids))
        return decode(self, input_ids, **kwargs)

    monkeypatch.setattr(LanguageModel, "decode", watched)
    groups = draw(llama, Decoding(8, 1.0, fixed_length=True), requests(6))
    beginnings = [{(q, cot.tokens[:length]) for q, group in enumerate(groups) for cot in group} for length in range(8)]
    assert rows == [len(distinct) for distinct in beginnings]
    assert rows[0] == 3 < rows[-1] <= 18  # prompts; and in the end CoTs


def test_a_batch_keeps_to_its_tokens(llama: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    real = LanguageModel.decode

    def watched(self: LanguageModel, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        sizes.append((len(input_ids), kwargs["attention_mask"].shape[1]))
        return real(self, input_ids, **kwargs)

    monkeypatch.setattr(LanguageModel, "decode", watched)
    draw(llama, FREE, batch_tokens=45)
    assert {rows for rows, _ in sizes} == {1, 2, 3}
    assert all(rows * width <= 45 for rows, width in sizes)
    sizes.clear()
    HFSampler(llama).sample(requests(), FREE, rows=2)
    assert {rows for rows, _ in sizes} == {1, 2}


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 8, 9])
def test_cots_that_take_the_places_of_others_are_drawn_as_if_they_had_been_there(
    either: LanguageModel, six_at_once: Callable[[LanguageModel, Decoding], list[list[CoT]]], joined: bool, rows: int
) -> None:
    """Rows begin and end at different times, prompts of several lengths behind each other; one token at least, the budget at most."""
    nearly_alike = (Decoding(8, 0.3),) if rows > 1 else ()  # a row that is alone shares no beginning
    for decoding in (FREE, *nearly_alike, Decoding(5, 1.0, fixed_length=True)):
        few = HFSampler(either, joined=joined).sample(requests(6), decoding, rows)
        assert_same_draws(few, six_at_once(either, decoding))


def test_finished_cots_leave_their_places_to_those_that_wait(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 60 CoTs, eight at a time and a quarter of them ending at each token, few passes have less than seven rows."""
    lm = tiny.load(tiny_models["llama"], shaken=True)
    lm.terminators = tuple(range(2, 100, 4))
    real, rows = LanguageModel.decode, list[int]()

    def watched(self: LanguageModel, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        rows.append(len(input_ids) if input_ids.shape[1] == 1 else 0)
        return real(self, input_ids, **kwargs)

    monkeypatch.setattr(LanguageModel, "decode", watched)
    prompts = [SampleRequest((5, 6, 7 + n % 3, *range(20, 20 + n % 4)), ((0, "cot", n),)) for n in range(60)]
    groups = HFSampler(lm, joined=False).sample(prompts, Decoding(12, 1.0), rows=8)
    steps = [number for number in rows if number]
    useful = sum(len(cot.tokens) - 1 for (cot,) in groups)
    assert max(steps) == 8
    assert useful / sum(steps) > 0.9
    assert len(steps) < 1.5 * useful / 8


@pytest.mark.parametrize("how", [{}, {"joined": False}, {"static_cache": "on"}], ids=["joined", "apart", "one shape"])
def test_no_row_goes_beyond_the_positions_of_the_model(tmp_path: Path, how: dict[str, Any]) -> None:
    """GPT-2 with a table of 49 positions; a prompt and a CoT fill it, and rows that are over linger while others go on."""
    import transformers

    ids = {"vocab_size": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=49, **ids))
    model.save_pretrained(tmp_path)
    tiny.char_tokenizer().save_pretrained(tmp_path)
    lm = tiny.load(tmp_path, shaken=True)
    lm.terminators = (2,)
    wanted = [SampleRequest((*range(10, 19), 20 + n), ((0, "cot", n),)) for n in range(30)]
    sampler = HFSampler(lm, **how)
    expected = HFSampler(lm).sample(wanted, Decoding(39, 1.0))
    assert 5 < sum(not cot.ended for (cot,) in expected) < 29  # some to the last position, some not
    for rows in (12, 4, 4, 4):
        assert_same_draws(sampler.sample(wanted, Decoding(39, 1.0), rows), expected)


def test_places_are_filled_again_under_a_budget_of_tokens(llama: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = LanguageModel("x", llama.model, llama.tokenizer, tuple(range(2, 100, 4)), has_adapter=True)
    joins: list[int] = []
    join = fronts.Cached.join
    monkeypatch.setattr(fronts.Cached, "join", lambda self, prompts: (joins.append(len(prompts)), join(self, prompts))[1])
    HFSampler(lm, batch_tokens=160, joined=False).sample(requests(12), FREE)  # eight rows of twenty tokens
    assert len(joins) > 4


def test_a_cache_that_can_not_be_joined_is_filled_in_turns(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny.load(tiny_models["gemma3"], shaken=True)
    monkeypatch.setattr(fronts, "join_rows", lambda *_: pytest.fail("a sliding window was joined"))
    HFSampler(lm).sample(requests(4), FREE, rows=5)


def test_running_out_of_memory_changes_no_draw(llama: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = draw(llama, FREE)
    decode, refused = LanguageModel.decode, []

    def limited(self: LanguageModel, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        if len(input_ids) > 2:
            refused.append(len(input_ids))
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        return decode(self, input_ids, **kwargs)

    monkeypatch.setattr(LanguageModel, "decode", limited)
    assert_same_draws(draw(llama, FREE), expected)
    assert refused  # it did run out


def test_the_order_of_requests_changes_no_draw(llama: LanguageModel) -> None:
    forward = draw(llama, FREE)
    backward = draw(llama, FREE, requests()[::-1])
    assert_same_draws(backward[::-1], forward)
    alone = draw(llama, FREE, [SampleRequest(PROMPTS[1], ((0, "cot", 1, 2),))])
    assert_same_draws(alone, [[forward[1][2]]])


def test_two_requests_with_one_prompt_keep_their_own_streams(llama: LanguageModel) -> None:
    same = [SampleRequest(PROMPTS[0], ((1,), (2,))), SampleRequest(PROMPTS[0], ((3,), (1,)))]
    first, second = draw(llama, FREE, same)
    assert first[0].tokens == second[1].tokens
    assert len({first[0].tokens, first[1].tokens, second[0].tokens}) == 3


@pytest.mark.parametrize(("decoding", "banned"), [(Decoding(2, 0.8, fixed_length=True), (3,)), (Decoding(2, 1.5), ())])
def test_the_distribution_of_draws(nano_model: Path, decoding: Decoding, banned: tuple[int, ...]) -> None:
    """Chi-square of 4,000 CoTs over all that exist, against their exact probabilities (seeded; p > 1e-3)."""
    lm, n, prompt = tiny.load(nano_model, shaken=True), 4000, (1, 0, 2)
    (cots,) = draw(lm, decoding, [SampleRequest(prompt, tuple((5, i) for i in range(n)))], batch_tokens=1 << 20)
    counts: dict[tuple[int, ...], int] = {}
    for cot in cots:
        counts[cot.tokens] = counts.get(cot.tokens, 0) + 1
    exact: dict[tuple[int, ...], float] = {}
    with torch.no_grad():
        first = naive.distribution(naive.row_logits(lm, prompt, (0,)), decoding.temperature, banned)[0].exp()
        for a in range(4):
            second = naive.distribution(naive.row_logits(lm, prompt, (a, 0)), decoding.temperature, banned)[1].exp()
            ends = a == 3 and not decoding.fixed_length
            for b in [None] if ends else range(4):
                tokens, p = ((a,), first[a]) if b is None else ((a, b), first[a] * second[b])
                if p > 0:
                    exact[tokens] = p.item()
    assert sum(exact.values()) == pytest.approx(1.0)
    assert set(counts) <= set(exact)
    common = [tokens for tokens, p in exact.items() if n * p >= 5]
    observed, expected = [counts.get(t, 0) for t in common], [n * exact[t] for t in common]
    rest = n - sum(observed)
    if rest:
        observed, expected = [*observed, rest], [*expected, n - sum(expected)]
    result = stats.chisquare(observed, np.array(expected) * n / sum(expected))
    assert len(common) >= 6
    assert result.pvalue > 1e-3


def test_fixed_length_has_no_end_tokens(ender: LanguageModel) -> None:
    cots = list(itertools.chain(*draw(ender, Decoding(8, 1.0, fixed_length=True))))
    assert all(len(cot.tokens) == cot.kept == 8 and not cot.ended for cot in cots)
    assert not {token for cot in cots for token in cot.tokens} & set(ender.terminators)


def test_early_stop_counts_the_end_token_but_does_not_keep_it(ender: LanguageModel) -> None:
    cots = list(itertools.chain(*draw(ender, Decoding(4, 1.0), requests(8))))
    ended = [cot for cot in cots if cot.ended]
    assert len(ended) > 8
    assert len(ended) < 24
    for cot in cots:
        inside = [token for token in cot.ids if token in ender.terminators]
        assert not inside
        assert len(cot.tokens) == len(cot.behavior_logp)
        if cot.ended:
            assert cot.tokens[-1] in ender.terminators
            assert cot.ids == cot.tokens[:-1]
        else:
            assert len(cot.tokens) == 4
            assert cot.ids == cot.tokens


def test_dropping_finished_rows_changes_nothing(ender: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that end at their own times, compacted several times, against each row drawn alone."""
    selections = []
    select = fronts.select_rows
    monkeypatch.setattr(fronts, "select_rows", lambda cache, rows: selections.append(len(rows)) or select(cache, rows))
    together = HFSampler(ender, joined=False).sample(requests(6), Decoding(12, 1.0))
    assert len(selections) >= 3
    assert selections[0] == 18
    alone = [[draw(ender, Decoding(12, 1.0), [SampleRequest(r.prompt, (key,))])[0][0] for key in r.streams] for r in requests(6)]
    assert_same_draws(together, alone)


def test_greedy_is_the_argmax_of_the_full_logits_and_needs_no_stream(model: tuple[str, LanguageModel]) -> None:
    _, lm = model
    groups = draw(lm, Decoding(6, temperature=0.0))
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for other in group[1:]:  # rows of one batch may differ in the last bit of a float, never in a token
            assert (group[0].tokens, group[0].kept, group[0].ended) == (other.tokens, other.kept, other.ended)
            assert other.behavior_logp == pytest.approx(group[0].behavior_logp, rel=1e-12)
        cot: tuple[int, ...] = ()
        with torch.no_grad():
            while len(cot) < 6 and not (cot and cot[-1] in lm.terminators):
                cot += (int(naive.row_logits(lm, prompt, (*cot, 0))[-1].argmax()),)
        assert group[0].tokens == cot


def test_a_stop_string_ends_the_cot_and_is_not_kept(llama: LanguageModel) -> None:
    """Every character stops, then pairs: what is kept decodes to the text before the earliest stop string."""
    text = llama.tokenizer.decode
    whole = draw(llama, Decoding(8, 1.0, fixed_length=True))[0][0]
    stop = text(whole.tokens[3:5])  # two tokens in the middle
    cut = text(whole.tokens).find(stop)
    cots = draw(llama, Decoding(8, 1.0, stop=(stop, "never there")))
    stopped = cots[0][0]
    assert stopped.tokens == whole.tokens[: cut + 2]
    assert stopped.ended
    assert text(stopped.ids) == text(whole.tokens)[:cut]
    assert stop not in text(stopped.ids)
    assert len(stopped.behavior_logp) == len(stopped.tokens)  # the stop string's tokens were sampled: they count in ln u
    one = draw(llama, Decoding(8, 1.0, stop=tuple(tiny.ALPHABET)))[0][0]
    assert len(one.tokens) == 1
    assert one.kept == 0


def test_temperature_widens(llama: LanguageModel) -> None:
    def surprise(tau: float) -> float:
        cots = draw(llama, Decoding(6, tau, fixed_length=True), requests(20))
        return -float(np.mean([lp for cot in itertools.chain(*cots) for lp in cot.behavior_logp]))

    assert surprise(0.3) < surprise(1.0) < surprise(3.0)


def test_inverse_cdf_takes_the_interval_that_holds_the_number() -> None:
    """Probabilities 0, .25, .25, .5: intervals [0, .25), [.25, .5), [.5, 1)."""
    log_p = torch.tensor([[0.0, 0.25, 0.25, 0.5]], dtype=torch.float64).log()
    uniforms: list[tuple[float, int]] = [(0.0, 1), (0.2499, 1), (0.25, 2), (0.4999, 2), (0.5, 3), (1 - 2**-53, 3)]
    for uniform, token in uniforms:
        assert hf._inverse_cdf(log_p, torch.tensor([uniform], dtype=torch.float64)).item() == token


def test_streams_are_keyed_and_typed() -> None:
    assert stream(0, "cot", 1).random() == stream(0, "cot", 1).random()
    different: list[Callable[[], float]] = [stream(0, "cot", 1).random, stream(0, "cot", 2).random, stream(0, "cot", "1").random]
    assert len({generator() for generator in different}) == 3
    assert 0 <= torch_seed(0, "x") < 2**63


def test_the_fake_sampler_obeys_budget_and_terminators() -> None:
    fake = FakeSampler(lambda prompt, number: (number, 9, 7, 7), logp=-0.5, terminators=(9,))
    ((first, second),) = fake.sample([SampleRequest((1,), ((0,), (1,)))], Decoding(3, 1.0))
    assert (first.tokens, first.ids, first.ended, first.behavior_logp) == ((0, 9), (0,), True, (-0.5, -0.5))
    assert second.tokens == (1, 9)
    ((fixed,),) = fake.sample([SampleRequest((1,), ((0,),))], Decoding(3, 1.0, fixed_length=True))
    assert (fixed.tokens, fixed.kept, fixed.ended) == ((0, 9, 7), 3, False)


@pytest.mark.parametrize(
    ("decoding", "a_token"),
    [(Decoding(7, 1.0, fixed_length=True), 0), (FREE, 1), (Decoding(7, 0.0), 1)],
    ids=["fixed", "free", "greedy"],
)
def test_it_waits_for_the_device_once_a_token_at_most(
    llama: LanguageModel, monkeypatch: pytest.MonkeyPatch, decoding: Decoding, a_token: int
) -> None:
    """Every value that the sampler reads from the device is a stop for a GPU: who has ended, and at the end the CoTs.

    A group's CoTs are rows of their own from the start, as on a GPU.
    """
    waits: list[str] = []
    for name in ("tolist", "item", "cpu", "numpy", "__bool__", "__int__", "__float__", "nonzero"):
        real = getattr(torch.Tensor, name)

        def watched(self: torch.Tensor, *args: Any, name: str = name, real: Any = real) -> Any:
            if sys._getframe(1).f_code.co_filename.endswith("rollouts/hf.py"):
                waits.append(name)
            return real(self, *args)

        monkeypatch.setattr(torch.Tensor, name, watched)
    groups = HFSampler(llama, joined=False).sample(requests(), decoding)
    steps = max(len(cot.tokens) for group in groups for cot in group)
    assert waits == ["tolist"] * (a_token * steps + 2)
