"""When a fact enters the states, how long it stays: every question is put to every state up to its own.

Answers are those at the question's own time: before its fact was read it can't be known, and age below 0 shows how often it is guessed.
Of a `thinking` chain the fact is the answer itself: from which piece on can it be read?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from markovlm.analysis.chain_study import ChainStudy, Job
from markovlm.analysis.study import estimate
from markovlm.evaluation.chains import share_right

_Found = tuple[str, float, float | None]  # text, nats per token, right


def facts(study: ChainStudy) -> dict[str, Any] | None:
    """p(answer) and right or not of each question after each chunk; by age of the fact in chunks and by t. None without questions."""
    jobs: list[Job] = []
    about: list[Any] = []
    for one in study.walks:
        for query in one.text.queries:
            for t in range(1, query.after + 1):
                moved = study.prompter.answer_target(one.text, replace(query, after=t, fact=None), study.how.conditioning)
                jobs.append((one, t, one.state(t + 1), moved))
                about.append(query)
    if not jobs:
        return None
    rows: dict[tuple[str, str, int], dict[str, Any]] = {}
    ages: dict[int, list[_Found]] = {}
    steps: dict[int, list[_Found]] = {}
    for (one, *_), query, reading in zip(jobs, about, study.read(jobs, "facts"), strict=True):
        named = {
            "text": one.text.id,
            "question": query.question,
            "answer": query.answer,
            "fact": query.fact,
            "after": query.after,
        }
        row = rows.setdefault((one.text.id, query.question, query.after), {**named, "known": []})
        row["known"].append({"t": reading.t, "logprob": reading.logprob, "correct": reading.correct})
        found = (one.text.id, reading.logprob, None if reading.correct is None else float(reading.correct))
        steps.setdefault(reading.t, []).append(found)
        if query.fact is not None:
            ages.setdefault(reading.t - query.fact, []).append(found)
    return {
        "questions": list(rows.values()),
        "by_age": [{"age": age, **_measured(some, study.how.seed)} for age, some in sorted(ages.items())],
        "by_t": [{"t": t, **_measured(some, study.how.seed)} for t, some in sorted(steps.items())],
    }


def _measured(found: Sequence[_Found], seed: int) -> dict[str, Any]:
    texts = [text for text, _, _ in found]
    return {
        "n": len(found),
        "logprob": estimate([value for _, value, _ in found], texts, seed),
        "accuracy": _share([(text, right) for text, _, right in found if right is not None], seed),
    }


def _share(judged: Sequence[tuple[str, float]], seed: int) -> dict[str, Any] | None:
    """Of answers that were judged; None if none was."""
    if not judged:
        return None
    share = share_right([right for _, right in judged], [text for text, _ in judged], seed)
    return {"mean": share.mean, "ci95": [share.low, share.high]}
