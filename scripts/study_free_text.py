"""Extractors on free text: the CoTs of a real GSM8K run of the research code, those of its policy and those of the frozen model, read three ways.

`python scripts/study_free_text.py [--log FILE]` writes `studies/results/free_text.jsonl`: for each writer and extractor one character a CoT,
1 right, 0 wrong, - nothing found. The log is in the data beside the project, not in it. `make findings` makes the table from the rows.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from study_rows import RESULTS, ROOT
from study_text import markdown, share

from markovlm.evaluation.answering import read_answer
from markovlm.intervals import estimate_text
from markovlm.runs.rows import read_rows, replace_whole
from markovlm.statistics import wilson
from markovlm.tasks import get_task
from markovlm.tasks.base import Example

LOG = ROOT.parent / "shared" / "data" / "runlogs" / "g3-gsm8k-llama-ei.jsonl"
ROWS = RESULTS / "free_text.jsonl"
WRITERS = {"Actor Reasoning": "policy in training", "Critic Reasoning": "frozen model"}
WINDOW = 100  # CoTs that stand for a checkpoint


def read_log(path: Path) -> list[dict[str, str]]:
    """A row a writer and extractor."""
    task = get_task("gsm8k")
    examples = [row["Example"] for row in read_rows(path) if "Example" in row]
    rows = []
    for key, writer in WRITERS.items():
        for extractor in task.extractors:
            marks = []
            for number, one in enumerate(examples):
                answer, right = read_answer(task, Example(str(number), one["Question"], str(one["Answer"])), one[key], extractor)
                marks.append("-" if answer is None else "01"[right])
            rows.append({"writer": writer, "extractor": extractor, "marks": "".join(marks)})
    return rows


def right(marks: str) -> np.ndarray:
    return np.array([mark == "1" for mark in marks])


def free_text() -> str:
    """Accuracy by writer and extractor; how often extractors mark a CoT differently, and turn the order of two stretches of the run."""
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()] if ROWS.exists() else []
    if not rows:
        return ""
    marks: dict[str, dict[str, str]] = {}
    for row in rows:
        marks.setdefault(row["writer"], {})[row["extractor"]] = row["marks"]
    extractors = list(next(iter(marks.values())))
    body = [
        [writer, str(len(of[extractors[0]])), *(_accuracy(of[extractor]) for extractor in extractors), _differently(of)]
        for writer, of in marks.items()
    ]
    policy = {extractor: right(of) for extractor, of in marks[WRITERS["Actor Reasoning"]].items()}
    turned = [[f"{one}, {other}", *_turned(policy[one], policy[other])] for one, other in itertools.combinations(extractors, 2)]
    return "\n\n".join(
        [
            markdown(("CoTs of", "CoTs", *(f"right by `{name}`" for name in extractors), "marked differently by some two"), body),
            markdown(
                (
                    "extractors", f"another order of two stretches of {WINDOW} CoTs", "gap between the two accuracies, mean",
                    "lowest to highest",
                ),
                turned,
            ),
        ]
    )  # fmt: skip


def _accuracy(marks: str) -> str:
    found = right(marks)
    nothing = marks.count("-")
    return estimate_text(found.mean(), *wilson(int(found.sum()), len(found))) + (
        f", {nothing} without a number" if nothing else ""
    )


def _differently(of: Mapping[str, str]) -> str:
    table = np.stack([right(marks) for marks in of.values()])
    return share(int((table.min(0) != table.max(0)).sum()), table.shape[1])


def _turned(one: np.ndarray, other: np.ndarray) -> list[str]:
    """Over all pairs of stretches; a tie by one extractor alone counts as another order."""
    stretches = range(0, len(one) - WINDOW + 1, WINDOW)
    sums = [(int(one[at : at + WINDOW].sum()), int(other[at : at + WINDOW].sum())) for at in stretches]
    pairs = list(itertools.combinations(sums, 2))
    turned = sum(np.sign(a[0] - b[0]) != np.sign(a[1] - b[1]) for a, b in pairs)
    gaps = [(a - b) / WINDOW for a, b in sums]
    return [share(turned, len(pairs)), f"{np.mean(gaps):+.3f}", f"{min(gaps):+.2f} to {max(gaps):+.2f}"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--log", type=Path, default=LOG)
    arguments = parser.parse_args(argv)
    if not arguments.log.exists():
        raise SystemExit(f"{arguments.log}: not there; --log FILE says where the log is")
    rows = read_log(arguments.log)
    replace_whole(ROWS, "".join(json.dumps(row) + "\n" for row in rows).encode())
    print(f"{ROWS.relative_to(ROOT)}: {len(rows)} rows of {len(rows[0]['marks'])} CoTs")


if __name__ == "__main__":
    main()
