"""Sums such as `17+4+79`, generated: a stream without end to train on, fixed lists to evaluate on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from markovlm.errors import UserError
from markovlm.tasks.arithmetic_data import MAX_FRUITLESS_DRAWS, ArithmeticSpec, Split, Terms, draw, format_question
from markovlm.tasks.base import DEFAULT_EXTRACTORS, AnswerType, Example, HubSource, Loaded, LoadRequest, PromptKind
from markovlm.tasks.sources import check_options, check_request
from markovlm.tasks.stream import ENDLESS, Stream

HELD_OUT_SIZE: dict[str, int] = {"dev": 200, "test": 500}
HELD_OUT_SEED = 0  # the held-out questions are the same in every run, whatever its seed

_OPTIONS = {
    "min_terms": "fewest terms of a sum",
    "max_terms": "most terms of a sum",
    "max_value": "largest term",
    "negative": "subtract terms too",
}


@dataclass(frozen=True, slots=True)
class TrainingStream(Stream):
    """Training questions by index, each computed when it is asked for."""

    spec: ArithmeticSpec
    seed: int
    length: int = ENDLESS

    def at(self, position: int) -> Example:
        return _example("train", draw(self.spec, "train", self.seed, position))


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Implements `tasks.base.Task`. Options are the fields of `ArithmeticSpec`."""

    name: str = "arithmetic"
    summary: str = "generated sums, answer a number"
    prompt_kind: PromptKind = "arithmetic"
    answer_type: AnswerType = "number"
    default_cot_tokens: int = 150
    max_answer_tokens: int = 10
    extractors: tuple[str, ...] = DEFAULT_EXTRACTORS["number"]
    splits: tuple[str, ...] = ("train", "dev", "test")
    hub: HubSource | None = None
    licence: str = "generated"

    @property
    def option_help(self) -> Mapping[str, str]:
        """Option -> what it does."""
        return _OPTIONS

    def configured(self, options: Mapping[str, Any]) -> Arithmetic:
        """This task, its options checked. UserError on an unknown or impossible one."""
        spec_from(options)
        return self

    def load(self, request: LoadRequest) -> Loaded:
        """Endless training questions, or the first `limit` (default 200 dev, 500 test) held-out ones, all distinct."""
        if request.data is not None:
            raise UserError(f"{request.data}: arithmetic questions are generated; leave --data out, or use --task custom")
        check_request(self.name, self.splits, request)
        spec = spec_from(request.options)
        if request.split == "train":
            return Loaded(TrainingStream(spec, request.seed, request.limit or ENDLESS))
        return _held_out(spec, cast(Split, request.split), request.limit)


def spec_from(options: Mapping[str, Any]) -> ArithmeticSpec:
    """The sums that task options describe. UserError on an unknown or impossible option."""
    check_options("arithmetic", options, _OPTIONS)
    try:
        return ArithmeticSpec(**options)
    except ValueError as error:
        raise UserError(f"task arithmetic: option {error}") from error


def _held_out(spec: ArithmeticSpec, split: Split, limit: int | None) -> Loaded:
    wanted = HELD_OUT_SIZE[split] if limit is None else limit
    found = _distinct(spec, split, wanted)
    short = len(found) < wanted
    if not found or (short and limit is not None):
        raise UserError(f"arithmetic: {wanted} {split} questions asked for, but {spec} has only {len(found)}")
    notes = (f"{split}: {spec} has only {len(found)} questions",) if short else ()
    return Loaded([_example(split, terms) for terms in found], notes=notes)


def _distinct(spec: ArithmeticSpec, split: Split, wanted: int) -> list[Terms]:
    """What `arithmetic_data.questions` gives, but where the spec has fewer, those."""
    found: dict[Terms, Terms] = {}
    index = newest = 0
    while len(found) < wanted and index - newest < MAX_FRUITLESS_DRAWS:
        try:
            terms = draw(spec, split, HELD_OUT_SEED, index)
        except ValueError:
            break  # no question of the spec is in this split
        key = tuple(sorted(terms))
        if key not in found:
            found[key], newest = terms, index
        index += 1
    return list(found.values())


def _example(split: str, terms: Terms) -> Example:
    question = format_question(terms)
    return Example(f"arithmetic/{split}/{question}", question, str(sum(terms)))


TASK = Arithmetic()
