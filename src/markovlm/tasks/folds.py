"""Which questions belong to which split, so that no two splits share one.

If a source has no file for a split, the split is cut out of another file: questions are ranked by a hash of their text, and each split
takes its range of ranks. The cut depends on the questions alone, not on their order in the file nor on a run's seed, so that the test
questions of one run are never the training questions of another.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markovlm.errors import RunFailed, UserError
from markovlm.intervals import percent_text
from markovlm.tasks.base import Example

WHOLE = "all"  # the split of a source that has none
_FOLD_SEED = b"markovlm/folds"


@dataclass(frozen=True, slots=True)
class Cut:
    """A range of ranks of the questions of `origin`: `Cut("dev", 0.0, 0.8)`."""

    origin: str
    low: float = 0.0
    high: float = 1.0

    @property
    def is_all(self) -> bool:
        return self.low == 0.0 and self.high == 1.0

    def __str__(self) -> str:
        share = percent_text(self.high - self.low)
        return f"{share} of the questions" if self.origin == WHOLE else f"{share} of the {self.origin} questions"


def _three_way(origin: str) -> dict[str, Cut]:
    return {"train": Cut(origin, 0.0, 0.6), "dev": Cut(origin, 0.6, 0.7), "test": Cut(origin, 0.7, 1.0)}


# For each set of splits that a source has: how the three splits are cut where they must be disjoint. A file of test
# questions alone is never trained on.
_CUTS: dict[frozenset[str], dict[str, Cut]] = {
    frozenset({WHOLE}): _three_way(WHOLE),
    frozenset({"train"}): _three_way("train"),
    frozenset({"dev"}): _three_way("dev"),
    frozenset({"test"}): {"test": Cut("test")},
    frozenset({"train", "test"}): {"train": Cut("train", 0.0, 0.9), "dev": Cut("train", 0.9, 1.0), "test": Cut("test")},
    frozenset({"dev", "test"}): {"train": Cut("dev", 0.0, 0.8), "dev": Cut("dev", 0.8, 1.0), "test": Cut("test")},
    frozenset({"train", "dev"}): {"train": Cut("train"), "dev": Cut("dev", 0.0, 0.5), "test": Cut("dev", 0.5, 1.0)},
    frozenset({"train", "dev", "test"}): {"train": Cut("train"), "dev": Cut("dev"), "test": Cut("test")},
}


def cut_for(split: str, available: Iterable[str], disjoint: bool, source: str) -> Cut:
    """Where the questions of `split` come from, given the splits a source has. Raises UserError if there are none.

    Unless `disjoint`, a split that the source has is taken whole.
    """
    has = frozenset(available)
    if split in has and not disjoint:
        return Cut(split)
    core = has & {"train", "dev", "test", WHOLE}
    cut = _CUTS.get(core, {}).get(split, Cut(split) if split in has else None)
    if cut is None:
        files = "; a file that is named itself is cut into all three" if Path(source).is_dir() and has else ""
        raise UserError(f"{source}: no {split} split; it has {', '.join(sorted(has)) or 'no data file'}{files}")
    return cut


def normalized(text: str) -> str:
    """Text as compared between questions: without regard to compatibility forms, case and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def question_key(example: Example) -> str:
    """What makes two examples the same question: normalised text and the set of choices, in any order."""
    return "\x1f".join([normalized(example.question), *sorted(map(normalized, example.choices))])


def take(examples: Sequence[Example], cut: Cut) -> list[Example]:
    """The examples of `cut`, in their order. Examples with the same question go together."""
    if cut.is_all:
        return list(examples)
    chosen = set(ranked({question_key(example) for example in examples}, cut))
    return [example for example in examples if question_key(example) in chosen]


def ranked(keys: Iterable[str], cut: Cut) -> list[str]:
    """The keys whose hash rank is in the range of `cut`."""
    order = sorted(keys, key=lambda key: (hashlib.blake2b(key.encode(), key=_FOLD_SEED).digest(), key))
    return order[round(cut.low * len(order)) : round(cut.high * len(order))]


def without_overlap(examples: Sequence[Example], held_out: Iterable[Example]) -> list[Example]:
    """`examples` without those whose question is in `held_out`."""
    keys = {question_key(example) for example in held_out}
    return [example for example in examples if question_key(example) not in keys]


def assert_disjoint(train: Iterable[Example], held_out: Iterable[Example]) -> None:
    """Raises RunFailed if a question is in both. Not for arithmetic's endless stream, which splits by construction."""
    keys = {question_key(example) for example in held_out}
    shared = [example for example in train if question_key(example) in keys]
    if shared:
        raise RunFailed(
            f"{len(shared)} training questions are also held out, the first is {shared[0].id}: "
            "load both with LoadRequest(disjoint=True)"
        )
