"""What a task is: where its examples come from, how they are asked, and how an answer is recognised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

AnswerType = Literal["number", "letter", "text"]
PromptKind = Literal["arithmetic", "reasoning", "multiple_choice", "continuation"]  # what each says: docs/plugins.md
LETTERS = "ABCDEFGHIJ"
LIKELIHOOD = "likelihood"  # the extractor that reads no text: argmax over choices of ln pi(letter | z)
# What a task of an answer type takes where it says nothing itself: extractors, the default first, and tokens of an answer.
DEFAULT_EXTRACTORS: Mapping[AnswerType, tuple[str, ...]] = {
    "number": ("final_number", "anchor", "simple", "math_verify"),
    "letter": ("final_letter", "word_boundary", "legacy", "likelihood"),
    "text": ("final_text", "first_line"),
}
ANSWER_TOKENS: Mapping[AnswerType, int] = {"number": 16, "letter": 10, "text": 64}
ENDLESS = 10_000_000  # sequences this long are generators drawn at random already


@dataclass(frozen=True, slots=True)
class Example:
    """One question with its gold answer.

    `Example("gsm8k/test/17", "How many …?", "42")`;
    multiple choice: `Example("arc/…", "Which …?", "B", choices=("iron", "wood"))`, texts labelled A, B, … in order.
    """

    id: str
    question: str
    answer: str  # canonical gold answer: "1080", "B", or the target text
    choices: tuple[str, ...] = ()
    also: tuple[str, ...] = ()  # other answers that count as right, such as aliases; likelihoods are of `answer`


@dataclass(frozen=True, slots=True)
class HubSource:
    """Where `datasets.load_dataset(path, name, split=splits[split])` finds a task."""

    path: str
    name: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict[str, str])  # our split name -> the Hub's; empty: by their names


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What a task needs to load its examples."""

    split: str  # "train", "dev" or "test"
    data: Path | None = None  # original file or directory; None: the Hub (or a generator)
    hub: HubSource | None = None  # another dataset of the Hub than the task's own
    columns: Mapping[str, str] = field(default_factory=dict[str, str])  # what the task calls it -> what the data calls it
    limit: int | None = None
    seed: int = 0
    strict: bool = False  # a malformed row is fatal instead of skipped with a count
    # Several splits of one source are used together (training): a split for which the source has no file is then cut
    # out of another one by a fixed rule, and no two splits share a question. Otherwise a single file is taken whole,
    # whatever the split is called. See `tasks.folds`.
    disjoint: bool = False
    tokenizer: Any = None  # only tasks that cut text by tokens (Wikipedia) need it
    options: dict[str, Any] = field(default_factory=dict[str, Any])  # task options, e.g. arithmetic's `max_terms`


@dataclass(frozen=True, slots=True)
class Loaded:
    """Examples of one split, in a fixed order, and what was left out of them."""

    examples: Sequence[Example]
    skipped: tuple[str, ...] = ()  # one line each: file, line, reason
    notes: tuple[str, ...] = ()  # what a reader must know: folds that stand in for a split, questions removed


@runtime_checkable
class Task(Protocol):
    """A dataset or generator. One small file each; see `tasks/arithmetic.py` for the shortest."""

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...

    @property
    def prompt_kind(self) -> PromptKind: ...

    @property
    def answer_type(self) -> AnswerType: ...

    @property
    def default_cot_tokens(self) -> int: ...

    @property
    def max_answer_tokens(self) -> int:
        """Token budget of the greedy answer in evaluation."""
        ...

    @property
    def extractors(self) -> tuple[str, ...]:
        """Names of `tasks.answers` methods, the default first; empty if only log-likelihood counts."""
        ...

    @property
    def splits(self) -> tuple[str, ...]: ...

    @property
    def hub(self) -> HubSource | None: ...

    @property
    def licence(self) -> str: ...

    def load(self, request: LoadRequest) -> Loaded:
        """Examples of a split. Raises UserError if the source is missing or unreadable."""
        ...
