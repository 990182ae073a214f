"""Rows that look at one prefix without copies of its keys, against rows that have copies, turn by turn in one process.

    OMP_NUM_THREADS=1 python benchmarks/prefixes.py [--model embedded | random-llama --size 25m] [--repeats 7]

For so many prompts, CoTs a prompt and prompt tokens: a training pass with its gradient, a pass without, and the sampling of the CoTs. The
states of both are compared first. Where a layer saves fewer numbers than `shared_prefix.LEAST_SAVED`, rows have copies: this is where that
limit is from, so here it is 0.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import torch
from step import SIZES, random_llama, ratio_interval

from markovlm.config.model import Loading, Lora
from markovlm.models import shared_prefix
from markovlm.models.language import LanguageModel
from markovlm.models.load import load_model
from markovlm.models.sequences import Batch, batch_of, span_hidden
from markovlm.rollouts.hf import HFSampler
from markovlm.rollouts.types import Decoding, SampleRequest

GROUPS = ((1, 8), (1, 16), (1, 64), (4, 16), (16, 4))  # prompts, CoTs of each
LENGTHS = (16, 32, 64, 128)
PASSES = ("training pass", "pass without gradient", "sampling")


def works(lm: LanguageModel, batch: Batch, tokens: int) -> dict[str, Callable[[], object]]:
    parameters = [parameter for _, parameter in lm.adapter_parameters()]
    counts = [sum(row.prefix == number for row in batch.rows) for number in range(len(batch.prefixes))]
    wanted = [
        SampleRequest(prompt, tuple(("cot", number, i) for i in range(count)))
        for number, (prompt, count) in enumerate(zip(batch.prefixes, counts, strict=True))
    ]

    def plain() -> None:
        with torch.no_grad():
            span_hidden(lm, batch)

    return {
        PASSES[0]: lambda: torch.autograd.grad(span_hidden(lm, batch).hidden.square().mean(), parameters),
        PASSES[1]: plain,
        PASSES[2]: lambda: HFSampler(lm).sample(wanted, Decoding(tokens, 1.0, fixed_length=True)),
    }


def seconds(lm: LanguageModel, work: Callable[[], object], repeats: int) -> tuple[list[float], list[float]]:
    """With prefixes shared and with copies, turn by turn; the first turn is not counted."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(repeats + 1):
        for lm.shares_keys in (True, False) if turn % 2 else (False, True):
            start = time.perf_counter()
            work()
            if turn:
                found[lm.shares_keys].append(time.perf_counter() - start)
    return found[True], found[False]


def check(lm: LanguageModel, batch: Batch) -> None:
    both = []
    with torch.no_grad():
        for lm.shares_keys in (True, False):
            both.append(span_hidden(lm, batch).hidden)
    gap, size = (both[0] - both[1]).abs().max().item(), both[1].abs().max().item()
    if not gap <= 1e-3 * size:
        raise SystemExit(f"states are {gap:.3g} apart, the largest is {size:.3g}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="embedded, random-llama or a directory")
    parser.add_argument("--size", default="25m", choices=SIZES, help="of random-llama")
    parser.add_argument("--cot-tokens", type=int, default=44)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(shared_prefix, "LEAST_SAVED", 0):
        model = arguments.model
        if model == "random-llama":
            model = str(random_llama(Path(folder) / "model", arguments.size, None))
        lm = load_model(model, Loading(device="cpu", dtype="float32"), lora=Lora(rank=8, alpha=16))
        if not lm.shares_keys:
            raise SystemExit(f"{arguments.model} can't share keys")
        config = lm.causal_lm.config
        width = config.num_key_value_heads * config.head_dim
        print(
            f"CoTs of {arguments.cot_tokens} tokens, {torch.get_num_threads()} CPU thread(s), n = {arguments.repeats}; seconds with"
        )
        print("copies over seconds without, median with its 95 % bootstrap interval\n")
        print("| prompts x CoTs x prompt tokens | numbers saved | " + " | ".join(PASSES) + " |")
        print("|---|---|" + "---|" * len(PASSES), flush=True)
        for prompts, group in GROUPS:
            for length in LENGTHS:
                ids = lambda count: tuple(draw.randrange(3, lm.vocabulary) for _ in range(count))  # noqa: E731
                prefixes = [ids(length) for _ in range(prompts)]
                batch = batch_of([(prefix, ids(arguments.cot_tokens), 0) for prefix in prefixes for _ in range(group)])
                check(lm, batch)
                cells = []
                for work in works(lm, batch, arguments.cot_tokens).values():
                    ours, copies = seconds(lm, work, arguments.repeats)
                    cells.append("{:.2f} [{:.2f}, {:.2f}]".format(*ratio_interval(ours, copies)))
                saved = (prompts * group - prompts) * length * width
                print(f"| {prompts} x {group} x {length} | {saved:,} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
