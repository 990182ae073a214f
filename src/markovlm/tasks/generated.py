"""A task from a function that yields examples: the shortest way to bring questions of one's own from a program."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from markovlm.config.base import Section
from markovlm.errors import UserError
from markovlm.plugins import calling, named
from markovlm.registry import TASKS
from markovlm.tasks.base import ANSWER_TOKENS, DEFAULT_EXTRACTORS, AnswerType, Example, HubSource, Loaded, LoadRequest, PromptKind
from markovlm.tasks.checks import example_problem
from markovlm.tasks.folds import question_key
from markovlm.tasks.sources import check_request

Generate = Callable[..., Iterable[Example]]
_END = object()
_MOST_DRAWN = 50_000  # examples taken of a generator that does not end


class NoOptions(Section):
    """Of a task without options."""


@dataclass(frozen=True, slots=True)
class GeneratedTask:
    """Implements `tasks.base.Task` over `generate(split, seed, options)`.

    `generate` yields the examples of "train", "dev" or "test" in a fixed order for a seed; it may go on for ever (a limit, or
    the first 50,000 are taken). Held-out splits are generated with seed 0 whatever the run's, and a training question that is
    in one of them is left out.
    """

    name: str
    summary: str
    generate: Generate
    answer_type: AnswerType = "number"
    prompt_kind: PromptKind = "reasoning"
    default_cot_tokens: int = 100
    max_answer_tokens: int = ANSWER_TOKENS["number"]
    extractors: tuple[str, ...] = DEFAULT_EXTRACTORS["number"]
    splits: tuple[str, ...] = ("train", "dev", "test")
    held_out: int = 200  # examples of dev and of test where no limit is given
    hub: HubSource | None = None
    licence: str = "generated"
    Options: type[Section] = NoOptions
    options: Section = field(default_factory=NoOptions)

    @property
    def option_help(self) -> Mapping[str, str]:
        """Option -> what it does."""
        return {name: field.description or "" for name, field in self.Options.model_fields.items()}

    def configured(self, options: Mapping[str, Any]) -> GeneratedTask:
        """This task, its options checked. UserError on an unknown or impossible one."""
        try:
            return replace(self, options=self.Options.model_validate(dict(options)))
        except ValidationError as error:
            first = error.errors()[0]
            there = ", ".join(self.Options.model_fields) or "it has none"
            raise UserError(
                f"task {self.name}: option {'.'.join(map(str, first['loc']))}: {first['msg']}; options: {there}"
            ) from None

    def load(self, request: LoadRequest) -> Loaded:
        """Examples of a split, at most `request.limit` of them."""
        if request.data is not None:
            raise UserError(f"{request.data}: the questions of task {self.name} are generated; leave --data out")
        check_request(self.name, self.splits, request)
        task = self.configured(request.options)
        if request.split != "train":
            return Loaded(task._held_out(request.split, request.limit))
        taken = {question_key(e) for split in self.splits if split != "train" for e in task._held_out(split, None)}
        drawn = itertools.islice(task._numbered("train", request.seed), _MOST_DRAWN)
        kept = (example for example in drawn if question_key(example) not in taken)
        found = list(itertools.islice(kept, request.limit))
        if not found:
            raise UserError(f"task {self.name}: the train split has no question that is not held out")
        return Loaded(found)

    def _held_out(self, split: str, limit: int | None) -> list[Example]:
        distinct: dict[Any, Example] = {}
        for example in itertools.islice(self._numbered(split, 0), _MOST_DRAWN):
            distinct.setdefault(question_key(example), example)
            if len(distinct) == (limit or self.held_out):
                break
        return list(distinct.values())

    def _numbered(self, split: str, seed: int) -> Iterator[Example]:
        """What the generator yields, each looked at. UserError where it is no example of such a task."""
        with calling(TASKS, self.name, "its generator"):
            drawn = iter(self.generate(split, seed, self.options))
        for number in itertools.count():
            with calling(TASKS, self.name, "its generator"):
                example = next(drawn, _END)
            if example is _END:
                return
            problem = example_problem(example, self)
            if problem:
                raise UserError(f"{named(TASKS, self.name)}: its generator yielded {problem}")
            assert isinstance(example, Example)
            yield replace(example, id=example.id or f"{self.name}/{split}/{number}")
