"""One optimisation step: blind scoring, splits that change nothing, and numbers that are not finite."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from markovlm.errors import RunFailed
from markovlm.models.load import LanguageModel
from markovlm.objectives import PolicyBatch, PolicyLoss
from markovlm.objectives.grpo import Grpo
from markovlm.training import gradients, scoring
from markovlm.training.metrics import metric_row
from markovlm.training.microbatches import _tokens, microbatches
from markovlm.training.records import Learner, StepResult
from markovlm.training.step import take_step
from markovlm.training.update import learning_rate
from support import naive, tiny
from support.fake import FakeSampler

GPT2 = 1e-10  # float64 throughout: another split is only another order of summation
COT = (40, 41, 42, 43, 44)


def make(models: dict[str, Path], *, microbatch: int = 16384, sampler: Any = None, **overrides: Any) -> Learner:
    run = tiny.config(models["gpt2"], **{"rollouts__group_size": 3, "objective__baseline_every": 1, **overrides})
    return tiny.learner(run, sampler=sampler, microbatch_tokens=microbatch)


def stepped(learner: Learner, questions: tuple[Any, ...] = tiny.QUESTIONS[:2]) -> tuple[Tensor, StepResult]:
    result = take_step(learner, questions, 1)
    assert isinstance(learner.optimizer, tiny.RecordingSGD)
    return learner.optimizer.flat(), result


# ------------------------------------------------------------------------------------------------------- blindness


@pytest.mark.parametrize("sharing", ["shared", "padded"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_markovian_scoring_is_blind_to_the_question(tiny_models: dict[str, Path], architecture: str, sharing: str) -> None:
    """Another question, the same CoT ids and answer: the same bits of ln pi(a|z); not so where the question is shown."""

    def scores(conditioning: str, question: str) -> tuple[list[float], list[float | None]]:
        fake = FakeSampler(lambda prompt, number: (*COT, 45 + number))
        keys = {"objective__conditioning": conditioning, "training__prompt_sharing": sharing, "rollouts__max_cot_tokens": 6}
        learner = tiny.learner(tiny.config(tiny_models[architecture], rollouts__questions_per_step=1, **keys), sampler=fake)
        result = take_step(learner, [tiny.renamed(tiny.QUESTIONS[0], question)], 1)
        return [s.answer_logprob for s in result.samples], [s.baseline for s in result.samples]

    assert scores("markovian", "1+22") == scores("markovian", "8+9+55+17")
    shown, other = scores("non_markovian", "1+22"), scores("non_markovian", "8+9+55+17")
    assert all(abs(a - b) > 1e-6 for a, b in zip(shown[0], other[0], strict=True))
    assert shown[1] != other[1]


def test_the_reader_sees_the_cot_the_header_and_nothing_of_the_question(tiny_models: dict[str, Path]) -> None:
    """The ids that enter the answer pass, part by part."""
    learner = make(tiny_models, sampler=FakeSampler(lambda prompt, number: COT))
    prompter, example = learner.prompter, tiny.QUESTIONS[0]
    text = prompter.text(prompter.reader_prompt(example, "markovian"))
    assert example.question not in text
    assert "<Redacted>" in text
    assert example.question in prompter.text(prompter.reader_prompt(example, "non_markovian"))
    assert prompter.text(prompter.header_ids) == " Answer:"
    assert prompter.text(prompter.answer_ids(example)) == " 23"


# ------------------------------------------------------------------------------------------------------- splits


@pytest.mark.parametrize("sharing", ["shared", "padded"])
def test_microbatches_do_not_change_the_gradient(tiny_models: dict[str, Path], sharing: str) -> None:
    """One micro-batch with the live graph; two; one a sample."""
    whole, result = stepped(make(tiny_models, training__prompt_sharing=sharing))
    assert whole.norm() > 0.1
    assert result.splits == 0
    for budget in (55 if sharing == "shared" else 700, 1):
        learner = make(tiny_models, training__prompt_sharing=sharing, microbatch=budget)
        parts, other = stepped(learner)
        assert len(microbatches(learner, other.samples)) > 1
        naive.assert_close(parts, whole, GPT2)
        assert [s.cot for s in other.samples] == [s.cot for s in result.samples]


def test_shared_and_padded_give_the_same_gradient(tiny_models: dict[str, Path]) -> None:
    shared, padded = (stepped(make(tiny_models, training__prompt_sharing=kind))[0] for kind in ("shared", "padded"))
    naive.assert_close(shared, padded, GPT2)


def test_microbatches_keep_to_their_budget(tiny_models: dict[str, Path]) -> None:
    learner = make(tiny_models, microbatch=60)
    _, result = stepped(learner)
    plan = microbatches(learner, result.samples)
    assert [i for part in plan for i in part] == list(range(6))
    for part in plan:
        assert len(part) * max(_tokens(learner, result.samples[i]) for i in part) <= 60


class Memory:
    """Raises as CUDA does when a pass has more than `rows` rows, while `when()` says so."""

    def __init__(self, rows: int, when: Callable[[], bool] = lambda: True):
        self.rows, self.when, self.refused = rows, when, 0

    def install(self, patch: pytest.MonkeyPatch) -> Memory:
        decode = LanguageModel.decode

        def limited(lm: LanguageModel, input_ids: Tensor, **kwargs: Any) -> Any:
            if len(input_ids) > self.rows and self.when():
                self.refused += 1
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (simulated)")
            return decode(lm, input_ids, **kwargs)

        patch.setattr(LanguageModel, "decode", limited)
        return self


@pytest.mark.parametrize("rows", [4, 2, 1])
@pytest.mark.parametrize("sharing", ["shared", "padded"])
def test_out_of_memory_in_forward_changes_nothing(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, sharing: str, rows: int
) -> None:
    """Everywhere: sampling, baseline, scoring, training."""
    whole, expected = stepped(make(tiny_models, training__prompt_sharing=sharing))
    learner = make(tiny_models, training__prompt_sharing=sharing)
    memory = Memory(rows).install(monkeypatch)
    split, result = stepped(learner)
    assert memory.refused
    assert result.splits == memory.refused  # those of the sampler too
    naive.assert_close(split, whole, GPT2)
    assert [s.cot.tokens for s in result.samples] == [s.cot.tokens for s in expected.samples]
    for ours, theirs in zip(result.samples, expected.samples, strict=True):
        assert ours.reward == pytest.approx(theirs.reward, abs=1e-10)
        assert ours.baseline == pytest.approx(theirs.baseline, abs=1e-10)
        assert ours.stats == pytest.approx(theirs.stats, abs=1e-8)


def test_out_of_memory_in_a_step_that_trains_nothing(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Expert iteration before its first threshold only measures."""
    idle: dict[str, Any] = {"objective__name": "expert_iteration", "objective__warmup_batches": 3}
    expected = take_step(make(tiny_models, **idle), tiny.QUESTIONS[:2], 1)
    learner = make(tiny_models, **idle)
    memory = Memory(3, when=lambda: learner.lm.model.training).install(monkeypatch)
    result = take_step(learner, tiny.QUESTIONS[:2], 1)
    assert memory.refused == result.splits > 0
    assert not result.passes
    for ours, theirs in zip(result.samples, expected.samples, strict=True):
        assert ours.stats == pytest.approx(theirs.stats, abs=1e-8)


def test_out_of_memory_only_in_the_training_pass(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The live graph was made; the training pass then does not fit beside it."""
    whole, _ = stepped(make(tiny_models))
    learner = make(tiny_models)
    memory = Memory(3, when=lambda: learner.lm.model.training).install(monkeypatch)
    split, result = stepped(learner)
    assert memory.refused == result.splits == 1
    naive.assert_close(split, whole, GPT2)


def test_out_of_memory_in_backward_lets_go_of_the_graphs(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = stepped(make(tiny_models))
    learner = make(tiny_models)
    surrogates, losses, grad = scoring._surrogates, gradients._losses, torch.autograd.grad
    graphs: list[weakref.ref[Any]] = []
    alive: list[list[bool]] = []

    def watched_surrogates(*args: Any) -> Any:
        found = surrogates(*args)
        graphs.append(weakref.ref(found))
        return found

    def watched_losses(*args: Any) -> Any:
        alive.append([graph() is not None for graph in graphs])
        terms = losses(*args)
        graphs.append(weakref.ref(terms.policy))
        return terms

    def failing_once(*args: Any, **kwargs: Any) -> Any:
        if len(alive) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated, in backward)")
        return grad(*args, **kwargs)

    monkeypatch.setattr(scoring, "_surrogates", watched_surrogates)
    monkeypatch.setattr(gradients, "_losses", watched_losses)
    monkeypatch.setattr(torch.autograd, "grad", failing_once)
    split, result = stepped(learner)
    assert result.splits == 1
    assert len(alive) == 3
    assert alive[0] == [True]  # the live rewards of the scoring pass
    assert alive[1] == [False, False]  # neither those nor the failed pass is held while the first half is computed
    naive.assert_close(split, whole, GPT2)


def test_one_sample_that_does_not_fit_is_one_line(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make(tiny_models)
    before = [p.detach().clone() for _, p in learner.lm.adapter_parameters()]
    Memory(0, when=lambda: learner.lm.model.training).install(monkeypatch)
    with pytest.raises(RunFailed, match=r"step 1: out of memory with the single sample q/1#0") as failed:
        take_step(learner, tiny.QUESTIONS[:2], 1)
    assert "\n" not in str(failed.value)
    assert all(torch.equal(p, old) for (_, p), old in zip(learner.lm.adapter_parameters(), before, strict=True))


def test_other_errors_are_not_taken_for_memory(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    learner = make(tiny_models)
    monkeypatch.setattr(LanguageModel, "decode", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        take_step(learner, tiny.QUESTIONS[:2], 1)


# ------------------------------------------------------------------------------------------------------- not finite


class OneBadLoss(Grpo):
    """A policy loss that is NaN for the second sample of every micro-batch."""

    def policy_loss(self, batch: PolicyBatch) -> PolicyLoss:
        good = super().policy_loss(batch)
        factor = torch.ones_like(good.loss)
        factor[1] = float("nan")
        return replace(good, loss=good.loss * factor)


@pytest.fixture
def untouched(tiny_models: dict[str, Path]) -> Iterator[Learner]:
    """A learner whose adapter and optimizer must be the same afterwards."""
    learner = make(tiny_models)
    before = [p.detach().clone() for _, p in learner.lm.adapter_parameters()]
    yield learner
    assert all(torch.equal(p, old) for (_, p), old in zip(learner.lm.adapter_parameters(), before, strict=True))
    assert not hasattr(learner.optimizer, "recorded")


def test_a_loss_that_is_not_finite_names_its_samples_and_term(untouched: Learner) -> None:
    untouched.objective = OneBadLoss(untouched.config.objective)  # type: ignore[arg-type]
    with pytest.raises(RunFailed, match=r"step 1: the loss is not finite \(term policy\) for samples q/1#1$"):
        take_step(untouched, tiny.QUESTIONS[:2], 1)


def test_a_reward_that_is_not_finite_names_its_sample_not_its_group(untouched: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    value = untouched.reward.value
    one_bad = lambda answers: torch.where(torch.arange(len(answers.logp)) == 4, torch.nan, value(answers))  # noqa: E731
    monkeypatch.setattr(untouched.reward, "value", one_bad)
    with pytest.raises(RunFailed, match=r"reward is not finite for samples q/2#1$"):
        take_step(untouched, tiny.QUESTIONS[:2], 1)


def test_a_gradient_that_is_not_finite_names_its_microbatch(untouched: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: tuple(g * float("inf") for g in grad(*a, **k)))
    with pytest.raises(RunFailed, match=r"gradient is not finite in the micro-batch of samples q/1#0, q/1#1, q/1#2, q/2#0"):
        take_step(untouched, tiny.QUESTIONS[:2], 1)


# ------------------------------------------------------------------------------------------------------- the rest of a step


def test_gradients_are_clipped_to_the_norm(tiny_models: dict[str, Path]) -> None:
    free, result = stepped(make(tiny_models, training__max_grad_norm=1e9))
    assert result.grad_norm == pytest.approx(free.norm().item())
    clipped, other = stepped(make(tiny_models, training__max_grad_norm=0.5))
    assert other.grad_norm == pytest.approx(result.grad_norm)  # as it was before clipping
    naive.assert_close(clipped, free * 0.5 / free.norm(), 1e-5)


def test_the_learning_rate_warms_up_and_follows_its_schedule(tiny_models: dict[str, Path]) -> None:
    run = tiny.config(tiny_models["gpt2"], training__lr="linear 1 -> 0", training__warmup_steps=3, training__steps=5)
    # schedule 1, .75, .5, .25, 0; warm-up 1/4, 2/4, 3/4, 1, 1
    assert [learning_rate(run, step) for step in range(1, 6)] == pytest.approx([0.25, 0.375, 0.375, 0.25, 0.0])
    learner = make(tiny_models, training__lr="linear 1e-3 -> 0")
    take_step(learner, tiny.QUESTIONS[:2], 2)
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * 2 / 3)  # step 2 of 4


def test_the_loss_in_the_row_is_the_mean_over_samples_of_its_terms(tiny_models: dict[str, Path]) -> None:
    learner = make(tiny_models, objective__entropy_weight=0.05)
    _, result = stepped(learner)
    row = metric_row(learner.config, result, learner.prompter.text, 1, 1.0, 1.0)
    names = ("loss_policy", "loss_actor_reward", "loss_kl", "loss_entropy")
    total = sum(sample.stats[name] for sample in result.samples for name in names) / 6
    assert row["loss"] == pytest.approx(total)
    assert row["loss_kl"] == pytest.approx(0.1 * row["kl"])
    assert row["loss_entropy"] == pytest.approx(-0.05 * row["entropy"])
    assert all(value is None or isinstance(value, int | float) for value in row.values())


def test_the_behaviour_is_the_actor_of_this_step(tiny_models: dict[str, Path]) -> None:
    """Sampled and scored log-probs agree to rounding, so that the ratio of PPO's first pass is one."""
    _, result = stepped(make(tiny_models))
    assert max(sample.stats["behavior_gap"] for sample in result.samples) < 1e-10


def test_the_baseline_is_read_when_due_and_cancels_in_the_group(tiny_models: dict[str, Path]) -> None:
    learner = make(tiny_models, objective__baseline_every=3)
    read = [take_step(learner, tiny.QUESTIONS[:2], step).samples[0].baseline is not None for step in (1, 2, 3, 4)]
    assert read == [True, False, False, True]
    with_b, _ = stepped(make(tiny_models))
    without, _ = stepped(make(tiny_models, objective__normalize_reward=False))
    naive.assert_close(with_b, without, 1e-9)  # grpo: the same constant for the whole group


def shaken(learner: Learner) -> Learner:
    """An adapter that has moved: a fresh one is zero, so that actor and frozen policy can't be distinguished."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, parameter in learner.lm.adapter_parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return learner


def test_the_baseline_is_written_and_read_by_the_frozen_policy(tiny_models: dict[str, Path]) -> None:
    """After the adapter has moved, b is what the untrained base gives, CoT and likelihood; the actor gives another."""
    learner = shaken(make(tiny_models))
    _, result = stepped(learner)
    bare = learner.lm.model.unload()  # peft's own way to the base weights, no part of ours
    learner.lm.model, learner.lm.has_adapter = bare, False
    prompter = learner.prompter
    for sample in result.samples:
        prompt = list(prompter.cot_prompt(sample.example))
        with torch.no_grad():
            ids: list[int] = []
            while len(ids) < learner.config.rollouts.max_cot_tokens:
                token = int(bare(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, -1].argmax())
                if token in learner.lm.terminators:
                    break
                ids.append(token)
            before = [*prompter.reader_prompt(sample.example, "markovian"), *ids, *prompter.header_ids]
            answer = prompter.target_ids(sample.example)
            logp = naive.row_logits(learner.lm, before, answer).log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])
        assert sample.baseline_cot == prompter.text(tuple(ids))
        assert sample.baseline == pytest.approx(logp.mean().item(), abs=1e-9)
        assert abs(sample.baseline - sample.reward) > 1e-3


def test_dropout_masks_differ_from_step_to_step_and_repeat_with_the_seed(tiny_models: dict[str, Path]) -> None:
    """The same CoTs at steps 1 and 2: another gradient, because other units are dropped; step 1 again: the same bits."""

    def gradient_at(step: int) -> Tensor:
        learner = shaken(make(tiny_models, lora__dropout=0.3, sampler=FakeSampler(lambda prompt, number: (*COT, 45 + number))))
        take_step(learner, tiny.QUESTIONS[:2], step)
        assert isinstance(learner.optimizer, tiny.RecordingSGD)
        return learner.optimizer.flat()

    first = gradient_at(1)
    assert torch.equal(first, gradient_at(1))
    assert (first - gradient_at(2)).abs().max() > 1e-4
