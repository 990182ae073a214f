"""States that follow each other: their record, and what of it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AliasChoices, Field

from markovlm.studies.fields import LIST, NONE, PART, Count, Est, Label, Named, Number, Record, Share, Truth, Whole, listed
from markovlm.studies.records import HEADER, Study
from markovlm.studies.words import spoken

MAX_LAGS = 5_000  # rows of damage: perturbations x severities x lags
_SHOWN = 0.6  # the severity that is shown and put in words: at 100 % several perturbations leave the same, nothing


class LagDamage(Record):
    """One perturbation of a state at one severity, measured on what is predicted `lag` chunks (or pieces) later."""

    perturbation: Named = "?"
    severity: Share = None
    lag: Annotated[Whole, Field(ge=0)]
    predicted: Label = ""  # answer, next_chunk
    n: Count = None
    drop_logprob: Est = NONE  # nats a predicted token
    drop_accuracy: Est = NONE
    state_differs: Est = NONE  # share of the states there that are other ones


class ChainDamage(Record):
    """Of all states."""

    also = ("steps_damaged",)
    rows: Annotated[tuple[LagDamage, ...], listed(MAX_LAGS)] = ()


class ChainWords(Record):
    """Words of states: how many stand in the next state."""

    also = ("texts",)
    survival: Est = NONE


class Known(Record):
    """One question put to the state after chunk `t`."""

    t: Annotated[Whole, Field(ge=0)]
    logprob: Number = None
    correct: Truth = None


class Fact(Record):
    """A question put to every state; `fact` is the chunk that contains its answer."""

    also = ("after",)
    results = ("known",)
    text: Label = ""
    question: Label = ""
    answer: Label = ""
    fact: Count = None
    known: Annotated[tuple[Known, ...], LIST] = ()


class KnownShare(Record):
    """How well answers are read at one age of their fact (below 0: not read yet), or after one chunk."""

    also = ("age", "t")
    at: Whole = Field(validation_alias=AliasChoices("age", "t", "at"))
    n: Count = None
    accuracy: Est = NONE
    logprob: Est = NONE


class Facts(Record):
    """When facts enter the states, and how long they stay."""

    questions: Annotated[tuple[Fact, ...], LIST] = ()
    by_age: Annotated[tuple[KnownShare, ...], LIST] = ()
    by_t: Annotated[tuple[KnownShare, ...], LIST] = ()

    @property
    def read(self) -> list[Fact]:
        """The questions that were put to a state."""
        return list(filter(None, self.questions))


class Chains(Study):
    """States that follow each other: damage, facts, words that survive."""

    also = (*HEADER, "texts", "state_tokens")
    chain: Label = ""  # notes, notes_then_questions, thinking
    damage: Annotated[ChainDamage, PART] = ChainDamage()
    words: Annotated[ChainWords, PART] = ChainWords()
    facts: Annotated[Facts, PART] = Facts()

    @property
    def thinks(self) -> bool:
        return self.chain == "thinking"

    @property
    def about(self) -> tuple[str, str]:
        return ("question", "question") if self.thinks else ("text", "past")

    def __bool__(self) -> bool:
        return bool(self.damage.rows or self.facts.read or self.words.survival)


def damage_by_lag(found: Chains) -> dict[tuple[str, str, float], list[LagDamage]]:
    """(perturbation, what is predicted, severity) -> rows by lag, answers first; without the identity check at 0."""
    rows: dict[tuple[str, str, float], list[LagDamage]] = {}
    for row in sorted(found.damage.rows, key=lambda row: (row.predicted != "answer", row.lag)):
        if row.severity:
            rows.setdefault((spoken(row.perturbation), row.predicted.replace("_", " "), row.severity), []).append(row)
    return rows


def chief_damage(found: Chains) -> dict[tuple[str, str], list[LagDamage]]:
    """(perturbation, what is predicted) -> rows by lag at the severity nearest to 60 %."""
    rows = damage_by_lag(found)
    nearest = sorted(rows, key=lambda key: (abs(key[2] - _SHOWN), key[2]))
    at = {key[:2]: key for key in reversed(nearest)}
    return {key[:2]: rows[key] for key in rows if at[key[:2]] == key}


def known_by(found: Chains) -> tuple[str, Sequence[KnownShare]]:
    """What answers are counted by: the age of their fact where it is known, else the state they are read from."""
    if found.facts.by_age:
        return "age of the fact, chunks", found.facts.by_age
    return ("piece" if found.thinks else "after chunk"), found.facts.by_t
