"""Tables of completions as TRL logs them (`prompt`, `completion` and a column of gold answers), Parquet or JSONL; our own samples.jsonl."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markovlm.auditing.rows import AuditRow, Source, Unfit, before_answer, gold_of, plain, text_of
from markovlm.errors import UserError

_GOLD = ("answer", "solution", "ground_truth", "target", "gold")
_REASONING = ("reasoning_content", "reasoning", "thinking")  # keys of a message
MOST_ROWS = 1_000_000


def is_completions(row: Mapping[str, Any]) -> bool:
    return "prompt" in row and "completion" in row


def is_samples(row: Mapping[str, Any]) -> bool:
    """A row of our run directories."""
    return {"question_id", "question", "cot", "baseline_cot", "answer"} <= set(row)


def read_parquet(path: Path) -> Source:
    """UserError where it is no table of completions."""
    import polars as pl

    try:
        frame = pl.read_parquet(path, n_rows=MOST_ROWS)
    except Exception as error:  # polars has a dozen unrelated types; all mean: this file cannot be read
        raise UserError(f"{path}: cannot be read as Parquet ({' '.join(str(error).split()):.120})") from None
    if not {"prompt", "completion"} <= set(frame.columns):
        raise UserError(f"{path}: a table of completions has columns prompt and completion; this has {', '.join(frame.columns)}")
    return read_completions(path.name, enumerate(frame.iter_rows(named=True), 1))


def read_completions(name: str, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> Source:
    """One CoT a row: the completion up to its final answer."""
    found = Source("trl")
    for line, row in rows:
        where = f"{name}:{line}"
        try:
            column = next((name for name in _GOLD if row.get(name) is not None), None)
            if column is None:
                raise Unfit(f"no gold answer; it stands in a column {' or '.join(_GOLD)}, logged beside the completions")
            cot, cut = _reasoning(row["completion"])
            question = _content(row["prompt"], "prompt", "user").strip()
            if not question:
                raise Unfit("'prompt' is empty")
            group = row.get("group")
            named = plain(str(group)) if isinstance(group, str | int) else ""
            found.rows.append(AuditRow(question, cot, gold_of(text_of(row, column)), group=named, cut=cut, where=where))
        except Unfit as error:
            found.skipped.append(f"{where}: {error}")
    return found


def _reasoning(completion: Any) -> tuple[str, bool]:
    """The CoT of a completion, and whether its answer was cut off. Where the chat template parses replies, TRL logs reasoning apart."""
    apart = _last_message(completion, "assistant")
    for name in _REASONING:
        text = apart.get(name)
        if isinstance(text, str) and text.strip():
            return plain(text).strip(), bool(_text(apart.get("content")))
    return before_answer(_content(completion, "completion", "assistant"))


def _content(value: Any, name: str, role: str) -> str:
    """A text, or that of the last message of a role of a conversation."""
    if isinstance(value, str):
        return plain(value)
    text = _text(_last_message(value, role).get("content"))
    if text is None:
        raise Unfit(f"{name!r} is {type(value).__name__}, neither text nor messages of a conversation")
    return text


def _last_message(value: Any, role: str) -> Mapping[str, Any]:
    """Empty where there is none."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return {}
    return next((m for m in reversed(value) if isinstance(m, Mapping) and m.get("role") == role), {})


def _text(content: Any) -> str | None:
    """A message's content: text, or parts of which some are text."""
    if isinstance(content, str):
        return plain(content)
    parts = content if isinstance(content, Sequence) else ()
    texts = [part["text"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
    return plain("\n".join(texts)) if texts else None


def read_samples(name: str, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> Source:
    """CoTs of a run in training, group `trained`, and the frozen model's beside them, group `base`."""
    found = Source("samples")
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
    found.notes.append("questions of training, as the run saw them: this describes the run, it is no held-out test")
    return found
