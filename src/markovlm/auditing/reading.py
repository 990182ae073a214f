"""One reader's part of an audit: every CoT read alone, with the question, left out, perturbed, cut, and sentence by sentence.

The studies are those of a run (`analysis`), each group of CoTs in the place of a run's own. Readings are kept as they come in the
audit's folder, so that an interrupted audit continues and two groups that share a CoT have it read once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from markovlm.analysis.attribution import Attribution, aggregate
from markovlm.analysis.controls import bypass, cut_before, leak
from markovlm.analysis.explain import Manner, attribute
from markovlm.analysis.fragility import RAW, measure_damage, perturb_result, whole
from markovlm.analysis.leak import first_appearance
from markovlm.analysis.scoring import Scored, Variant
from markovlm.analysis.study import Counting, Reader, Study, StudyCot
from markovlm.auditing.plan import AuditRequest
from markovlm.auditing.readers import CHOICES, HIDDEN, SIGHTED, Encoded, OpenReader, Pace, encode_all, read_texts, text_digest

MOST_SHOWN = 3  # CoTs of a group with their load, on the page


@dataclass(slots=True)
class GroupRead:
    """One reader's results on one group; one value per CoT in the order of `cots`."""

    cots: list[StudyCot]
    alone: list[Scored]  # from the CoT alone
    both: list[Scored]  # from question and CoT
    question: list[Scored]  # from the question alone
    nothing: list[Scored]  # from neither: what anybody could guess
    cut: list[Scored]  # from the CoT cut before the gold answer first stands in it; the whole CoT where it never does
    reasoned: list[Scored]  # the worse of the whole CoT and the CoT cut before the gold answer first stands in it
    stated: list[bool]  # does the gold answer stand in it?
    # from the CoT, with the choices visible; none where answers are no letters
    with_choices: list[Scored] = field(default_factory=list[Scored])
    choices_alone: list[Scored] = field(default_factory=list[Scored])  # from the choices alone
    # (ln p(CoT | question), tokens); none if not asked for
    text: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    studies: dict[str, Any] = field(default_factory=dict[str, Any])
    shown: list[Attribution] = field(default_factory=list[Attribution])

    @property
    def as_read(self) -> list[Scored]:
        """What the studies and the order go by: letters mean nothing without the choices."""
        return self.with_choices or self.alone

    @property
    def baseline(self) -> list[Scored]:
        """What can be guessed from what is visible beside the CoT."""
        return self.choices_alone or self.nothing


@dataclass(frozen=True, slots=True)
class ReaderRead:
    """One reader's part."""

    reader: str
    model: str
    prompt_style: str
    groups: dict[str, GroupRead]
    too_long: int  # CoTs that don't fit its context
    unknown: float  # share of the CoTs' tokens that are its unknown token


def read_all(opened: OpenReader, request: AuditRequest, counting: Counting | None, say: Callable[[str], None]) -> ReaderRead:
    """Everything asked for, by one reader: first all readings together, CoT by CoT, then the studies, which find them kept."""
    gathered = gather_studies(opened, request)
    encoded = gathered.encoded
    say(f"{opened.name}: {_about(encoded.cost)}")
    opened.reader.on_batch = Pace(opened, say).saw
    opened.reader.read([variant for variants in gathered.wanted.values() for variant in variants], "readings")
    opened.reader.on_batch = None
    found = {group: _read_group(study, request) for group, study in gathered.studies.items()}
    if "legibility" in request.parts:
        texts = read_texts(opened, [cot for own in found.values() for cot in own.cots], request.out, counting)
        for own in found.values():
            own.text = [texts[text_digest(cot)] for cot in own.cots]
    return ReaderRead(opened.name, opened.model, opened.setup.prompter.style, found, encoded.too_long, encoded.unknown)


@dataclass(frozen=True, slots=True)
class Gathered:
    """What one reader is to read."""

    opened: OpenReader
    encoded: Encoded
    studies: dict[str, Study]  # by group
    wanted: dict[str, list[Variant]]  # by group, every variant that its studies will ask for

    def by_question(self) -> list[list[Variant]]:
        """The variants of the first question of every group, of the second, …"""
        found: list[list[Variant]] = []
        for variants in self.wanted.values():
            numbers: dict[str, int] = {}
            for variant in variants:
                number = numbers.setdefault(variant.example.id, len(numbers))
                while len(found) <= number:
                    found.append([])
                found[number].append(variant)
        return found


def gather_studies(opened: OpenReader, request: AuditRequest) -> Gathered:
    """The studies of every group with a CoT that fits, and the variants that they will need."""
    encoded = encode_all(opened, request)
    studies = {group: _study(opened, group, cots, request) for group, cots in encoded.fits.items() if cots}
    return Gathered(opened, encoded, studies, {group: wanted(study, request) for group, study in studies.items()})


def _study(opened: OpenReader, group: str, cots: list[StudyCot], request: AuditRequest) -> Study:
    mark = hashlib.blake2b(group.encode(), digest_size=4).hexdigest()
    label = replace(opened.label, checkpoint=f"group-{mark}")
    target = replace(opened.target, name=opened.name)
    return Study(target, opened.setup, label, cots, request.out, opened.reader, same_source=False)


@dataclass(slots=True)
class _Wishes(Reader):
    """Reads nothing and remembers what it was asked for."""

    wishes: list[Variant] = field(default_factory=list[Variant])

    def read(self, variants: Sequence[Variant], doing: str) -> list[Scored]:
        self.wishes += variants
        return [Scored(0.0, correct=False if self.setup.task.extractors else None)] * len(variants)


class _Rehearsal(Study):
    """A study that keeps no result."""

    def write(self, *_: Any, **__: Any) -> Path:
        return self.folder


def wanted(study: Study, request: AuditRequest) -> list[Variant]:
    """Every variant that the studies of a group will need: none of them depends on results of another."""
    wishes = _Wishes(study.setup, study.reader.frozen, study.reader.path)
    rehearsal = _Rehearsal(study.target, study.setup, study.label, study.cots, study.folder, wishes, same_source=False)
    _read_group(rehearsal, request)
    return wishes.wishes


def _about(cost: Mapping[str, int]) -> str:
    parts = ", ".join(f"{part} {tokens:,}" for part, tokens in cost.items())
    return f"about {sum(cost.values()):,} tokens to read, not counting answers ({parts}); what was read before is kept"


# ------------------------------------------------------------------------------------------------------------ one group


def _read_group(study: Study, request: AuditRequest) -> GroupRead:
    cots, kind = study.cots, study.setup.task.answer_type
    empty = [Variant(cot.example, cot.number, "empty", (), cot.ids, HIDDEN) for cot in cots]
    sees = study.conditioning
    alone = study.read([whole(study, cot, RAW, HIDDEN) for cot in cots], "CoTs alone")
    both = study.read([whole(study, cot, RAW, SIGHTED) for cot in cots], "question and CoT")
    question = study.read([replace(variant, conditioning=SIGHTED) for variant in empty], "questions alone")
    nothing = study.read(empty, "nothing")
    places = [first_appearance(cot.text, cot.example.answer, kind, cot.example.choices) for cot in cots]
    cut = study.read(
        [
            whole(study, cot, RAW) if place is None else cut_before(study, cot, place)
            for cot, place in zip(cots, places, strict=True)
        ],
        "CoTs cut before the answer",
    )
    found = GroupRead(list(cots), alone, both, question, nothing, cut, [], [place is not None for place in places])
    if sees == CHOICES:
        found.with_choices = study.read([whole(study, cot, RAW) for cot in cots], "CoTs and choices")
        found.choices_alone = study.read([replace(variant, conditioning=CHOICES) for variant in empty], "choices alone")
    found.reasoned = [_worse(a, b) for a, b in zip(found.as_read, cut, strict=True)]
    if "bypass" in request.parts:
        found.studies["bypass"] = bypass(study)[0]
    if "leak" in request.parts:
        found.studies["leak"] = leak(study)[0]
    if "damage" in request.parts:
        found.studies["damage"] = perturb_result(measure_damage(study, request.plan), None)
    if "load" in request.parts:
        attributions = attribute(study, study.cots, Manner("sentence", "remove", request.most_sentences))
        found.studies["load"] = aggregate(attributions, request.seed)
        found.shown = [one for one in attributions if one.units][:MOST_SHOWN]
    return found


def _worse(one: Scored, other: Scored) -> Scored:
    """Right only if both are, and as likely as the less likely."""
    right = None if one.correct is None or other.correct is None else one.correct and other.correct
    return Scored(min(one.logprob, other.logprob), correct=right)
