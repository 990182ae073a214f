"""Tasks whose questions a program makes: our own, drawn by number, and those of plug-ins, from a function that yields examples."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Generic, TypeVar, cast, overload

from pydantic import ValidationError

from markovlm.config.base import Section
from markovlm.errors import UserError
from markovlm.plugins import calling, named
from markovlm.registry import TASKS
from markovlm.tasks.arithmetic_data import Split
from markovlm.tasks.base import ANSWER_TOKENS, DEFAULT_EXTRACTORS, AnswerType, Example, HubSource, Loaded, LoadRequest, PromptKind
from markovlm.tasks.checks import example_problem
from markovlm.tasks.folds import question_key
from markovlm.tasks.sources import check_options, check_request

S = TypeVar("S")
Generate = Callable[..., Iterable[Example]]
ENDLESS = 1_000_000_000  # what len() says of a training stream; a generator repeats a question long before that
HELD_OUT_SEED = 0  # held-out questions are the same in every run, whatever its seed
_END = object()
_MOST_DRAWN = 50_000  # examples taken of a generator that does not end


@dataclass(frozen=True, slots=True)
class _Task(ABC):
    """The members of `tasks.base.Task` that do not depend on how the questions are made."""

    name: str
    summary: str
    _: KW_ONLY
    answer_type: AnswerType = "number"
    prompt_kind: PromptKind = "reasoning"
    default_cot_tokens: int = 100
    max_answer_tokens: int = ANSWER_TOKENS["number"]
    extractors: tuple[str, ...] = DEFAULT_EXTRACTORS["number"]
    splits: tuple[str, ...] = ("train", "dev", "test")
    hub: HubSource | None = None
    licence: str = "generated"

    def load(self, request: LoadRequest) -> Loaded:
        """Examples of a split, at most `request.limit` of them."""
        if request.data is not None:
            raise UserError(f"{request.data}: task {self.name} generates its questions; leave out --data, or use --task custom")
        check_request(self.name, self.splits, request)
        return self._generated(request)

    @abstractmethod
    def _generated(self, request: LoadRequest) -> Loaded: ...


@dataclass(frozen=True, slots=True)
class _Drawn(Sequence[Example], Generic[S]):
    """The training questions of a `DrawnTask`, each computed when it is asked for; nothing is kept."""

    task: DrawnTask[S]
    spec: S
    seed: int
    length: int

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.length))]
        position = index + self.length if index < 0 else index
        if not 0 <= position < self.length:
            raise IndexError(f"training question {index} of {self.length}")
        return self.task.draw(self.spec, "train", self.seed, position)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnTask(_Task, Generic[S]):
    """A task whose `draw(spec, split, seed, number)` is one example: an endless stream to train on, fixed lists to evaluate on."""

    spec: Callable[..., S]  # of the task options; ValueError, which begins with the option's name, on an impossible one
    option_help: Mapping[str, str]  # option -> what it does
    draw: Callable[[S, Split, int, int], Example]
    held_out: Callable[[S, Split, int, bool], Loaded]  # (spec, split, how many, was this number asked for?)
    sizes: Mapping[str, int]  # of the held-out splits where no limit is given

    def configured(self, options: Mapping[str, Any]) -> DrawnTask[S]:
        """This task with its options checked. Raises UserError for an unknown or invalid one."""
        self.spec_of(options)
        return self

    def spec_of(self, options: Mapping[str, Any]) -> S:
        """The questions that task options describe. Raises UserError for an unknown or invalid option."""
        check_options(self.name, options, self.option_help)
        try:
            return self.spec(**options)
        except ValueError as error:
            raise UserError(f"task {self.name}: option {error}") from error

    def _generated(self, request: LoadRequest) -> Loaded:
        spec = self.spec_of(request.options)
        if request.split == "train":
            return Loaded(_Drawn(self, spec, request.seed, request.limit or ENDLESS))
        return self.held_out(
            spec, cast(Split, request.split), request.limit or self.sizes[request.split], request.limit is not None
        )


class NoOptions(Section):
    """The options of a task without options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedTask(_Task):
    """A task over `generate(split, seed, options)`: the shortest way to use questions that a program makes.

    `generate` yields the examples of "train", "dev" or "test" in an order fixed by the seed; it may be endless (a limit, or the first
    50,000 are taken). Held-out splits are always generated with seed 0, and training questions that are in one of them are left out.
    """

    generate: Generate
    held_out: int = 200  # examples of dev and of test where no limit is given
    Options: type[Section] = NoOptions
    options: Section = field(default_factory=NoOptions)

    @property
    def option_help(self) -> Mapping[str, str]:
        """Option -> what it does."""
        return {name: field.description or "" for name, field in self.Options.model_fields.items()}

    def configured(self, options: Mapping[str, Any]) -> GeneratedTask:
        """This task with its options checked. Raises UserError for an unknown or invalid one."""
        try:
            return replace(self, options=self.Options.model_validate(dict(options)))
        except ValidationError as error:
            first = error.errors()[0]
            there = ", ".join(self.Options.model_fields) or "it has none"
            raise UserError(
                f"task {self.name}: option {'.'.join(map(str, first['loc']))}: {first['msg']}; options: {there}"
            ) from None

    def _generated(self, request: LoadRequest) -> Loaded:
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
        for example in itertools.islice(self._numbered(split, HELD_OUT_SEED), _MOST_DRAWN):
            distinct.setdefault(question_key(example), example)
            if len(distinct) == (limit or self.held_out):
                break
        return list(distinct.values())

    def _numbered(self, split: str, seed: int) -> Iterator[Example]:
        """What the generator yields, each looked at. Raises UserError if it is no example of such a task."""
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
