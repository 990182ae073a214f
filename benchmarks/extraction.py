"""How often extractors read what a person reads, beside the rules of other programs.

    python benchmarks/extraction.py [--data ../shared/data] [--labelled FILE ...] [--misses] [--json]

Every text was read by a person, who wrote down the answer that it gives, or that it gives none. The sets:

runlogs     CoTs of real training runs (Llama 3.1 8B, Mistral 7B) in the data beside the project, labelled here by file and line
reader      answers of SmolLM2-135M-Instruct under this package's prompts, read from its own CoTs (questions of ARC, AQuA, MMLU, GSM8K and SVAMP),
            with the question and its choices hidden or visible; choices are looked up in the data beside the project
reports     inputs that people reported to other programs as read wrongly, from tests/tasks/test_answer_reading.py
FILE        your own: JSONL of {"set", "answer_type": "number" or "letter", "text", "right", "choices", "ended"}; right is null where there is
            no answer

For each rule: of the texts that give an answer how many are read right, with Wilson's 95 % interval; of those that give none, in how many
something is read all the same. Only our extractors are told which replies the token limit cut; `end unknown` is without that.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from extraction_peers import LETTER_RULES, NUMBERS

from markovlm.statistics import mcnemar_exact, wilson
from markovlm.tasks import get_task
from markovlm.tasks.answers import extract
from markovlm.tasks.base import LoadRequest
from markovlm.tasks.numbers import normalize_number

HERE = Path(__file__).parent
OURS = {
    "number": ("final_number", "anchor", "simple", "math_verify"),
    "letter": ("final_letter", "word_boundary", "legacy"),
}
PEERS = {"number": NUMBERS, "letter": LETTER_RULES}


@dataclass(frozen=True, slots=True)
class Case:
    """One text, and what a person reads in it (None: no answer)."""

    set: str
    answer_type: str
    text: str
    right: str | None
    choices: tuple[str, ...] = ()
    ended: bool = True


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def runlogs(data: Path) -> Iterator[Case]:
    """CoTs in full; their budget cut nearly all of them."""
    for row in rows_of(HERE / "data" / "extraction" / "runlogs.jsonl"):
        record = json.loads(lines_of(data / row["file"])[row["line"] - 1])
        text = record["Example"][row["field"]] if "Example" in record else record[row["field"]]
        yield Case("runlogs, numbers", "number", text, row["right"], ended=False)


@lru_cache
def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def reader(data: Path) -> Iterator[Case]:
    """Answers of the small instruct model."""
    choices = lru_cache(lambda task: choices_of(data / task, task))
    for row in rows_of(HERE / "data" / "extraction" / "reader.jsonl"):
        kind = get_task(row["task"]).answer_type
        given = choices(row["task"])[row["id"]] if kind == "letter" else ()
        yield Case(f"reader, {kind}s, question {row['question']}", kind, row["text"], row["right"], given, row["ended"])


def choices_of(folder: Path, task: str) -> Mapping[str, tuple[str, ...]]:
    return {example.id: example.choices for example in get_task(task).load(LoadRequest("test", data=folder)).examples}


def reports() -> Iterator[Case]:
    known = runpy.run_path(str(HERE.parent / "tests" / "tasks" / "test_answer_reading.py"))
    for text, right in known["NUMBERS"]:
        yield Case("reports, numbers", "number", text, right)
    for text, right in known["CUT"]:
        yield Case("reports, numbers cut off", "number", text, right, ended=False)
    for text, choices, right in known["LETTERS"]:
        yield Case("reports, letters", "letter", text, right, choices or tuple(f"choice {i}" for i in range(5)))


def labelled(path: Path) -> Iterator[Case]:
    for row in rows_of(path):
        choices, ended = tuple(row.get("choices") or ()), row.get("ended", True)
        yield Case(row.get("set", path.stem), row["answer_type"], row["text"], row["right"], choices, ended)


def rules_of(kind: str) -> dict[str, Callable[[Case], str | None]]:
    """Ours, then those of others."""

    def ours(name: str, told: bool) -> Callable[[Case], str | None]:
        return lambda case: extract(case.text, name, choices=case.choices, ended=case.ended or not told)

    def theirs(rule: Callable[[str, Sequence[str]], str | None]) -> Callable[[Case], str | None]:
        return lambda case: rule(case.text, case.choices)

    first = OURS[kind][0]
    found = {first: ours(first, told=True), f"{first}, end unknown": ours(first, told=False)}
    found |= {name: ours(name, told=False) for name in OURS[kind][1:]}
    return found | {name: theirs(rule) for name, rule in PEERS[kind].items()}


def measured(cases: Sequence[Case]) -> dict[str, Any]:
    """Of one set: for each rule which texts are read as a person reads them."""
    kind = cases[0].answer_type
    stated, silent = [case for case in cases if case.right is not None], [case for case in cases if case.right is None]
    table: dict[str, Any] = {}
    for name, rule in rules_of(kind).items():
        table[name] = {
            "right": [same(kind, rule(case), case.right) for case in stated],
            "read": [rule(case) is not None for case in silent],
        }
    return {"answer_type": kind, "stated": len(stated), "silent": len(silent), "rules": table}


def same(kind: str, found: str | None, right: str | None) -> bool:
    if found is None or right is None or kind == "letter":
        return found == right
    return normalize_number(found) == normalize_number(right)


def markdown(results: Mapping[str, Any]) -> str:
    lines = []
    for kind in ("number", "letter"):
        sets = {name: result for name, result in results.items() if result["answer_type"] == kind}
        if not sets:
            continue
        head = [f"{name} ({result['stated']} + {result['silent']})" for name, result in sets.items()]
        lines += ["", f"| rule | {' | '.join(head)} |", "|---" * (len(sets) + 1) + "|"]
        for rule in next(iter(sets.values()))["rules"]:
            lines.append(f"| {rule} | {' | '.join(cell(result, rule) for result in sets.values())} |")
        best = [f"{name}: {against(result)}" for name, result in sets.items()]
        lines += ["", "Against the best of the others, paired (exact McNemar): " + "; ".join(best) + "."]
    return "\n".join(lines).strip()


def cell(result: Mapping[str, Any], rule: str) -> str:
    """`91 of 91 [0.96, 1.00], 0 of 12 misread`."""
    right, read = result["rules"][rule]["right"], result["rules"][rule]["read"]
    parts = []
    if right:
        low, high = wilson(sum(right), len(right))
        parts.append(f"{sum(right)} [{low:.2f}, {high:.2f}]")
    if read:
        parts.append(f"{sum(read)} misread")
    return ", ".join(parts)


def against(result: Mapping[str, Any]) -> str:
    kind, rules = result["answer_type"], result["rules"]
    total = {name: sum(rules[name]["right"]) - sum(rules[name]["read"]) for name in PEERS[kind]}
    best = max(total, key=total.__getitem__)

    def wins(name: str) -> list[bool]:
        return [*rules[name]["right"], *(not read for read in rules[name]["read"])]

    pairs = list(zip(wins(OURS[kind][0]), wins(best), strict=True))
    gained, lost = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    return f"{best} +{gained} -{lost}, p {mcnemar_exact(gained, lost):.2g}"


def main() -> int:
    """0: no set on which another rule reads more texts right than ours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("MARKOVLM_DATA", HERE.parents[1] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--labelled", type=Path, nargs="*", default=[])
    parser.add_argument("--misses", action="store_true", help="print the texts that our extractor misreads")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    cases = [*reports()]
    if given.data.is_dir():
        cases += [*runlogs(given.data), *reader(given.data)]
    else:
        print(f"{given.data}: not there; sets runlogs and reader are left out", file=sys.stderr)
    for path in given.labelled:
        cases += labelled(path)
    sets: dict[str, list[Case]] = {}
    for case in cases:
        sets.setdefault(case.set, []).append(case)
    results = {name: measured(members) for name, members in sets.items()}
    if given.misses:
        for case in cases:
            first = OURS[case.answer_type][0]
            found = extract(case.text, first, choices=case.choices, ended=case.ended)
            if not same(case.answer_type, found, case.right):
                print(f"{case.set}: {found!r}, right {case.right!r}: …{case.text[-200:]!r}", file=sys.stderr)
    print(json.dumps(results) if given.json else markdown(results))
    behind = [name for name, result in results.items() if any(
        sum(result["rules"][peer]["right"]) > sum(result["rules"][OURS[result["answer_type"]][0]]["right"]) for peer in PEERS[result["answer_type"]]
    )]  # fmt: skip
    for name in behind:
        print(f"{name}: another rule reads more", file=sys.stderr)
    return 1 if behind else 0


if __name__ == "__main__":
    sys.exit(main())
