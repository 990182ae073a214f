"""A step and an evaluation on the CPU and on the card that is not there: `python -m support.card.steps FOLDER` prints one JSON object."""

from __future__ import annotations

import support.card as card  # before torch

# isort: split
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

from markovlm.evaluation.evaluate import evaluate, how_evaluated
from markovlm.runs.setup import prepare
from markovlm.training.step import take_step
from support import tiny

WAYS: dict[str, tuple[str, dict[str, Any]]] = {  # name -> (architecture, configuration)
    "a cache of one shape": ("llama", {}),
    "a cache that grows": ("gemma3", {}),
    "recomputed layers": ("qwen3", {"loading__gradient_checkpointing": True}),
    "a slow reader, padded": ("gpt2", {"objective__reader": "ema", "training__prompt_sharing": "padded"}),
}


def outcome(folder: Path, device: str, architecture: str, keys: dict[str, Any]) -> dict[str, Any]:
    """What was drawn, what it earned, and the gradient; then answers of an evaluation."""
    config = tiny.config(folder / architecture, loading__device=device, loading__dtype="float32", **keys)
    learner = tiny.learner(config)
    result = take_step(learner, list(tiny.QUESTIONS[:2]), 1)
    gradient = learner.optimizer.flat()
    setup = prepare(config, trainable=True)
    tiny.shake(setup.lm)
    read = evaluate(
        setup.lm, setup.sampler(), setup.prompter, tiny.QUESTIONS[:3], how_evaluated(setup.config, setup.prompter, step=1)
    )
    return {
        "device": str(gradient.device),
        "recorded": getattr(learner.sampler, "decoder", None) is not None,
        "cots": [sample.cot.tokens for sample in result.samples],
        "rewards": [sample.reward for sample in result.samples],
        "gradient": gradient.tolist(),
        "answers": [reading.answer for reading in read.readings],
    }


def refused() -> str:
    """What is said to somebody who mixes devices."""
    try:
        torch.ones(2, device="cuda") + torch.ones(2)
    except RuntimeError as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    found: dict[str, Any] = {}
    for name, (architecture, keys) in WAYS.items():
        found[name] = {}
        for device in ("cpu", "cuda"):
            with card.pretended() if device == "cuda" else contextlib.nullcontext():
                found[name][device] = outcome(folder, device, architecture, keys)
    with card.pretended():
        print(json.dumps({"ways": found, "refused": refused()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
