"""Measure what the card of an embedded model claims: `python scripts/measure_embedded_model.py [DIR] > measured.json`.

Questions are held out (test split) and of the model's own lengths, those that `markovlm models` names. CoTs are sampled
at temperature 1 with at most 48 tokens, and the answer is greedy and read from the CoT alone, the question redacted,
unless a measure says otherwise. Every rate comes with its count and a 95 % Wilson interval, for all questions and by
number of terms; the unit of each count is a question.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest
from transformers import AutoModelForCausalLM, AutoTokenizer

from markovlm.models.registry import KNOWN
from markovlm.tasks.arithmetic_data import ArithmeticSpec, Terms, format_question, questions, running_sums

MAX_COT_TOKENS = 48
MAX_ANSWER_TOKENS = 6
SAMPLES = 16  # of pass@16
BATCH = 512
LENGTHS = range(2, 7)  # numbers of terms in the training texts of every recipe

Flags = Sequence[bool | None]  # one a question: is it a hit; None where it does not count


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


def rate(flags: Flags) -> Rate:
    counted = [flag for flag in flags if flag is not None]
    return Rate(sum(counted), len(counted))


def only(flags: Sequence[bool], where: Sequence[bool]) -> Flags:
    """The flags of the questions `where` says so; the others don't count."""
    return [flag if kept else None for flag, kept in zip(flags, where, strict=True)]


class Probe:
    """The model as text in, text out."""

    def __init__(self, path: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()  # its stubs reject generate

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


def of_others(cots: Sequence[str]) -> list[str]:
    """For each question the CoT of the one before it."""
    return [cots[-1], *cots[:-1]]


def sampled_measures(probe: Probe, asked: Sequence[Terms]) -> tuple[dict[str, Flags], list[str]]:
    """What needs sampled CoTs, and one of them a question; pass@16 of the first quarter of the questions."""
    cots = probe.cots(asked)
    right = probe.right(asked, cots)
    worked = [cot.startswith(first_step(terms)) for cot, terms in zip(cots, asked, strict=True)]
    forced = probe.cots(asked, [first_step(terms) for terms in asked])
    others = of_others(cots)
    swapped = probe.right(asked, others, visible=True)
    wordy = [not any(map(str.isdigit, cot)) for cot in others]
    repeated = [terms for terms in asked[: len(asked) // 4] for _ in range(SAMPLES)]
    hits = probe.right(repeated, probe.cots(repeated))
    passed = [any(hits[i : i + SAMPLES]) for i in range(0, len(hits), SAMPLES)]
    flags: dict[str, Flags] = {
        "accuracy": right,
        "accuracy_visible": probe.right(asked, cots, visible=True),
        "worked_share": worked,
        "accuracy_of_worked": only(right, worked),
        "accuracy_of_other": only(right, [not good for good in worked]),
        "pass_at_16": [*passed, *[None] * (len(asked) - len(passed))],
        "forced_accuracy": probe.right(asked, forced),
        "forced_cot_exact": [cot == running_sums(terms) for cot, terms in zip(forced, asked, strict=True)],
        "other_cot_visible": swapped,
        "other_words_visible": only(swapped, wordy),
        "other_numbers_visible": only(swapped, [not words for words in wordy]),
    }
    return flags, cots


def given_measures(probe: Probe, asked: Sequence[Terms]) -> dict[str, Flags]:
    """What the model answers to given CoTs: right running sums, those of another question, none."""
    perfect = [running_sums(terms) for terms in asked]
    nothing = [""] * len(asked)
    return {
        "reading": probe.right(asked, perfect),
        "reading_visible": probe.right(asked, perfect, visible=True),
        "other_sums_visible": probe.right(asked, of_others(perfect), visible=True),
        "direct": probe.right(asked, nothing, visible=True),
        "empty_redacted": probe.right(asked, nothing),
    }


def rates(flags: Mapping[str, Flags]) -> dict[str, Any]:
    return {name: rate(values).as_json() for name, values in flags.items()}


def measure(probe: Probe, spec: ArithmeticSpec, n: int, seed: int) -> dict[str, Any]:
    """Every claim of a card on `n` held-out questions, of all lengths and of each."""
    asked = questions(spec, "test", seed, n)
    flags, cots = sampled_measures(probe, asked)
    flags |= given_measures(probe, asked)
    by_terms = {
        str(k): rates({name: only_length(values, asked, k) for name, values in flags.items()})
        for k in range(spec.min_terms, spec.max_terms + 1)
    }
    return rates(flags) | {"by_terms": by_terms, "cots": cots[:12]}


def only_length(flags: Flags, asked: Sequence[Terms], k: int) -> Flags:
    """The flags of the questions of `k` terms."""
    return [flag for flag, terms in zip(flags, asked, strict=True) if len(terms) == k]


def own_questions(model: Path) -> ArithmeticSpec:
    """The sums a model in the registry is for; of any other directory those of `embedded`."""
    known = [entry for entry in KNOWN.values() if entry.asset and entry.path.resolve() == model.resolve()]
    return ArithmeticSpec(**known[0].defaults.get("task_options", {})) if known else ArithmeticSpec()


def main(config: Config) -> None:
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    probe = Probe(config.model)
    spec = own_questions(config.model)
    print(
        json.dumps(
            {
                "model": str(config.model),
                "parameters": probe.model.num_parameters(),
                "main": measure(probe, spec, config.n, config.seed),
                "negative": measure(probe, replace(spec, negative=True), config.n // 2, config.seed),
                "other_lengths": {
                    str(k): measure(probe, ArithmeticSpec(k, k), config.n // 4, config.seed)["forced_accuracy"]
                    for k in LENGTHS
                    if not spec.min_terms <= k <= spec.max_terms
                },
            },
            indent=2,
        )
    )


def parse_config(arguments: list[str] | None = None) -> Config:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, nargs="?", default=KNOWN["embedded"].path)
    parser.add_argument("--n", type=int, default=2000, help="held-out questions (default 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    return Config(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    main(parse_config())
