"""Every reward: its formula on random tensors, its gradient by enumeration over all CoTs and all groups, and what it refuses."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from markovlm.config import build_config
from markovlm.errors import UserError
from markovlm.rewards import Answers, build_reward
from markovlm.runs.checkpoint import load_state
from markovlm.training.loop import train
from markovlm.training.records import Learner
from markovlm.training.step import take_step
from support import runs, tiny
from support.exact import (
    EOS,
    QUESTION,
    TAU,
    all_cots,
    answer_tokens,
    assert_different,
    assert_same,
    exact,
    expected_ascent,
    group_gradient,
    naive_logprobs,
    nano_learner,
)
from support.fake import FakeSampler

BOUND = {"objective.reward": "bound"}
LENGTHS = [3, 1, 2, 2, 4, 1]  # answer tokens of six CoTs, two groups of three


def objective(**keys: Any) -> Any:
    return build_config({"objective": keys}).objective


def answers(seed: int, group: int = 3, direct: bool = False) -> Answers:
    rng = np.random.default_rng(seed)
    tokens = [torch.tensor(-rng.exponential(1.0, n)) for n in LENGTHS]
    row = torch.tensor([i for i, n in enumerate(LENGTHS) for _ in range(n)])
    total = torch.stack([t.sum() for t in tokens])
    none = None
    if direct:
        alone = [torch.tensor(-rng.exponential(1.5, n)) for n in (3, 2)]
        total_alone, mean_alone = torch.stack([t.sum() for t in alone]), torch.stack([t.mean() for t in alone])
        none = Answers(total_alone, mean_alone, torch.cat(alone), torch.tensor([0, 0, 0, 1, 1]), 1)
    return Answers(total, torch.stack([t.mean() for t in tokens]), torch.cat(tokens), row, group, direct=none)


# ---------------------------------------------------------------------------------------------------------- formulas


def test_bound_is_what_a_cot_adds_to_its_group() -> None:
    """ln(1/B sum p) - ln(1/(B-1) sum of the others' p), plainly in probabilities."""
    made = build_reward(objective(name="reinforce", reward="bound", normalize_reward=False))
    for seed in range(5):
        found = answers(seed)
        p = found.logp.exp().numpy().reshape(2, 3)
        expected = [math.log(p[q].mean()) - math.log((p[q].sum() - p[q, i]) / 2) for q in range(2) for i in range(3)]
        assert made.value(found).tolist() == pytest.approx(expected, abs=1e-12)
        assert made.weight(found).tolist() == pytest.approx((p / p.sum(1, keepdims=True)).reshape(-1).tolist())
    equal = Answers(torch.full((4,), -2.0), torch.full((4,), -2.0), torch.full((4,), -2.0), torch.arange(4), 4)
    assert made.value(equal).tolist() == pytest.approx([0.0] * 4, abs=1e-6)
    far = Answers(torch.tensor([-900.0, -1000.0]), torch.zeros(2), torch.zeros(2), torch.arange(2), 2)  # no exp underflows
    assert made.value(far).tolist() == pytest.approx([100 - math.log(2), -math.log(2) - 0.0], abs=1e-3)


@pytest.mark.parametrize("debias", [True, False])
def test_mean_prob_is_a_mean_of_probabilities_less_that_without_a_cot(debias: bool) -> None:
    made = build_reward(objective(reward="mean_prob", actor_reward_weight=0, reward_options={"debias": debias}))
    assert made.needs_direct is debias
    for seed in range(5):
        found = answers(seed, direct=debias)
        tokens = found.token_logp.exp().numpy()
        plain = [tokens[found.row.numpy() == i].mean() for i in range(6)]
        if debias:
            assert found.direct is not None
            alone = found.direct.token_logp.exp().numpy()
            alone = [alone[:3].mean(), alone[3:].mean()]
            plain = [min(max(x - alone[i // 3], 0.0), 1.0) for i, x in enumerate(plain)]
        assert made.value(found).tolist() == pytest.approx(plain)


def test_groups_of_small_spread_are_left_out_by_a_moving_threshold() -> None:
    """std_filter 0.5, decay 0.5. Step 1: spreads 0.4 and 0.1, mean 0.25, threshold 0.125: the second group goes. The average is 0.25;
    step 2: spreads 0.2 and 0.13 against 0.125: both stay; the average becomes 0.5 * 0.25 + 0.5 * 0.165."""
    made: Any = build_reward(
        objective(reward="mean_prob", actor_reward_weight=0, reward_options={"std_filter": 0.5, "filter_decay": 0.5})
    )

    def group(spread: float) -> list[float]:  # two values of this sample standard deviation
        return [0.5, 0.5 + spread * math.sqrt(2)]

    assert made.keep(torch.tensor([group(0.4), group(0.1)])).tolist() == [True, False]
    assert made.keep(torch.tensor([group(0.2), group(0.13)])).tolist() == [True, True]
    assert made.average == pytest.approx(0.5 * 0.25 + 0.5 * 0.165)
    again: Any = build_reward(objective(reward="mean_prob", actor_reward_weight=0, reward_options={"filter_decay": 0.5}))
    again.load_state_dict(made.state_dict())
    assert again.average == made.average
    off = build_reward(objective(reward="mean_prob", actor_reward_weight=0, reward_options={"std_filter": 0}))
    assert off.keep(torch.tensor([group(0.4), group(0.0)])) is None


def test_readers_is_the_mean_over_them() -> None:
    made = build_reward(objective(reward="readers", readers=["actor", "frozen", "x"]))
    found = answers(1)
    others = {"frozen": torch.randn(6, dtype=torch.float64), "x": torch.randn(6, dtype=torch.float64)}
    found = Answers(found.logp, found.logp_mean, found.token_logp, found.row, 3, others=others)
    expected = (found.logp_mean + others["frozen"] + others["x"]) / 3
    assert torch.allclose(made.value(found), expected)
    assert torch.allclose(made.surrogate(found), found.logp_mean / 3)


# --------------------------------------------------------------------------------------------------------- exact gradients


def answer_logp(learner: Learner, cot: tuple[int, ...]) -> Tensor:
    prompter = learner.prompter
    reader = prompter.reader_prompt(QUESTION, learner.config.objective.conditioning)
    return naive_logprobs(learner, [*reader, *cot, *prompter.header_ids], answer_tokens(learner), 1.0, [])


@pytest.mark.parametrize("conditioning", ["markovian", "non_markovian"])
@pytest.mark.parametrize("microbatch", [16384, 1])
def test_the_bound_is_exact_over_groups(nano_model: Path, microbatch: int, conditioning: str) -> None:
    """E over all 81 ordered groups of two of L = ln(1/2 (p_1 + p_2)), differentiated by autograd, in its two terms."""
    keys = {**BOUND, "objective.conditioning": conditioning, "microbatch": microbatch}
    learner = nano_learner(nano_model, "reinforce", **keys)
    parameters = [p for _, p in learner.lm.adapter_parameters()]
    question = learner.prompter.cot_prompt(QUESTION)
    logu = {cot: naive_logprobs(learner, question, cot, TAU, [EOS]).sum() for cot in all_cots(learner)}
    logp = {cot: answer_logp(learner, cot).sum() for cot in all_cots(learner)}
    written = read = torch.zeros(())
    for one, other in itertools.product(all_cots(learner), repeat=2):
        u = (logu[one] + logu[other]).exp()
        bound = torch.stack([logp[one], logp[other]]).logsumexp(0) - math.log(2)
        written, read = written + u * bound.detach(), read + u.detach() * bound
    policy, reader = (
        torch.cat([g.reshape(-1) for g in torch.autograd.grad(term, parameters, retain_graph=True)]) for term in (written, read)
    )
    ours = expected_ascent(learner, exact(learner))
    assert_same(ours, policy + reader)
    assert_different(ours, policy)
    assert_different(ours, reader)


@pytest.mark.parametrize("conditioning", ["markovian", "non_markovian"])
def test_mean_prob_has_the_exact_policy_gradient_and_no_other(nano_model: Path, conditioning: str) -> None:
    options = {
        "objective.reward_options.std_filter": 0.0,
        "objective.reward": "mean_prob",
        "objective.conditioning": conditioning,
    }
    learner = nano_learner(nano_model, "rloo", weight=0.0, **options)
    parameters = [p for _, p in learner.lm.adapter_parameters()]
    question = learner.prompter.cot_prompt(QUESTION)
    alone = answer_logp(learner, ()).exp().mean()
    logu = {cot: naive_logprobs(learner, question, cot, TAU, [EOS]).sum() for cot in all_cots(learner)}
    reward = {cot: (answer_logp(learner, cot).exp().mean() - alone).clamp(0, 1).detach() for cot in all_cots(learner)}
    assert len({round(r.item(), 6) for r in reward.values()}) >= 2  # the clip leaves something
    policy = torch.autograd.grad(sum(logu[cot].exp() * reward[cot] for cot in all_cots(learner)), parameters)
    expected = torch.cat([g.reshape(-1) for g in policy])
    assert_same(expected_ascent(learner, exact(learner)), expected)


def test_readers_with_the_actor_among_them_are_exact(nano_model: Path) -> None:
    """r = (ln pi_theta + ln pi_frozen) / 2: the policy term of the mean, and half of the actor's own."""
    keys = {"objective.reward": "readers", "objective.readers": ["actor", "frozen"]}
    learner = nano_learner(nano_model, "rloo", **keys)
    truth = exact(nano_learner(nano_model, "rloo"))
    with learner.lm.frozen():
        frozen = {cot: answer_logp(learner, cot).mean().detach() for cot in all_cots(learner)}
    parameters = [p for _, p in learner.lm.adapter_parameters()]
    question = learner.prompter.cot_prompt(QUESTION)
    logu = {cot: naive_logprobs(learner, question, cot, TAU, [EOS]).sum() for cot in all_cots(learner)}
    other = torch.autograd.grad(sum(logu[c].exp() * frozen[c] for c in all_cots(learner)), parameters, retain_graph=True)
    frozen_policy = torch.cat([g.reshape(-1) for g in other])
    ours = expected_ascent(learner, truth)
    assert_same(ours, (truth.policy + frozen_policy) / 2 + truth.actor_reward / 2)
    assert_different(ours, (truth.policy + frozen_policy) / 2)


def test_reinforce_is_exact_and_needs_no_group(nano_model: Path) -> None:
    learner = nano_learner(nano_model, "reinforce", **{"rollouts.group_size": 1})
    truth = exact(learner)
    ours = torch.zeros_like(truth.policy)
    for cot, u in truth.probability.items():
        ours -= u * group_gradient(learner, (cot,))
    assert_same(ours, truth.policy + truth.actor_reward)


# ---------------------------------------------------------------------------------------------------------- the slow reader


def test_the_slow_reader_follows_and_reads(tiny_models: dict[str, Path]) -> None:
    """At the start it is the actor; after a step it is d * old + (1 - d) * new, and its likelihoods are those of that adapter."""
    run = tiny.config(tiny_models["gpt2"], objective__reader="ema", objective__reader_decay=0.75, rollouts__group_size=2)
    learner = tiny.learner(run)
    first = [p.detach().clone() for _, p in learner.lm.adapter_parameters()]
    take_step(learner, tiny.QUESTIONS[:2], 1)
    now = [p.detach().clone() for _, p in learner.lm.adapter_parameters()]
    slow = learner.room.slow
    assert slow is not None
    for (_, kept), before, after in zip(slow.weights.items(), first, now, strict=True):
        assert torch.allclose(kept, 0.75 * before + 0.25 * after, atol=1e-12)
        assert not torch.equal(before, after) or before.numel() == 0


def test_the_slow_readers_likelihood_is_its_own(tiny_models: dict[str, Path]) -> None:
    fake = FakeSampler(lambda prompt, number: (40, 41, 42 + number))
    run = tiny.config(tiny_models["gpt2"], objective__reader="ema", objective__normalize_reward=False)
    learner = tiny.learner(run, sampler=fake)
    slow = learner.room.slow
    assert slow is not None
    own = take_step(learner, tiny.QUESTIONS[:2], 1).samples
    for value in slow.weights.values():  # another reader altogether: the frozen one
        value.zero_()
    read = take_step(learner, tiny.QUESTIONS[:2], 1).samples
    frozen = tiny.learner(
        tiny.config(
            tiny_models["gpt2"], objective__reader="frozen", objective__actor_reward_weight=0, objective__normalize_reward=False
        ),
        sampler=fake,
    )
    expected = take_step(frozen, tiny.QUESTIONS[:2], 1).samples
    assert [s.reward for s in read] == pytest.approx([s.reward for s in expected], abs=1e-10)
    assert all(abs(a.reward - b.reward) > 1e-4 for a, b in zip(own, read, strict=True))


def test_other_models_read_the_text(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """A second model among the readers: its share is what it gives to the same text by itself."""
    from markovlm import load

    readers = ["actor", str(tiny_models["qwen3"])]
    run = tiny.config(
        tiny_models["llama"], objective__reward="readers", objective__readers=readers, objective__normalize_reward=False
    )
    learner = tiny.learner(run)
    samples = take_step(learner, tiny.QUESTIONS[:2], 1).samples
    other = load(tiny_models["qwen3"], task="arithmetic", loading__dtype="float64", loading__device="cpu")
    texts = [learner.prompter.text(s.cot.ids) for s in samples]
    read = other.read(texts, [s.example.answer for s in samples])
    for sample, one in zip(samples, read, strict=True):
        assert sample.reward == pytest.approx((sample.answer_logprob + one.logprob) / 2, abs=1e-5)


@pytest.mark.parametrize(
    "keys",
    [
        {"objective__reader": "ema"},
        {"objective__reward": "readers", "objective__readers": ["actor", "frozen", "ema"]},
        {"objective__reward": "mean_prob", "objective__actor_reward_weight": 0},
        {
            "objective__reward": "bound",
            "objective__name": "reinforce",
            "objective__normalize_reward": False,
            "objective__baseline_every": 1,
        },
    ],
)
def test_resume_is_bit_for_bit(keys: dict[str, Any], tiny_models: dict[str, Path], tmp_path: Path) -> None:
    steps = {"training__steps": 4, "training__checkpoint_every": 2, "objective__baseline_every": 2}
    config = runs.run_config(tiny_models["llama"], **{**steps, **keys})
    train(config, tmp_path / "whole", progress=runs.CopyAfter(tmp_path / "whole", {3: tmp_path / "crashed"}))
    runs.resume(tmp_path / "crashed")
    runs.assert_same_run(tmp_path / "crashed", tmp_path / "whole")
    last = tmp_path / "whole" / "checkpoints" / "step-000004"
    assert (last / "reader.safetensors").exists() is ("ema" in str(keys))
    assert bool(load_state(last).reward) is (keys.get("objective__reward") == "mean_prob")


# ---------------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"reward": "bound"}, "use objective.name=reinforce, not grpo"),
        ({"reward": "bound", "name": "reinforce"}, "normalize_reward must be false with reward=bound"),
        ({"reward": "mean_prob"}, "actor_reward_weight must be 0 with reward=mean_prob"),
        ({"reward": "readers"}, "reward=readers needs objective.readers"),
        (
            {"reward": "readers", "readers": ["frozen"]},
            "actor_reward_weight must be 0 without the actor in objective.readers",
        ),
        ({"readers": ["frozen"]}, "readers has no effect with reward=logprob"),
        ({"reward": "readers", "readers": ["actor", "actor"]}, "readers contains a duplicate"),
        ({"reader_decay": 0.5}, "reader_decay has no effect unless a reader is ema"),
        ({"reader": "ema", "reader_decay": 1.0}, "reader_decay: Input should be less than 1"),
        ({"reward": "prob", "reward_options": {"debias": True}}, "reward_options.debias: Extra inputs are not permitted"),
        ({"name": "reinforce", "baseline_every": 5}, "baseline_every must be 1"),
    ],
)
def test_combinations_without_sense_name_the_key(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said.replace(".", r"\.")):
        objective(**keys)


def test_a_group_of_one_has_no_bound() -> None:
    keys = {"objective": {"name": "reinforce", "reward": "bound", "normalize_reward": False}, "rollouts": {"group_size": 1}}
    with pytest.raises(UserError, match="group_size must be at least 2 for reward bound"):
        build_config(keys)


def test_a_reader_that_is_not_there_is_told_before_anything_is_written(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    run = tiny.config(tiny_models["llama"], objective__reward="readers", objective__readers=["actor", "./nowhere"])
    with pytest.raises(UserError, match=r"objective\.readers: .*nowhere' does not exist"):
        train(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()
