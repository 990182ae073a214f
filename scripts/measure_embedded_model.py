"""Measure what the embedded model's card claims: `python scripts/measure_embedded_model.py [DIR] > measured.json`.

Questions are held out (test split), CoTs are sampled at temperature 1 with at most 48 tokens, and the answer is greedy
and read from the CoT alone, the question redacted, unless a measure says otherwise. Every rate comes with its count and
a 95 % Wilson interval; the unit of each count is a question.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest
from transformers import AutoModelForCausalLM, AutoTokenizer

import markovlm
from markovlm.tasks.arithmetic_data import ArithmeticSpec, Terms, format_question, questions, running_sums

EMBEDDED = Path(markovlm.__file__).parent / "assets" / "arithmetic"
MAX_COT_TOKENS = 48
MAX_ANSWER_TOKENS = 6
SAMPLES = 16  # of pass@16
BATCH = 512


@dataclass(frozen=True, slots=True)
class Config:
    model: Path
    n: int
    seed: int
    threads: int


@dataclass(frozen=True, slots=True)
class Rate:
    """`hits` of `n` questions."""

    hits: int
    n: int

    def as_json(self) -> dict[str, Any]:
        interval = binomtest(self.hits, self.n).proportion_ci(method="wilson") if self.n else None
        return {
            "rate": round(self.hits / self.n, 4) if self.n else None,
            "n": self.n,
            "ci95": [round(interval.low, 4), round(interval.high, 4)] if interval else None,
        }


def rate(flags: Sequence[bool]) -> Rate:
    return Rate(sum(flags), len(flags))


class Probe:
    """The model as text in, text out."""

    def __init__(self, path: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    def complete(self, prompts: Sequence[str], max_new_tokens: int, sample: bool) -> list[str]:
        """The text that follows each prompt, up to the first end token (left out) or the token limit."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # alike lengths share a batch
        done = [""] * len(prompts)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            encoded = self.tokenizer([prompts[i] for i in rows], return_tensors="pt", padding=True)
            mode = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if sample else {"do_sample": False}
            ids = self.model.generate(
                input_ids=encoded.input_ids,
                attention_mask=encoded.attention_mask,
                max_new_tokens=max_new_tokens,
                **mode,
            )
            for i, row in zip(rows, ids[:, encoded.input_ids.shape[1] :], strict=True):
                done[i] = self._until_end(row.tolist())
        return done

    def _until_end(self, ids: list[int]) -> str:
        ends = self.model.generation_config.eos_token_id
        stop = next((k for k, token in enumerate(ids) if token in ends), len(ids))
        return self.tokenizer.decode(ids[:stop])

    def cots(self, asked: Sequence[Terms], starts: Sequence[str] | None = None) -> list[str]:
        """One sampled CoT a question; with `starts`, each continues the given beginning."""
        starts = starts or [""] * len(asked)
        prompts = [f"<bos><|q|>{format_question(terms)}<|think|>{start}" for terms, start in zip(asked, starts, strict=True)]
        rest = self.complete(prompts, MAX_COT_TOKENS - min(map(len, starts)), sample=True)
        return [(start + text)[:MAX_COT_TOKENS] for start, text in zip(starts, rest, strict=True)]

    def right(self, asked: Sequence[Terms], cots: Sequence[str], visible: bool = False) -> list[bool]:
        """Is the greedy answer read from each CoT right? The question is redacted unless `visible`."""
        prompts = [
            f"<bos><|q|>{format_question(terms) if visible else '<|redacted|>'}<|think|>{cot}<|answer|>"
            for terms, cot in zip(asked, cots, strict=True)
        ]
        answers = self.complete(prompts, MAX_ANSWER_TOKENS, sample=False)
        return [answer == str(sum(terms)) for answer, terms in zip(answers, asked, strict=True)]


def first_step(terms: Terms) -> str:
    """How a worked CoT begins, up to where the arithmetic starts: `17+4=`."""
    return f"{terms[0]}{terms[1]:+d}="


def measure(probe: Probe, spec: ArithmeticSpec, n: int, seed: int) -> dict[str, Any]:
    """Every claim of the card on `n` held-out questions; pass@16 on the first quarter of them."""
    asked = questions(spec, "test", seed, n)
    cots = probe.cots(asked)
    right = probe.right(asked, cots)
    worked = [cot.startswith(first_step(terms)) for cot, terms in zip(cots, asked, strict=True)]
    forced = probe.cots(asked, [first_step(terms) for terms in asked])
    forced_right = probe.right(asked, forced)
    perfect = [running_sums(terms) for terms in asked]
    repeated = [terms for terms in asked[: n // 4] for _ in range(SAMPLES)]
    hits = probe.right(repeated, probe.cots(repeated))
    passed = [any(hits[i : i + SAMPLES]) for i in range(0, len(hits), SAMPLES)]
    rates = {
        "accuracy": rate(right),
        "worked_share": rate(worked),
        "accuracy_of_worked": rate([hit for hit, good in zip(right, worked, strict=True) if good]),
        "accuracy_of_other": rate([hit for hit, good in zip(right, worked, strict=True) if not good]),
        "pass_at_16": rate(passed),
        "forced_accuracy": rate(forced_right),
        "forced_cot_exact": rate([cot == good for cot, good in zip(forced, perfect, strict=True)]),
        "reading": rate(probe.right(asked, perfect)),
        "direct": rate(probe.right(asked, [""] * n, visible=True)),
        "empty_redacted": rate(probe.right(asked, [""] * n)),
    }
    for k in range(spec.min_terms, spec.max_terms + 1):
        rates[f"forced_accuracy_{k}_terms"] = rate([hit for hit, t in zip(forced_right, asked, strict=True) if len(t) == k])
    return {name: value.as_json() for name, value in rates.items()} | {"cots": cots[:12]}


def main(config: Config) -> None:
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    probe = Probe(config.model)
    print(
        json.dumps(
            {
                "model": str(config.model),
                "parameters": probe.model.num_parameters(),
                "main": measure(probe, ArithmeticSpec(), config.n, config.seed),
                "negative": measure(probe, ArithmeticSpec(negative=True), config.n // 2, config.seed),
                "other_lengths": {
                    str(k): measure(probe, ArithmeticSpec(k, k), config.n // 4, config.seed)["forced_accuracy"] for k in (2, 6)
                },
            },
            indent=2,
        )
    )


def parse_config(arguments: list[str] | None = None) -> Config:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, nargs="?", default=EMBEDDED)
    parser.add_argument("--n", type=int, default=2000, help="held-out questions (default 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    return Config(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    main(parse_config())
