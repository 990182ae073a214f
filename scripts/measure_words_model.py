"""Measure what a model of `make_words_model.py` can do: `python scripts/measure_words_model.py MODEL [--n N] [--svamp FILE]`.

On held-out problems (names, things and templates of the test split) unless said. Prints one JSON object; rates with Wilson intervals.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measure_embedded_model import Flags, Probe, of_others, only, rates

from markovlm.tasks import get_task
from markovlm.tasks.base import LoadRequest
from markovlm.tasks.words_data import Problem, WordsSpec, draw

MAX_COT_TOKENS = 80
MAX_ANSWER_TOKENS = 6
WORKED = "First"  # how a CoT in sentences begins
SAMPLES = 16  # of pass@16


@dataclass(frozen=True, slots=True)
class Config:
    model: Path
    n: int
    seed: int
    threads: int
    max_steps: int
    svamp: Path | None


class WordProbe(Probe):
    """The model on word problems."""

    def cots(self, asked: Sequence[Problem], starts: Sequence[str] | None = None) -> list[str]:  # type: ignore[override]
        """One sampled CoT a problem; with `starts`, each continues the given beginning."""
        starts = starts or [""] * len(asked)
        prompts = [f"<bos><|q|>{p.question}<|think|>{start}" for p, start in zip(asked, starts, strict=True)]
        return [start + rest for start, rest in zip(starts, self.complete(prompts, MAX_COT_TOKENS, sample=True), strict=True)]

    def right(self, asked: Sequence[Problem], cots: Sequence[str], visible: bool = False) -> list[bool]:  # type: ignore[override]
        """Is the greedy answer read from each CoT right? The question is redacted unless `visible`."""
        shown = [p.question if visible else "<|redacted|>" for p in asked]
        prompts = [f"<bos><|q|>{question}<|think|>{cot}<|answer|>" for question, cot in zip(shown, cots, strict=True)]
        answers = self.complete(prompts, MAX_ANSWER_TOKENS, sample=False)
        return [answer == str(p.answer) for answer, p in zip(answers, asked, strict=True)]


def measure(probe: WordProbe, asked: Sequence[Problem]) -> tuple[dict[str, Any], list[str]]:
    """Every measure, on all problems and by number of steps."""
    cots = probe.cots(asked)
    right = probe.right(asked, cots)
    worked = [cot.startswith(WORKED) for cot in cots]
    forced = probe.cots(asked, [WORKED] * len(asked))
    few = asked[: max(len(asked) // 4, 1)]
    repeated = [p for p in few for _ in range(SAMPLES)]
    hits = probe.right(repeated, probe.cots(repeated))
    passed: list[bool | None] = [any(hits[i : i + SAMPLES]) for i in range(0, len(hits), SAMPLES)]
    perfect, nothing = [p.cot for p in asked], [""] * len(asked)
    flags: dict[str, Flags] = {
        "accuracy": right,
        "accuracy_visible": probe.right(asked, cots, visible=True),
        "worked_share": worked,
        "accuracy_of_worked": only(right, worked),
        "accuracy_of_other": only(right, [not good for good in worked]),
        "pass_at_16": [*passed, *[None] * (len(asked) - len(few))],
        "forced_accuracy": probe.right(asked, forced),
        "forced_cot_exact": [cot == p.cot for cot, p in zip(forced, asked, strict=True)],
        "reading": probe.right(asked, perfect),
        "reading_visible": probe.right(asked, perfect, visible=True),
        "other_cot_visible": probe.right(asked, of_others(perfect), visible=True),
        "direct": probe.right(asked, nothing, visible=True),
        "empty_redacted": probe.right(asked, nothing),
    }
    by_steps = {
        str(k): rates({name: only_steps(values, asked, k) for name, values in flags.items()})
        for k in sorted({len(p.steps) for p in asked})
    }
    return {**rates(flags), "by_steps": by_steps}, cots


def only_steps(flags: Flags, asked: Sequence[Problem], k: int) -> Flags:
    """The flags of the problems of `k` steps."""
    return [flag if len(p.steps) == k else None for flag, p in zip(flags, asked, strict=True)]


def svamp(probe: WordProbe, data: Path, n: int) -> dict[str, Any]:
    """Questions of SVAMP as they are: the answer from the CoT alone, and with the question visible, without a CoT."""
    examples = get_task("svamp").load(LoadRequest("test", data=data, limit=n)).examples
    cots = probe.complete([f"<bos><|q|>{e.question}<|think|>" for e in examples], MAX_COT_TOKENS, sample=True)
    flags: dict[str, Flags] = {}
    for name, shown, thoughts in (
        ("accuracy", ["<|redacted|>"] * len(examples), cots),
        ("direct", [e.question for e in examples], [""] * len(examples)),
    ):
        prompts = [f"<bos><|q|>{question}<|think|>{cot}<|answer|>" for question, cot in zip(shown, thoughts, strict=True)]
        answers = probe.complete(prompts, MAX_ANSWER_TOKENS, sample=False)
        flags[name] = [answer == e.answer for answer, e in zip(answers, examples, strict=True)]
    return {**rates(flags), "cots": cots[:3]}


def main(config: Config) -> None:
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    probe = WordProbe(config.model)
    spec = WordsSpec(max_steps=config.max_steps)
    held_out = [draw(spec, "test", config.seed, i) for i in range(config.n)]
    found, cots = measure(probe, held_out)
    known = [draw(spec, "train", config.seed + 1, i) for i in range(config.n)]
    of_train = probe.right(known, probe.cots(known, [WORKED] * len(known)))
    result = {
        "model": str(config.model),
        "parameters": probe.model.num_parameters(),
        "held_out": found,
        "train_split": rates({"forced_accuracy": of_train}),
        "cots": cots[:12],
        "arithmetic_of_worked": rates({"right": equations_of(cots)}),
    }
    if config.svamp:
        result["svamp"] = svamp(probe, config.svamp, config.n)
    print(json.dumps(result, indent=2))


def equations_of(cots: Sequence[str]) -> list[bool | None]:
    """Of each equation in worked CoTs: does it hold?"""
    compute = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    found = [match for cot in cots if not cot.startswith("Quick") for match in re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)", cot)]
    return [compute[op](int(left), int(right)) == int(result) for left, op, right, result in found]


def parse_config(arguments: list[str] | None = None) -> Config:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--n", type=int, default=1000, help="held-out problems (default 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-steps", type=int, default=4, help="most steps of a problem (default 4)")
    parser.add_argument("--svamp", type=Path, default=None, help="SVAMP's file: measure on it too")
    return Config(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    main(parse_config())
