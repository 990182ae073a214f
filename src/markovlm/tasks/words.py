"""Word problems of one to four steps, generated: a stream without end to train on, fixed lists to evaluate on.

The facts of a question are kept: `problem_of(example.id, options)` gives the `words_data.Problem` it was made from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from markovlm.errors import UserError
from markovlm.tasks.arithmetic_data import Split
from markovlm.tasks.base import DEFAULT_EXTRACTORS, AnswerType, Example, HubSource, Loaded, LoadRequest, PromptKind
from markovlm.tasks.sources import check_options, check_request
from markovlm.tasks.stream import ENDLESS, Stream
from markovlm.tasks.words_data import Problem, WordsSpec, draw

HELD_OUT_SIZE: dict[str, int] = {"dev": 200, "test": 500}
HELD_OUT_SEED = 0  # the held-out questions are the same in every run, whatever its seed

_OPTIONS = {
    "min_steps": "fewest steps, 1 to 4",
    "max_steps": "most steps, 1 to 4",
    "distractors": "at most so many sentences that change nothing, 0 to 3",
    "max_value": "largest result of a step",
    "templates": "held_out: sentence templates are the split's own; train: those of training in every split",
    "question": "where the question stands: either, end or start",
}
_ID = re.compile(r"words/(train|dev|test)/(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class TrainingStream(Stream):
    """Training questions by index, each computed when it is asked for."""

    spec: WordsSpec
    seed: int
    length: int = ENDLESS

    def at(self, position: int) -> Example:
        return example_of(draw(self.spec, "train", self.seed, position), self.seed, position)


@dataclass(frozen=True, slots=True)
class Words:
    """Implements `tasks.base.Task`. Options are the fields of `WordsSpec`."""

    name: str = "words"
    summary: str = "generated word problems of 1 to 4 steps, answer a number"
    prompt_kind: PromptKind = "reasoning"
    answer_type: AnswerType = "number"
    default_cot_tokens: int = 100
    max_answer_tokens: int = 10
    extractors: tuple[str, ...] = DEFAULT_EXTRACTORS["number"]
    splits: tuple[str, ...] = ("train", "dev", "test")
    hub: HubSource | None = None
    licence: str = "generated"

    @property
    def option_help(self) -> Mapping[str, str]:
        """Option -> what it does."""
        return _OPTIONS

    def configured(self, options: Mapping[str, Any]) -> Words:
        """This task, its options checked. UserError on an unknown or impossible one."""
        spec_from(options)
        return self

    def load(self, request: LoadRequest) -> Loaded:
        """Endless training questions, or the first `limit` (default 200 dev, 500 test) held-out ones, all distinct."""
        if request.data is not None:
            raise UserError(f"{request.data}: the questions of task words are generated; leave --data out, or use --task custom")
        check_request(self.name, self.splits, request)
        spec = spec_from(request.options)
        if request.split == "train":
            return Loaded(TrainingStream(spec, request.seed, request.limit or ENDLESS))
        return Loaded(_held_out(spec, cast(Split, request.split), request.limit))


def spec_from(options: Mapping[str, Any]) -> WordsSpec:
    """The problems that task options describe. UserError on an unknown or impossible option."""
    check_options("words", options, _OPTIONS)
    try:
        return WordsSpec(**options)
    except ValueError as error:
        raise UserError(f"task words: option {error}") from error


def example_of(problem: Problem, seed: int, index: int) -> Example:
    """The example that problem number `index` of a seed's stream is."""
    return Example(f"words/{problem.split}/{seed}/{index}", problem.question, str(problem.answer))


def problem_of(example_id: str, options: Mapping[str, Any] | None = None) -> Problem:
    """The facts behind an example's id, under the options it was drawn with. UserError on an id of another task."""
    match = _ID.fullmatch(example_id)
    if not match:
        raise UserError(f"{example_id!r} is no question of task words (words/SPLIT/SEED/INDEX)")
    return draw(spec_from(options or {}), cast(Split, match[1]), int(match[2]), int(match[3]))


def _held_out(spec: WordsSpec, split: Split, limit: int | None) -> list[Example]:
    wanted = HELD_OUT_SIZE[split] if limit is None else limit
    found: dict[str, Example] = {}
    for index in range(20 * wanted + 1000):
        if len(found) == wanted:
            return list(found.values())
        example = example_of(draw(spec, split, HELD_OUT_SEED, index), HELD_OUT_SEED, index)
        found.setdefault(example.question, example)
    raise UserError(f"words: {wanted} {split} questions asked for, but {spec} has only {len(found)} that differ")


TASK = Words()
