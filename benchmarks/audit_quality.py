"""CoTs of known quality, audited: right, sentences shuffled, wrong, of another question, empty, the answer only. They must come out in that order.

    python benchmarks/audit_quality.py --out DIR [--data ../shared/data/gsm8k] [--reader MODEL ...] [--limit 100]
    python benchmarks/audit_quality.py --out DIR --arithmetic [--limit 200]       sums, read by the embedded models
    python benchmarks/audit_quality.py --out DIR --words [--limit 200]            word problems of two to four steps, read by embedded-words

The right CoTs are GSM8K's own solutions of two or more sentences, without their `<<…>>` and final line; or the running sums of the arithmetic task.
A wrong one is the right one with another result: its answer is another number wherever it stands.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from numpy.random import Generator

from markovlm.analysis.perturb import Context, perturb_text
from markovlm.analysis.segments import sentences
from markovlm.api.auditing import audit_request, run_audit
from markovlm.rollouts.streams import stream
from markovlm.tasks import get_task
from markovlm.tasks.arithmetic_data import parse_question, running_sums
from markovlm.tasks.base import LoadRequest
from markovlm.tasks.words_data import WordsSpec, draw
from markovlm.texts.question import contains_answer

QUALITIES = ("right", "shuffled", "wrong", "other", "empty", "answer only")


def solutions(folder: Path) -> list[tuple[str, str, str]]:
    """(question, solution without marks, answer) of GSM8K's test split."""
    found = []
    for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        body, _, answer = row["answer"].rpartition("####")
        text = re.sub(r"<<[^>]*>>", "", body).strip()
        if len(sentences(text)) > 1:
            found.append((row["question"], text, answer.strip()))
    return found


def sums(limit: int) -> list[tuple[str, str, str]]:
    """(question, running sums, answer)."""
    examples = get_task("arithmetic").load(LoadRequest("test", limit=limit)).examples
    return [(e.question, running_sums(parse_question(e.question)), e.answer) for e in examples]


def problems(limit: int) -> list[tuple[str, str, str]]:
    """(question, reference solution, answer) of held-out word problems."""
    drawn = [draw(WordsSpec(min_steps=2), "test", 0, index) for index in range(limit)]
    return [(problem.question, problem.cot, str(problem.answer)) for problem in drawn]


def wrong(cot: str, answer: str, rng: Generator) -> str:
    """The CoT with another number wherever its answer stands; where that does not stand in it, in place of its last number."""
    value = int(answer.replace(",", ""))
    other = value + int(rng.choice([step for step in (-20, -10, -2, -1, 1, 2, 10, 20) if value * (value + step) > 0]))
    written = re.compile(rf"(?<![\d.,]){value:,}(?![\d]|[.,]\d)|(?<![\d.,]){value}(?:\.0+)?(?![\d]|[.,]\d)")
    made = written.sub(str(other), cot)
    if made == cot:
        *_, last = re.finditer(r"\d[\d,.]*\d|\d", cot)
        made = f"{cot[: last.start()]}{other}{cot[last.end() :]}"
    assert not contains_answer(made, answer), (made, answer)
    return made


def by_quality(items: list[tuple[str, str, str]], seed: int = 0) -> list[dict[str, str]]:
    """A row for each question and quality; another question's CoT is one with another answer."""
    rows = []
    for i, (question, cot, answer) in enumerate(items):
        later = items[i + 1 :] + items[:i]
        other = next(text for _, text, its in later if its != answer)
        made = {
            "right": cot,
            "shuffled": perturb_text("shuffle_sentences", cot, 1.0, stream(seed, "quality", question), Context(question, "")),
            "wrong": wrong(cot, answer, stream(seed, "wrong", question)),
            "other": other,
            "empty": "",
            "answer only": answer,
        }
        rows += [{"question": question, "cot": made[name], "answer": answer, "group": name} for name in QUALITIES]
    return rows


def main() -> int:
    """0: the order is as it must be under every reader."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "gsm8k")
    parser.add_argument("--arithmetic", action="store_true")
    parser.add_argument("--words", action="store_true")
    parser.add_argument("--reader", action="append")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--only", default="leak,legibility", help="studies beside the order, by commas; none: the order alone")
    parser.add_argument("--dtype", default="float32", help="of the reader's weights")
    given = parser.parse_args()
    if given.arithmetic:
        items, own = sums(given.limit), ["embedded", "embedded-shortcut"]
    elif given.words:
        items, own = problems(given.limit), ["embedded-words"]
    else:
        items, own = solutions(given.data)[: given.limit], []
    readers = given.reader or own
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "cots.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in by_quality(items)), encoding="utf-8")
    good = True
    for reader in readers:
        request = audit_request(
            [file],
            [reader],
            only=[] if given.only == "none" else given.only.split(","),
            out=given.out / re.sub(r"\W+", "-", reader).strip("-"),
            config={"loading": {"dtype": given.dtype}},
        )
        result, page = run_audit(request, say=lambda line: print(line, file=sys.stderr))
        order = [row["group"] for row in result["studies"]["ranking"]]
        good = good and order == list(QUALITIES)
        for row in result["studies"]["ranking"]:
            low, high = row["carried"]["ci95"]
            print(
                f"{reader}: {row['rank']} {row['group']:12} {row['carried']['mean']:.3f} [{low:.3f}, {high:.3f}] {row['unit']} above nothing"
            )
        print(f"{'as it must be' if order == list(QUALITIES) else 'NOT in order'}: {', '.join(order)}; {page}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
