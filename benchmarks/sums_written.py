"""What a language model writes into its CoTs of word problems of one step: no sum, the wrong sum, a sum done wrongly, the answer.

    python benchmarks/sums_written.py runs/demo-real/evaluations/*-test-*.jsonl        # files that `eval` and `demo` write, no chain of two steps
    python benchmarks/sums_written.py --runs runs/real_words-sweep/runs/*              # base and last checkpoint of several seeds

A sum is the first `number operator number = number` of a CoT. It is the right one if its value is the gold answer, whatever the CoT says that it is.
95 % Wilson intervals over questions, each with one CoT. Of several runs Student's t over runs, and where the right answers that
training gained come from.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from markovlm.intervals import estimate_text
from markovlm.runs.rows import read_rows
from markovlm.statistics import wilson
from markovlm.sweeps.compare import mean_t

SUM = re.compile(r"(\d+)\D{0,12}?([-+*x×/÷])\s*(\d+)[^=\n]{0,14}=\s*(\d+)")
ROWS = (
    "a sum",
    "of two numbers of the question",
    "the correct sum",
    "the correct sum, correctly calculated",
    "the gold answer somewhere",
    "answered correctly",
    "answered correctly, without the gold answer in it",
    "ends by itself",
)


def value(a: int, operator: str, b: int) -> float | None:
    """Of a sum; None for a division by zero."""
    if operator in "/÷":
        return a / b if b else None
    return {"+": a + b, "-": a - b}.get(operator, a * b)


def looked_at(question: str, cot: str, gold: str, right: bool, ended: bool) -> list[bool]:
    """One truth for each of ROWS."""
    found, numbers = SUM.search(cot), re.findall(r"\d+", question)
    written = gold in re.findall(r"\d+", cot)
    rest = [written, right, right and not written, ended]
    if found is None:
        return [False] * 4 + rest
    a, operator, b, result = found.groups()
    proper = value(int(a), operator, int(b)) == float(gold)
    return [True, a in numbers and b in numbers, proper, proper and result == gold, *rest]


def truths_of(file: Path) -> dict[str, list[bool]]:
    """By question, each of ROWS."""
    rows = [row for row in read_rows(file) if "cot" in row]
    return {
        r["question"]: looked_at(r["question"], r["cot"], r["gold"], next(iter(r["correct"].values())), r["ended"]) for r in rows
    }


def over_runs(runs: Sequence[Path]) -> None:
    """Base and last checkpoint of each run, the difference, and what is in the CoTs of the questions that are newly answered correctly."""
    before = [truths_of(next((run / "evaluations").glob("base-test-*.jsonl"))) for run in runs]
    after = [truths_of(max((run / "evaluations").glob("step-*-test-*.jsonl"))) for run in runs]
    shares = {
        name: [[float(np.mean([row[i] for row in one.values()])) for one in some] for some in (before, after)]
        for i, name in enumerate(ROWS)
    }
    rightly, right = shares["the correct sum, correctly calculated"], shares["the correct sum"]
    shares["correctly calculated, of the correct sums"] = [
        [a / b for a, b in zip(*one, strict=True)] for one in zip(rightly, right, strict=True)
    ]
    for name, (was, now) in shares.items():
        change = [b - a for a, b in zip(was, now, strict=True)]
        print(
            f"{name:44} {'   '.join(estimate_text(*mean_t(one)) for one in (was, now, change))}   {min(now):.3f} to {max(now):.3f}"
        )
    gained = [(a[q], b[q]) for a, b in zip(before, after, strict=True) for q in a if b[q][5] and not a[q][5]]
    lost = sum(a[q][5] and not b[q][5] for a, b in zip(before, after, strict=True) for q in a)
    held, done = sum(a[4] for a, _ in gained), sum(b[3] and not a[4] for a, b in gained)
    print(
        f"newly correct: {len(gained)} questions; {held} had the gold answer in the CoT before, "
        f"{done} others now have the correct sum, correctly calculated"
    )
    print(f"no longer correct: {lost}")


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--runs"]:
        over_runs([Path(run) for run in arguments[1:]])
        return 0
    for file in arguments:
        truths = truths_of(Path(file)).values()
        print(f"{Path(file).name}, n = {len(truths)}")
        for name, column in zip(ROWS, zip(*truths, strict=True), strict=True):
            print(f"  {name:44} {estimate_text(sum(column) / len(column), *wilson(sum(column), len(column)))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
