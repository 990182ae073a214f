"""Extract answers from text, compare them, and say why one is wrong. Pure: text in, text out.

Methods:

    final_number number what a person reads: the last stated answer, else what the reply begins with, else its last number
    final_letter    letter   the same for choices, named by letter or by text; articles and lists of the choices are no letters
    final_text      text     the same for texts
    math_verify     number   what the Math-Verify library reads: LaTeX, fractions, decimals
    first_line      text     the first line that is not blank

and those of the research code, which read what its extractors read, on its own test cases and beyond, for parity with its published tables:

    simple          number   first integer after the last `=`, else the first integer
    anchor          number   integer after an `Answer` label; else the last `= integer`; else the first integer
    legacy          letter   first A-E anywhere, inside words too: "The" is E. Only to reproduce the seed's numbers
    word_boundary   letter   letter after an answer, option or choice label; else the first letter that stands alone and
                             is not a list header such as `A) text`

`simple` and `anchor` read integers only, as the research code does: `42.5` is 42, and never equals a gold 42.5.
`likelihood` needs a model and belongs to the evaluator.
"""

from __future__ import annotations

import functools
import logging
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from markovlm.errors import UserError
from markovlm.plugins import calling, named
from markovlm.registry import EXTRACTORS
from markovlm.tasks.base import LETTERS, AnswerType
from markovlm.tasks.equations import has_wrong_equation
from markovlm.tasks.folds import normalized
from markovlm.tasks.letters import read_letter
from markovlm.tasks.limits import OutOfTime, processor_limit
from markovlm.tasks.numbers import MAX_NUMBER_CHARACTERS, normalize_number, written_numbers
from markovlm.tasks.reading import normalized_answer, read_number, read_text
from markovlm.tasks.statements import first_sentence

FailureKind = Literal["not_extracted", "repetition", "no_answer", "format", "wrong_arithmetic", "other"]
FAILURE_KINDS: dict[FailureKind, str] = {
    "not_extracted": "the gold answer is in the answer text, but the extractor read something else or nothing",
    "repetition": "the chain of thought repeats itself",
    "no_answer": "the answer text is empty",
    "format": "the answer text contains nothing of the expected type",
    "wrong_arithmetic": "an equation in the chain of thought is false",
    "other": "none of these",
}

MATH_VERIFY_SECONDS = 2
MATH_VERIFY_CHARACTERS = 1000  # the end of a longer text is what counts
_DEFAULT_LETTERS = 5

_INTEGER = re.compile(r"-?\d+")
_ANSWER_INTEGER = re.compile(r"answer\s*(?:(?:is|[=:])\s*)?(-?\d+)", re.IGNORECASE)
_BARE_INTEGER = re.compile(r"\s*-?\d{1,15}\s*", re.ASCII)
_BOLD = re.compile(r"(?<!\d)\*\*|\*\*(?!\d)|__")
_EXCLAMATION = re.compile(r"(?<![\d)])!|!(?=\s*(?:\Z|\s[^-+*/=<>^]|[\"'”’]))")
_WRAPPED = re.compile(r"\A\s*[(\[]\s*([-\d.,$\\]+)\s*[)\]]\s*\.?\s*\Z")
_TOWER = re.compile(  # a power or factorial of a power or factorial: what SymPy may work at forever
    r"(?:\^|\*\*)\s*(?:\{[^{}]*(?:\^|\*\*|!)|\(|[\w.]+\s*(?:\^|\*\*|!)|\{[^{}]*\}\s*(?:\^|\*\*|!))|[)}\]]\s*(?:\^|\*\*)\s*\{?\s*\d{2}|\)\s*!|!!"
)
_HUGE = re.compile(r"\d{40}|(?:\^|\*\*)\s*\{?\s*-?\s*\d{4}|\d{4}\s*!")

Reading = Callable[[str, Sequence[str]], str | None]  # answer text, choices -> answer, None where there is none


@dataclass(frozen=True, slots=True)
class Extractor:
    """A way to extract answers of one type from text."""

    read: Reading
    answer_type: AnswerType
    read_cut: Reading | None = None  # of a reply that the token limit cut; None: as any other


class UnknownMethod(UserError, ValueError):
    """There is no extraction method of this name."""


def extract(text: str, method: str, *, choices: Sequence[str] = (), ended: bool = True) -> str | None:
    """The answer that `method` reads in `text`, in canonical form, or None if it finds none.

    `choices` limits the letters that count (A-E without it; `legacy` always reads A-E). `ended=False` says that the token limit cut the
    text off: the `final_…` methods then ignore a number at the cut, which may be incomplete. Raises UnknownMethod for other names,
    UserError if a plug-in's method raises or returns anything but text.
    """
    if method not in EXTRACTORS:
        raise UnknownMethod(f"Unknown extraction method {method!r}; methods for text: {', '.join(EXTRACTORS)}")
    found = EXTRACTORS[method]
    read = found.read if ended else found.read_cut or found.read
    with calling(EXTRACTORS, method, "it"):
        made: object = read(text, choices)
    if made is not None and not isinstance(made, str):
        raise UserError(
            f"{named(EXTRACTORS, method)} returned {type(made).__name__}; it must return a str, or None if there is no answer"
        )
    return made


def is_correct(predicted: str | None, gold: str, answer_type: AnswerType, *, method: str = "") -> bool:
    """Whether an extracted answer equals the gold one: numbers by value, letters without regard to case, texts as `_same_text` says.

    With `method="math_verify"` two numbers are also equal where that library says so. No answer is never correct.
    """
    if predicted is None:
        return False
    if answer_type == "number":
        number = normalize_number(predicted)
        if number is not None and number == normalize_number(gold):
            return True
        if _BARE_INTEGER.fullmatch(predicted) and _BARE_INTEGER.fullmatch(gold):
            return False
        return method == "math_verify" and _math_verify_equal(predicted, gold)
    return _same_text(predicted, gold) if answer_type == "text" else normalized(predicted) == normalized(gold)


def _same_text(predicted: str, gold: str) -> bool:
    """Equal without regard to case, Unicode form, white space, punctuation and articles, or as numbers.

    Of a predicted text of several sentences the first will do: `Paris. It is the capital.` is `Paris`, but `Paris, France` is not.
    """
    number = normalize_number(gold)
    for said in dict.fromkeys((predicted, first_sentence(predicted))):
        if normalized_answer(said) == normalized_answer(gold) or (number is not None and normalize_number(said) == number):
            return True
    return False


def classify_failure(
    *,
    cot: str,
    answer_text: str,
    predicted: str | None,
    gold: str,
    answer_type: AnswerType,
    choices: Sequence[str] = (),
) -> FailureKind:
    """Why an answer is wrong: the first kind of `FAILURE_KINDS` that fits.

    Only for answers that are wrong; `answer_text` is the raw text that `predicted` was read from.
    """
    if _gold_is_there(answer_text, predicted, gold, answer_type, choices):
        return "not_extracted"
    if is_repetitive(cot):
        return "repetition"
    if not re.search(r"\w", answer_text):
        return "no_answer"
    if predicted is None:
        return "format"
    return "wrong_arithmetic" if has_wrong_equation(cot) else "other"


def is_repetitive(text: str) -> bool:
    """Whether `text` repeats itself: `44444…`, or one phrase over and over.

    True for text of at least 40 characters that deflate shortens to under an eighth, or in which fewer than a third of the eight-word
    sequences are distinct.
    """
    data = text.strip().encode("utf-8", "replace")
    if len(data) < 40:
        return False
    if len(zlib.compress(data, 9)) - 11 < len(data) / 8:  # 11 bytes of header and checksum
        return True
    words = text.split()
    runs = [tuple(words[i : i + 8]) for i in range(len(words) - 7)]
    return len(runs) >= 16 and len(set(runs)) < len(runs) / 3


def _simple(text: str, _: Sequence[str]) -> str | None:
    return _integer(_INTEGER.search(text.rpartition("=")[2].replace(",", "")))


def _anchor(text: str, _: Sequence[str]) -> str | None:
    bare = text.replace(",", "")
    if label := _ANSWER_INTEGER.search(bare):
        return _integer(label, group=1)
    results = [match for segment in bare.split("=")[1:] if (match := _INTEGER.search(segment))]
    return _integer(results[-1] if results else _INTEGER.search(bare))


def _legacy(text: str, _: Sequence[str]) -> str | None:
    match = re.search(r"[A-E]", text.upper())
    return match[0] if match else None


def _word_boundary(text: str, choices: Sequence[str]) -> str | None:
    last = LETTERS[(len(choices) or _DEFAULT_LETTERS) - 1]
    upper = text.upper()
    for label in ("ANSWER", "(?:OPTION|CHOICE)"):
        if match := re.search(rf"{label}\s*(?:(?:IS|[=:])\s*)?([A-{last}])\b", upper):
            return match[1]
    without_headers = re.sub(rf"(?m)^([^\S\n]*(?:[*-][^\S\n]*)?)[A-{last}](?=[)\].:-]\s+\S)", r"\1 ", upper)
    # Headers in lower case are read as letters after all, as the research code does.
    match = re.search(rf"\b[A-{last}]\b", without_headers) or re.search(rf"\b[a-{last.lower()}]\b", text)
    return match[0].upper() if match else None


def _first_line(text: str, _: Sequence[str]) -> str | None:
    return next((line.strip() for line in text.splitlines() if line.strip()), None)


def _math_verify(text: str, _: Sequence[str]) -> str | None:
    if _BARE_INTEGER.fullmatch(text):  # most answers are one, and the library takes a millisecond over it
        return str(int(text))
    parsed = _math_verify_parse(text)
    if not parsed:
        return None
    value = normalize_number(str(parsed[0]))
    if value is None and (value := normalize_number(str(parsed[-1]))) is None:
        return str(parsed[-1]).strip() or None
    return value


METHODS: dict[str, Extractor] = {
    "final_number": Extractor(lambda text, _: read_number(text), "number", lambda text, _: read_number(text, ended=False)),
    "final_letter": Extractor(read_letter, "letter", lambda text, choices: read_letter(text, choices, ended=False)),
    "final_text": Extractor(lambda text, _: read_text(text), "text"),
    "simple": Extractor(_simple, "number"),
    "anchor": Extractor(_anchor, "number"),
    "legacy": Extractor(_legacy, "letter"),
    "word_boundary": Extractor(_word_boundary, "letter"),
    "math_verify": Extractor(_math_verify, "number"),
    "first_line": Extractor(_first_line, "text"),
}


def _integer(match: re.Match[str] | None, group: int = 0) -> str | None:
    """The matched integer in ASCII without leading zeros; None if it is too long to be one."""
    if match is None or len(match[group]) > MAX_NUMBER_CHARACTERS:
        return None
    return str(int(match[group]))


def _gold_is_there(text: str, predicted: str | None, gold: str, answer_type: AnswerType, choices: Sequence[str]) -> bool:
    """Whether another reading of the answer text finds the gold answer.

    With nothing extracted, gold anywhere will do; else it must be the last thing of its kind, where answers stand.
    """
    if answer_type == "number":
        found, target = [one.value for one in written_numbers(text) if one.kind != "ordinal"], normalize_number(gold)
    elif answer_type == "letter":
        found = re.findall(r"\b[A-J]\b", text) + _choices_in(text, choices)
        target = gold
    else:
        found, target = ([gold] if f" {normalized_answer(gold)} " in f" {normalized_answer(text)} " else []), gold
    return target in (found if predicted is None else found[-1:])


def _choices_in(text: str, choices: Sequence[str]) -> list[str]:
    """The letter of the one choice whose text stands in `text`, if there is exactly one."""
    words = f" {re.sub(r'[^a-z0-9]+', ' ', normalized(text))} "
    spoken = [re.sub(r"[^a-z0-9]+", " ", normalized(choice)).strip() for choice in choices]
    letters = [letter for letter, choice in zip(LETTERS, spoken, strict=False) if len(choice) > 1 and f" {choice} " in words]
    return letters if len(letters) == 1 else []


def _math_verify_parse(text: str) -> list[Any]:
    """Math-Verify's reading: a SymPy value and the text it was read from, or nothing.

    Bold type and exclamation marks are taken away first, which the library reads as powers and factorials, and signs that it does not know are
    written as it knows them. What takes more than two seconds of *processor* time is not read, however busy the machine is. The
    signal for it belongs to the main thread, and does not interrupt SymPy inside one huge power: texts with a power of a power, or
    one of four digits, are not read at all.
    """
    tail = text[-MATH_VERIFY_CHARACTERS:].replace("\N{MINUS SIGN}", "-").replace("\\$", "$")
    tail = _WRAPPED.sub(r"\1", _EXCLAMATION.sub(" ", _BOLD.sub("", tail)))
    if _TOWER.search(tail) or _HUGE.search(tail):
        return []
    parse, _ = _library()
    try:
        with processor_limit(MATH_VERIFY_SECONDS):
            return cast(list[Any], parse(tail, parsing_timeout=0))
    except OutOfTime:
        return []


def _math_verify_equal(predicted: str, gold: str) -> bool:
    """Math-Verify's verdict on two answers, each read as a formula; False where it does not come to one in time."""
    formulas = [_math_verify_parse(f"${side.strip('$ ')}$") for side in (gold, predicted)]
    _, verify = _library()
    try:
        with processor_limit(MATH_VERIFY_SECONDS):
            return bool(verify(formulas[0], formulas[1], timeout_seconds=0))
    except OutOfTime:
        return False


@functools.cache
def _library() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`parse` and `verify`, once they have read a text: importing SymPy and its grammar takes a second or two that count for no answer."""
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of every text that took too long
    verify(parse("$1$", parsing_timeout=0), parse("$1$", parsing_timeout=0), timeout_seconds=0)
    return parse, verify
