"""A chain of thought from any source, and what was left out of a source."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from markovlm.analysis.segments import sentences


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One CoT with its question: `AuditRow("17+4", "17+4=21", "21", group="trained")`. Text is hostile."""

    question: str
    cot: str
    answer: str  # gold
    choices: tuple[str, ...] = ()
    group: str = ""  # "": the source names none
    right: bool | None = None  # the writer's own answer, as the source scored it
    truncated: bool | None = None  # cut off by a budget, as the source says
    cut: bool = False  # the final answer stood behind the CoT and was cut off here
    where: str = ""  # file and row, for messages


@dataclass(slots=True)
class Source:
    """The rows of one file."""

    kind: str  # "rows", "inspect", "lm-eval", "trl", "samples"
    rows: list[AuditRow] = field(default_factory=list[AuditRow])
    skipped: list[str] = field(default_factory=list[str])  # one line each: where, why
    notes: list[str] = field(default_factory=list[str])


class Unfit(Exception):
    """This record is no CoT with question and answer; the message says why. The reader of the file adds where."""


def text_of(values: Mapping[str, Any], name: str, *, empty: bool = False) -> str:
    """A field as text; numbers are written out. Unfit where it is absent, of another type, or (unless `empty`) blank."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        there = ", ".join(map(repr, list(values)[:10])) or "nothing"
        raise Unfit(f"no {name!r}; the row has {there}" if value is None else f"{name!r} is {type(value).__name__}, not text")
    text = plain(str(value))
    if not empty and not text.strip():
        raise Unfit(f"{name!r} is empty")
    return text


def plain(text: str) -> str:
    """`text` without halves of surrogate pairs, which no file and no tokenizer can hold."""
    return text.encode("utf-8", "replace").decode("utf-8") if re.search("[\ud800-\udfff]", text) else text


_LABEL = r"(?:the\s+|my\s+|so\s+|thus\s+|therefore\W*\s*|hence\s+)*(?:final\s+|correct\s+|right\s+)?(?:answer|option|choice)"
_ANSWER_LINE = re.compile(rf"^\W*{_LABEL}\W*\s*(?:is\b|[:=])", re.IGNORECASE)
_ANSWER_SENTENCE = re.compile(rf"\b{_LABEL}\b[^.!?\n]{{0,40}}?(?:\bis\b|[:=])", re.IGNORECASE)
_GOES_ON = re.compile(r"[.!?][\"')]*\s+\S")
_HASHES = re.compile(r"\n?\s*####[ \t]*\S[^\n]*\s*\Z")
_THINK = re.compile(r"<(think|thinking|reasoning)>(.*?)(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_THOUGHT = re.compile(r"</(?:think|thinking|reasoning)>", re.IGNORECASE)


def before_answer(completion: str) -> tuple[str, bool]:
    """The reasoning of a completion, and whether something was cut off behind it: its final answer.

    What stands in `<think>` tags, if they are there (the opening one may have been in the prompt); else all up to a last line `#### 42`,
    `ANSWER: B` or `Final answer: …`, or up to a last sentence such as `So the answer is 42.` or one with `\\boxed{…}`. An answer stated
    earlier is the CoT's own.
    """
    think = _THINK.search(completion)
    if think is not None:
        return think[2].strip(), bool(completion[think.end() :].strip())
    if (closing := _THOUGHT.search(completion)) is not None:
        return completion[: closing.start()].strip(), bool(completion[closing.end() :].strip())
    text = completion.rstrip()
    if (match := _HASHES.search(text)) is not None:
        return text[: match.start()].rstrip(), True
    head, newline, line = text.rpartition("\n")
    if _ANSWER_LINE.match(line) and not _GOES_ON.search(line):
        return head.rstrip(), True
    pieces = sentences(line)
    if len(pieces) > 1 or newline:
        last = pieces[-1] if pieces else ""
        if _ANSWER_SENTENCE.search(last) or "\\boxed{" in last:
            return (head + newline + line[: len(line) - len(last)]).rstrip(), True
    return completion.strip(), False


def gold_of(target: str) -> str:
    """The final answer of a target that may be a whole solution: what stands behind GSM8K's `####`, or in its last `\\boxed{…}`."""
    if "####" in target:
        return target.rpartition("####")[2].strip()
    boxed = _last_boxed(target)
    return (boxed if boxed is not None else target).strip()


def _last_boxed(text: str) -> str | None:
    """`\\frac{1}{2}` of `It is $\\boxed{\\frac{1}{2}}$.`; None where there is none, or its braces don't close."""
    _, box, rest = text.rpartition("\\boxed{")
    depth = 1
    for at, character in enumerate(rest if box else ""):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return rest[:at] if rest[:at].strip() else None
    return None
