"""What a language model writes into its CoTs of word problems of one step: no sum, the wrong sum, a sum done wrongly, the answer.

    python benchmarks/sums_written.py runs/demo-real/evaluations/*-test-*.jsonl        # files that `eval` and `demo` write, no chain of two steps

A sum is the first `number operator number = number` of a CoT. It is the right one if its value is the gold answer, whatever the CoT says that it is.
95 % Wilson intervals over questions, each with one CoT.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from markovlm.runs.rows import read_rows
from markovlm.statistics import wilson

SUM = re.compile(r"(\d+)\D{0,12}?([-+*x×/÷])\s*(\d+)[^=\n]{0,14}=\s*(\d+)")
ROWS = (
    "a sum",
    "of two numbers of the question",
    "the right sum",
    "the right sum, rightly done",
    "the gold answer somewhere",
    "read rightly",
    "read rightly, without the gold answer in it",
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


def main(files: list[str]) -> int:
    for file in files:
        rows = [row for row in read_rows(Path(file)) if "cot" in row]
        truths = [looked_at(r["question"], r["cot"], r["gold"], next(iter(r["correct"].values())), r["ended"]) for r in rows]
        print(f"{Path(file).name}, n = {len(rows)}")
        for name, column in zip(ROWS, zip(*truths, strict=True), strict=True):
            low, high = wilson(sum(column), len(column))
            print(f"  {name:44} {sum(column) / len(column):.3f} [{low:.3f}, {high:.3f}]")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
