"""The peak memory of one optimisation step, measured from outside: `python peak.py FOLDER JSON` prints one JSON object.

Large tensors are mapped one by one (MALLOC_MMAP_THRESHOLD_), so that resident memory follows what is alive; the kernel's
high-water mark is reset before the step. Linux only.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import transformers as hf

from markovlm.training.estimate import estimate
from markovlm.training.plan import workload_of
from markovlm.training.shapes import read_shape
from markovlm.training.step import take_step
from support import tiny

SIZES = {
    "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 2,
    "head_dim": 32, "max_position_embeddings": 1024,
}  # fmt: skip


def save(folder: Path, vocabulary: int = 2000) -> Path:
    """A random Llama of middle size with a character tokenizer."""
    tokenizer = tiny.char_tokenizer()
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES, vocab_size=vocabulary, pad_token_id=0, bos_token_id=1, eos_token_id=2))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _status(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def measure(folder: Path, overrides: dict[str, Any]) -> dict[str, int]:
    """Bytes above what is resident before the step, and the estimate of the same."""
    config = tiny.config(folder, rollouts__fixed_length=True, **overrides)
    learner = tiny.learner(config)
    questions = list(tiny.QUESTIONS[: config.rollouts.questions_per_step])
    take_step(learner, questions[:1], 1)  # what is allocated once
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    take_step(learner, questions, 2)
    measured = _status("VmHWM") - before
    work = workload_of(learner.prompter, learner.config, questions)
    found = estimate(learner.config, read_shape(learner.config), work)
    return {"measured": measured, "estimated": found.peak - found.weights - found.adapter, "rows": found.microbatch_rows}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), json.loads(sys.argv[2]))))
