"""The check before the first step catches a sampler that draws from something else than the scorer scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from markovlm.errors import RunFailed
from markovlm.models.load import LanguageModel
from markovlm.rollouts import fronts
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.types import CoT, Decoding, SampleRequest
from markovlm.training.records import Learner
from markovlm.training.selfcheck import check_sampler
from support import runs, tiny


@pytest.fixture(params=[("llama", "float32"), ("gemma3", "float32"), ("gpt2", "float64"), ("llama", "bfloat16")], ids="-".join)
def learner(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> Learner:
    """With a fresh adapter, as at the start of a run: it would hide a sampler that forgets it."""
    architecture, dtype = request.param
    return tiny.learner(tiny.config(tiny_models[architecture], loading__dtype=dtype, rollouts__temperature=1.3), shaken=False)


def test_a_right_sampler_passes_and_leaves_the_adapter_as_it_was(learner: Learner) -> None:
    before = [p.detach().clone() for _, p in learner.lm.adapter_parameters()]
    check_sampler(learner, tiny.QUESTIONS, 1)
    assert all(torch.equal(p, old) for (_, p), old in zip(learner.lm.adapter_parameters(), before, strict=True))
    assert all(p.requires_grad for _, p in learner.lm.adapter_parameters())


class Wrong(HFSampler):
    """Samples with something changed."""

    def __init__(self, lm: LanguageModel, change: Callable[[Decoding], Decoding], frozen: bool = False):
        super().__init__(lm)
        self.change, self.frozen = change, frozen

    def sample(self, requests: Sequence[SampleRequest], decoding: Decoding) -> list[list[CoT]]:
        if not self.frozen:
            return super().sample(requests, self.change(decoding))
        with self.lm.frozen():
            return super().sample(requests, self.change(decoding))


def refused(learner: Learner) -> None:
    before = [p.detach().clone() for _, p in learner.lm.adapter_parameters()]
    with pytest.raises(RunFailed, match=r"the adapter is not applied, the temperature differs, or positions are wrong") as failed:
        check_sampler(learner, tiny.QUESTIONS, 1)
    assert "\n" not in str(failed.value)
    assert all(torch.equal(p, old) for (_, p), old in zip(learner.lm.adapter_parameters(), before, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_forgotten_adapter_is_caught_on_the_embedded_model(dtype: str) -> None:
    """Its first noise moves log-probs by 0.01 nats, under bfloat16's tolerance: the check makes it larger until it shows."""
    keys = {"loading__dtype": dtype, "rollouts__max_cot_tokens": 8, "lora__rank": 8, "lora__alpha": 16}
    learner = tiny.learner(tiny.config("embedded", **keys), shaken=False)
    check_sampler(learner, tiny.QUESTIONS, 1)
    learner.sampler = Wrong(learner.lm, lambda decoding: decoding, frozen=True)
    refused(learner)


def test_an_adapter_that_is_not_applied_is_caught(learner: Learner) -> None:
    learner.sampler = Wrong(learner.lm, lambda decoding: decoding, frozen=True)
    refused(learner)


def test_another_temperature_is_caught(learner: Learner) -> None:
    learner.sampler = Wrong(learner.lm, lambda decoding: replace(decoding, temperature=1.0))
    refused(learner)


def test_shifted_positions_are_caught(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every decoding step one position late (rotary models see only the gap to the prompt; it is enough)."""
    if next(learner.lm.causal_lm.parameters()).dtype == torch.bfloat16:
        pytest.skip("its effect on this model (0.12 nats) is too near the tolerance of bfloat16 (0.1)")
    prefill = fronts.prefill

    def shifted(lm: LanguageModel, prefixes: Any) -> Any:
        filled = prefill(lm, prefixes)
        filled.lengths = filled.lengths + 1
        return filled

    monkeypatch.setattr(fronts, "prefill", shifted)
    refused(learner)


def test_logprobs_of_the_token_before_are_caught(learner: Learner) -> None:
    """The research code's error: read one position off."""

    class OffByOne(HFSampler):
        def sample(self, requests: Sequence[SampleRequest], decoding: Decoding) -> list[list[CoT]]:
            groups = super().sample(requests, decoding)
            return [[replace(c, behavior_logp=(c.behavior_logp[-1], *c.behavior_logp[:-1])) for c in group] for group in groups]

    learner.sampler = OffByOne(learner.lm)
    refused(learner)


def test_a_sampler_that_returns_nan_is_caught(learner: Learner) -> None:
    class NotANumber(HFSampler):
        def sample(self, requests: Sequence[SampleRequest], decoding: Decoding) -> list[list[CoT]]:
            groups = super().sample(requests, decoding)
            return [[replace(c, behavior_logp=(float("nan"),) * len(c.tokens)) for c in group] for group in groups]

    learner.sampler = NotANumber(learner.lm)
    refused(learner)


def test_a_run_with_a_wrong_sampler_stops_before_anything_is_trained(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    from markovlm.runs.rows import read_rows
    from markovlm.training.loop import train
    from support.tiny import config

    class Cold(HFSampler):
        def sample(self, requests: Sequence[SampleRequest], decoding: Decoding) -> list[list[CoT]]:
            return super().sample(requests, replace(decoding, temperature=0.5))

    lm = tiny.load(tiny_models["llama"], dtype="float32")  # another model object: it has no adapter either
    with pytest.raises(RunFailed, match="nothing was trained"):
        train(config(tiny_models["llama"], loading__dtype="float32"), tmp_path / "run", sampler=Cold(lm))
    assert read_rows(tmp_path / "run" / "metrics.jsonl") == []
    assert runs.rows(tmp_path / "run", "evals.jsonl") == []
