"""What two processes with dealt weights compute, against what they compute with all of them: for `processes.forked`.

Questions are uneven on purpose (two for one process, one for the other), CoTs end early, and one process does more passes than the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from markovlm.models import logprobs
from markovlm.models.language import LanguageModel
from markovlm.training.distributed import World
from markovlm.training.step import take_step
from support import tiny

STOP = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def oom() -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (simulated)")


def in_forward(lm: LanguageModel) -> None:
    """The first training pass breaks off between two layers."""

    def fail(module: Any, inputs: Any) -> None:
        if torch.is_grad_enabled() and lm.model.training:
            handle.remove()
            raise oom()

    handle = lm.decoder.layers[1].mlp.register_forward_pre_hook(fail)


def in_backward(lm: LanguageModel) -> None:
    """The first gradient breaks off in the middle of the last layer."""

    def watch(module: Any, inputs: Any, output: Any) -> None:
        if output.requires_grad and lm.model.training:
            handle.remove()
            output.register_hook(fail)

    def fail(gradient: Any) -> None:
        raise oom()

    handle = lm.decoder.layers[1].mlp.register_forward_hook(watch)


PATHS: dict[str, dict[str, Any]] = {
    "shared": {},
    "padded": {"training__prompt_sharing": "padded"},
    "head in chunks": {"chunk": 3},
    "micro-batches": {"microbatch": 60},
    "a micro-batch a sample": {"microbatch": 1, "training__prompt_sharing": "padded"},
    "checkpointing": {"loading__gradient_checkpointing": True},
    "checkpointing and padded": {"loading__gradient_checkpointing": True, "training__prompt_sharing": "padded"},
    "term by term": {"health__gradient_shares_every": 1},
    "memory runs out in forward": {"broken": in_forward},
    "memory runs out in backward": {"broken": in_backward},
}


def stepped(
    model: Path,
    world: World,
    microbatch: int | None = None,
    chunk: int = 1000,
    broken: Callable[[Any], None] | None = None,
    **keys: Any,
) -> Any:
    """The gradient of one step, and its CoTs. `chunk`: tokens that the head takes at once; `broken` happens to the second process."""
    logprobs.chunk_elements = lambda device: chunk * (len(tiny.ALPHABET) + len(tiny.SPECIAL))
    base = {"rollouts__questions_per_step": 3, "rollouts__group_size": 3, "rollouts__max_cot_tokens": 12, "rollouts__stop": STOP}
    own = {} if microbatch is None else {"microbatch_tokens": microbatch}
    learner = tiny.learner(tiny.config(model, **{**base, **keys}), world=world, **own)
    if broken is not None and world.rank == 1:
        broken(learner.lm)
    result = take_step(learner, tiny.QUESTIONS[:3], 1)
    splits = sum(world.gather([result.splits]))
    return learner.optimizer.flat(), [sample.cot.tokens for sample in result.samples], splits  # pyright: ignore


def compare(paths: Sequence[str], models: Sequence[Path]) -> None:
    """Of some PATHS. Prints as JSON, by model and path: the gradient's relative gap; are the CoTs the same; how often work was split."""
    whole = World()
    whole.start("cpu")
    found = {}
    for model in models:
        expected, cots, _ = stepped(model, whole, training__prompt_sharing="padded")
        for name in paths:
            world = World()
            world.deal_weights(torch.device("cpu"))
            gradient, drawn, splits = stepped(model, world, **PATHS[name])
            gap = float((gradient - expected).norm() / expected.norm())
            found[f"{model.name}, {name}"] = {
                "gap": gap,
                "same": drawn == cots,
                "splits": splits,
                "lengths": sorted(map(len, drawn)),
            }
            world.gather([0])  # both are through with these weights
    if whole.is_main:
        print(json.dumps(found))
    whole.stop()
