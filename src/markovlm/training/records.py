"""The records of a step: what outlives it, what it knows about each CoT, what it leaves for the log."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch

from markovlm.config import RunConfig
from markovlm.config.base import Section
from markovlm.models.language import LanguageModel
from markovlm.models.sequences import Sharing
from markovlm.objectives import Objective
from markovlm.rewards import Reward
from markovlm.rollouts.prompter import Prompter
from markovlm.rollouts.types import CoT, Sampler
from markovlm.tasks.base import Example
from markovlm.training.distributed import World
from markovlm.training.readers import ReadingRoom


@dataclass(slots=True)
class Learner:
    """Everything a step needs that outlives it."""

    config: RunConfig  # resolved
    lm: LanguageModel
    prompter: Prompter
    sampler: Sampler
    objective: Objective
    reward: Reward[Section]
    room: ReadingRoom
    optimizer: torch.optim.Optimizer
    world: World
    sharing: Sharing
    lr_scale: float = 1.0  # halved by every rollback
    attempt: int = 0  # rollbacks so far: after one, the same steps draw other CoTs
    adapter_before: list[torch.Tensor] | None = None  # that the CoTs of the step before came from, where it is asked for

    @property
    def reward_trains(self) -> bool:
        """Whether there is a gradient through the reward (L_AR) anywhere in this run."""
        return self.config.objective.actor_reward_weight.maximum > 0


OWN_METRIC = "objective_"  # before the names of what an objective of one's own logs


@dataclass(slots=True)
class Sample:
    """One CoT of a step with everything found out about it. Plain values, so that it can travel between processes."""

    example: Example
    number: int  # among the CoTs of its question in this step
    cot: CoT
    reward: float = 0.0  # r
    reward_weight: float = 1.0  # constant weight of this CoT's gradient through the reward, from its whole group
    baseline: float | None = None  # b, where it was computed this step
    baseline_cot: str | None = None
    baseline_logprob: float | None = None  # ln pi'(a|z') per answer token
    answer_logprob: float = 0.0  # ln pi(a|z) per answer token, by the reader
    correct: bool = False  # every gold token is the reader's likeliest
    exact: bool | None = None  # and after them the end of the reply is; None: not asked, or an answer without an end of its own
    answer_probability: float = 0.0  # pi(a|z)
    answered: tuple[int, ...] | None = None  # the reader's greedy answer, as far as it is known; None: not looked at
    answered_whole: bool = False  # was it read to its end?
    advantage: float = 0.0
    scored: bool = True  # is anything predicted from it? (In a chain, not from every state.)
    future: float = 0.0  # of a state in a chain: what is earned after it, discounted to its step: G_t - R_t
    loss_weight: float = 1.0  # of a state in a chain: gamma^(t-1)
    trainer_logp: tuple[float, ...] | None = None  # ln u of each token by the trainer, where it corrects the sampler's
    stats: dict[str, float] = field(default_factory=dict)  # of the training pass, by metric name

    @property
    def name(self) -> str:
        return f"{self.example.id}#{self.number}"

    @property
    def to_go(self) -> float:
        """G: reward minus baseline, plus what is earned after it."""
        return self.reward - (self.baseline or 0.0) + self.future


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step leaves for the log."""

    samples: list[Sample]  # of all processes, question by question
    grad_norm: float
    seconds: dict[str, float]  # phase -> seconds on this process
    splits: int  # times the work was split for memory
    passes: list[dict[str, float]]  # means of behavior_kl and the ratio statistics in each pass that was applied
    term_norms: dict[str, float]  # gradient norm of each loss term, where it was asked for


class Retries:
    """How often this step's work was halved because memory ran out, by the trainer and by the sampler."""

    def __init__(self, sampler: Sampler):
        self._own = 0
        self._sampler = sampler
        self._sampler_before = sampler.splits

    def add(self, *_: object) -> None:
        self._own += 1

    @property
    def count(self) -> int:
        return self._own + self._sampler.splits - self._sampler_before


class Clock:
    """Seconds by phase."""

    def __init__(self, device: torch.device):
        self.seconds: dict[str, float] = {}
        self.cuda = device.type == "cuda"
        self.last = time.perf_counter()

    def mark(self, phase: str) -> None:
        if self.cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self.last
        self.last = now
