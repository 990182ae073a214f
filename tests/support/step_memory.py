"""What a whole step holds, phase by phase: bytes of live tensors beside the weights, and the estimate of the same."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from markovlm.tasks.base import Example
from markovlm.training import step as step_module
from markovlm.training.estimate import Memory, estimate
from markovlm.training.plan import workload_of
from markovlm.training.records import Clock
from markovlm.training.shapes import read_shape
from markovlm.training.step import take_step
from support import tiny
from support.live import LiveBytes

PHASES = ("sampling", "scoring", "training")


def random_llama(
    folder: Path, hidden: int, inner: int, layers: int, heads: int, kv_heads: int, vocabulary: int, tied: bool = False
) -> Path:
    """A Llama of random weights with a character tokenizer."""
    tokenizer = tiny.char_tokenizer()
    config = hf.LlamaConfig(
        hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
        head_dim=hidden // heads, vocab_size=vocabulary, max_position_embeddings=2048, tie_word_embeddings=tied, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    hf.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def measure(folder: Path, prompt: int, **overrides: Any) -> tuple[dict[str, int], Memory]:
    """Bytes that the tensors of each phase of the second step reach above weights and optimizer; and the estimate.

    `prompt`: about how many characters a question has.
    """
    config = tiny.config(folder, **{"rollouts__fixed_length": True, "loading__dtype": "float32", "lora__rank": 8, **overrides})
    learner = tiny.learner(config, shaken=False, optimizer=torch.optim.AdamW)
    questions = [
        Example(f"m/{i}", "1+2" + "+3" * (prompt // 2) + str(i), "25") for i in range(config.rollouts.questions_per_step)
    ]
    take_step(learner, questions, 1)  # makes the optimizer's state
    gc.collect()
    held = [*learner.lm.model.parameters(), *learner.lm.model.buffers(), *optimizer_state(learner.optimizer)]
    with LiveBytes(held) as live, _phases(live) as peaks:
        take_step(learner, questions, 2)
    work = workload_of(learner.prompter, learner.config, questions)
    return peaks, estimate(learner.config, read_shape(learner.config), work)


def optimizer_state(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]


@contextmanager
def _phases(live: LiveBytes) -> Iterator[dict[str, int]]:
    """Phase -> peak: the clock of the step is watched."""
    peaks: dict[str, int] = {}

    class Watching(Clock):
        def mark(self, phase: str) -> None:
            super().mark(phase)
            peaks[phase] = max(live.peak, peaks.get(phase, 0))
            live.peak = live.now

    original = step_module.Clock
    step_module.Clock = Watching
    try:
        yield peaks
    finally:
        step_module.Clock = original
