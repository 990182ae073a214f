"""Chains over tiny random models: what a state may know, which draws depend on what, ragged texts, resume, memory by t."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from markovlm.chains.prompter import ChainPrompter, Turn
from markovlm.chains.reading import target_batch
from markovlm.chains.walk import walk
from markovlm.errors import UserError
from markovlm.models.logprobs import token_stats
from markovlm.models.sequences import span_hidden
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.types import Decoding
from markovlm.runs.rows import read_rows
from markovlm.runs.setup import prepare
from markovlm.tasks.chain import ChainExample, Query, chain_example
from markovlm.tasks.ledger_data import LedgerSpec, draw_ledger
from markovlm.training import crediting, scoring
from markovlm.training.loop import train
from markovlm.training.step import take_step
from support import runs, tiny

KEYS: dict[str, Any] = {
    "task": "ledger",
    "chain__kind": "notes_then_questions",
    "chain__reward": "both",
    "rollouts__max_cot_tokens": 4,
}
RAGGED = [draw_ledger(LedgerSpec(chunks=n), "train", 0, n) for n in (2, 4, 3)]


def learner(models: dict[str, Path], **more: Any) -> Any:
    return tiny.learner(tiny.config(models["llama"], **{**KEYS, **more}))


def states(result: Any) -> dict[tuple[str, int, int], tuple[int, ...]]:
    found = {}
    for sample in result.samples:
        assert isinstance(sample.example, Turn)
        assert sample.example.source is not None
        found[sample.example.source.id, sample.number, sample.example.t] = sample.cot.tokens
    return found


def test_a_state_is_all_that_later_steps_know(tiny_models: dict[str, Path]) -> None:
    """Other chunks o_1 … o_t, the same s_{t+1}: every later log-prob has the same bits, of states and of what is predicted."""
    one = learner(tiny_models)
    prompter, lm = one.prompter, one.lm
    assert isinstance(prompter, ChainPrompter)
    kept = ("ann+3 bob+4", "bob-2 cat+1")
    query = Query("bob?", "2", 4)
    texts = [
        chain_example("a", ("ann+1", "bob+9 eve+3", *kept), (query,)),
        chain_example("a", ("pam+7 joe+2", "gus+1", *kept), (query,)),
    ]
    state = prompter.slot("ann=1 bob=9")

    def logprobs(example: ChainExample) -> list[torch.Tensor]:
        text = prompter.text_of(example)
        (rest,) = walk(one.sampler, prompter, [(text, 0)], Decoding(4, 1.0), lambda *key: (0, key[-1]), first=3, start=[state])
        found = [torch.tensor([logp for cot in rest.written for logp in cot.behavior_logp])]
        for t in (2, 3, 4):
            jobs = [(rest.state(t + 1) if t > 2 else state, target) for target in prompter.targets(text, t, "markovian")]
            span = span_hidden(lm, target_batch(jobs))
            found.append(token_stats(lm, span.hidden, span.targets).logp)
        return found

    with torch.no_grad():
        first, second = logprobs(texts[0]), logprobs(texts[1])
    assert len(torch.cat(first)) > 20
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_draw_depends_on_its_key_alone(tiny_models: dict[str, Path]) -> None:
    """Another batch size, another company, longer neighbours: the same states."""
    together = states(take_step(learner(tiny_models, rollouts__questions_per_step=3), RAGGED, 1))
    small = learner(tiny_models, rollouts__questions_per_step=3)
    small.sampler = HFSampler(small.lm, batch_tokens=64)
    assert states(take_step(small, RAGGED, 1)) == together
    alone = states(take_step(learner(tiny_models, rollouts__questions_per_step=1), RAGGED[1:2], 1))
    assert alone == {key: value for key, value in together.items() if key[0] == RAGGED[1].id}
    assert len({value for key, value in alone.items() if key[2] == 4}) == 2  # two chains, two ways
    assert states(take_step(learner(tiny_models, rollouts__questions_per_step=3), RAGGED, 2)) != together


def test_ragged_chains_are_the_mean_of_their_own_gradients(tiny_models: dict[str, Path]) -> None:
    gradients = []
    for texts in (RAGGED, *[[text] for text in RAGGED]):
        one = learner(tiny_models, rollouts__questions_per_step=len(texts), training__max_grad_norm=1e12)
        result = take_step(one, texts, 1)
        assert len(result.samples) == 2 * sum(len(text.chunks) for text in texts)
        gradients.append(one.optimizer.flat())
    whole, *parts = gradients
    assert (whole - torch.stack(parts).mean(0)).norm() < 1e-5 * whole.norm()  # Llama's norms are float32, whatever its dtype


def test_micro_batches_hold_one_step_of_a_chain_and_change_nothing(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[int]] = []
    original = scoring.score_cots

    def watched(learner: Any, samples: Any, *rest: Any) -> Any:
        seen.append({sample.example.t for sample in samples})
        return original(learner, samples, *rest)

    monkeypatch.setattr("markovlm.training.gradients.score_cots", watched)
    flat = []
    for budget in (16384, 1):
        one = learner(tiny_models, rollouts__questions_per_step=3)
        one.config = one.config.model_copy(
            update={"training": one.config.training.model_copy(update={"microbatch_tokens": budget})}
        )
        take_step(one, RAGGED, 1)
        flat.append(one.optimizer.flat())
    assert all(len(steps) == 1 for steps in seen)
    assert len(seen) == 4 + 18
    assert (flat[0] - flat[1]).norm() < 1e-5 * flat[0].norm()


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "reinforce", "ppo"])
def test_every_objective_that_may_trains_chains(tiny_models: dict[str, Path], name: str) -> None:
    more = {"objective__baseline_every": 1} if name == "reinforce" else {}
    one = learner(tiny_models, objective__name=name, chain__gamma=0.5, **more)
    result = take_step(one, RAGGED[:2], 1)
    assert one.optimizer.flat().norm() > 0
    for sample in result.samples:
        later = [s for s in result.samples if s.number == sample.number and s.example.source is sample.example.source]
        expected = sum(
            0.5 ** (s.example.t - sample.example.t) * (s.reward - s.baseline) for s in later if s.example.t >= sample.example.t
        )
        assert sample.reward - sample.baseline + sample.future == pytest.approx(expected)
        assert sample.loss_weight == 0.5 ** (sample.example.t - 1)
        if name == "reinforce":
            assert sample.advantage == pytest.approx(expected)


def test_a_resumed_run_of_chains_has_the_same_bits(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    from markovlm.runs.ahead import resumed_config

    keys = {**KEYS, "task_options": {"chunks": 3, "min_chunks": 1}, "chain__reward": "answer", "training__steps": 4}
    copied = runs.CopyAfter(tmp_path / "whole", {4: tmp_path / "cut"})
    train(runs.run_config(tiny_models["llama"], **keys), tmp_path / "whole", progress=copied)
    train(resumed_config(tmp_path / "cut", {}), tmp_path / "cut", resume=True)
    runs.assert_same_run(tmp_path / "cut", tmp_path / "whole")
    row = read_rows(tmp_path / "whole" / "metrics.jsonl")[0]
    assert {"chain_return", "chain_states", "notes_frozen", "notes_copied", "notes_kept", "notes_overflow"} <= set(row)


def test_the_benchmark_still_measures_a_step(tiny_models: dict[str, Path]) -> None:
    spec = importlib.util.spec_from_file_location("chains_benchmark", Path(__file__).parents[2] / "benchmarks" / "chains.py")
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    measured = benchmark.measure(str(tiny_models["llama"]), chunks=2, texts=1, group=2)
    assert measured["chunks"] == 2
    assert 0 < measured["peak_mib_before"] <= measured["peak_mib"]


def test_without_chain_nothing_of_it_is_left(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crediting, "_credit_to_go", None)
    train(runs.run_config(tiny_models["llama"], training__steps=1), tmp_path / "run")
    assert not [key for key in read_rows(tmp_path / "run" / "metrics.jsonl")[0] if key.startswith(("chain", "notes"))]
    assert "t" not in read_rows(tmp_path / "run" / "samples.jsonl")[0]


def test_whole_texts_are_cut_and_what_cannot_be_read_is_said(tiny_models: dict[str, Path]) -> None:
    config = tiny.config(tiny_models["llama"], task="custom", chain__kind="notes", chain__chunk_tokens=10, chain__steps=3)
    setup = prepare(config)
    assert isinstance(setup.prompter, ChainPrompter)
    from markovlm.tasks.base import Example

    text = setup.prompter.text_of(Example("x", "a text of forty-five characters, in all, yes?", "no"))
    assert text.chunks == ("a text of", "forty-five", "character")  # ten characters each, the spaces at their ends left out
    assert text.states == 2
    with pytest.raises(UserError, match=r"x: has 1 chunk, but chain\.reward=next_chunk"):
        setup.prompter.text_of(Example("x", "short", "no"))
    asking = prepare(tiny.config(tiny_models["llama"], task="custom", chain__kind="notes_then_questions", chain__chunk_tokens=10))
    with pytest.raises(UserError, match="needs questions, but there are none"):
        asking.prompter.text_of(Example("x", "short", "no"))  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(UserError, match=r"set chain\.kind=notes_then_questions"):
        prepare(tiny.config(tiny_models["llama"], task="ledger")).load("train")
