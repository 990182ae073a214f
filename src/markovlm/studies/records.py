"""What the files of RUN/loadbearing/ say: a model a kind, by which they are written and read; fields have the names of the JSON keys.

Log-likelihoods and drops are in nats per answer token, accuracies and shares from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationInfo

from markovlm.studies.fields import (
    LIST,
    NONE,
    PART,
    Count,
    Counts,
    Est,
    Estimate,
    Label,
    Named,
    Notes,
    Number,
    Place,
    Record,
    Share,
    Short,
    Step,
    Text,
    Truth,
    bounded,
    label_of,
    listed,
)  # fmt: skip

ACTOR = "actor"  # the reader that is the trained model itself
BASE = "base"  # the checkpoint that is the untrained model
MAX_UNITS = 3_000  # of one example
MAX_EXAMPLES = 12
MAX_COLUMNS, MAX_OWN_ROWS = 20, 1_000  # of a study of the user's
_FEW, _EXAMPLES, _UNITS = listed(100), listed(MAX_EXAMPLES), listed(MAX_UNITS)
HEADER = ("run", "seed", "others")  # `others`: results in other manners, whole


class Study(Record):
    """One file: what every kind has."""

    also: ClassVar[tuple[str, ...]] = HEADER
    kind: Label = ""
    checkpoint: Label = ""
    step: Step = 0
    split: Label = ""
    task: Label = ""
    model: Label = ""
    conditioning: Label = ""
    n: Count = None  # questions
    cots_per_question: Count = None
    notes: Notes = ()
    _path: Path = PrivateAttr(Path())

    @property
    def path(self) -> Path:
        """The file it was read from."""
        return self._path

    @property
    def about(self) -> tuple[str, str]:
        """What is counted, and what the reader may or may not see."""
        return "question", "question"

    @property
    def where(self) -> str:
        """`step-000050, test split, n=100`"""
        cots = f" × {self.cots_per_question} CoTs" if (self.cots_per_question or 1) > 1 else ""
        one, hidden = self.about
        n = f"n={self.n:,} {one}s{cots}" if self.n is not None else ""
        split = f"{self.split} split" if self.split else ""
        sight = {"markovian": f"{hidden} hidden", "non_markovian": f"{hidden} visible"}.get(self.conditioning, "")
        return ", ".join(part for part in (self.checkpoint or "checkpoint ?", split, n, sight) if part)


class AnsweredCot(Record):
    """One CoT, and the answer that was read from it."""

    id: Label = ""
    question: Text = ""
    gold: Short = ""
    answer: Short = ""
    correct: Truth = None


# --- damage ------------------------------------------------------------------------------------------------------------


class Paraphrases(Record):
    """How many of a paraphraser's replies were accepted; `rejected` counts the others by reason, and leaves their CoTs as they were."""

    also = ("by",)
    temperature: Number = None
    asked: Count = None
    accepted: Count = None
    rejected: Counts = Field(default_factory=dict)


class Damage(Record):
    """One perturbation at one severity. drop = ln pi(a|z) - ln pi(a|p(z)); fragility = this run's drop less the other run's."""

    also = ("against",)
    perturbation: Named = "?"
    level: Label = ""  # character, token, meaning
    severity: Share = None
    n: Count = None
    changed: Share = None  # share of CoTs that the perturbation changed
    drop_logprob: Est = NONE
    drop_accuracy: Est = NONE  # 0.55 = 55 points
    fragility: Est = NONE
    fragility_accuracy: Est = NONE
    expect: Label = ""  # what should happen: nothing, follow, degrade
    as_expected: Est = NONE  # how often it does, of the CoTs that were changed
    paraphraser: Label = ""  # the model that paraphrased, where it was one
    paraphrases: Annotated[Paraphrases, PART] = Paraphrases()

    @property
    def name(self) -> str:
        """`token_truncate_back` -> `truncate back`; the level is said apart."""
        name = self.perturbation.replace("_", " ").replace("-", " ").strip().lower()
        return name.removeprefix(f"{self.level} ") if self.level else name

    @property
    def label(self) -> str:
        name = f"{self.name} by {self.paraphraser}" if self.paraphraser else self.name
        return f"{name} ({self.level})" if self.level else name


class Against(Record):
    """The other run of a fragility."""

    results = ("run", "checkpoint", "conditioning", "model")
    run: Label = ""
    checkpoint: Label = ""
    conditioning: Label = ""
    model: Label = ""


class Intact(Record):
    """What is read from undamaged CoTs; or how much more than from others."""

    logprob: Est = NONE
    accuracy: Est = NONE


class Perturb(Study):
    """Damage to the CoT."""

    results = ("rows",)
    against: Annotated[Against, PART] = Against()
    round_trip_gap: Est = NONE  # what decode and encode alone cost
    intact: Annotated[Intact, PART] = Intact()
    intact_against: Annotated[Intact, PART] = Intact()
    rows: Annotated[tuple[Damage, ...], LIST] = ()


# --- other readers -----------------------------------------------------------------------------------------------------


class Point(Record):
    """One checkpoint's CoTs, read by one reader. `vs_base` is over the base model's CoTs read by the same reader."""

    checkpoint: Named = "?"
    step: Step = 0
    reader: Named = "?"
    n: Count = None
    logprob: Est = NONE
    accuracy: Est = NONE
    vs_base: Annotated[Intact, PART] = Intact()


class Correlation(Record):
    """Spearman's rank correlation of a reader's curve with the actor's, over `n` checkpoints."""

    reader: Named = "?"
    spearman: Number = None
    n: Count = None
    p: Share = None


class Reader(Record):
    """A model that reads."""

    also = ("prompt_style",)
    reader: Label = ""
    model: Label = ""


class Transfer(Study):
    """Other models reading the CoTs."""

    also = (*HEADER, "reader_conditioning")
    results = ("points",)
    readers: Annotated[tuple[Reader, ...], _FEW] = ()
    points: Annotated[tuple[Point, ...], LIST] = ()
    correlation: Annotated[tuple[Correlation, ...], LIST] = ()

    @property
    def models(self) -> dict[str, str]:
        """Reader -> model."""
        return {one.reader: one.model for one in self.readers}


# --- which parts of a CoT ----------------------------------------------------------------------------------------------


class KindLoad(Record):
    """Units of one kind. `share` of the whole load, `share_of_units` of all units."""

    kind: Named = "?"
    units: Count = None
    questions: Count = None  # that have such a unit
    drop: Est = NONE
    filler: Est = NONE  # the drop by as much filler with nothing taken away
    share: Number = None
    share_of_units: Share = None


class Stretch(Record):
    """Two positions in the CoT, 0 its start and 1 its end."""

    start: Place = Field(alias="from")
    end: Place = Field(alias="to")

    @property
    def label(self) -> str:
        return f"{100 * self.start:.0f} to {100 * self.end:.0f} %"


class PositionLoad(Stretch):
    """Units between two positions."""

    also = ("questions",)
    units: Count = None
    drop: Est = NONE
    filler: Est = NONE


class Unit(Record):
    """One unit of one CoT; `drop` is exact for that CoT, so it has no interval."""

    also = ("start", "filler")
    text: Short = ""
    kind: Label = ""
    drop: Number = None


class Explained(AnsweredCot):
    """One CoT, unit by unit. `drop` is of ln pi(target|CoT)."""

    also = ("choices", "cot", "extracted", "how", "by")
    results = ("units",)
    target: Short = ""
    logprob: Number = None
    units: Annotated[tuple[Unit, ...], _UNITS] = ()


class Explain(Study):
    """Which parts of the CoT carry the answer."""

    also = (*HEADER, "most", "attributions", "questions", "units", "top_examples")
    results = ("by_kind", "by_position", "explained")
    by: Label = ""  # token, word, sentence
    how: Label = ""  # remove, replace
    by_kind: Annotated[tuple[KindLoad, ...], _FEW] = ()
    by_position: Annotated[tuple[PositionLoad, ...], _FEW] = ()
    examples: Annotated[tuple[Explained, ...], _EXAMPLES] = ()

    @property
    def unit(self) -> str:
        return self.by or "unit"

    @property
    def done(self) -> str:
        """What becomes of a unit: `removed`."""
        return {"replace": "replaced"}.get(self.how, "removed")

    @property
    def explained(self) -> list[Explained]:
        """The examples that have units."""
        return list(filter(None, self.examples))


# --- without the CoT ---------------------------------------------------------------------------------------------------


class Control(Record):
    """The CoT replaced. `survives`: share still right, among those right with the own CoT."""

    control: Named = "?"  # own, empty, other, filler
    reader: Label = ""  # "sees the question", "question hidden"
    n: Count = None
    accuracy: Est = NONE
    logprob: Est = NONE
    survives: Est = NONE


class Bypass(Study):
    """How far the answer survives without the CoT. `bypass`: with the question visible, mean over the controls."""

    results = ("rows", "bypass")
    rows: Annotated[tuple[Control, ...], _FEW] = ()
    bypass: Est = NONE


def _quartiles(value: Any) -> tuple[float, ...]:
    known = [q for q in value if isinstance(q, int | float) and 0 <= q <= 1] if isinstance(value, list | tuple) else []
    return tuple(known) if len(known) == len(value or ()) == 3 else ()


class Position(Record):
    """Where in its CoT the answer first appears, 0 the start and 1 the end."""

    mean: Share = None
    quartiles: Annotated[tuple[float, ...], BeforeValidator(_quartiles)] = ()  # three or none


class Leak(Study):
    """Whether the CoT holds the gold answer as a plain copy, where, and what is left when it is cut there."""

    results = ("leaks",)
    cots: Count = None
    leaks: Est = NONE
    leaks_other: Est = NONE  # of another question's answer: chance
    position: Annotated[Position, PART] = Position()
    accuracy: Est = NONE
    accuracy_cut_before: Est = NONE
    logprob: Est = NONE
    logprob_cut_before: Est = NONE
    drop_accuracy: Est = NONE
    drop_logprob: Est = NONE


# --- a user's own ------------------------------------------------------------------------------------------------------

Value = str | bool | int | float | Estimate | None


def _values(rows: Any, info: ValidationInfo) -> tuple[dict[str, Value], ...]:
    """Rows as they were written; when read, anything but text, number or estimate is missing."""
    if not isinstance(rows, list | tuple):
        return ()
    known = [row for row in rows[:MAX_OWN_ROWS] if isinstance(row, Mapping)]
    return tuple({label_of(key): _value(value, info) for key, value in list(row.items())[:MAX_COLUMNS]} for row in known)


def _value(value: Any, info: ValidationInfo) -> Value:
    if isinstance(value, Mapping):
        return Estimate.model_validate(value, context=info.context)
    if isinstance(value, str):
        return bounded(value, 300)
    return value if is_plain(value) else None


def is_plain(value: Any) -> bool:
    """Text, a finite number, true, false or None: what a cell of a user's study may hold beside an estimate."""
    return value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


class Own(Study):
    """A study that a user registered (`register.study`): a question, and rows of column -> value."""

    results = ("rows",)
    study: Named = "?"
    question: Short = ""
    rows: Annotated[tuple[dict[str, Any], ...], BeforeValidator(_values)] = ()


# --- changed on purpose, and drawn again -------------------------------------------------------------------------------


class ThreeWay(Record):
    """What the answer follows when one number of the CoT is changed and the rest recalculated. Shares."""

    reader: Label = ""  # "sees the question", "question hidden"
    n: Count = None
    right_before: Est = NONE
    follows: Est = NONE  # the changed CoT
    question: Est = NONE  # stays with the question's answer
    neither: Est = NONE


def _answers(value: Any, info: ValidationInfo) -> dict[str, str]:
    if not isinstance(value, Mapping) or info.context is None:
        return dict(value) if isinstance(value, Mapping) else {}
    return {label_of(reader): bounded(answer, 500) for reader, answer in list(value.items())[:4]}


class ChangedCot(Record):
    """One CoT, its changed form, and the answer read from that by each reader (nothing where none was)."""

    id: Label = ""
    question: Text = ""
    gold: Short = ""
    cot: Text = ""
    changed: Text = ""
    result: Short = ""
    answers: Annotated[dict[str, str | None], BeforeValidator(_answers)] = Field(default_factory=dict)


class Intervention(Study):
    """`changed` of `cots` CoTs had a number to change."""

    also = (*HEADER, "outcomes")
    results = ("rows",)
    cots: Count = None
    changed: Count = None
    rows: Annotated[tuple[ThreeWay, ...], _FEW] = ()
    examples: Annotated[tuple[ChangedCot, ...], _EXAMPLES] = ()


class PlaceCause(Stretch):
    """Sentences between two places: what they cause (tv, kl, accuracy) beside what they bear (occlusion)."""

    sentences: Count = None
    tv: Est = NONE
    chance: Est = NONE
    kl: Est = NONE
    accuracy_drop: Est = NONE
    occlusion: Est = NONE


class Sentence(Record):
    """One sentence of one CoT. `tv`: distance of the answers with and without it; without a counterfactual it has none."""

    also = ("start", "kept", "alternatives")
    text: Short = ""
    occlusion: Number = None
    lacking: Count = None  # continuations that have another sentence
    kl: Est = NONE
    tv: Est = NONE
    chance: Share = None
    p: Share = None
    accuracy_with: Share = None
    accuracy_without: Share = None
    accuracy_drop: Est = NONE


class ResampledCot(AnsweredCot):
    """One CoT, sentence by sentence."""

    also = ("cot",)
    results = ("sentences",)
    sentences: Annotated[tuple[Sentence, ...], _UNITS] = ()


class Resample(Study):
    """What sentences cause, by K continuations of the writer."""

    also = (*HEADER, "smoothing", "cost", "sentences", "without_counterfactual")
    results = ("by_position", "resampled")
    k: Count = None
    criterion: Short = ""
    by_position: Annotated[tuple[PlaceCause, ...], _FEW] = ()
    rank_correlation: Est = NONE  # within a CoT, of what sentences cause and what they bear
    cots: Annotated[tuple[ResampledCot, ...], LIST] = ()

    @property
    def resampled(self) -> list[ResampledCot]:
        """The CoTs that have sentences."""
        return list(filter(None, self.cots))
