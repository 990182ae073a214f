"""What the host tells the device to do for one decoded token, and how often it waits to hear from it. No GPU, no speed: counts.

    python benchmarks/launches.py            # about a minute

A narrow model with the 32 layers of Llama-3.1-8B (the counts don't depend on the width), grouped heads, base in bfloat16, LoRA on all
linear maps in float32, 12 CoTs of one prompt under a fixed length. Counted on the CPU: operations that compute or copy (a kernel each, at
least), and reads of a number by the host. Of `rollouts.static_cache` what a CUDA graph would hold is counted apart: it is launched as one.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from step import SIZES, random_llama
from torch.utils._python_dispatch import TorchDispatchMode
from training_runs import markdown

from markovlm.config.model import Loading, Lora
from markovlm.models.folding import unfold_layers
from markovlm.models.language import LanguageModel
from markovlm.models.load import load_model
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.static import READS, StaticDecoder
from markovlm.rollouts.types import Decoding, SampleRequest

LAYERS, ROWS, PROMPT = 32, 12, tuple(range(5, 25))
SHORT, LONG = 4, 12  # tokens of two runs: the difference is that of the tokens alone


def launches(func: Any) -> bool:
    """Does the operation compute or copy? A view only looks at the memory of an argument."""
    schema = func._schema
    return "unsafe_view" not in schema.name and not any(
        r.alias_info is not None and not r.alias_info.is_write for r in schema.returns
    )


class Counter(TorchDispatchMode):
    """Operations that are no views, and reads of a number."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.launches += launches(func)
        self.reads += func._schema.name.partition("::")[2] in READS
        return func(*args, **(kwargs or {}))


class Apart:
    """Records nothing, but counts what a recorded step would hold, apart from the rest."""

    def __init__(self) -> None:
        self.held = 0

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        step()
        with Counter() as counter:
            step()
        self.held = counter.launches

        def play() -> None:
            with torch.utils._python_dispatch._disable_current_modes():
                step()

        return play


def per_token(decode: Callable[[int], Any]) -> tuple[float, float]:
    """(launches, reads) of one more token."""
    counts = []
    for tokens in (SHORT, LONG):
        decode(tokens)  # what is made once
        with Counter() as counter, torch.no_grad():
            decode(tokens)
        counts.append(counter)
    return tuple((getattr(counts[1], what) - getattr(counts[0], what)) / (LONG - SHORT) for what in ("launches", "reads"))  # type: ignore[return-value]


def generated(lm: LanguageModel, tokens: int) -> Any:
    ids = torch.tensor([PROMPT] * ROWS)
    return lm.causal_lm.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, max_new_tokens=tokens, min_new_tokens=tokens,
        pad_token_id=lm.pad_id,
    )  # fmt: skip


def main() -> None:
    SIZES["narrow"] = {
        "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": LAYERS, "num_attention_heads": 8, "num_key_value_heads": 2,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = random_llama(Path(folder) / "model", "narrow", None)
        lm = load_model(str(path), Loading(device="cpu", dtype="bfloat16"), lora=Lora())
    request = [SampleRequest(PROMPT, tuple((0, "cot", i) for i in range(ROWS)))]

    def sampled(sampler: HFSampler) -> Callable[[int], Any]:
        return lambda tokens: sampler.sample(request, Decoding(tokens, 1.0, fixed_length=True))

    growing, shaped, apart = HFSampler(lm, joined=False), HFSampler(lm, static_cache="on"), Apart()
    shaped.decoder = StaticDecoder(lm, apart)
    rows = []
    told, reads = per_token(sampled(growing))
    rows.append(["rollouts.static_cache=off", f"{told:.0f}", "", f"{reads:.0f}"])
    told, reads = per_token(sampled(shaped))
    rows.append(["rollouts.static_cache=on", f"{told + 1:.0f}", f"{apart.held}", f"{reads:.0f}"])
    unfold_layers(lm.model)
    told, reads = per_token(lambda tokens: generated(lm, tokens))
    rows.insert(0, ["transformers' generate, PEFT's layers", f"{told:.0f}", "", f"{reads:.0f}"])
    print(markdown(["a token with", "launches", "of which in one graph", "reads by the host"], rows))


if __name__ == "__main__":
    sys.exit(main())
