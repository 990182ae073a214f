"""Samples of lm-evaluation-harness: `samples_TASK_DATE.jsonl`, one line a document and filter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from markovlm.auditing.cutting import before_answer, gold_of
from markovlm.auditing.rows import AuditRow, CotSource, Unfit, plain, text_of
from markovlm.tasks.base import LETTERS
from markovlm.tasks.rows import at_path

_QUESTIONS = ("question", "query", "problem", "input", "text", "Body")


def is_harness(row: Mapping[str, Any]) -> bool:
    """Whether every line has the document and the model's responses to it."""
    return "doc" in row and "resps" in row


def read_harness(name: str, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> CotSource:
    """One CoT per document and response. The same response under another filter is the same CoT, right if one filter says so."""
    found = CotSource("lm-eval")
    places: dict[tuple[Any, ...], int] = {}
    for line, row in rows:
        where = f"{name}:{line}"
        try:
            for number, made in enumerate(_rows(row, where)):
                key = (repr(row.get("doc_id")), row.get("doc_hash"), number, made.question, made.cot)
                place = places.setdefault(key, len(found.rows))
                if place == len(found.rows):
                    found.rows.append(made)
                elif made.right:
                    found.rows[place] = replace(found.rows[place], right=True)
        except Unfit as error:
            found.skipped.append(f"{where}: {error}")
    return found


def _rows(row: Mapping[str, Any], where: str) -> list[AuditRow]:
    document = row["doc"] if isinstance(row.get("doc"), Mapping) else {}
    choices = _choices(document)
    gold = _gold(row, document, choices)
    question = _question(row, document)
    right = next((bool(row[key]) for key in ("exact_match", "acc") if isinstance(row.get(key), int | float)), None)
    made = []
    for completion in _completions(row):
        cot, final = before_answer(completion)
        made.append(AuditRow(question, cot, gold, choices, right=right, final=final, where=where))
    return made


def _completions(row: Mapping[str, Any]) -> list[str]:
    responses = row.get("resps")
    flat = (
        [one for several in responses for one in (several if isinstance(several, list) else [several])]
        if isinstance(responses, list)
        else []
    )
    texts = [plain(one) for one in flat if isinstance(one, str)]
    if not texts:
        raise Unfit("its responses are likelihoods, not texts (a generative task is needed)")
    return texts


def _question(row: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    for name in _QUESTIONS:
        if isinstance(document.get(name), str) and document[name].strip():
            return plain(document[name]).strip()
    prompt = at_path(row, "arguments.gen_args_0.arg_0") or at_path(row, "arguments.0.0")
    if not isinstance(prompt, str) or not prompt.strip():
        raise Unfit(f"no question in its document; it has {', '.join(map(repr, list(document)[:8])) or 'nothing'}")
    return plain(prompt).strip()


def _choices(document: Mapping[str, Any]) -> tuple[str, ...]:
    value = document.get("choices", document.get("options"))
    if isinstance(value, Mapping):
        value = value.get("text")
    texts = tuple(plain(str(one)) for one in value) if isinstance(value, list) else ()
    return texts if 2 <= len(texts) <= len(LETTERS) else ()


def _gold(row: Mapping[str, Any], document: Mapping[str, Any], choices: tuple[str, ...]) -> str:
    """A letter where there are choices and the target is the number of one, which the harness writes as text, or its label."""
    target = row.get("target")
    text = gold_of(text_of({"target": target if target is not None else document.get("answer")}, "target"))
    bare = text.strip("() ")
    if choices and text not in choices and (place := _place(bare, document, len(choices))) is not None:
        return LETTERS[place]
    return bare if len(bare) == 1 else text


def _place(text: str, document: Mapping[str, Any], count: int) -> int | None:
    value = document.get("choices", document.get("options"))
    labels = value.get("label") if isinstance(value, Mapping) else None
    if isinstance(labels, list) and text in labels[:count]:
        return labels.index(text)
    return int(text) if text.isascii() and text.isdigit() and int(text) < count else None
