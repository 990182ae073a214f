"""Word problems of one to four steps: how they are drawn, written, solved in sentences, and changed. Standard library only.

    Maya has 14 pears at home. She buys 3 bags of 5 pears. Sam is 9 years old. She gives Sam 8. How many pears does Maya have now?

A `Problem` is its facts; question text, steps, chain of thought and answer are computed from them. So a problem with one
fact changed (`dataclasses.replace`, `with_number`) is a problem again, right by construction. The chain of thought is one
sentence a step after one that says who has what:

    First Maya has 14 pears. 3 bags of 5 are 3 * 5 = 15. Add them, 14 + 15 = 29. Take away 8, 29 - 8 = 21.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from markovlm.tasks.arithmetic_data import SPLITS, Split
from markovlm.tasks.words_pools import (
    DISTRACTORS,
    GROUPS,
    HE,
    KINDS,
    QUESTIONS,
    SHE,
    TEMPLATES,
    THINGS,
    Asked,
    Kind,
)

Op = Literal["+", "-", "*"]
COMPUTE = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
COSTS: dict[Kind, int] = {kind: {"start": 0, "gain_groups": 2, "lose_groups": 2}.get(kind, 1) for kind in KINDS}
_COMPARED = ("times", "more", "fewer")  # about another person: only as the last event
_EQUATION = re.compile(r"(\d+) ([-+*]) (\d+) = (\d+)")
_MOST_TRIES = 1000


@dataclass(frozen=True, slots=True)
class WordsSpec:
    """Which problems are asked. `distractors`: at most so many; `templates`: the split's own, or those of training."""

    min_steps: int = 1
    max_steps: int = 4
    distractors: int = 1
    max_value: int = 99
    templates: Literal["held_out", "train"] = "held_out"
    question: Literal["either", "end", "start"] = "either"

    def __post_init__(self) -> None:
        for field in ("min_steps", "max_steps", "distractors", "max_value"):
            _require(type(getattr(self, field)) is int, field, "must be an integer", getattr(self, field))
        _require(1 <= self.min_steps <= 4, "min_steps", "must be 1 to 4", self.min_steps)
        _require(self.min_steps <= self.max_steps <= 4, "max_steps", f"must be {self.min_steps} to 4", self.max_steps)
        _require(0 <= self.distractors <= 3, "distractors", "must be 0 to 3", self.distractors)
        _require(20 <= self.max_value <= 999, "max_value", "must be 20 to 999", self.max_value)
        _require(self.templates in ("held_out", "train"), "templates", "must be held_out or train", self.templates)
        _require(self.question in ("either", "end", "start"), "question", "must be either, end or start", self.question)


def _require(holds: bool, field: str, wanted: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{field}: {wanted}, got {value!r}")


@dataclass(frozen=True, slots=True)
class Event:
    """One fact: `Event("gain_groups", "{N} buys {m} {g} of {k} {t}.", number=5, groups=3, unit="bags")`.

    `pronoun`: told of "She" or "He" instead of the name, unless the sentence before names somebody else.
    """

    kind: Kind
    template: str
    number: int
    groups: int = 0
    unit: str = ""
    pronoun: bool = False


@dataclass(frozen=True, slots=True)
class Distractor:
    """A sentence that changes nothing, placed before event number `before` (or last)."""

    template: str
    number: int
    thing: str
    before: int


@dataclass(frozen=True, slots=True)
class Step:
    """One operation: `Step(14, "+", 15, 29, left_from=None, right_from=0)`. `*_from`: the step whose result an operand is."""

    left: int
    op: Op
    right: int
    result: int
    left_from: int | None = None
    right_from: int | None = None

    @property
    def text(self) -> str:
        """`14 + 15 = 29`"""
        return f"{self.left} {self.op} {self.right} = {self.result}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Everything that decides a problem. `she`: the pronoun of `name`."""

    split: Split
    name: str
    she: bool
    other: str
    thing: str
    events: tuple[Event, ...]  # the first is `start` or `start_groups`
    distractors: tuple[Distractor, ...]
    asked: Asked
    question_template: str
    question_first: bool

    @property
    def steps(self) -> tuple[Step, ...]:
        """The operations in order; their last result is the answer."""
        return tuple(step for step, _ in _solve(self))

    @property
    def answer(self) -> int:
        return self.steps[-1].result

    @property
    def cot_sentences(self) -> tuple[str, ...]:
        """The reference chain of thought. Sentence 0 says who has what, sentence i > 0 ends in `steps[i - 1]`, except that a
        start in groups makes sentence 0 the first step."""
        first = self.events[0]
        sentences = tuple(sentence for _, sentence in _solve(self))
        return sentences if first.kind == "start_groups" else (f"First {self.name} has {first.number} {self.thing}.", *sentences)

    @property
    def cot(self) -> str:
        return " ".join(self.cot_sentences)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The sentences of the story with distractors in their places, without the question."""
        told: list[str] = []
        before = ""
        for i, event in enumerate(self.events):
            between = [d for d in self.distractors if d.before == i]
            told += [self._tell_distractor(d) for d in between]
            before = "".join((before, *(d.template for d in between)))
            told.append(self._tell(event, pronoun=event.pronoun and "{M}" not in before))
            before = event.template
        return (*told, *(self._tell_distractor(d) for d in self.distractors if d.before >= len(self.events)))

    @property
    def question_sentence(self) -> str:
        return self._fill(self.question_template, self.name)

    @property
    def question(self) -> str:
        """The whole text that is asked."""
        last = self.question_sentence
        return " ".join((last, *self.sentences) if self.question_first else (*self.sentences, last))

    @property
    def templates(self) -> tuple[str, ...]:
        """Every template the text is made of."""
        return (*(e.template for e in self.events), *(d.template for d in self.distractors), self.question_template)

    @property
    def words(self) -> frozenset[str]:
        """Names and things that may occur in the text."""
        return frozenset((self.name, self.other, self.thing, *(d.thing for d in self.distractors)))

    def with_number(self, event: int, number: int) -> Problem:
        """The number of one event changed. Raises ValueError if a result would be negative."""
        events = list(self.events)
        events[event] = replace(events[event], number=number)
        changed = replace(self, events=tuple(events))
        if min((step.result for step in changed.steps), default=0) < 0:
            raise ValueError(f"number: {number} of event {event} makes a result negative")
        return changed

    def renamed(self, names: dict[str, str]) -> Problem:
        """Names and things replaced consistently, everywhere."""
        distractors = tuple(replace(d, thing=names.get(d.thing, d.thing)) for d in self.distractors)
        name, other, thing = (names.get(word, word) for word in (self.name, self.other, self.thing))
        return replace(self, name=name, other=other, thing=thing, distractors=distractors)

    def _tell(self, event: Event, pronoun: bool) -> str:
        subject = _pronoun(event.template, self.she) if pronoun else self.name
        return self._fill(event.template, subject, event.number, event.groups, event.unit)

    def _tell_distractor(self, distractor: Distractor) -> str:
        return self._fill(distractor.template, self.name, distractor.number).replace("{u}", distractor.thing)

    def _fill(self, template: str, subject: str, number: int = 0, groups: int = 0, unit: str = "") -> str:
        slots = {"{N}": subject, "{M}": self.other, "{t}": self.thing, "{g}": unit, "{k}": str(number), "{m}": str(groups)}
        for slot, text in slots.items():
            template = template.replace(slot, text)
        return template


def _pronoun(template: str, she: bool) -> str:
    """As `{N}` needs it: `{N} buys` -> She, `Then {N} buys` -> she, `{M} gives {N}` -> her."""
    if template.startswith("{N}"):
        return "She" if she else "He"
    if template.startswith("{M}"):
        return "her" if she else "him"
    return "she" if she else "he"


def _solve(problem: Problem) -> list[tuple[Step, str]]:
    """Each step with its sentence."""
    done: list[tuple[Step, str]] = []
    value, source = 0, None

    def add(left: int, op: Op, right: int, text: str, left_from: int | None, right_from: int | None = None) -> int:
        step = Step(left, op, right, COMPUTE[op](left, right), left_from, right_from)
        done.append((step, text.replace("@", step.text)))
        return step.result

    for event in problem.events:
        kind, k, m = event.kind, event.number, event.groups
        before, before_from = value, source
        if kind == "start":
            value = k
            continue
        if kind == "start_groups":
            value = add(m, "*", k, f"First {problem.name} has @ {problem.thing}.", None)
        elif kind in ("gain", "lose"):
            text = f"Add {k}, @." if kind == "gain" else f"Take away {k}, @."
            value = add(value, "+" if kind == "gain" else "-", k, text, source)
        elif kind in ("gain_groups", "lose_groups"):
            many = add(m, "*", k, f"{m} {event.unit} of {k} are @.", None)
            text = "Add them, @." if kind == "gain_groups" else "Take them away, @."
            value = add(value, "+" if kind == "gain_groups" else "-", many, text, source, len(done) - 1)
        else:
            op: Op = {"times": "*", "more": "+", "fewer": "-"}[kind]  # pyright: ignore[reportAssignmentType]
            phrase = f"{k} times as many" if kind == "times" else f"{k} {kind}"
            value = add(value, op, k, f"{problem.other} has {phrase}, @.", source)
        source = len(done) - 1
        if kind in _COMPARED and problem.asked == "together":
            value = add(before, "+", value, "Together they have @.", before_from, source)
            source = len(done) - 1
    return done


def follow(steps: tuple[Step, ...], index: int, **changed: int) -> tuple[Step, ...]:
    """The steps with an operand or the result of one changed (`left=`, `right=`, `result=`) and all later ones recomputed.

    >>> follow(problem.steps, 1, right=6)[-1].result   # what who follows the changed chain of thought must answer
    """
    if set(changed) - {"left", "right", "result"}:
        raise ValueError(f"changed: must be left, right or result, got {', '.join(changed)}")
    new: list[Step] = []
    for i, step in enumerate(steps):
        left = step.left if step.left_from is None else new[step.left_from].result
        right = step.right if step.right_from is None else new[step.right_from].result
        result = None
        if i == index:
            left, right, result = changed.get("left", left), changed.get("right", right), changed.get("result")
        new.append(replace(step, left=left, right=right, result=COMPUTE[step.op](left, right) if result is None else result))
    return tuple(new)


def rewritten(sentences: tuple[str, ...], steps: tuple[Step, ...]) -> tuple[str, ...]:
    """The sentences with their equations replaced, in order, by those of `steps`. Raises ValueError if the numbers differ."""
    if sum(bool(_EQUATION.search(sentence)) for sentence in sentences) != len(steps):
        raise ValueError("steps: as many as sentences with an equation")
    left = iter(steps)
    return tuple(_EQUATION.sub(lambda _: next(left).text, sentence, count=1) for sentence in sentences)


def draw(spec: WordsSpec, split: Split, seed: int, index: int) -> Problem:
    """Problem number `index` of an endless stream: a pure function of its arguments. Names, things and templates are the
    split's own (templates those of training where the spec says so)."""
    if split not in SPLITS:
        raise ValueError(f"split: must be one of {', '.join(SPLITS)}; got {split!r}")
    rng = random.Random(f"markovlm/words:{split}:{seed}:{index}")
    steps = rng.randint(spec.min_steps, spec.max_steps)
    for _ in range(_MOST_TRIES):
        problem = _draw_once(spec, split, steps, rng)
        if problem is not None:
            return problem
    raise ValueError(f"no problem of {spec} with {steps} steps was found in {_MOST_TRIES} draws")


def _draw_once(spec: WordsSpec, split: Split, steps: int, rng: random.Random) -> Problem | None:
    """A problem of so many steps, or None if its numbers do not fit."""
    templates: Split = "train" if spec.templates == "train" else split
    she = rng.random() < 0.5
    name = rng.choice((SHE if she else HE)[split])
    other = rng.choice([person for person in (*SHE[split], *HE[split]) if person != name])
    thing = rng.choice(THINGS[split])
    kinds, asked = _draw_kinds(steps, rng)
    events: list[Event] = []
    for kind in kinds:
        event = Event(kind, _pick(TEMPLATES[kind][templates], rng), *_draw_numbers(kind, spec.max_value, rng))
        events.append(replace(event, pronoun=bool(events) and kind not in _COMPARED and rng.random() < 0.7))
    first = spec.question == "start" or (spec.question == "either" and rng.random() < 0.25)
    problem = Problem(split, name, she, other, thing, tuple(events), (), asked, _pick(QUESTIONS[asked][templates], rng), first)
    if any(not 0 < step.result <= spec.max_value for step in problem.steps):
        return None
    unlike = [candidate for candidate in THINGS[split] if candidate != thing]
    distractors = tuple(
        Distractor(_pick(DISTRACTORS[templates], rng), rng.randint(2, 40), rng.choice(unlike), rng.randint(1, len(events)))
        for _ in range(rng.randint(0, spec.distractors))
    )
    return replace(problem, distractors=distractors)


def _pick(templates: Sequence[str], rng: random.Random) -> str:
    """The shorter of two templates: long ones are rarer."""
    return min(rng.choices(templates, k=2), key=len)


def _draw_kinds(steps: int, rng: random.Random) -> tuple[list[Kind], Asked]:
    """Kinds of events that take exactly `steps` operations."""
    kinds: list[Kind] = ["start_groups" if rng.random() < (0.2 if steps > 1 else 0.3) else "start"]
    left = steps - COSTS[kinds[0]]
    asked: Asked = "own"
    last: list[Kind] = []
    if left and rng.random() < 0.35:
        asked = "together" if left > 1 and rng.random() < 0.4 else "other"
        last = [rng.choice(("more", "fewer") if asked == "together" else ("times", "more", "fewer"))]
        left -= 2 if asked == "together" else 1
    while left:
        kind: Kind = rng.choice(("gain", "lose", "gain_groups", "lose_groups") if left > 1 else ("gain", "lose"))
        kinds.append(kind)
        left -= COSTS[kind]
    return [*kinds, *last], asked


def _draw_numbers(kind: Kind, most: int, rng: random.Random) -> tuple[int, int, str]:
    """Number, groups and unit of an event."""
    if kind in ("start_groups", "gain_groups", "lose_groups"):
        return rng.randint(2, 9), rng.randint(2, 9 if kind == "start_groups" else 6), rng.choice(GROUPS)
    highest = {"start": most * 4 // 5, "times": 5}.get(kind, most * 2 // 5)
    return rng.randint(2, highest), 0, ""
