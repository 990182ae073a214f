"""`samples.jsonl` of a run of ours: the sampled CoTs, and the frozen model's beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from markovlm.auditing.rows import AuditRow, CotSource, Unfit, plain, text_of


def is_samples(row: Mapping[str, Any]) -> bool:
    """Whether this is a row of samples.jsonl from one of our run directories."""
    return {"question_id", "question", "cot", "baseline_cot", "answer"} <= set(row)


def read_samples(name: str, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> CotSource:
    """CoTs of a run in training, group `trained`, and the frozen model's, group `base`."""
    found = CotSource("samples", shards=False)
    known: set[tuple[str, str]] = set()
    for line, row in rows:
        where = f"{name}:{line}"
        try:
            question, answer = text_of(row, "question"), text_of(row, "answer")
            right = row.get("correct") if isinstance(row.get("correct"), bool) else None
            found.rows.append(
                AuditRow(question, text_of(row, "cot", empty=True), answer, group="trained", right=right, where=where)
            )
            base = row.get("baseline_cot")
            if isinstance(base, str) and (question, base) not in known:  # one a question, repeated in every row of its group
                known.add((question, base))
                found.rows.append(AuditRow(question, plain(base), answer, group="base", where=where))
        except Unfit as error:
            found.skipped.append(f"{where}: {error}")
    found.notes.append("questions of training, as the run saw them: this describes the run and is not a held-out test")
    return found
