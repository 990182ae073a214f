"""Chains small enough to enumerate: a vocabulary of four tokens, states of one token, three observations. Computed here without the package."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from markovlm.rollouts.types import CoT, Decoding, SampleRequest
from markovlm.tasks.base import Example
from markovlm.tasks.chain import ChainExample, Query, chain_example
from markovlm.training.records import Learner
from markovlm.training.step import take_step
from support import tiny
from support.exact import EOS, TAU, naive_logprobs

LETTERS = {"N": "2", "Q": "0", "T": "1"}
TEXT = chain_example("text", ("10", "2", "01"))
ASKED = chain_example("asked", ("10", "2"), (Query("1", "20", 1), Query("0", "12", 2), Query("2", "1", 2)))
SUM = Example("sum", "1+20", "21")
BASE = {
    "task": "ledger",
    "lora.rank": 2,
    "rollouts.max_cot_tokens": 1,
    "rollouts.fixed_length": True,
    "rollouts.questions_per_step": 1,
    "rollouts.temperature": TAU,
    "training.lr": 0.0,
    "training.max_grad_norm": 1e12,
    "objective.name": "rloo",
    "objective.kl_weight": 0.0,
    "objective.normalize_reward": False,
}


def nano_for_chains(nano: Path, directory: Path) -> Path:
    """The nano model with a tokenizer to which some capitals are digits, so that no piece of a prompt vanishes."""
    shutil.copytree(nano, directory)
    path = directory / "tokenizer.json"
    saved = json.loads(path.read_text())
    replace = [{"type": "Replace", "pattern": {"String": a}, "content": b} for a, b in LETTERS.items()]
    saved["normalizer"] = {"type": "Sequence", "normalizers": [*replace, saved["normalizer"]]}
    path.write_text(json.dumps(saved))
    return directory


class Scripted:
    """A sampler that writes given states: `script[number][t - 1]`, found by the keys (…, text, number, t)."""

    def __init__(self, script: Sequence[Sequence[tuple[int, ...]]]):
        self.script = script
        self.splits = 0

    def sample(self, requests: Sequence[SampleRequest], decoding: Decoding) -> list[list[CoT]]:
        drawn = []
        for request in requests:
            ((*_, number, t),) = request.streams
            tokens = self.script[int(number)][int(t) - 1]
            ended = tokens[-1] == EOS
            drawn.append([CoT(tokens, len(tokens) - ended, (-1.0,) * len(tokens), ended)])
        return drawn


def chain_learner(nano: Path, kind: str, *, weight: float = 1.0, microbatch: int = 16384, **overrides: Any) -> Learner:
    keys = {**BASE, "chain.kind": kind, "objective.actor_reward_weight": weight, **overrides}
    run = tiny.config(nano, **{key.replace(".", "__"): value for key, value in keys.items()})
    learner = tiny.learner(run, microbatch_tokens=microbatch)
    tiny.shake(learner.lm, scale=0.5, seed=5)
    return learner


def ids(text: str) -> list[int]:
    """Tokens of a piece of a prompt, by hand: all but digits and the letters that stand for them vanishes."""
    return [int(LETTERS.get(c, c)) for c in text if c in "012" or c in LETTERS]


WRITE = "Read a text in pieces and keep notes of at most 1 tokens: nothing else is kept.\nNotes:"


SUMS = "You will be given an arithmetic problem, which you have 1 tokens to work through step-by-step. Question: "


def write_ids(example: Example, t: int, state: Sequence[int]) -> list[int]:
    """What the state after chunk `t` is written from."""
    if not isinstance(example, ChainExample):
        return [*ids(SUMS + example.question), *state]
    return [*ids(WRITE), *state, *ids("\nText:"), *ids(example.chunks[t - 1]), *ids("\nNew notes:")]


def reads(learner: Learner, example: Example, t: int, state: Sequence[int]) -> list[tuple[str, list[int], list[int]]]:
    """(kind, what stands before, target) for everything that is predicted after chunk `t`."""
    end = [EOS] if learner.config.objective.answer_end == "scored" else []  # of an answer; a chunk of a text has none
    chain, sight = learner.config.chain, learner.config.objective.conditioning == "non_markovian"
    if not isinstance(example, ChainExample):
        shown = example.question if sight else "<Redacted>"
        return [("answer", [*ids(SUMS + shown), *state], ids(example.answer) + end)] if t == chain.steps else []
    past = ids("Text so far:" + "".join(example.chunks[:t])) if sight else []
    before = [*past, *ids("Notes:"), *state]
    found = []
    if chain.predicts != "next_chunk":
        asked = [query for query in example.queries if query.after == t]
        found += [("answer", [*before, *ids(f"\nQuestion:{q.question}\nAnswer:")], ids(q.answer) + end) for q in asked]
    if chain.predicts != "answer" and t < len(example.chunks):
        found.append(("next_chunk", [*before, *ids("\nText:")], ids(example.chunks[t])))
    return found


@dataclass
class ExactChain:
    """J = E sum_t gamma^(t-1) r_t and its gradient in two terms, by enumeration of all chains."""

    policy: Tensor
    actor_reward: Tensor
    probability: dict[tuple[tuple[int, ...], ...], float]


def exact_chain(learner: Learner, example: Example, states: int) -> ExactChain:
    fixed = learner.config.rollouts.fixed_length
    tokens = [(0,), (1,), (2,)] if fixed else [(0,), (1,), (2,), (EOS,)]
    parameters = [p for _, p in learner.lm.adapter_parameters()]
    gamma = learner.config.chain.gamma
    log_u, value, probability = [], [], {}
    for chain in itertools.product(tokens, repeat=states):
        state: list[int] = []
        logs, total = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for t, written in enumerate(chain, 1):
            logs = logs + naive_logprobs(learner, write_ids(example, t, state), written, TAU, [EOS] if fixed else []).sum()
            state = [token for token in written if token != EOS]
            found = reads(learner, example, t, state)
            for kind in ("answer", "next_chunk"):
                few = [naive_logprobs(learner, before, target, 1.0, []).mean() for k, before, target in found if k == kind]
                if few:
                    total = total + gamma ** (t - 1) * torch.stack(few).mean()
        log_u.append(logs)
        value.append(total)
        probability[chain] = logs.exp().item()
    u_Z, r_Z = torch.stack(log_u).exp(), torch.stack(value)
    assert math.isclose(u_Z.sum().item(), 1.0, abs_tol=1e-12)  # the enumeration is complete

    def gradient(objective: Tensor) -> Tensor:
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(objective, parameters, retain_graph=True)])

    policy, actor = gradient((u_Z * r_Z.detach()).sum()), gradient((u_Z.detach() * r_Z).sum())
    assert torch.allclose(policy + actor, gradient((u_Z * r_Z).sum()), atol=1e-12)
    return ExactChain(policy, actor, probability)


def pairs(truth: ExactChain) -> Iterator[tuple[float, tuple[Any, ...]]]:
    """Unordered pairs of chains with the probability of drawing them in either order."""
    for one, other in itertools.combinations_with_replacement(truth.probability, 2):
        yield (1 if one == other else 2) * truth.probability[one] * truth.probability[other], (one, other)


def expected_chain_ascent(learner: Learner, example: Example, truth: ExactChain) -> Tensor:
    """Minus the expected gradient of the loss, over all groups of two chains."""
    total = torch.zeros_like(truth.policy)
    for probability, group in pairs(truth):
        learner.sampler = Scripted(group)
        take_step(learner, [example], 1)
        assert isinstance(learner.optimizer, tiny.RecordingSGD)
        total -= probability * learner.optimizer.flat()
    return total
