"""Inspect logs: the zip (`.eval`) and the JSON. Nothing in them is trusted.

A zip holds `header.json` (or `_journal/start.json` of a log that was never finished) and `samples/ID_epoch_N.json`. What was shown to
the model is not always what the log's output says: `multiple_choice(shuffle=…)` puts the choices back in order afterwards and replaces
the reply by `ANSWER: B`. The original reply is in the events.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from markovlm.auditing.cutting import before_answer, gold_of
from markovlm.auditing.inspect_zip import Unpacker
from markovlm.auditing.rows import AuditRow, CotSource, Unfit, plain
from markovlm.errors import UserError
from markovlm.tasks.base import LETTERS
from markovlm.tasks.rows import at_path

MOST_MEMBERS = 500_000
_ATTACHMENT = "attachment://"
_RIGHT = {"C": True, "I": False, 1: True, 0: False}
_NO_SAMPLES = "an Inspect log without samples (it was written with log_samples=False, or read with header_only); write it again with its samples"


def is_inspect_json(value: Any) -> bool:
    """Whether a JSON value is an Inspect log: it has the evaluation, and its samples or at least its plan."""
    return isinstance(value, Mapping) and isinstance(value.get("eval"), Mapping) and bool({"samples", "plan"} & set(value))


def read_inspect_zip(path: Path) -> CotSource:
    """All samples of an `.eval` file. Raises UserError if it is not one, or unpacks to more than a log would."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _from_zip(path, archive)
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: not an intact Inspect log (.eval): broken zip file ({error})") from None


def _from_zip(path: Path, archive: zipfile.ZipFile) -> CotSource:
    members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise UserError(f"{path}: {len(members)} files in the zip; an Inspect log has at most {MOST_MEMBERS}")
    names = {member.filename: member for member in members}
    head = names.get("header.json") or names.get("_journal/start.json")
    if head is None:
        raise UserError(f"{path}: a zip file without header.json, so not an Inspect log")
    unpacked = Unpacker(path, archive)
    header = unpacked.value(head)
    samples = [m for m in members if m.filename.startswith("samples/") and m.filename.endswith(".json")]
    return _source(path, header, ((f"{path.name}:{member.filename}", unpacked.value(member)) for member in samples))


def read_inspect_value(path: Path, log: Mapping[str, Any]) -> CotSource:
    """All samples of a log that was written as JSON."""
    samples = log.get("samples")
    listed = samples if isinstance(samples, list) else []
    return _source(path, log, ((f"{path.name}:samples[{number}]", sample) for number, sample in enumerate(listed)))


def _source(path: Path, header: Any, samples: Iterable[tuple[str, Any]]) -> CotSource:
    """Raises UserError if there is not a sample at all."""
    model, facts = _header(header)
    found = CotSource("inspect", facts=facts, shards=False)
    told = _Told()
    for where, sample in samples:
        told.read += 1
        try:
            found.rows.append(_row(sample, model, where, told))
        except Unfit as error:
            found.skipped.append(f"{where}: {error}")
    if not found.rows and not found.skipped:
        raise UserError(f"{path}: {_NO_SAMPLES}")
    found.notes += told.notes(path.name)
    return found


@dataclass(slots=True)
class _Told:
    """How many samples have what must be said."""

    read: int = 0
    counts: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def notes(self, name: str) -> list[str]:
        return [f"{name}: {what} in {count} of {self.read} samples" for what, count in self.counts.items()]


_SEVERAL = (
    "the CoT is everything that the model wrote after the question, joined (messages of users and tools in between are left out)"
)
_CONVERSATION = "the question is the last user message of a conversation (earlier messages are left out)"
_SHUFFLED = "the choices were shuffled (reply and order are as the model saw them, taken from the events)"
_TARGETS = "there are several targets (each counts as right; likelihoods are those of the first)"


def _header(header: Any) -> tuple[str, dict[str, str]]:
    """The model, and what may tell two logs of one model apart."""
    evaluation = header.get("eval") if isinstance(header, Mapping) else None
    if not isinstance(evaluation, Mapping):
        return "", {}
    facts: dict[str, str] = {}

    def add(name: str, value: Any) -> None:
        if value not in (None, "", {}, []):
            facts[name] = plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))[:60]

    add("task", evaluation.get("task"))
    for kind in ("task_args", "solver_args", "model_generate_config"):
        arguments = evaluation.get(kind)
        for name, value in arguments.items() if isinstance(arguments, Mapping) else ():
            add(str(name), value)
    plan = header.get("plan")
    steps = plan.get("steps") if isinstance(plan, Mapping) else None
    names = [str(step.get("solver")) for step in steps if isinstance(step, Mapping)] if isinstance(steps, list) else []
    add("solver", evaluation.get("solver") or "+".join(names))
    for step in steps if isinstance(steps, list) else ():
        params = step.get("params") if isinstance(step, Mapping) else None
        for name, value in params.items() if isinstance(params, Mapping) else ():
            if value is not None and not isinstance(value, Mapping):
                add(f"{step.get('solver')}.{name}", value)
    model = evaluation.get("model")
    return plain(model) if isinstance(model, str) else "", facts


# ------------------------------------------------------------------------------------------------------------ a sample


def _row(sample: Any, model: str, where: str, told: _Told) -> AuditRow:
    if not isinstance(sample, Mapping):
        raise Unfit("is not a sample")
    if sample.get("error"):
        raise Unfit("the sample ended in an error")
    attached = sample.get("attachments")
    stored = attached if isinstance(attached, Mapping) else {}
    last = _first_choice(sample)
    choices = sample.get("choices")
    texts = (
        tuple(_resolved(c, stored) for c in choices if isinstance(c, str))[: len(LETTERS)] if isinstance(choices, list) else ()
    )
    answer, *also = _golds(sample.get("target"), stored)
    if also and texts and all(one in LETTERS[: len(texts)] for one in (answer, *also)):
        raise Unfit(f"several choices are right ({', '.join((answer, *also))}), but a reader gives one letter")
    messages = _replies(sample, last)
    event = _rewritten(sample, messages[-1], stored)
    if event is not None:
        messages = [*messages[:-1], event["output"]["choices"][0]["message"]]
        if texts:
            order = _order_shown(sample, event, texts, stored)
            if answer in LETTERS[: len(texts)]:
                answer = LETTERS[order.index(LETTERS.index(answer))]
            texts = tuple(texts[number] for number in order)
            told.add(_SHUFFLED)
    cot, final = _reasoning(messages, stored)
    if len([m for m in messages if _said(m, stored).strip()]) > 1:
        told.add(_SEVERAL)
    if _turns_before(sample.get("input")):
        told.add(_CONVERSATION)
    if also:
        told.add(_TARGETS)
    stop = last.get("stop_reason")
    return AuditRow(
        question=_question(sample.get("input"), stored),
        cot=cot,
        answer=answer,
        choices=texts,
        group=model,
        right=_right(sample.get("scores")),
        truncated=stop in ("max_tokens", "model_length") if isinstance(stop, str) else None,
        final=final,
        where=where,
        also=tuple(also),
    )


def _first_choice(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    first = at_path(sample, "output.choices.0")
    if not isinstance(first, Mapping):
        raise Unfit("no output (the sample was not finished)")
    return cast(Mapping[str, Any], first)


def _replies(sample: Mapping[str, Any], last: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the model wrote, in order; never empty. Assistant messages of the input are not its own."""
    asked, messages = sample.get("input"), sample.get("messages")
    given = sum(_role(message) == "assistant" for message in asked) if isinstance(asked, list) else 0
    listed = [m for m in messages if _role(m) == "assistant"] if isinstance(messages, list) else []
    generated = [m for m in listed if m.get("source") == "generate"] or listed[given:]
    final = last.get("message")
    if isinstance(final, Mapping):
        same = [m for m in generated if m.get("id") is not None and m.get("id") == final.get("id")]
        generated = (
            generated if same or (generated and generated[-1].get("content") == final.get("content")) else [*generated, final]
        )
    if not generated:
        raise Unfit("no output (the sample was not finished)")
    return generated


def _rewritten(sample: Mapping[str, Any], message: Mapping[str, Any], stored: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The event in which the model said this message, where the log has put other words in its place."""
    events = sample.get("events")
    for event in reversed(events if isinstance(events, list) else []):
        try:
            if event["event"] != "model" or event["output"]["choices"][0]["message"]["id"] != message["id"]:
                continue
            same = _said(event["output"]["choices"][0]["message"], stored) == _said(message, stored)
            return None if same else event
        except (KeyError, IndexError, TypeError):
            continue
    return None


def _order_shown(
    sample: Mapping[str, Any], event: Mapping[str, Any], texts: Sequence[str], stored: Mapping[str, Any]
) -> list[int]:
    """Which choice stood at each letter when the model saw them. Unfit where the log does not say."""
    scores = sample.get("scores")
    explained = (
        [score.get("explanation") for score in scores.values() if isinstance(score, Mapping)]
        if isinstance(scores, Mapping)
        else []
    )
    prompts = [_said(message, stored) for message in _input_of(sample, event) if _role(message) == "user"]
    for shown in (*reversed(prompts), *(_resolved(text, stored) for text in explained if isinstance(text, str))):
        order = [_at_letter(shown, letter, texts) for letter in LETTERS[: len(texts)]]
        if sorted(-1 if one is None else one for one in order) == list(range(len(texts))):
            return cast(list[int], order)
    raise Unfit("its choices were shuffled, but the log does not say how")


def _at_letter(shown: str, letter: str, texts: Sequence[str]) -> int | None:
    fits = [number for number, text in enumerate(texts) if re.search(rf"^{letter}\) {re.escape(text)}\s*$", shown, re.MULTILINE)]
    return max(fits, key=lambda number: len(texts[number]), default=None)


def _input_of(sample: Mapping[str, Any], event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The messages that a model was called with; newer logs keep them once for all events."""
    listed = event.get("input")
    if isinstance(listed, list) and listed:
        return [m for m in listed if isinstance(m, Mapping)]
    messages, spans = at_path(sample, "events_data.messages"), event.get("input_refs")
    if not isinstance(messages, list) or not isinstance(spans, list):
        return []
    found: list[Any] = []
    for span in spans:
        if isinstance(span, list) and len(span) == 2 and all(isinstance(end, int) for end in span):
            found += messages[max(0, span[0]) : max(0, span[1])]
    return [m for m in found if isinstance(m, Mapping)]


def _role(message: Any) -> str:
    return str(message.get("role")) if isinstance(message, Mapping) else ""


def _reasoning(messages: Sequence[Mapping[str, Any]], stored: Mapping[str, Any]) -> tuple[str, str | None]:
    """Reasoning blocks and texts of all replies, and the final answer of the last one. Encrypted reasoning has at best a summary."""
    *earlier, last = [
        m for m in messages if _said(m, stored).strip() or _thoughts(m, stored)[0] or _thoughts(m, stored)[1]
    ] or messages[-1:]
    pieces = [piece for message in earlier for piece in (*_thoughts(message, stored)[0], _said(message, stored)) if piece.strip()]
    thoughts, hidden = _thoughts(last, stored)
    if hidden and not thoughts:
        raise Unfit("its reasoning is encrypted and has no summary")
    said = _said(last, stored)
    cot, final = ("\n".join(thoughts).strip(), said.strip() or None) if thoughts else before_answer(said)
    return "\n\n".join([*(piece.strip() for piece in pieces), cot] if cot else [piece.strip() for piece in pieces]), final


def _blocks(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message.get("content")
    return [block for block in content if isinstance(block, Mapping)] if isinstance(content, list) else []


def _said(message: Mapping[str, Any], stored: Mapping[str, Any]) -> str:
    """The text of a message, its reasoning left out."""
    content = message.get("content")
    if isinstance(content, str):
        return _resolved(content, stored)
    return "\n".join(
        _resolved(b["text"], stored) for b in _blocks(message) if b.get("type") == "text" and isinstance(b.get("text"), str)
    )


def _thoughts(message: Mapping[str, Any], stored: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Reasoning blocks (of encrypted ones the summary), and whether one was encrypted."""
    found: list[str] = []
    hidden = False
    for block in _blocks(message):
        if block.get("type") != "reasoning":
            continue
        hidden = hidden or bool(block.get("redacted"))
        text = block.get("summary") if block.get("redacted") else block.get("reasoning")
        if isinstance(text, str) and text.strip():
            found.append(_resolved(text, stored))
    return found, hidden


def _question(asked: Any, stored: Mapping[str, Any]) -> str:
    """The text itself, or the last user message of a conversation."""
    if isinstance(asked, list):
        users = [message for message in asked if _role(message) == "user"]
        asked = _said(users[-1], stored) if users else None
    if not isinstance(asked, str) or not asked.strip():
        raise Unfit("no question in its input")
    return _resolved(asked, stored).strip()


def _turns_before(asked: Any) -> bool:
    """Did user or model say anything before the question?"""
    return isinstance(asked, list) and sum(_role(message) in ("user", "assistant") for message in asked) > 1


def _golds(target: Any, stored: Mapping[str, Any]) -> list[str]:
    """The targets, each once."""
    listed = target if isinstance(target, list) else [target]
    texts = [one for one in listed if not isinstance(one, bool) and isinstance(one, str | int | float) and str(one).strip()]
    if not texts:
        raise Unfit("no target")
    return list(dict.fromkeys(gold_of(_resolved(str(one), stored)) for one in texts))


def _right(scores: Any) -> bool | None:
    """The first score, where it says right or wrong."""
    first = next(iter(scores.values()), None) if isinstance(scores, Mapping) else None
    value = first.get("value") if isinstance(first, Mapping) else None
    return _RIGHT.get(value) if isinstance(value, str | int | float) else None


def _resolved(text: str, stored: Mapping[str, Any]) -> str:
    """Long strings are kept once, beside the messages that have them."""
    if text.startswith(_ATTACHMENT):
        kept = stored.get(text.removeprefix(_ATTACHMENT))
        text = kept if isinstance(kept, str) else text
    return plain(text)
