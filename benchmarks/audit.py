"""What an audit costs beside its reader's own passes: processor seconds a token, and tokens that shared prefixes save.

    OMP_NUM_THREADS=1 python benchmarks/audit.py COTS.jsonl [--reader smollm2] [--limit 8] [--only damage,load] [--columns cot=rationale]

For a few questions at a time everything that the studies of `markovlm audit` ask for is read, then the model alone passes over the same prompts
with their CoTs, one at a time, several times. Paces are tokens in a second of processor time: the machine may be busy. Two ratios:

- a token read: the time of the audit over the time that the model alone would need for every reading whole, without its answer. The aim is 1.2.
- a token computed: the model's own pace over the audit's, in tokens that the decoder computed, padding and greedy answers with them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from step import ratio_interval

from markovlm.api.auditing import audit_request
from markovlm.auditing.plan import AuditRequest
from markovlm.auditing.readers import SIGHTED, OpenReader
from markovlm.auditing.reading import gather_studies, read_all
from markovlm.auditing.server import open_reader
from markovlm.models.language import LanguageModel

_ALONE = 3  # passes of the model alone over a question's CoTs


@dataclass(slots=True)
class Meter:
    """What the decoder and the output head of a model did."""

    tokens: int = 0  # that the decoder computed
    passes: int = 0
    seconds: float = 0.0  # of the processor, in both
    stepping: float = 0.0  # of them, in passes over a token of each row: greedy answers being written


@contextmanager
def metered() -> Iterator[Meter]:
    meter = Meter()
    decode, logits = LanguageModel.decode, LanguageModel.logits

    def counted(self: LanguageModel, input_ids: torch.Tensor, **how: Any) -> Any:
        meter.tokens += input_ids.numel()
        meter.passes += 1
        before = meter.seconds
        found = timed(decode, self, input_ids, **how)
        meter.stepping += meter.seconds - before if input_ids.shape[1] == 1 else 0.0
        return found

    def timed(work: Any, *given: Any, **how: Any) -> Any:
        began = time.process_time()
        try:
            return work(*given, **how)
        finally:
            meter.seconds += time.process_time() - began

    LanguageModel.decode, LanguageModel.logits = counted, lambda *given: timed(logits, *given)
    try:
        yield meter
    finally:
        LanguageModel.decode, LanguageModel.logits = decode, logits


def alone(opened: OpenReader, rows: list[tuple[int, ...]]) -> float:
    """Tokens a processor second of plain passes, the first not counted."""
    lm, paces = opened.setup.lm, []
    with torch.no_grad():
        for turn in range(_ALONE + 1):
            began = time.process_time()
            for ids in rows:
                lm.decode(torch.tensor([ids]))
            if turn:
                paces.append(sum(map(len, rows)) / (time.process_time() - began))
    return statistics.median(paces)


def one_question(opened: OpenReader, request: AuditRequest) -> dict[str, float]:
    prompter = opened.setup.prompter
    gathered = gather_studies(opened, request)
    variants = opened.reader.missing([v for some in gathered.wanted.values() for v in some])
    wanted = sum(len(prompter.reader_prompt(v.example, v.conditioning)) + len(v.ids) + len(prompter.header_ids) for v in variants)
    with metered() as meter:
        began = time.process_time()
        opened.reader.read(variants, "readings")
        spent = time.process_time() - began
    rows = [
        prompter.reader_prompt(cot.example, SIGHTED) + cot.ids
        for study in gathered.studies.values()
        for cot in study.cots
        if cot.ids
    ]
    return {
        "readings": len(variants),
        "wanted": wanted,
        "computed": meter.tokens,
        "passes": meter.passes,
        "spent": spent,
        "model": meter.seconds,
        "stepping": meter.stepping,
        "alone": alone(opened, rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--reader", default="smollm2")
    parser.add_argument("--limit", type=int, default=8, help="questions")
    parser.add_argument("--together", type=int, default=4, help="questions read together: what an audit reads together are all")
    parser.add_argument("--only", help="of the studies")
    parser.add_argument("--columns")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as out:
        request = audit_request(
            [given.file],
            [given.reader],
            limit=given.limit,
            only=given.only.split(",") if given.only else None,
            columns=[given.columns] if given.columns else None,
            out=Path(out),
        )
        opened = open_reader(*request.readers[0], request, None)
        ids = list(dict.fromkeys(cot.example.id for cot in request.material.cots))
        found: list[dict[str, float]] = []
        for at in range(0, len(ids), given.together):
            wanted = set(ids[at : at + given.together])
            groups = {
                group: own
                for group, cots in request.material.groups.items()
                if (own := tuple(cot for cot in cots if cot.example.id in wanted))
            }
            found.append(one_question(opened, replace(request, material=replace(request.material, groups=groups))))
            one = found[-1]
            print(
                f"{one['readings']:4.0f} readings, {one['wanted']:7,.0f} tokens, computed {one['computed']:7,.0f} in {one['passes']:4.0f} passes: "
                f"{one['computed'] / one['spent']:5.0f} tokens/s ({one['model'] / one['spent']:.0%} in the model, "
                f"{one['stepping'] / one['spent']:.0%} writing answers); alone {one['alone']:5.0f}",
                flush=True,
            )
        began = time.process_time()
        read_all(opened, request, None, lambda _: None)
        rest = time.process_time() - began
    total = {key: sum(one[key] for one in found) for key in found[0]}
    for name, tokens in (("read", "wanted"), ("computed", "computed")):
        middle, low, high = ratio_interval([one[tokens] / one["spent"] for one in found], [one["alone"] for one in found])
        print(
            f"the model's own pace / the audit's, a token {name}: {middle:.2f} [{low:.2f}, {high:.2f}], "
            f"n = {len(found)} times {given.together} questions"
        )
    print(
        f"studies and their statistics, when all is read: {rest:.1f} s beside {total['spent']:.1f} s of reading (legibility among the former)"
    )
    print(
        f"in the model {total['model'] / total['spent']:.0%} of the time, {total['stepping'] / total['spent']:.0%} writing answers; "
        f"shared prefixes: {total['wanted'] / total['computed']:.2f} tokens for one"
    )


if __name__ == "__main__":
    main()
