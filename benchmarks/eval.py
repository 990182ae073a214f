"""Questions per second of `markovlm eval` against a plain evaluation loop, on the embedded model.

    python benchmarks/eval.py [--questions 200] [--batch 64] [--repeats 5] [--base]

The plain loop is what one writes first: transformers' `generate` on left-padded batches in the order of the data, once for
the CoTs (sampled at temperature 1) and once for the answers from redacted prompt + CoT (greedy), then the default
extractor. Ours does the same and scores the gold answer's log-likelihood besides. Both use the same questions, prompts,
batch size and one process; they alternate, and medians are compared, because other work on the machine slows both alike.
What is evaluated is a checkpoint: the base model with a LoRA adapter (with `--base`, without).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from markovlm.config import build_config
from markovlm.evaluation.evaluate import evaluate, how_evaluated
from markovlm.models.folding import fold_layers, unfold_layers
from markovlm.models.registry import model_defaults
from markovlm.runs.setup import Setup, prepare
from markovlm.tasks.answers import extract, is_correct
from markovlm.tasks.base import Example


def plain_loop(setup: Setup, examples: Sequence[Example], batch: int, cot_tokens: int) -> int:
    """Right answers of the plain loop."""
    unfold_layers(setup.lm.model)  # as PEFT computes
    prompter, right = setup.prompter, 0
    for at in range(0, len(examples), batch):
        part = examples[at : at + batch]
        cots = _generate(setup, [prompter.cot_prompt(e) for e in part], cot_tokens, do_sample=True, temperature=1.0, top_k=0)
        prompts = [prompter.reader_prompt(e, "markovian") + cot + prompter.header_ids for e, cot in zip(part, cots, strict=True)]
        answers = _generate(setup, prompts, setup.task.max_answer_tokens, do_sample=False)
        for example, answer in zip(part, answers, strict=True):
            found = extract(prompter.text(answer), setup.task.extractors[0], choices=example.choices)
            right += is_correct(found, example.answer, setup.task.answer_type)
    return right


@torch.no_grad()
def _generate(setup: Setup, prompts: Sequence[tuple[int, ...]], tokens: int, **options: Any) -> list[tuple[int, ...]]:
    """New tokens of each prompt, up to its end token."""
    lm, longest = setup.lm, max(map(len, prompts))
    ids = torch.tensor([[lm.pad_id] * (longest - len(p)) + list(p) for p in prompts], device=lm.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=lm.device)
    out = lm.causal_lm.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=tokens,
        pad_token_id=lm.pad_id,
        eos_token_id=list(lm.terminators),
        **options,
    )
    rows: list[tuple[int, ...]] = []
    for row in out[:, longest:].tolist():
        end = next((i for i, token in enumerate(row) if token in lm.terminators), len(row))
        rows.append(tuple(row[:end]))
    return rows


def ours(setup: Setup, examples: Sequence[Example], batch: int) -> int:
    """Right answers of the package's evaluator."""
    fold_layers(setup.lm.model)
    how = how_evaluated(setup.config, setup.prompter, step=1)
    return evaluate(setup.lm, setup.sampler(), setup.prompter, examples, how, batch_size=batch).right()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--base", action="store_true", help="the base model alone, no adapter")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    setup = prepare(build_config(model_defaults("embedded"), {"model": "embedded"}), trainable=not arguments.base)
    examples = list(setup.load("test", arguments.questions).examples)
    cot_tokens = setup.config.rollouts.max_cot_tokens or setup.task.default_cot_tokens
    loops = {
        "plain loop": lambda: plain_loop(setup, examples, arguments.batch, cot_tokens),
        "markovlm": lambda: ours(setup, examples, arguments.batch),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    right: dict[str, int] = {}
    for repeat in range(arguments.repeats + 1):  # the first warms up
        for name, loop in loops.items():
            torch.manual_seed(repeat)
            began = time.perf_counter()
            right[name] = loop()
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    rate = {name: len(examples) / statistics.median(times) for name, times in seconds.items()}
    ratios = [plain / own for plain, own in zip(*seconds.values(), strict=True)]
    row = {
        "questions": len(examples), "batch": arguments.batch, "repeats": arguments.repeats, "threads": torch.get_num_threads(),
        "questions_per_second": rate, "right": right, "ratio": statistics.median(ratios), "ratios": ratios,
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(row))
        return
    print(f"{len(examples)} questions, batch {arguments.batch}, {arguments.repeats} repeats, {row['threads']} threads")
    for name in loops:
        print(f"  {name:12} {rate[name]:8.1f} questions/s (median)   right {right[name]}/{len(examples)}")
    print(f"  ratio {row['ratio']:.2f} (median of {len(ratios)} pairs, {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
