"""Credits against numpy, the terms of the loss, and what each switch does to the adapter's gradient on the real path."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from markovlm.config import ObjectiveBase, build_config
from markovlm.config.rollouts import RolloutConfig
from markovlm.errors import UserError
from markovlm.models.fingerprint import base_fingerprint
from markovlm.objectives import PolicyBatch, build_objective
from markovlm.objectives.base import Credit, reduce_tokens
from markovlm.objectives.dr_grpo import DrGrpoConfig
from markovlm.objectives.grpo import GrpoConfig
from markovlm.objectives.loss import Weights, loss_terms
from markovlm.objectives.rloo import RlooConfig
from markovlm.rewards import Answers, build_reward
from markovlm.rollouts.prompter import Prompter
from markovlm.rollouts.types import CoT
from markovlm.tasks.base import Example
from markovlm.training.records import Learner, StepResult
from markovlm.training.step import take_step
from support import naive, tiny

REWARDS = np.array([[-1.0, -2.0, -4.0, -1.0], [0.3, 0.1, 0.2, 0.4]])


def by_hand(name: str, reward: NDArray[np.float64], floor: float = 0.1) -> NDArray[np.float64]:
    """METHOD §2, sample by sample."""
    out = np.zeros_like(reward)
    for q, group in enumerate(reward):
        for i, value in enumerate(group):
            others = [other for j, other in enumerate(group) if j != i]
            if name == "grpo":
                std = math.sqrt(sum((r - group.mean()) ** 2 for r in group) / (len(group) - 1))
                out[q, i] = (value - group.mean()) / max(std, floor)
            else:
                out[q, i] = value - (sum(others) / len(others) if name == "rloo" else group.mean())
    return out


def advantage(config: ObjectiveBase, reward: NDArray[np.float64]) -> NDArray[np.float64]:
    tensor = torch.tensor(reward)
    return build_objective(config).credit(tensor).advantage(tensor).numpy()


@pytest.mark.parametrize("config", [GrpoConfig(), RlooConfig(), DrGrpoConfig()], ids=lambda c: c.name)
@pytest.mark.parametrize("reward", [REWARDS, REWARDS[:, :2], REWARDS * 1e-3], ids=["groups of 4", "groups of 2", "nearly equal"])
def test_advantages_are_those_of_the_method(config: Any, reward: NDArray[np.float64]) -> None:
    assert advantage(config, reward) == pytest.approx(by_hand(config.name, reward))


def test_numbers_by_hand() -> None:
    # (-1, -3): mean -2, std sqrt(2) with ddof 1
    pair = np.array([[-1.0, -3.0]])
    assert advantage(GrpoConfig(), pair).tolist() == [pytest.approx([1 / math.sqrt(2), -1 / math.sqrt(2)])]
    assert advantage(RlooConfig(), pair).tolist() == [[2.0, -2.0]]
    assert advantage(DrGrpoConfig(), pair).tolist() == [[1.0, -1.0]]


@pytest.mark.parametrize("config", [GrpoConfig(), RlooConfig(), DrGrpoConfig()], ids=lambda c: c.name)
def test_equal_rewards_give_no_advantage_but_a_live_reward_gradient(config: Any) -> None:
    """grad A = grad r / scale: 1 / floor for grpo, 1 for the others."""
    reward = torch.full((1, 4), -0.7, dtype=torch.float64, requires_grad=True)
    credit = build_objective(config).credit(reward.detach())
    values = credit.advantage(reward)
    assert values.detach().abs().max() < 1e-12
    (gradient,) = torch.autograd.grad(values.sum(), reward)
    assert gradient.tolist() == [pytest.approx([10.0 if config.name == "grpo" else 1.0] * 4)]


def test_the_floor_bounds_the_scale() -> None:
    near = np.array([[0.0, 1e-6]])
    assert advantage(GrpoConfig(std_floor=0.1), near)[0, 1] == pytest.approx(5e-6)  # half the gap over the floor
    assert advantage(GrpoConfig(std_floor=1e-9), near)[0, 1] == pytest.approx(1 / math.sqrt(2))


def test_a_selection_of_credit_is_in_question_major_order() -> None:
    credit = Credit(torch.arange(6.0).view(2, 3), torch.arange(6.0).view(2, 3) + 1)
    part = credit.select(torch.tensor([4, 1]))
    assert part.centre.tolist() == [4.0, 1.0]
    assert part.scale.tolist() == [5.0, 2.0]


def test_a_group_of_one_is_refused_for_grouped_advantages() -> None:
    assert RolloutConfig(group_size=1).group_size == 1
    for name in ("grpo", "rloo", "dr_grpo"):
        with pytest.raises(UserError, match=r"rollouts\.group_size must be at least 2"):
            build_config({"objective": {"name": name}, "rollouts": {"group_size": 1}})


# ------------------------------------------------------------------------------------------------------- loss and rewards


def policy_batch(logp: Tensor, mask: Tensor, advantage: Tensor) -> PolicyBatch:
    return PolicyBatch(logp=logp, behavior_logp=logp.detach(), reference_logp=logp.detach(), mask=mask, advantage=advantage)


def test_the_terms_of_the_loss_by_hand() -> None:
    """Two samples of 2 and 1 tokens; A = (2, -3); w = 0.5, beta = 0.1, alpha = 0.2."""
    logp, mask = torch.tensor([[-1.0, -2.0], [-4.0, 0.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    reward = torch.tensor([[1.0, -4.0]])
    credit = Credit(torch.full((1, 2), -1.0), torch.ones(1, 2)).select(torch.arange(2))
    kl, entropy = torch.tensor([[0.2, 0.4], [0.6, 9.0]]), torch.tensor([[1.0, 3.0], [5.0, 9.0]])
    batch = policy_batch(logp, mask, torch.tensor([2.0, -3.0]))
    terms = loss_terms(build_objective(RlooConfig()), batch, credit, reward[0], kl, entropy, Weights(0.5, 0.1, 0.2))
    assert terms.policy.tolist() == [6.0, -12.0]  # -(-3)(2), -(-4)(-3)
    assert terms.actor_reward is not None
    assert terms.actor_reward.tolist() == [-1.0, 1.5]
    assert terms.kl is not None
    assert terms.kl.tolist() == pytest.approx([0.03, 0.06])
    assert terms.entropy is not None
    assert terms.entropy.tolist() == pytest.approx([-0.4, -1.0])
    assert terms.total().tolist() == pytest.approx([6 - 1 + 0.03 - 0.4, -12 + 1.5 + 0.06 - 1.0])
    mean = build_objective(RlooConfig(cot_logprob="mean")).policy_loss(batch).loss
    assert mean.tolist() == [3.0, -12.0]


def test_reduce_tokens_ignores_what_is_masked() -> None:
    values, mask = torch.tensor([[1.0, 2.0, 100.0], [5.0, 100.0, 100.0]]), torch.tensor([[1.0, 1, 0], [1, 0, 0]])
    assert reduce_tokens(values, mask, "sum").tolist() == [3.0, 5.0]
    assert reduce_tokens(values, mask, "mean").tolist() == [1.5, 5.0]


def test_reward_kinds() -> None:
    """An answer of two tokens with probabilities 1/2 and 1/4."""
    tokens = torch.tensor([1 / 2, 1 / 4], dtype=torch.float64).log()
    total, mean = tokens.sum()[None], tokens.mean()[None]
    answers = Answers(total, mean, tokens, torch.tensor([0, 0]), group_size=1)
    assert build_reward(GrpoConfig()).value(answers).tolist() == mean.tolist()
    assert build_reward(GrpoConfig(answer_logprob="sum")).value(answers).tolist() == total.tolist()
    assert build_reward(GrpoConfig(reward="prob")).value(answers).tolist() == [pytest.approx(1 / 8)]  # from the sum, not the mean
    assert answers.mean_over_tokens(tokens.exp()).tolist() == [pytest.approx(3 / 8)]


# ------------------------------------------------------------------------------------------------------- the real path


def make(models: dict[str, Path], **objective: Any) -> Learner:
    keys = {f"objective__{key}": value for key, value in {"baseline_every": 1, **objective}.items()}
    return tiny.learner(tiny.config(models["gpt2"], rollouts__group_size=3, **keys))


def gradient(models: dict[str, Path], **objective: Any) -> tuple[Tensor, StepResult]:
    learner = make(models, **objective)
    result = take_step(learner, tiny.QUESTIONS[:2], 1)
    assert isinstance(learner.optimizer, tiny.RecordingSGD)
    flat = learner.optimizer.flat()
    assert result.grad_norm > 0
    return flat * max(1.0, result.grad_norm), result  # undo the clipping at norm 1


@pytest.mark.parametrize(("reward", "unit"), [("logprob", 1.0), ("prob", 1e6)])  # pi(a|z) of a random model is about 1e-7
def test_the_actor_reward_weight_acts_in_proportion(tiny_models: dict[str, Path], reward: str, unit: float) -> None:
    """g(w) = g(0) + w * h with the same h for every w, and h is not zero (in the research code it is)."""
    g0, g1, g3 = (gradient(tiny_models, actor_reward_weight=w * unit, reward=reward)[0] for w in (0.0, 1.0, 3.0))
    assert (g1 - g0).norm() > 0.1
    naive.assert_close((g3 - g0) / 3, g1 - g0, 1e-5)


def test_the_actor_reward_term_is_the_gradient_of_the_answers_likelihood(tiny_models: dict[str, Path]) -> None:
    """h = - grad of mean_i r_i / std, with r computed here from full logits."""
    g0, result = gradient(tiny_models, actor_reward_weight=0.0)
    g1, _ = gradient(tiny_models, actor_reward_weight=1.0)
    learner = make(tiny_models)
    reward = np.array([s.reward for s in result.samples]).reshape(2, 3)
    scale = np.maximum(reward.std(1, ddof=1), 0.1).repeat(3)

    def loss() -> Tensor:
        terms = []
        for sample, std in zip(result.samples, scale, strict=True):
            prompt = learner.prompter.reader_prompt(sample.example, "markovian")
            before, answer = (*prompt, *sample.cot.ids, *learner.prompter.header_ids), learner.prompter.target_ids(sample.example)
            logp = naive.row_logits(learner.lm, before, answer).log_softmax(-1)
            r = logp[torch.arange(len(answer)), torch.tensor(answer)].mean()
            assert r.item() == pytest.approx(sample.reward, abs=1e-9)
            terms.append(-r / std)
        return torch.stack(terms).mean()

    naive.assert_close(g1 - g0, naive.gradient(learner.lm, loss), 1e-5)


def test_the_kl_weight_acts_in_proportion(tiny_models: dict[str, Path]) -> None:
    g0, g1, g3 = (gradient(tiny_models, kl_weight=beta)[0] for beta in (0.0, 1.0, 3.0))
    assert (g1 - g0).norm() > 1e-3
    naive.assert_close((g3 - g0) / 3, g1 - g0, 1e-5)


def test_the_entropy_weight_acts_in_proportion(tiny_models: dict[str, Path]) -> None:
    g0, g1, g3 = (gradient(tiny_models, entropy_weight=alpha)[0] for alpha in (0.0, 1.0, 3.0))
    assert (g1 - g0).norm() > 1e-3
    naive.assert_close((g3 - g0) / 3, g1 - g0, 1e-5)


def test_a_frozen_reader_is_the_base_and_does_not_change(tiny_models: dict[str, Path]) -> None:
    """Its reward is that of the model without adapter, before and after training; the actor's is not."""
    bare = tiny.load(tiny_models["gpt2"])

    def expected(result: StepResult, learner: Learner) -> list[float]:
        out = []
        for sample in result.samples:
            prompt = learner.prompter.reader_prompt(sample.example, "markovian")
            answer = learner.prompter.target_ids(sample.example)
            logp = naive.row_logits(bare, (*prompt, *sample.cot.ids, *learner.prompter.header_ids), answer).log_softmax(-1)
            out.append(logp[torch.arange(len(answer)), torch.tensor(answer)].mean().item())
        return out

    for reader, same in (("frozen", True), ("actor", False)):
        learner = make(tiny_models, reader=reader, actor_reward_weight=0.0)
        fingerprint = base_fingerprint(learner.lm)
        for step in (1, 2):
            result = take_step(learner, tiny.QUESTIONS[:2], step)
            gaps = np.abs(np.array([s.reward for s in result.samples]) - expected(result, learner))
            assert (gaps.max() < 1e-9) if same else (gaps.min() > 1e-3)
        assert base_fingerprint(learner.lm) == fingerprint


def test_exact_match_rewards_are_zero_or_one_and_train_the_policy_alone(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from markovlm.training import scoring

    def replies(
        _sampler: object, prompter: Prompter, _conditioning: str, cots: Sequence[tuple[Example, Any]], _most: int
    ) -> list[CoT]:
        """Right and whole, wrong, right and cut off by the budget, and so on."""
        found = []
        for i, (example, _) in enumerate(cots):
            ids = tuple(prompter.tokenizer.encode("x" if i % 3 == 1 else example.answer, add_special_tokens=False))
            found.append(CoT(ids, len(ids), (0.0,) * len(ids), ended=i % 3 != 2))
        return found

    monkeypatch.setattr(scoring, "greedy_reads", replies)
    _, result = gradient(tiny_models, reward="exact_match", actor_reward_weight=0.0)
    assert [s.reward for s in result.samples] == [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    assert [s.answered_whole for s in result.samples] == [True, True, False] * 2  # what was decoded is what was answered
    assert len({s.answered for s in result.samples[:3]}) == 2
    assert all(s.stats["loss_actor_reward"] == 0 for s in result.samples)


def test_a_real_exact_match_reads_the_greedy_answer(tiny_models: dict[str, Path]) -> None:
    _, result = gradient(tiny_models, reward="exact_match", actor_reward_weight=0.0, kl_weight=1.0)
    assert {s.reward for s in result.samples} == {0.0}  # random weights don't add
    assert all(s.advantage == 0 for s in result.samples)


@pytest.mark.parametrize(
    "impossible",
    [
        {"reader": "frozen"},
        {"reward": "exact_match"},
        {"reward": "prob", "answer_logprob": "sum"},
        {"actor_reward_weight": -1.0},
        {"kl_weight": "linear 0.1 -> -0.1"},
    ],
)
def test_impossible_combinations_name_the_field(impossible: dict[str, Any]) -> None:
    names = "|".join(("actor_reward_weight", "answer_logprob"))
    with pytest.raises(UserError, match=rf"objective: .*({names})"):
        build_config({"objective": {"name": "grpo", **impossible}})
