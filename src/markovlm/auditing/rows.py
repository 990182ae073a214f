"""A chain of thought from any source, and what was left out of a source."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
    final: str | None = None  # the final answer that stood behind the CoT and was cut off here; None: none was
    where: str = ""  # file and row, for messages
    also: tuple[str, ...] = ()  # other answers that count as right
    place: int | None = None  # of the gold answer among the choices, as the source counts them; None: `answer` says it
    hint: str | None = None  # what the writer's prompt said of the answer
    hinted: str | None = None  # the answer that the hint points to
    with_hint: str | None = None  # what the writer answered with the hint; None: `final`, or the CoT's end, says it
    without_hint: str | None = None  # what the writer answered to the same question without it

    @property
    def cut(self) -> bool:
        """Whether a final answer was cut off."""
        return self.final is not None


@dataclass(slots=True)
class CotSource:
    """The rows of one file."""

    kind: str  # "rows", "inspect", "lm-eval", "trl", "samples", "verl", "messages", "table"
    rows: list[AuditRow] = field(default_factory=list[AuditRow])
    skipped: list[str] = field(default_factory=list[str])  # one line each: where, why
    notes: list[str] = field(default_factory=list[str])
    # what tells this log from another of the same model: task, solver, …
    facts: dict[str, str] = field(default_factory=dict[str, str])
    shards: bool = True  # a group that two such files name is one group


class Unfit(Exception):
    """A record that is not a CoT with question and answer; the message says why. The reader of the file adds where."""


def text_of(values: Mapping[str, Any], name: str, *, empty: bool = False) -> str:
    """A field as text; numbers are written out. Unfit where it is absent, of another type, or (unless `empty`) blank."""
    value = values.get(name)
    there = ", ".join(map(repr, list(values)[:10])) or "nothing"
    return as_text(value, repr(name), empty=empty, absent=f"no {name!r}; the row has {there}")


def as_text(value: Any, what: str, *, empty: bool = False, absent: str = "") -> str:
    """A value as text; numbers are written out. Raises Unfit if it is not text, or (unless `empty`) blank."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Unfit((absent or f"no {what}") if value is None else f"{what} is {type(value).__name__}, not text")
    text = plain(str(value))
    if not empty and not text.strip():
        raise Unfit(f"{what} is empty")
    return text


def plain(text: str) -> str:
    """`text` without halves of surrogate pairs, which no file and no tokenizer can hold."""
    return text.encode("utf-8", "replace").decode("utf-8") if re.search("[\ud800-\udfff]", text) else text
