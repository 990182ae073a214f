"""CoTs drawn from another distribution than the trainer's: the corrected estimator's expectation is the gradient of J; uncorrected it is not.

As tests/objectives/test_exact_gradient.py, but groups are weighted by the probabilities of a sampler that sees the logits at another
temperature, and that says so: its log-probs are its own.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from markovlm.rollouts.types import CoT, Decoding
from markovlm.training.importance import importance, weighted
from markovlm.training.records import Learner
from markovlm.training.step import take_step
from support import tiny
from support.exact import EOS, QUESTION, TAU, Exact, assert_same, exact, naive_logprobs, nano_learner
from support.fake import FakeSampler


class Scripted(FakeSampler):
    """These CoTs with the log-probs of whoever drew them."""

    def __init__(self, group: tuple[tuple[int, ...], ...], logps: dict[tuple[int, ...], list[float]]):
        super().__init__(lambda prompt, number: group[number], terminators=(EOS,))
        self.logps = logps

    def _cot(self, prompt: tuple[int, ...], number: int, decoding: Decoding) -> CoT:
        cot = super()._cot(prompt, number, decoding)
        return CoT(cot.tokens, cot.kept, tuple(self.logps[cot.tokens]), cot.ended)


def elsewhere(learner: Learner, truth: Exact, tau: float) -> dict[tuple[int, ...], list[float]]:
    """ln u_s of each token of every CoT."""
    prompt = learner.prompter.cot_prompt(QUESTION)
    with torch.no_grad():
        return {cot: naive_logprobs(learner, prompt, cot, tau, [EOS]).tolist() for cot in truth.probability}


def expected(learner: Learner, truth: Exact, logps: dict[tuple[int, ...], list[float]]) -> Tensor:
    """Minus the expected gradient of the loss over groups of two CoTs of that sampler."""
    total = torch.zeros_like(truth.policy)
    for group in itertools.combinations_with_replacement(truth.probability, 2):
        orders = 1 if group[0] == group[1] else 2
        learner.sampler = Scripted(group, logps)
        take_step(learner, [QUESTION], 1)
        assert isinstance(learner.optimizer, tiny.RecordingSGD)
        total -= orders * math.exp(sum(sum(logps[cot]) for cot in group)) * learner.optimizer.flat()
    return total


@pytest.mark.parametrize("keys", [{}, {"microbatch": 1, "lora.dropout": 0.5}], ids=["at once", "one by one"])
def test_the_whole_ratio_is_exact(nano_model: Path, keys: dict) -> None:
    """With LoRA dropout the ratio is still that of the policy without it; its gradients are then noisy, so that the weights are compared."""
    learner = nano_learner(nano_model, "rloo", **{"rollouts.importance": "sequence", "rollouts.importance_cap": None, **keys})
    truth = exact(learner)
    logps = elsewhere(learner, truth, 1.4)
    if "lora.dropout" in keys:
        group = ((0, 1), (2, 2))
        learner.sampler = Scripted(group, logps)
        for one in take_step(learner, [QUESTION], 1).samples:
            rho = truth.probability[one.cot.tokens] / math.exp(sum(logps[one.cot.tokens]))
            assert one.stats["sampler_ratio_mean"] == pytest.approx(rho, rel=1e-9)
        return
    assert_same(expected(learner, truth, logps), truth.policy + truth.actor_reward)


def test_anything_less_is_not_and_tokens_are_nearer_than_nothing(nano_model: Path) -> None:
    """A gap as rounding might make it: uncorrected the gradient is off by its first order, with token ratios by its second."""
    off = {}
    for mode in ("off", "token"):
        learner = nano_learner(nano_model, "rloo", **{"rollouts.importance": mode})
        truth = exact(learner)
        whole = truth.policy + truth.actor_reward
        off[mode] = ((expected(learner, truth, elsewhere(learner, truth, TAU * 1.05)) - whole).norm() / whole.norm()).item()
    assert off["off"] > 1e-3
    assert 1e-6 < off["token"] < off["off"] / 1.5


def test_ppo_measures_from_the_trainer_and_is_weighted(nano_model: Path) -> None:
    """First pass: its ratio is 1 and its gradient the weighted policy gradient; the second keeps the weights of the first."""
    rows = {}
    for name in ("ppo", "rloo"):
        keys = {"objective.passes": 2, "objective.advantage": "rloo", "objective.kl_bound": 9.0} if name == "ppo" else {}
        learner = nano_learner(nano_model, name, **{"rollouts.importance": "token", **keys})
        truth = exact(learner)
        learner.sampler = Scripted(((0, 1), (2, 2)), elsewhere(learner, truth, 1.4))
        rows[name] = take_step(learner, [QUESTION], 1)
        assert isinstance(learner.optimizer, tiny.RecordingSGD)
        rows[name, "gradient"] = learner.optimizer.flat()  # lr is 0: of the last pass, at the same weights
    assert_same(rows["ppo", "gradient"], rows["rloo", "gradient"])
    for sample in rows["ppo"].samples:
        assert sample.stats["ratio_mean"] == pytest.approx(1.0, abs=1e-9)
        assert sample.stats["behavior_gap"] == pytest.approx(0.0, abs=1e-9)
        assert sample.stats["sampler_gap"] > 0.01


# ------------------------------------------------------------------------------------------------------- the formula


def test_weights_by_hand() -> None:
    """Log-ratios ln 3, ln 1/2 and a masked token; a second CoT within rounding; a third whose product is 1/4."""
    log = math.log
    ratio = torch.tensor([[log(3), log(0.5), 0.0], [1e-6, -1e-6, 1e-6], [log(0.5), log(0.5), 0.0]], dtype=torch.float64)
    mask = torch.tensor([[1.0, 1, 0], [1, 1, 1], [1, 1, 0]], dtype=torch.float64)
    weight, cot, stats = importance(ratio, mask, "token", 2.0, 1e-5)
    torch.testing.assert_close(weight * mask, torch.tensor([[2.0, 0.5, 0], [1, 1, 1], [0.5, 0.5, 0]], dtype=torch.float64))
    torch.testing.assert_close(cot, torch.tensor([1.0, 1, 0.5], dtype=torch.float64))  # sqrt(2 * 1/2), 1, 1/2
    assert stats["importance_truncated"].tolist() == [0.5, 0.0, 0.0]
    assert stats["sampler_ratio_max"].tolist() == pytest.approx([3.0, 1.0, 0.5])
    assert stats["sampler_ratio_min"].tolist() == pytest.approx([0.5, 1.0, 0.5])
    weight, cot, stats = importance(ratio, mask, "sequence", 1.2, 1e-5)  # products 3/2, 1, 1/4
    torch.testing.assert_close(cot, torch.tensor([1.2, 1.0, 0.25], dtype=torch.float64))
    torch.testing.assert_close(weight[:, 0], cot)
    assert stats["importance_truncated"].tolist() == [1.0, 0.0, 0.0]


def test_a_weight_changes_the_gradient_and_not_the_value() -> None:
    value = torch.tensor([0.1, -3.7], requires_grad=True)
    made = weighted(value, torch.tensor([2.0, 0.5]))
    assert torch.equal(made, value)
    assert torch.autograd.grad(made.sum(), value)[0].tolist() == [2.0, 0.5]
    assert weighted(value, None) is value
