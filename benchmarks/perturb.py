"""Reading the damaged variants of CoTs together against reading them one by one, on the embedded model.

    python benchmarks/perturb.py [--questions 12] [--repeats 5] [--cot-tokens 200]

All perturbations at all severities of each CoT (one variant where several come to the same tokens). The reference is what one
writes first: each variant alone, one forward pass for ln pi(answer|variant) and one greedy `generate` for the answer. The second
reference scores in batches as we do, padded, without the trunk that variants of a CoT share: it says what the sharing alone
is worth, on the damage and on occlusion (each token out in turn). CoTs are random tokens, so that their length is what the
flag says. The ways alternate; medians are compared, and the largest difference of the log-probs is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from markovlm.analysis.perturb import PERTURBATIONS, Context, perturb_text
from markovlm.analysis.scoring import Variant, encode_cot, logprobs, read_variants
from markovlm.config import build_config
from markovlm.models.registry import model_defaults
from markovlm.runs.setup import Setup, prepare
from markovlm.statistics import cluster_mean_ci


@dataclass(frozen=True, slots=True)
class Way:
    """One way of reading variants."""

    name: str
    read: Callable[[Setup, Sequence[Variant]], list[float]]


def variants_of(setup: Setup, questions: int, tokens: int) -> tuple[list[Variant], list[Variant]]:
    """(damage, occlusion) of one random CoT a question; equal ones once."""
    rng = np.random.default_rng(0)
    ordinary = [i for i in range(setup.lm.vocabulary) if i not in setup.lm.tokenizer.all_special_ids]
    damage: dict[Any, Variant] = {}
    occlusion: dict[Any, Variant] = {}
    for example in setup.load("test", questions).examples:
        cot = tuple(int(i) for i in rng.choice(ordinary, tokens))
        text = setup.prompter.text(cot)
        intact = Variant(example, 0, "intact", cot, cot, "markovian")
        for name, row in PERTURBATIONS.items():
            for severity in row.severities if row.level != "token" else ():
                context = Context(example.question, text[::-1])
                ids = encode_cot(setup.prompter, perturb_text(name, text, severity, rng, context))
                variant = replace(intact, name=f"{name}@{severity}", ids=ids)
                damage[variant.key] = variant
        for position in range(tokens):
            variant = replace(intact, name=f"remove {position}", ids=cot[:position] + cot[position + 1 :], write=False)
            occlusion[variant.key] = variant
    return list(damage.values()), list(occlusion.values())


@torch.no_grad()
def one_by_one(setup: Setup, variants: Sequence[Variant]) -> list[float]:
    """A pass and, where the answer is wanted, a `generate` for each."""
    found: list[float] = []
    lm, prompter = setup.lm, setup.prompter
    for variant in variants:
        before = prompter.reader_prompt(variant.example, variant.conditioning) + variant.ids + prompter.header_ids
        answer = prompter.answer_ids(variant.example)
        logits = lm.causal_lm(torch.tensor([before + answer])).logits[0]
        logp = torch.log_softmax(logits[len(before) - 1 : -1].float(), -1)
        found.append(logp.gather(1, torch.tensor(answer)[:, None]).mean().item())
        if variant.write:
            ids = torch.tensor([before])
            lm.causal_lm.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=setup.task.max_answer_tokens,
                do_sample=False, pad_token_id=lm.pad_id, eos_token_id=list(lm.terminators),
            )  # fmt: skip
    return found


def together(setup: Setup, variants: Sequence[Variant]) -> list[float]:
    """Ours."""
    return [scored.logprob for scored in read_variants(setup, setup.sampler(), variants)]


def scored_together(setup: Setup, variants: Sequence[Variant]) -> list[float]:
    """Ours, the likelihood alone."""
    return logprobs(setup, variants, setup.config.evaluation.batch_size)


def scored_padded(setup: Setup, variants: Sequence[Variant]) -> list[float]:
    """The likelihood in batches that share no more than the prompt."""
    apart = [replace(variant, trunk=()) for variant in variants]
    return logprobs(setup, apart, setup.config.evaluation.batch_size)


def compare(setup: Setup, variants: Sequence[Variant], ours: Way, theirs: Way, repeats: int) -> dict[str, Any]:
    """Medians of alternating runs, and the bootstrap interval of the mean log ratio as a ratio."""
    seconds: dict[str, list[float]] = {ours.name: [], theirs.name: []}
    values: dict[str, list[float]] = {}
    for _ in range(repeats):
        for way in (ours, theirs):
            began = time.perf_counter()
            values[way.name] = way.read(setup, variants)
            seconds[way.name].append(time.perf_counter() - began)
    ratios = np.log(seconds[theirs.name]) - np.log(seconds[ours.name])
    found = cluster_mean_ci(ratios, None, 0)
    return {
        "variants": len(variants),
        "ours": ours.name,
        "reference": theirs.name,
        "seconds": {name: statistics.median(all_) for name, all_ in seconds.items()},
        "ratio": float(np.exp(found.mean)),
        "ci95": [float(np.exp(found.low)), float(np.exp(found.high))],
        "n": repeats,
        "largest_gap": max(abs(a - b) for a, b in zip(values[ours.name], values[theirs.name], strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--cot-tokens", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    setup = prepare(build_config(model_defaults("embedded"), {"model": "embedded"}))
    damage, occlusion = variants_of(setup, arguments.questions, arguments.cot_tokens)
    plain, shared, padded = Way("one by one", one_by_one), Way("shared trunk", scored_together), Way("padded", scored_padded)
    results = {
        "damage, with answers": compare(setup, damage, Way("together", together), plain, arguments.repeats),
        "damage, likelihood": compare(setup, damage, shared, padded, arguments.repeats),
        "occlusion, likelihood": compare(setup, occlusion, shared, padded, arguments.repeats),
        "occlusion, one by one": compare(setup, occlusion, shared, plain, arguments.repeats),
    }
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    for name, row in results.items():
        ours, theirs = (row["seconds"][row[key]] for key in ("ours", "reference"))
        low, high = row["ci95"]
        print(
            f"{name}: {row['variants']} variants; {row['ours']} {ours:.2f} s, {row['reference']} {theirs:.2f} s; "
            f"ratio {row['ratio']:.2f} [{low:.2f}, {high:.2f}] (n={row['n']}), gap {row['largest_gap']:.1e}"
        )


if __name__ == "__main__":
    main()
