"""Every row of METHOD §2's table recomputed in numpy, and on the real path: warm-up, passes, schedules, resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from markovlm.checks.ours import doubts
from markovlm.config import ObjectiveBase, RunConfig, build_config, nest
from markovlm.errors import UserError
from markovlm.models.load import LanguageModel
from markovlm.objectives import OBJECTIVES, PolicyBatch, PolicyLoss, build_objective
from markovlm.objectives.base import Credit
from markovlm.objectives.ema import EmaConfig
from markovlm.objectives.expert_iteration import ExpertIterationConfig
from markovlm.objectives.loss import Weights, loss_terms
from markovlm.objectives.ppo import PpoConfig
from markovlm.objectives.ppo_frozen_anchor import PpoFrozenAnchorConfig
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import read_rows
from markovlm.training.loop import train
from markovlm.training.records import StepResult
from markovlm.training.step import take_step
from support import naive, runs, tiny

Array = NDArray[np.float64]
SHAPES = [(3, 1), (2, 2), (1, 4), (3, 1)]  # [Q, B] of successive batches


def reward_batches(seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(-2.0, 1.0, shape) for shape in SHAPES]


class Batch:
    """Six samples of up to seven tokens, as numpy and as the tensors of a policy loss."""

    def __init__(self, seed: int, drift: float = 0.3):
        rng = np.random.default_rng(seed)
        lengths = np.array([7, 3, 5, 1, 7, 4])
        self.mask = (np.arange(7) < lengths[:, None]).astype(float)
        self.behavior = -rng.exponential(1.0, (6, 7)) * self.mask
        self.logp = (self.behavior + drift * rng.normal(size=(6, 7))) * self.mask
        self.reference = -rng.exponential(1.0, (6, 7)) * self.mask
        self.advantage = rng.normal(size=6)
        self.advantage[3] = 0.0

    def loss(self, config: ObjectiveBase, chosen: Array | None = None) -> tuple[PolicyLoss, Array]:
        """What the objective says, and its gradient over ln u [n, T]."""
        logp = torch.tensor(self.logp, requires_grad=True)
        others = (torch.tensor(x) for x in (self.behavior, self.reference, self.mask, self.advantage))
        behavior, reference, mask, advantage = others
        picked = None if chosen is None else torch.tensor(chosen > 0)
        made = build_objective(config).policy_loss(PolicyBatch(logp, behavior, reference, mask, advantage, picked))
        (gradient,) = torch.autograd.grad(made.loss.sum(), logp)
        return made, gradient.numpy()


def reduced(values: Array, mask: Array, reduction: str) -> Array:
    return np.array([row[m > 0].sum() if reduction == "sum" else row[m > 0].mean() for row, m in zip(values, mask, strict=True)])


# ------------------------------------------------------------------------------------------------------- ema


@pytest.mark.parametrize("decay", [0.9, 0.5])
def test_ema_is_the_formula_over_all_earlier_samples(decay: float) -> None:
    """V_t = sum_{i<t} r^(t-1-i) R_i / sum_{i<t} r^(t-1-i), samples in order, across batches; V of the first is 0."""
    objective, history = build_objective(EmaConfig(decay=decay)), list[float]()
    for reward in reward_batches(1):
        expected = []
        for value in reward.reshape(-1):
            weights = [decay ** (len(history) - 1 - i) for i in range(len(history))]
            baseline = sum(w * r for w, r in zip(weights, history, strict=True)) / sum(weights) if history else 0.0
            expected.append(value - baseline)
            history.append(value)
        tensor = torch.tensor(reward)
        assert objective.credit(tensor).advantage(tensor).reshape(-1).tolist() == pytest.approx(expected)


def test_ema_looks_back_about_ten_samples() -> None:
    """After a jump of the rewards from 0 to 1, 1 - r^n of the baseline has followed after n samples."""
    objective = build_objective(EmaConfig())
    objective.credit(torch.zeros(200, 1))
    credit = objective.credit(torch.ones(11, 1, dtype=torch.float64))
    assert credit.centre[10, 0].item() == pytest.approx(1 - 0.9**10, abs=1e-8)


def test_running_statistics_continue_from_their_state() -> None:
    for config in (EmaConfig(), ExpertIterationConfig(warmup_batches=1)):
        first, *rest = [torch.tensor(reward) for reward in reward_batches(2)]
        one, other = build_objective(config), build_objective(config)
        one.credit(first)
        other.load_state_dict(one.state_dict())
        for reward in rest:
            ours, theirs = one.credit(reward), other.credit(reward)
            assert torch.equal(ours.advantage(reward), theirs.advantage(reward))
        assert one.state_dict() == other.state_dict()


# ------------------------------------------------------------------------------------------------------- expert iteration


@pytest.mark.parametrize("k", [1.0, 2.2, -0.5])
def test_expert_iteration_chooses_above_the_history_without_the_current_batch(k: float) -> None:
    objective = build_objective(ExpertIterationConfig(threshold_std=k, warmup_batches=2))
    history = np.array([])
    for number, reward in enumerate(reward_batches(3) * 3):
        credit = objective.credit(torch.tensor(reward))
        assert credit.idle == (number < 2)
        assert credit.chosen is not None
        expected = reward > history.mean() + k * history.std() if number >= 2 else np.zeros_like(reward, dtype=bool)
        assert credit.chosen.numpy().tolist() == expected.tolist()
        assert credit.advantage(torch.tensor(reward)).numpy() == pytest.approx(np.where(expected, reward, 0.0))
        history = np.append(history, reward)


def test_expert_iteration_with_equal_rewards_chooses_nothing() -> None:
    objective = build_objective(ExpertIterationConfig(warmup_batches=1))
    for _ in range(3):
        credit = objective.credit(torch.full((2, 3), -0.5))
    assert credit.chosen is not None
    assert not credit.chosen.any()


@pytest.mark.parametrize(("advantage", "expected"), [("reward", lambda b: b.advantage), ("one", lambda b: np.ones(6))])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_loss_of_expert_iteration(advantage: Any, expected: Any, reduction: Any) -> None:
    batch, chosen = Batch(4), np.array([1.0, 0, 1, 1, 0, 0])
    batch.advantage = batch.advantage * chosen  # as Credit.advantage gives it
    made, gradient = batch.loss(ExpertIterationConfig(advantage=advantage, cot_logprob=reduction), chosen)
    weight = chosen * expected(batch)
    assert made.loss.detach().numpy() == pytest.approx(-reduced(batch.logp, batch.mask, reduction) * weight)
    assert not gradient[chosen == 0].any()
    assert made.metrics["no_gradient_fraction"].tolist() == (1 - chosen).tolist()


def test_the_actor_reward_term_sees_only_the_chosen() -> None:
    credit = Credit(torch.zeros(1, 3), torch.ones(1, 3), torch.tensor([[True, False, True]])).select(torch.arange(3))
    reward = torch.tensor([0.5, 0.7, -0.2], requires_grad=True)
    logp = torch.full((3, 2), -1.0)
    batch = PolicyBatch(logp, logp, logp, torch.ones(3, 2), credit.advantage(reward.detach()), credit.chosen)
    terms = loss_terms(build_objective(ExpertIterationConfig()), batch, credit, reward, None, None, Weights(0.5, 0, 0))
    assert terms.actor_reward is not None
    assert terms.actor_reward.tolist() == pytest.approx([-0.25, 0.0, 0.1])
    (gradient,) = torch.autograd.grad(terms.actor_reward.sum(), reward)
    assert gradient.tolist() == [-0.5, 0.0, -0.5]


def adapters(out: Path) -> dict[int, bytes]:
    run = RunDirectory(out)
    return {step: (run.checkpoint(step) / "adapter_model.safetensors").read_bytes() for step in run.saved_steps()}


def test_the_warm_up_of_expert_iteration_trains_nothing(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    keys = {"objective__name": "expert_iteration", "objective__warmup_batches": 3, "objective__threshold_std": -9.0}
    train(tiny.config(tiny_models["gpt2"], training__steps=5, training__checkpoint_every=1, **keys), tmp_path / "run")
    saved = adapters(tmp_path / "run")
    assert saved[0] == saved[1] == saved[2] == saved[3] != saved[4] != saved[5]
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["passes"] for row in rows] == [0, 0, 0, 1, 1]
    assert [row["no_gradient_fraction"] for row in rows] == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert all(row["kl"] is not None and row["entropy"] > 0 for row in rows)  # measured in the warm-up too


# ------------------------------------------------------------------------------------------------------- ppo


def surrogate(ratio: Array, advantage: Array, eps: float) -> tuple[Array, Array]:
    """min(rho A, clip(rho) A), and its derivative by ln rho: rho A where the unclipped branch is the smaller, else 0."""
    value = np.minimum(ratio * advantage, np.clip(ratio, 1 - eps, 1 + eps) * advantage)
    alive = np.where(advantage > 0, ratio < 1 + eps, ratio > 1 - eps)
    return value, ratio * advantage * alive


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("clip", [0.2, 0.05])
def test_ppo_with_a_ratio_per_token(reduction: Any, clip: float) -> None:
    batch = Batch(5)
    made, gradient = batch.loss(PpoConfig(ratio="token", cot_logprob=reduction, clip=clip))
    ratio, length = np.exp(batch.logp - batch.behavior), batch.mask.sum(1)
    value, slope = surrogate(ratio, batch.advantage[:, None], clip)
    assert made.loss.detach().numpy() == pytest.approx(-reduced(value, batch.mask, reduction))
    scale = 1.0 if reduction == "sum" else 1 / length[:, None]
    assert gradient == pytest.approx(-slope * batch.mask * scale)
    inside = [ratio[i, : int(n)] for i, n in enumerate(length)]
    metrics = {name: values.numpy() for name, values in made.metrics.items()}
    assert metrics["ratio_min"] == pytest.approx([r.min() for r in inside])
    assert metrics["ratio_max"] == pytest.approx([r.max() for r in inside])
    assert metrics["ratio_mean"] == pytest.approx([r.mean() for r in inside])
    assert metrics["ratio_clipped_fraction"] == pytest.approx([np.mean(abs(r - 1) > clip) for r in inside])
    assert metrics["no_gradient_fraction"].tolist() == [float(not row.any()) for row in gradient]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("clip", [0.2, 0.05])
def test_ppo_with_a_ratio_per_sequence(reduction: Any, clip: float) -> None:
    batch = Batch(6)
    made, gradient = batch.loss(PpoConfig(ratio="sequence", cot_logprob=reduction, clip=clip))
    ratio = np.exp(reduced(batch.logp - batch.behavior, batch.mask, reduction))
    value, slope = surrogate(ratio, batch.advantage, clip)
    assert made.loss.detach().numpy() == pytest.approx(-value)
    scale = 1.0 if reduction == "sum" else 1 / batch.mask.sum(1)[:, None]
    assert gradient == pytest.approx(-slope[:, None] * batch.mask * scale)
    assert made.metrics["ratio_max"].numpy() == pytest.approx(ratio)
    assert made.reward_weight is not None
    assert made.reward_weight.numpy() == pytest.approx(np.clip(ratio, 1 - clip, 1 + clip))  # the same ratio, clipped


@pytest.mark.parametrize("ratio", ["token", "sequence"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_in_the_first_pass_the_gradient_of_ppo_is_the_policy_gradient(ratio: Any, reduction: Any) -> None:
    batch = Batch(7, drift=0.0)
    made, gradient = batch.loss(PpoConfig(ratio=ratio, cot_logprob=reduction))
    scale = 1.0 if reduction == "sum" else 1 / batch.mask.sum(1)[:, None]
    assert gradient == pytest.approx(-batch.advantage[:, None] * batch.mask * scale)  # of - ln u * A
    assert made.reward_weight is not None
    assert made.reward_weight.tolist() == [1.0] * 6


@pytest.mark.parametrize("advantage", ["grpo", "rloo", "dr_grpo"])
def test_the_advantage_of_ppo_is_that_of_the_objective_it_names(advantage: Any) -> None:
    reward = torch.tensor(reward_batches(8)[1])
    ours = build_objective(PpoConfig(advantage=advantage)).credit(reward).advantage(reward)
    theirs = OBJECTIVES[advantage](type(build_config({"objective": {"name": advantage}}).objective)()).credit(reward)
    assert torch.equal(ours, theirs.advantage(reward))


def test_in_later_passes_the_actor_reward_is_weighted_by_the_detached_clipped_ratio() -> None:
    batch = Batch(9)
    made, _ = batch.loss(PpoConfig())
    weight = np.clip(np.exp(reduced(batch.logp - batch.behavior, batch.mask, "mean")), 0.8, 1.2)  # geometric mean over tokens
    assert made.reward_weight is not None
    assert not made.reward_weight.requires_grad
    assert made.reward_weight.numpy() == pytest.approx(weight)
    reward = torch.tensor(np.random.default_rng(9).normal(size=6), requires_grad=True)
    credit = Credit(torch.full((6,), 0.3, dtype=torch.float64), torch.full((6,), 2.0, dtype=torch.float64))
    tensors = [torch.tensor(x) for x in (batch.logp, batch.behavior, batch.reference, batch.mask, batch.advantage)]
    terms = loss_terms(build_objective(PpoConfig()), PolicyBatch(*tensors), credit, reward, None, None, Weights(0.7, 0, 0))
    assert terms.actor_reward is not None
    expected = -0.7 * weight * (reward.detach().numpy() - 0.3) / 2
    assert terms.actor_reward.detach().numpy() == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(terms.actor_reward.sum(), reward)
    assert gradient.numpy() == pytest.approx(-0.7 * weight / 2)


def stepped(models: dict[str, Path], lr: float = 1e-2, **objective: Any) -> tuple[Tensor, StepResult]:
    """The adapter after one step of plain SGD on the tiny model, and what the step left for the log."""
    keys = {f"objective__{key}": value for key, value in {"name": "ppo", "baseline_every": 1, **objective}.items()}
    learner = tiny.learner(tiny.config(models["gpt2"], rollouts__group_size=3, training__lr=lr, **keys))
    result = take_step(learner, tiny.QUESTIONS[:2], 1)
    return torch.cat([p.detach().reshape(-1) for _, p in learner.lm.adapter_parameters()]), result


def test_a_pass_beyond_the_bound_is_not_applied(tiny_models: dict[str, Path]) -> None:
    """The adapter is that of a single pass, bit for bit; without the bound it is another."""
    single, _ = stepped(tiny_models, passes=1)
    bounded, result = stepped(tiny_models, passes=4, kl_bound=1e-9)
    assert torch.equal(bounded, single)
    assert len(result.passes) == 1
    assert result.passes[0]["behavior_kl"] < 1e-12
    free, result = stepped(tiny_models, passes=4, kl_bound=1e9)
    assert len(result.passes) == 4
    assert not torch.equal(free, single)
    kls = [stats["behavior_kl"] for stats in result.passes]
    assert kls[0] < 1e-12 < 1e-9 < kls[1] < kls[3]


def test_the_behaviour_kl_is_schulmans_estimate(tiny_models: dict[str, Path]) -> None:
    """Mean over tokens of rho - 1 - ln rho, from log-probs recomputed with full logits after the first pass."""
    keys = {"objective__name": "ppo", "objective__passes": 2, "objective__kl_bound": 1e9}
    learner = tiny.learner(tiny.config(tiny_models["gpt2"], rollouts__group_size=3, training__lr=1e-2, **keys))
    result = take_step(learner, tiny.QUESTIONS[:2], 1)
    single = {**keys, "objective__passes": 1}
    replay = tiny.learner(tiny.config(tiny_models["gpt2"], rollouts__group_size=3, training__lr=1e-2, **single))
    take_step(replay, tiny.QUESTIONS[:2], 1)  # the policy as the second pass met it
    estimates = []
    for sample in result.samples:
        logp = cot_logp(replay.lm, replay.prompter.cot_prompt(sample.example), sample.cot.tokens)
        log_ratio = logp.detach().numpy() - np.array(sample.cot.behavior_logp)
        estimates.append(np.mean(np.exp(log_ratio) - 1 - log_ratio))
    assert result.passes[1]["behavior_kl"] == pytest.approx(np.mean(estimates), rel=1e-6)


def cot_logp(lm: LanguageModel, prompt: tuple[int, ...], tokens: tuple[int, ...]) -> Tensor:
    log_p = naive.distribution(naive.row_logits(lm, prompt, tokens))
    return log_p[torch.arange(len(tokens)), torch.tensor(tokens)]


# ------------------------------------------------------------------------------------------------------- the frozen anchor


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_frozen_anchor_takes_its_ratio_to_the_base(reduction: Any) -> None:
    batch = Batch(10)
    made, gradient = batch.loss(PpoFrozenAnchorConfig(cot_logprob=reduction))
    ratio = np.exp(reduced(batch.logp - batch.reference, batch.mask, reduction))
    value, slope = surrogate(ratio, batch.advantage, 0.2)
    assert made.loss.detach().numpy() == pytest.approx(-value)
    scale = 1.0 if reduction == "sum" else 1 / batch.mask.sum(1)[:, None]
    assert gradient == pytest.approx(-slope[:, None] * batch.mask * scale)
    assert made.metrics["ratio_mean"].numpy() == pytest.approx(ratio)


def test_the_frozen_anchor_by_hand() -> None:
    """rho = e^0.5: A = 1 is clipped to 1.2 and has no gradient, A = -1 pushes with all of rho."""
    for advantage, loss, slope in ((1.0, -1.2, 0.0), (-1.0, np.exp(0.5), np.exp(0.5) / 2)):
        batch = Batch(11)
        batch.mask, batch.logp, batch.reference = np.ones((1, 2)), np.array([[-1.0, -1.0]]), np.array([[-1.2, -1.8]])
        batch.behavior, batch.advantage = batch.logp, np.array([advantage])
        made, gradient = batch.loss(PpoFrozenAnchorConfig())
        assert made.loss.tolist() == pytest.approx([loss])
        assert gradient == pytest.approx(np.full((1, 2), slope))


def test_the_frozen_anchor_overwrites_the_loss(tiny_models: dict[str, Path]) -> None:
    """No KL and no actor-reward term in the sum; the advantage has next to no floor."""
    _, result = stepped(tiny_models, name="ppo_frozen_anchor")
    for sample in result.samples:
        assert sample.stats["loss_kl"] == sample.stats["loss_actor_reward"] == sample.stats["loss_entropy"] == 0.0
        assert sample.stats["kl"] > 0
    near = torch.tensor([[0.0, 0.002]], dtype=torch.float64)
    assert build_objective(PpoFrozenAnchorConfig()).credit(near).advantage(near)[0, 1].item() == pytest.approx(
        0.001 / 0.002 * 2**0.5
    )


# ------------------------------------------------------------------------------------------------------- entropy, schedules


def test_the_entropy_bonus_is_the_gradient_of_the_entropy(tiny_models: dict[str, Path]) -> None:
    """g(alpha) - g(0) = -alpha grad mean_i mean_t H_it, with H from full logits; it raises the entropy."""

    def gradient(alpha: float) -> tuple[Tensor, StepResult]:
        keys = {"training__max_grad_norm": 1e9, "objective__entropy_weight": alpha}
        run = tiny.config(tiny_models["gpt2"], rollouts__group_size=3, **keys)
        learner = tiny.learner(run)
        result = take_step(learner, tiny.QUESTIONS[:2], 1)
        assert isinstance(learner.optimizer, tiny.RecordingSGD)
        return learner.optimizer.flat(), result

    (g0, _), (g1, result) = gradient(0.0), gradient(0.5)
    fresh = tiny.learner(tiny.config(tiny_models["gpt2"], rollouts__group_size=3))

    def mean_entropy() -> Tensor:
        rows = []
        for sample in result.samples:
            log_p = naive.distribution(naive.row_logits(fresh.lm, fresh.prompter.cot_prompt(sample.example), sample.cot.tokens))
            rows.append(-(log_p.exp() * log_p).sum(-1).mean())
            assert rows[-1].item() == pytest.approx(sample.stats["entropy"])
        return torch.stack(rows).mean()

    naive.assert_close(g1 - g0, -0.5 * naive.gradient(fresh.lm, mean_entropy), 1e-8)
    for sample in result.samples:
        assert sample.stats["loss_entropy"] == pytest.approx(-0.5 * sample.stats["entropy"])


def test_schedules_at_work(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """Each weight shows in the rows, and in the terms that it weighs; the sampler and the scorer share the temperature."""
    keys = {
        "objective__actor_reward_weight": "linear 0.5 -> 1",
        "objective__kl_weight": "cosine 0.4 -> 0 over 3",
        "objective__entropy_weight": "linear 0 -> 0.2",
        "rollouts__temperature": "linear 1.5 -> 0.5",
        "training__lr": "linear 1e-2 -> 0",
        "training__steps": 5,
    }
    train(tiny.config(tiny_models["gpt2"], **keys), tmp_path / "run")
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["actor_reward_weight"] for row in rows] == pytest.approx([0.5, 0.625, 0.75, 0.875, 1.0])
    assert [row["kl_weight"] for row in rows] == pytest.approx([0.4, 0.2, 0.0, 0.0, 0.0])
    assert [row["temperature"] for row in rows] == pytest.approx([1.5, 1.25, 1.0, 0.75, 0.5])
    assert [row["lr"] for row in rows] == pytest.approx([1e-2, 7.5e-3, 5e-3, 2.5e-3, 0.0])
    for row, alpha in zip(rows, [0.0, 0.05, 0.1, 0.15, 0.2], strict=True):
        assert row["loss_kl"] == pytest.approx(row["kl_weight"] * row["kl"])
        assert row["loss_entropy"] == pytest.approx(-alpha * row["entropy"])
        assert row["behavior_gap"] < 1e-8
    saved = adapters(tmp_path / "run")
    assert saved[4] == saved[5]  # the last learning rate is 0
    assert rows[0]["entropy"] > rows[4]["entropy"]  # hot, then cool


# ------------------------------------------------------------------------------------------------------- construction


IMPOSSIBLE = [
    ({"objective.name": "ema", "objective.baseline_every": 2}, "baseline_every must be 1"),
    ({"objective.name": "expert_iteration", "objective.baseline_every": 5}, "baseline_every must be 1"),
    ({"objective.name": "expert_iteration", "objective.warmup_batches": 0}, "objective.warmup_batches"),
    ({"objective.name": "ema", "objective.decay": 1.0}, "objective.decay"),
    ({"objective.name": "ppo", "objective.passes": 0}, "objective.passes"),
    ({"objective.name": "ppo", "objective.clip": 1.0}, "objective.clip"),
    ({"objective.name": "ppo", "objective.kl_bound": 0}, "objective.kl_bound"),
    ({"objective.name": "ppo", "objective.ratio": "word"}, "objective.ratio"),
    ({"objective.name": "ppo", "objective.advantage": "ema"}, "objective.advantage"),
    ({"objective.name": "ppo", "rollouts.group_size": 1}, "rollouts.group_size must be at least 2 for objective ppo"),
    ({"objective.name": "ppo_frozen_anchor", "rollouts.group_size": 1}, "rollouts.group_size"),
    ({"objective.name": "ppo_frozen_anchor", "objective.actor_reward_weight": 1}, "actor_reward_weight must be 0"),
    ({"objective.name": "ppo_frozen_anchor", "objective.kl_weight": 0.1}, "kl_weight must be 0"),
    ({"objective.name": "ppo_frozen_anchor", "objective.entropy_weight": 0.1}, "entropy_weight must be 0"),
    ({"objective.name": "ppo", "objective.reader": "frozen"}, "actor_reward_weight must be 0 with reader=frozen"),
    ({"objective.name": "ema", "objective.reward": "exact_match"}, "actor_reward_weight must be 0 with reward=exact_match"),
    ({"objective.name": "rloo", "objective.reward": "prob", "objective.answer_logprob": "sum"}, "answer_logprob has no effect"),
    ({"objective.name": "grpo", "objective.decay": 0.5}, "objective.decay: unknown key"),
    ({"objective.name": "a2c"}, "objective.name: no objective 'a2c'; there are: grpo, rloo"),
    ({"rollouts.temperature": "linear 1 -> 0"}, "temperature must be positive"),
]


@pytest.mark.parametrize(("flat", "says"), IMPOSSIBLE, ids=[says for _, says in IMPOSSIBLE])
def test_what_makes_no_sense_fails_with_the_name_of_the_field(flat: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as refused:
        build_config(nest(flat))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


DOUBTFUL = [
    ({"objective.name": "ppo_frozen_anchor"}, "ppo_frozen_anchor repeats an error of the research code"),
    ({"objective.name": "ppo", "training.lr": 8e-5}, "ppo with a live actor reward"),
    ({"model": "embedded", "objective.name": "ppo", "training.lr": 1.5e-3}, "ppo with a live actor reward"),
    ({"objective.answer_end": "open"}, "run on after the gold answer"),
    ({"objective.conditioning": "non_markovian"}, "answer from the question"),
    ({"training.eval_every": 0}, "eval_every=0"),
    ({"rollouts.group_size": 4}, "group_size=4"),
    ({"training.lr": 2e-4}, "training.lr 0.0002 is above"),
    ({"model": "embedded", "training.lr": "linear 4e-3 -> 0"}, "training.lr 0.004 is above"),
    ({"model": "smollm2", "training.lr": 1e-3}, "training.lr 0.001 is above 0.0003"),  # held; falling to 0 it learns
    ({"model": "smollm2", "training.lr": "linear 3e-3 -> 0"}, "training.lr 0.003 is above 0.001"),
]


def quiet(**flat: Any) -> RunConfig:
    return build_config({"model": "/some/8b"}, nest(flat))


@pytest.mark.parametrize(("flat", "says"), DOUBTFUL, ids=[says for _, says in DOUBTFUL])
def test_what_is_doubtful_warns_once(flat: dict[str, Any], says: str) -> None:
    (message,) = doubts(quiet(**flat))
    assert says in message
    assert "\n" not in message
    assert "docs/" in message or "use objective.name=ppo" in message


def test_the_frozen_anchor_with_summed_log_ratios_is_told_twice() -> None:
    messages = doubts(quiet(**{"objective.name": "ppo_frozen_anchor", "objective.cot_logprob": "sum"}))
    assert len(messages) == 2
    assert "learning stalls" in messages[1]


def test_what_is_not_doubtful_is_silent() -> None:
    assert doubts(quiet()) == []
    assert doubts(quiet(**{"model": "smollm2", "training.lr": "linear 1e-3 -> 0"})) == []
    assert doubts(quiet(**{"objective.name": "ppo", "objective.actor_reward_weight": 0, "training.lr": 8e-5})) == []
    assert doubts(quiet(**{"objective.name": "ema", "rollouts.group_size": 1})) == []
    assert doubts(quiet(**{"objective.reward": "prob"})) == []  # with the end scored grpo holds it as well as rloo
    assert doubts(quiet(**{"objective.answer_end": "open", "objective.actor_reward_weight": 0})) == []
    assert doubts(quiet(**{"objective.answer_end": "open", "task": "wiki"})) == []  # a continued text has no end
    assert doubts(quiet(**{"objective.actor_reward_weight": 0, "objective.reward": "prob"})) == []
    assert doubts(quiet(**{"objective.actor_reward_weight": 0, "objective.conditioning": "non_markovian"})) == []


def test_a_doubt_is_an_event_and_stands_in_the_run_once(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    train(tiny.config(tiny_models["gpt2"], training__steps=1, training__lr=1e-5), tmp_path / "run")
    warnings = [event["message"] for event in read_rows(tmp_path / "run" / "events.jsonl") if event["kind"] == "warning"]
    assert [message.partition("=")[0] for message in warnings] == ["training.eval_every", "rollouts.group_size"]


# ------------------------------------------------------------------------------------------------------- whole runs


VARIANTS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "rloo": {"reward": "prob"},
    "dr_grpo": {"reward": "exact_match", "actor_reward_weight": 0},
    "ema": {"decay": 0.8},
    "expert_iteration": {"warmup_batches": 2, "threshold_std": 0.0},
    "ppo": {"passes": 3, "actor_reward_weight": "linear 0.5 -> 1"},
    "ppo_frozen_anchor": {"reader": "frozen"},
    "reinforce": {"reward": "bound", "normalize_reward": False},
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_resume_is_exact_for_every_objective(name: str, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """4 steps, and what a crash after 3 leaves, past the checkpoint at 2, resumed: the same rows, adapter, statistics, guard."""
    keys: dict[str, Any] = {
        "loading__dtype": "float32", "objective__name": name, "rollouts__group_size": 3, "rollouts__max_cot_tokens": 8,
        "training__steps": 4, "logging__samples_every": 1, "training__eval_every": 2,
    }  # fmt: skip
    model = tiny_models["gpt2"]
    if VARIANTS[name].get("reward") == "exact_match":  # of random weights no answer is right
        model, keys = "embedded", {**keys, "rollouts__group_size": 4, "rollouts__max_cot_tokens": 12}
    config = tiny.config(model, **keys, **{f"objective__{key}": value for key, value in VARIANTS[name].items()})
    train(config, tmp_path / "whole", progress=runs.CopyAfter(tmp_path / "whole", {3: tmp_path / "crashed"}))
    assert [row["step"] for row in read_rows(tmp_path / "crashed" / "metrics.jsonl")] == [1, 2, 3]
    runs.resume(tmp_path / "crashed")
    runs.assert_same_run(tmp_path / "crashed", tmp_path / "whole")
    state = runs.checkpoint_bytes(tmp_path / "whole", 4)["trainer_state.json"]
    assert state["guard"]["monitor"]["n"] == 4
    assert bool(state["objective"]) == (name in ("ema", "expert_iteration"))
    saved = adapters(tmp_path / "whole")
    assert saved[0] != saved[4]


def test_groups_of_one(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """Different questions in a batch: no group has a spread, which is null and not an error."""
    for name in ("ema", "expert_iteration"):
        run = tiny.config(tiny_models["gpt2"], objective__name=name, rollouts__group_size=1, rollouts__questions_per_step=3)
        train(run, tmp_path / name)
        rows = read_rows(tmp_path / name / "metrics.jsonl")
        assert [row["reward_std"] for row in rows] == [None] * 4
        assert [row["questions"] for row in rows] == [3] * 4
