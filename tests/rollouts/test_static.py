"""Decoding in one shape: the draws of a cache that grows, from steps that a GPU can be told once."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from markovlm.config.model import Loading, Lora
from markovlm.errors import UserError
from markovlm.models import probes
from markovlm.models.language import LanguageModel
from markovlm.models.load import load_model
from markovlm.models.logprobs import token_stats
from markovlm.models.memory import release_memory
from markovlm.models.sequences import batch_of, span_hidden
from markovlm.rollouts import static
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.static import StaticDecoder, decodes_in_one_shape
from markovlm.rollouts.types import CoT, Decoding, SampleRequest
from support import tiny
from support.scripts import load
from support.tape import Tape, taped

PROMPTS = (tuple(range(10, 22)), (30, 31, 32), (40, 41, 42, 43, 44, 45))
FREE = Decoding(8, temperature=1.0)


def requests(per_prompt: int = 3) -> list[SampleRequest]:
    return [SampleRequest(prompt, tuple((0, "cot", q, i) for i in range(per_prompt))) for q, prompt in enumerate(PROMPTS)]


@pytest.fixture(params=["llama", "qwen3", "gpt2"])
def lm(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> LanguageModel:
    """About a quarter of all tokens end a CoT."""
    model = tiny.load(tiny_models[request.param], shaken=True, dtype="float32")
    model.terminators = tuple(range(2, 100, 4))
    return model


def assert_same(ours: Sequence[Sequence[CoT]], theirs: Sequence[Sequence[CoT]]) -> None:
    for one, other in zip((c for group in ours for c in group), (c for group in theirs for c in group), strict=True):
        assert (one.tokens, one.kept, one.ended) == (other.tokens, other.kept, other.ended)
        assert one.behavior_logp == pytest.approx(other.behavior_logp, abs=1e-4)


def sampler(lm: LanguageModel, tapes: list[Tape] | None = None) -> HFSampler:
    made = HFSampler(lm, static_cache="on")
    if tapes is not None:
        made.decoder = StaticDecoder(lm, taped(tapes))
    return made


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("rows", [None, 1, 5])
def test_draws_are_those_of_a_cache_that_grows(lm: LanguageModel, rows: int | None, recorded: bool) -> None:
    """Rows that end, rows that take their places, and a second call in the memory of the first."""
    ours, wanted = sampler(lm, [] if recorded else None), requests(2 if rows == 1 else 4)
    for decoding in (FREE, Decoding(8, 0.4), Decoding(6, 1.0, fixed_length=True), Decoding(8, 0.0)):
        assert_same(ours.sample(wanted, decoding, rows), HFSampler(lm).sample(wanted, decoding))


def test_a_shape_is_recorded_once_and_played_for_every_token(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    tapes: list[Tape] = []
    ours = sampler(lm, tapes)
    expected = HFSampler(lm).sample(requests(), FREE)
    assert_same(ours.sample(requests(), FREE), expected)
    assert len(tapes) == 1
    decode, passes = LanguageModel.decode, []

    def watched(self: LanguageModel, ids: torch.Tensor, **options: object) -> object:
        passes.append(tuple(ids.shape))
        return decode(self, ids, **options)

    monkeypatch.setattr(LanguageModel, "decode", watched)
    assert_same(ours.sample(requests(), FREE), expected)
    assert passes == [(3, 12)]  # the prompts: nothing of the model's Python runs for a token
    assert len(tapes) == 1


def test_a_step_reads_nothing_from_the_device(lm: LanguageModel) -> None:
    """The tape refuses `.item()` and its like while it records; here it is seen to refuse, and what a token costs in launches is counted."""
    tapes: list[Tape] = []
    sampler(lm, tapes).sample(requests(), FREE)
    layers = 2
    launches = load("launches", "benchmarks").launches
    assert 20 * layers < sum(launches(func) for func, *_ in tapes[0].operations) < 90 * layers
    with pytest.raises(RuntimeError, match="reads from the device"), Tape():
        torch.ones(1).item()


def test_a_step_reads_only_memory_that_somebody_holds(lm: LanguageModel) -> None:
    """A CUDA graph keeps no tensor alive: one that only the recording Python knew would be other memory when it is replayed."""
    tapes: list[Tape] = []
    ours = sampler(lm, tapes)
    ours.sample(requests(), FREE)
    assert ours.decoder is not None
    assert ours.decoder._kept is not None
    slots = ours.decoder._kept[1]
    held = [
        *lm.causal_lm.parameters(),
        *lm.causal_lm.buffers(),
        *(value for value in vars(slots).values() if torch.is_tensor(value)),
    ]
    held += [tensor for layer in slots.layers for tensor in layer.held]
    places = {tensor.data_ptr() for tensor in held}
    made = tapes[0].made()
    read = [tensor for tensor in tapes[0].read() if id(tensor) not in made]
    assert len(read) > 20
    assert [tuple(tensor.shape) for tensor in read if tensor.data_ptr() not in places] == []


def test_the_adapter_is_seen_as_it_is_now(lm: LanguageModel) -> None:
    tapes: list[Tape] = []
    ours = sampler(lm, tapes)
    before = ours.sample(requests(), FREE)
    with torch.no_grad():
        for _, parameter in lm.adapter_parameters():  # as an optimizer's step: in place
            parameter.mul_(-2.0)
    after = ours.sample(requests(), FREE)
    assert len(tapes) == 1
    assert after != before
    assert_same(after, HFSampler(lm).sample(requests(), FREE))
    for _, parameter in lm.adapter_parameters():  # as a slow reader: other memory
        parameter.data = parameter.data * -0.5
    assert_same(ours.sample(requests(), FREE), before)
    assert len(tapes) == 2
    with lm.frozen():
        assert_same(ours.sample(requests(), FREE), HFSampler(lm).sample(requests(), FREE))
    assert len(tapes) == 3


def test_other_shapes_are_recorded_where_they_are_needed(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "COLUMNS", 16)
    tapes: list[Tape] = []
    ours = sampler(lm, tapes)
    for count, tokens, recorded in ((6, 8, 1), (7, 8, 1), (5, 8, 2), (1, 8, 3), (1, 4, 3), (1, 100, 4), (1, 60, 4), (1, 8, 5)):
        decoding = Decoding(tokens, 1.0)
        assert_same(ours.sample(requests(count), decoding), HFSampler(lm).sample(requests(count), decoding))
        assert len(tapes) == recorded, (count, tokens)


def test_texts_longer_than_the_context_are_decoded_as_before(tiny_models: dict[str, Path]) -> None:
    """Rotary positions go on; in one shape the last column would be written again and again."""
    lm = tiny.load(tiny_models["llama"], shaken=True, dtype="float32")
    prompt = tuple(5 + i % 90 for i in range(lm.context_tokens - 3))
    wanted = [SampleRequest(prompt, (("long", 0), ("long", 1))), SampleRequest((7, 8), (("short", 0),))]
    assert_same(
        sampler(lm).sample(wanted, Decoding(9, 1.0, fixed_length=True)),
        HFSampler(lm).sample(wanted, Decoding(9, 1.0, fixed_length=True)),
    )


@pytest.mark.parametrize(
    ("rows", "columns", "shape"),
    [
        (1, 1, (1, 512)),
        (5, 513, (6, 1024)),
        (12, 356, (12, 512)),
        (17, 200, (24, 256)),
        (49, 129, (64, 256)),
        (384, 356, (384, 384)),
    ],
)
def test_a_shape_is_that_of_the_call_alone(rows: int, columns: int, shape: tuple[int, int]) -> None:
    assert static.shape_for(rows, columns) == shape


def test_what_was_decoded_before_changes_no_bit(lm: LanguageModel) -> None:
    """A resumed run begins with an empty memory, another went on with what it had."""
    fresh, used = sampler(lm), sampler(lm)
    for count, tokens in ((6, 12), (4, 150), (5, 600)):
        used.sample(requests(count), Decoding(tokens, 0.0))
    assert used.sample(requests(4), FREE) == fresh.sample(requests(4), FREE)


def test_its_memory_is_given_back_when_memory_runs_out(lm: LanguageModel) -> None:
    ours = sampler(lm)
    ours.sample(requests(), FREE)
    assert ours.decoder is not None
    assert ours.decoder._kept is not None
    held = ours.decoder._kept[1].layers[0]
    release_memory()
    assert ours.decoder._kept is None
    gc.collect()
    assert len(gc.get_referrers(held)) <= 1  # this test
    assert_same(ours.sample(requests(), FREE), HFSampler(lm).sample(requests(), FREE))


def test_models_that_can_not_be_decoded_so(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Gemma-3's sliding window; and whatever a model does otherwise in one shape than in a cache that grows is found by trying."""
    gemma = tiny.load(tiny_models["gemma3"], shaken=True)
    assert not decodes_in_one_shape(gemma)
    with pytest.raises(UserError, match=r"rollouts.static_cache: .*gemma3.* can't be decoded with a static cache; use auto"):
        HFSampler(gemma, static_cache="on")
    assert HFSampler(gemma).decoder is None
    llama = tiny.load(tiny_models["llama"], shaken=True, dtype="float64")
    assert decodes_in_one_shape(llama)
    probes._tried.clear()
    fill = static.Slots.fill

    def shifted(self: static.Slots, first: int, fresh: object) -> None:
        fill(self, first, fresh)  # type: ignore[arg-type]
        self.position[first:] += 1

    monkeypatch.setattr(static.Slots, "fill", shifted)
    assert not decodes_in_one_shape(llama)
    probes._tried.clear()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cuda_graph_draws_what_the_growing_cache_draws(tiny_models: dict[str, Path], dtype: str) -> None:
    """And it is one: no operation of the model is launched for a token. In bfloat16 both are held against the trainer's log-probs."""
    lm = load_model(str(tiny_models["llama"]), Loading(device="cuda", dtype=dtype), lora=Lora(rank=2, alpha=4))
    tiny.shake(lm)
    lm.terminators = tuple(range(2, 100, 4))
    ours, plain = HFSampler(lm), HFSampler(lm, static_cache="off")
    assert ours.decoder is not None
    for rows in (None, 5):
        drawn = ours.sample(requests(4), FREE, rows)
        if dtype == "float32":
            assert_same(drawn, plain.sample(requests(4), FREE))
        parts = [(prompt, cot.tokens, 0) for prompt, group in zip(PROMPTS, drawn, strict=True) for cot in group]
        with torch.no_grad():
            span = span_hidden(lm, batch_of(parts), "padded")
            scored = token_stats(lm, span.hidden, span.targets).logp
        behaved = torch.tensor([lp for group in drawn for cot in group for lp in cot.behavior_logp], device="cuda")
        assert (behaved - scored).abs().max() < (1e-3 if dtype == "float32" else 0.3)
    assert ours.decoder._kept is not None
    assert type(ours.decoder._kept[1].step.__self__) is torch.cuda.CUDAGraph  # type: ignore[union-attr]
