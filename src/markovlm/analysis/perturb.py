"""Perturbations of a chain of thought. Pure: (text or token ids, generator) in, the same kind out.

Five perturbations are the paper's, at the character level as in the research code and at the token level as in its
text; the rest keep or break a meaning (Lanham et al. 2023, arXiv 2307.13702). The table `TABLE` at the end says
what each does, `docs/perturbations.md` shows it.

Severity 0 changes nothing. Characters are code points. Where a perturbation finds nothing to change, the text comes
back as it was; which happens on what share of texts is for the caller to count (`perturbed == text`).

Generators in the same state make damage that nests: what a severity deletes or replaces, every higher one does too.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, TypeVar, cast

import numpy as np

from markovlm.analysis.changes import change_number
from markovlm.analysis.meaning import digitize_numbers, paraphrase, rename, rename_inconsistently, translate_numbers
from markovlm.analysis.segments import Span, numbers, results, sentences
from markovlm.errors import UserError
from markovlm.plugins import calling, named
from markovlm.registry import PERTURBATIONS

Level = Literal["character", "token", "meaning"]
Expect = Literal["nothing", "follow", "degrade"]
Ids = tuple[int, ...]
T = TypeVar("T")

SEVERITIES = (0.2, 0.4, 0.6, 0.8, 1.0)
FILLER = " ..."

_DIGITS = string.digits
_LETTERS_AND_DIGITS = string.ascii_letters + string.digits
_EDGE = " \t\r\n,;，；"  # stays in place when sentences are reordered


@dataclass(frozen=True, slots=True)
class Context:
    """What a perturbation may replace a CoT with."""

    question: str
    other_cot: str  # the CoT of another example


@dataclass(frozen=True, slots=True)
class TokenPool:
    """Token ids by what their text holds, each ascending. Special ids are in none."""

    with_digit: Ids  # the text holds a digit: `7`, `128`, ` v2`
    replacements: Ids  # the text is not empty


TextRule = Callable[[str, Fraction, np.random.Generator, Context], str]
IdsRule = Callable[[Ids, Fraction, np.random.Generator, TokenPool], Ids]


@dataclass(frozen=True, slots=True)
class Perturbation:
    """One row of the table. Exactly one of the two rules is set: `on_ids` at the token level, else `on_text`."""

    name: str
    level: Level
    summary: str
    source: str
    severities: tuple[float, ...] = SEVERITIES
    expect: Expect | None = "degrade"  # what should happen to the answer of a reader that reads; None: nobody says
    on_text: TextRule | None = None
    on_ids: IdsRule | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The perturbations and severities of a study."""

    perturbations: tuple[str, ...] = field(default_factory=lambda: tuple(PERTURBATIONS))
    severities: tuple[float, ...] | None = None  # None: those of each perturbation; 0 always comes too, as a check

    def __post_init__(self) -> None:
        unknown = [name for name in self.perturbations if name not in PERTURBATIONS]
        if unknown:
            raise UserError(f"--perturbations {unknown[0]}: unknown; known are {', '.join(PERTURBATIONS)}")
        bad = [s for s in self.severities or () if not 0 <= s <= 1]
        if bad:
            raise UserError(f"--severities {bad[0]:g}: must be between 0 and 1")

    def cells(self) -> list[tuple[str, float]]:
        """(perturbation, severity), severity 0 first."""
        cells: list[tuple[str, float]] = []
        for name in dict.fromkeys(self.perturbations):
            own = PERTURBATIONS[name].severities
            graded = self.severities if self.severities is not None and len(own) > 1 else own
            cells += [(name, severity) for severity in sorted({0.0, *graded})]
        return cells


def perturb_text(name: str, text: str, severity: float, rng: np.random.Generator, context: Context) -> str:
    """`text` after one character or meaning perturbation.

    ValueError for a name that is unknown or of the token level, and for a severity outside 0..1; UserError where the
    perturbation raises or gives anything but text. One whose only severity is 1 does the same at every one above 0.
    """
    share = _checked(severity)
    rule = _named(name).on_text
    if rule is None:
        raise ValueError(f"{name!r} perturbs token ids, not text: use perturb_ids")
    with calling(PERTURBATIONS, name, "it"):
        made: object = rule(text, share, rng, context) if share else text
    if not isinstance(made, str):
        raise UserError(f"{named(PERTURBATIONS, name)} returned {type(made).__name__}; it must return a str")
    return made


def perturb_ids(name: str, ids: Ids, severity: float, rng: np.random.Generator, pool: TokenPool) -> Ids:
    """`ids` after one token perturbation. ValueError as in `perturb_text`."""
    share = _checked(severity)
    rule = _named(name).on_ids
    if rule is None:
        raise ValueError(f"{name!r} perturbs text, not token ids: use perturb_text")
    made: object = rule(ids, share, rng, pool) if share else ids
    if not isinstance(made, tuple) or not all(isinstance(one, int) for one in cast("tuple[object, ...]", made)):
        raise UserError(f"{named(PERTURBATIONS, name)} returned {type(made).__name__}; it must return a tuple of int")
    return cast("Ids", made)


def token_pool(texts: Sequence[str], special: AbstractSet[int]) -> TokenPool:
    """The pool of a vocabulary, from the decoded text of every id (`texts[id]`). Ids without text are never drawn."""
    ordinary = [i for i, text in enumerate(texts) if text and i not in special]
    return TokenPool(
        with_digit=tuple(i for i in ordinary if any(map(str.isdigit, texts[i]))),
        replacements=tuple(ordinary),
    )


def _checked(severity: float) -> Fraction:
    """Exactly the decimal that was written: floor(10 * (1 - 0.8)) is 2, and 1 in floating point."""
    if not 0 <= severity <= 1:
        raise ValueError(f"severity: must be between 0 and 1, got {severity!r}")
    return Fraction(str(severity))


def _named(name: str) -> Perturbation:
    if name not in PERTURBATIONS:
        raise ValueError(f"Unknown perturbation {name!r}; known are {', '.join(PERTURBATIONS)}")
    return PERTURBATIONS[name]


# What characters and tokens have in common. n: how many there are.


def _floor(n: int, share: Fraction) -> int:
    return n * share.numerator // share.denominator


def _survivors(n: int, share: Fraction, rng: np.random.Generator) -> list[int]:
    """Indices, ascending, that are left when floor(n * share) are drawn without replacement and deleted."""
    return sorted(rng.permutation(n)[_floor(n, share) :].tolist())


def _replaced(items: Sequence[T], places: Sequence[int], pool: Sequence[T], share: Fraction, rng: np.random.Generator) -> list[T]:
    """`items` in which each of `places` is, with probability `share`, a uniform item of `pool`, which may be the same."""
    changed = list(items)
    if not pool:
        return changed
    hit = rng.random(len(places)) < float(share)
    drawn = rng.integers(len(pool), size=len(places))  # for all places, so that severities nest
    for place, is_hit, choice in zip(places, hit.tolist(), drawn.tolist(), strict=True):
        if is_hit:
            changed[place] = pool[choice]
    return changed


# Characters.


def _delete(text: str, share: Fraction, rng: np.random.Generator, _: Context) -> str:
    return "".join(text[i] for i in _survivors(len(text), share, rng))


def _truncate_front(text: str, share: Fraction, _: np.random.Generator, __: Context) -> str:
    return text[len(text) - _floor(len(text), 1 - share) :]


def _truncate_back(text: str, share: Fraction, _: np.random.Generator, __: Context) -> str:
    return text[: _floor(len(text), 1 - share)]


def _digit_replace(text: str, share: Fraction, rng: np.random.Generator, _: Context) -> str:
    places = [i for i, character in enumerate(text) if character.isdigit()]
    return "".join(_replaced(text, places, _DIGITS, share, rng))


def _char_replace(text: str, share: Fraction, rng: np.random.Generator, _: Context) -> str:
    places = [i for i, character in enumerate(text) if character.isalnum()]
    return "".join(_replaced(text, places, _LETTERS_AND_DIGITS, share, rng))


# Tokens.


def _token_delete(ids: Ids, share: Fraction, rng: np.random.Generator, _: TokenPool) -> Ids:
    return tuple(ids[i] for i in _survivors(len(ids), share, rng))


def _token_truncate_front(ids: Ids, share: Fraction, _: np.random.Generator, __: TokenPool) -> Ids:
    return ids[len(ids) - _floor(len(ids), 1 - share) :]


def _token_truncate_back(ids: Ids, share: Fraction, _: np.random.Generator, __: TokenPool) -> Ids:
    return ids[: _floor(len(ids), 1 - share)]


def _token_digit_replace(ids: Ids, share: Fraction, rng: np.random.Generator, pool: TokenPool) -> Ids:
    holding = frozenset(pool.with_digit)
    places = [i for i, token in enumerate(ids) if token in holding]
    return tuple(_replaced(ids, places, pool.with_digit, share, rng))


def _token_replace(ids: Ids, share: Fraction, rng: np.random.Generator, pool: TokenPool) -> Ids:
    return tuple(_replaced(ids, range(len(ids)), pool.replacements, share, rng))


# Meaning.


def _swap_numbers(text: str, _: Fraction, rng: np.random.Generator, __: Context) -> str:
    spans = numbers(text)
    if len({span.value for span in spans}) < 2:
        return text
    one = spans[rng.integers(len(spans))]
    others = [span for span in spans if span.value != one.value]
    left, right = sorted((one, others[rng.integers(len(others))]), key=lambda span: span.start)
    return _with_span(_with_span(text, right, left.text), left, right.text)


def _change_result(text: str, _: Fraction, rng: np.random.Generator, __: Context) -> str:
    after_equals = results(text)
    candidates = after_equals[:-1] or after_equals or numbers(text)
    if not candidates:
        return text
    span = candidates[rng.integers(len(candidates))]
    return _with_span(text, span, _other_number(span.text, rng))


def _shuffle_sentences(text: str, _: Fraction, rng: np.random.Generator, __: Context) -> str:
    """What separates sentences stays where it is, so that `17+4=21,21+79=100` becomes `21+79=100,17+4=21`."""
    parts = [_parted(sentence) for sentence in sentences(text)]
    cores = [core for _, core, _ in parts]
    if len(set(cores)) < 2:
        return text
    shuffled = cores
    while shuffled == cores:  # at most every second draw
        shuffled = [cores[i] for i in rng.permutation(len(cores)).tolist()]
    return "".join(lead + core + trail for (lead, _, trail), core in zip(parts, shuffled, strict=True))


def _truncate_sentences(text: str, share: Fraction, _: np.random.Generator, __: Context) -> str:
    pieces = sentences(text)
    return "".join(pieces[: _floor(len(pieces), 1 - share)])


def _change_fact(text: str, _: Fraction, rng: np.random.Generator, __: Context) -> str:
    changed = change_number(text, rng)
    return text if changed is None else changed.text


def _other_cot(_: str, __: Fraction, ___: np.random.Generator, context: Context) -> str:
    return context.other_cot


def _question(_: str, __: Fraction, ___: np.random.Generator, context: Context) -> str:
    return context.question


def _filler(text: str, _: Fraction, __: np.random.Generator, ___: Context) -> str:
    return (FILLER * len(text))[: len(text)]


def _with_span(text: str, span: Span, written: str) -> str:
    return text[: span.start] + written + text[span.end :]


def _other_number(written: str, rng: np.random.Generator) -> str:
    """Another number of the same form: sign, point and commas stay, the first of several whole digits is not 0."""
    places = [i for i, character in enumerate(written) if character.isdigit()]
    whole_digits = sum(map(str.isdigit, written.partition(".")[0]))
    changed = written
    while changed == written:  # one draw in nine, at most
        digits = rng.integers(10, size=len(places)).tolist()
        if whole_digits > 1:
            digits[0] = int(rng.integers(1, 10))
        characters = list(written)
        for place, digit in zip(places, digits, strict=True):
            characters[place] = str(digit)
        changed = "".join(characters)
    return changed


def _parted(sentence: str) -> tuple[str, str, str]:
    """A sentence between the separators around it."""
    rest = sentence.lstrip(_EDGE)
    core = rest.rstrip(_EDGE)
    return sentence[: len(sentence) - len(rest)], core, rest[len(core) :]


_CODE = "research code"
_PAPER = "paper"
_LANHAM = "Lanham et al. 2023"
_OURS = "ours"

TABLE: dict[str, Perturbation] = {
    row.name: row
    for row in (
        Perturbation("delete", "character", "floor(n·s) of the n characters, drawn without replacement, are removed",
                     _CODE, on_text=_delete),
        Perturbation("truncate_front", "character", "the beginning is removed; the last floor(n·(1−s)) characters stay",
                     _CODE, on_text=_truncate_front),
        Perturbation("truncate_back", "character", "the end is removed; the first floor(n·(1−s)) characters stay",
                     _CODE, on_text=_truncate_back),
        Perturbation("digit_replace", "character", "each digit becomes, with probability s, a uniformly drawn digit, possibly the same",
                     _CODE, on_text=_digit_replace),
        Perturbation("char_replace", "character",
                     "each letter or digit becomes, with probability s, a uniformly drawn ASCII letter or digit, possibly the same",
                     _CODE, on_text=_char_replace),
        Perturbation("token_delete", "token", "floor(n·s) of the n tokens, drawn without replacement, are removed",
                     _PAPER, on_ids=_token_delete),
        Perturbation("token_truncate_front", "token", "the beginning is removed; the last floor(n·(1−s)) tokens stay",
                     _PAPER, on_ids=_token_truncate_front),
        Perturbation("token_truncate_back", "token", "the end is removed; the first floor(n·(1−s)) tokens stay",
                     _PAPER, on_ids=_token_truncate_back),
        Perturbation("token_digit_replace", "token",
                     "each token that contains a digit becomes, with probability s, a uniformly drawn token that contains one, possibly the same",
                     _PAPER, on_ids=_token_digit_replace),
        Perturbation("token_replace", "token",
                     "each token becomes, with probability s, a uniformly drawn token, possibly the same, never a special one",
                     _PAPER, on_ids=_token_replace),
        Perturbation("swap_numbers", "meaning", "two numbers of different value are swapped",
                     _OURS, (1.0,), on_text=_swap_numbers),
        Perturbation("change_result", "meaning",
                     "one number right after `=` (not the last of several) becomes another with as many digits; without `=`, any number",
                     f"{_OURS}, after “adding mistakes” of {_LANHAM}", (1.0,), on_text=_change_result),
        Perturbation("shuffle_sentences", "meaning", "the sentences are put in another order",
                     _OURS, (1.0,), on_text=_shuffle_sentences),
        Perturbation("other_cot", "meaning", "replaced by the CoT of another example",
                     _OURS, (1.0,), on_text=_other_cot),
        Perturbation("question", "meaning", "replaced by the question, restated",
                     _OURS, (1.0,), on_text=_question),
        Perturbation("filler", "meaning", "replaced by ` ...` over and over, cut to as many characters",
                     _LANHAM, (1.0,), on_text=_filler),
        Perturbation("truncate_sentences", "meaning", "the first floor(k·(1−s)) of the k sentences stay",
                     f"{_LANHAM}, early answering", on_text=_truncate_sentences),
        Perturbation("paraphrase", "meaning",
                     "synonyms, summands and factors in the other order, passive for active, sentences that don't build on each other reordered",
                     f"ours, after {_LANHAM}", (1.0,), "nothing", on_text=paraphrase),
        Perturbation("translate_numbers", "meaning", "whole numerals up to 999,999 as English words",
                     _OURS, (1.0,), "nothing", on_text=translate_numbers),
        Perturbation("digitize_numbers", "meaning", "number words above one as numerals",
                     _OURS, (1.0,), "nothing", on_text=digitize_numbers),
        Perturbation("rename", "meaning", "every name becomes another one, the same everywhere",
                     _OURS, (1.0,), "nothing", on_text=rename),
        Perturbation("rename_inconsistently", "meaning", "every second mention of a name becomes another person's",
                     _OURS, (1.0,), "degrade", on_text=rename_inconsistently),
        Perturbation("change_fact", "meaning",
                     "one number of the second step becomes another, and all that follows from it in the CoT is recalculated",
                     _OURS, (1.0,), "follow", on_text=_change_fact),
    )
}  # fmt: skip
