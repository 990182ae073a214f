"""Sums such as `17+4+79`: how they are drawn, written, parsed and split. Standard library only.

The split of a question is a hash of its sorted terms alone. Pretraining of the bundled model, RL
training and evaluation therefore never share a question, nor a permutation of one, whatever seeds are chosen.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, get_args

Split = Literal["train", "dev", "test"]
Terms = tuple[int, ...]

SPLITS: tuple[Split, ...] = get_args(Split)
TRAIN_PERCENT = 80
DEV_PERCENT = 5  # the remaining 15 % are the test split

# Draws in a row that bring nothing new (wrong split, or a question already drawn) before a spec counts as exhausted.
MAX_FRUITLESS_DRAWS = 10_000

_NUMBER = r"[1-9][0-9]*"  # no zero and no leading zeros: each list of terms has one way to be written
_QUESTION = re.compile(rf"\s*-?{_NUMBER}(?:\s*[+-]\s*{_NUMBER})+\s*")
_TERM = re.compile(rf"([+-]?)\s*({_NUMBER})")


@dataclass(frozen=True, slots=True)
class ArithmeticSpec:
    """Which sums are asked: `min_terms` to `max_terms` terms, each in 1..max_value.

    With `negative`, every term after the first is subtracted with probability 1/2: `17-4+79`.
    """

    min_terms: int = 3
    max_terms: int = 5
    max_value: int = 99
    negative: bool = False

    def __post_init__(self) -> None:
        for field in ("min_terms", "max_terms", "max_value"):
            _require(type(getattr(self, field)) is int, field, "must be an integer", getattr(self, field))
        _require(type(self.negative) is bool, "negative", "must be true or false", self.negative)
        _require(self.min_terms >= 2, "min_terms", "a sum has at least 2 terms", self.min_terms)
        lowest = f"must be at least min_terms ({self.min_terms})"
        _require(self.max_terms >= self.min_terms, "max_terms", lowest, self.max_terms)
        _require(self.max_value >= 1, "max_value", "must be at least 1", self.max_value)


def _require(holds: bool, field: str, wanted: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{field}: {wanted}, got {value!r}")


def format_question(terms: Sequence[int]) -> str:
    """`(17, 4, 79)` -> `17+4+79`; `(17, -4, 79)` -> `17-4+79`."""
    if len(terms) < 2 or 0 in terms:
        raise ValueError(f"a question needs at least two terms, none of them zero; got {tuple(terms)}")
    return f"{terms[0]}" + "".join(f"{term:+d}" for term in terms[1:])


def parse_question(text: str) -> Terms:
    """Inverse of `format_question`; spaces around signs are allowed. Raises ValueError on anything else."""
    if not _QUESTION.fullmatch(text):
        raise ValueError(f"not a sum of whole numbers such as '17+4+79': {text[:80]!r}")
    return tuple(int(sign + digits) for sign, digits in _TERM.findall(text))


def running_sums(terms: Sequence[int]) -> str:
    """The chain of thought that works, one sum per step: `(17, 4, 79)` -> `17+4=21,21+79=100`."""
    totals = list(accumulate(terms))
    steps = zip(totals, terms[1:], totals[1:], strict=False)
    return ",".join(f"{before}{term:+d}={after}" for before, term, after in steps)


def split_of(terms: Sequence[int]) -> Split:
    """The one split a question belongs to: the same for every order of its terms and for every seed."""
    text = ",".join(str(term) for term in sorted(terms))
    digest = hashlib.blake2b(text.encode("ascii"), digest_size=8, person=b"markovlm/sums").digest()
    percent = int.from_bytes(digest, "big") % 100
    if percent < TRAIN_PERCENT:
        return "train"
    return "dev" if percent < TRAIN_PERCENT + DEV_PERCENT else "test"


def draw(spec: ArithmeticSpec, split: Split, seed: int, index: int) -> Terms:
    """Question number `index` of an endless stream: a pure function of its arguments, cheap at any index.

    Questions may repeat; `questions` gives distinct ones. Raises ValueError if `split` seems empty for `spec`.
    """
    if split not in SPLITS:
        raise ValueError(f"split: must be one of {', '.join(SPLITS)}; got {split!r}")
    for attempt in range(MAX_FRUITLESS_DRAWS):
        terms = _draw_any(spec, f"{split}:{seed}:{index}:{attempt}")
        if split_of(terms) == split:
            return terms
    raise ValueError(f"no question of {spec} belongs to the {split} split ({MAX_FRUITLESS_DRAWS} draws)")


def questions(spec: ArithmeticSpec, split: Split, seed: int, n: int) -> list[Terms]:
    """`n` questions of `split`, no two of which have the same terms in any order.

    A longer list begins with the shorter one. Raises ValueError if the spec has too few: where nearly all questions of a
    very small spec are asked for, a rare one may count as missing after `MAX_FRUITLESS_DRAWS` draws in a row.
    """
    if n < 0:
        raise ValueError(f"n: must not be negative, got {n}")
    found: list[Terms] = []
    seen: set[Terms] = set()
    index = fruitless = 0
    while len(found) < n:
        terms = draw(spec, split, seed, index)
        index += 1
        key = tuple(sorted(terms))
        if key not in seen:
            seen.add(key)
            found.append(terms)
            fruitless = 0
            continue
        fruitless += 1
        if fruitless == MAX_FRUITLESS_DRAWS:
            raise ValueError(f"n: {n} distinct questions asked for, but the {split} split of {spec} has {len(found)}")
    return found


def _draw_any(spec: ArithmeticSpec, key: str) -> Terms:
    """Terms decided by a hash of `key`, of whatever split.

    A hash and not `random`: its stream is fixed forever and needs no state to reach the millionth question. Each
    choice takes a quotient of one big integer; with 64 spare bits the bias is below 2^-64.
    """
    bits_a_term = spec.max_value.bit_length() + 1
    n_bytes = 16 + (spec.max_terms * bits_a_term + 7) // 8
    pool = int.from_bytes(hashlib.shake_256(key.encode("utf-8")).digest(n_bytes), "big")
    pool, extra = divmod(pool, spec.max_terms - spec.min_terms + 1)
    terms = []
    for position in range(spec.min_terms + extra):
        pool, value = divmod(pool, spec.max_value)
        pool, subtract = divmod(pool, 2)
        terms.append(-value - 1 if spec.negative and position and subtract else value + 1)
    return tuple(terms)
