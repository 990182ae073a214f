"""The answer of a reply, as a person reads it: numbers and texts (letters: `tasks.letters`). Pure: text in, answer out.

`read_number` and `read_text` take the last thing that the reply states to be its answer (`tasks.statements`), else what the reply
begins with, else what it ends with.

`ended=False` says that the token limit cut the reply. A number that the cut touches is then unknown (`1,2` may begin 1,250), and
numbers of unfinished reasoning are not an answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from markovlm.tasks.equations import value_of
from markovlm.tasks.numbers import CURRENCY, Written, canonical, normalize_number, written_numbers
from markovlm.tasks.statements import Statement, declines, first_sentence, reply_of, sentences_of, statements

MAX_CHARACTERS = 20_000  # of a reply; of a longer one the end counts
MAX_LINE = 400  # characters of a first line that are looked at

# ----------------------------------------------------------------------------------------------------------------- numbers

_OPERATOR = r"[-+*/x×÷·−]|\\times|\\cdot|\\div"
_OPERATES = re.compile(rf"\s*(?:(?:{_OPERATOR})\s*[$£€(\d]|[=≈])")
_EXPRESSION = re.compile(r"[\s$£€]*\d[\d,.]*(?:\s*(?:[+*/x×÷·]|\\times|\\cdot|\\div|\s[-−]\s)\s*[$£€]?\d[\d,.]*)+")
MARKUP = re.compile(r"[\s*_`\"'“”‘’~>#$\\(\[{]*")
LATEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s?\{([^{}]*)\}")
_NOT = re.compile(r"\b(?:not|isn['’]t|never|n['’]t)\s+(?:equal\s+to\s+|exactly\s+|just\s+)?[$£€]?\Z", re.IGNORECASE)
_LISTED = re.compile(r"(?:^|\n)[ \t*_>-]*\Z")
_NUMBERED = re.compile(
    r"\b(?:tokens?(?:\s+(?:count|used|usage))?|steps?|questions?|problems?|examples?|parts?|notes?|figures?|tables?|equations?|eq|sections?|cases?|methods?|options?)\W{0,3}\Z",
    re.IGNORECASE,
)
_GSM_LINE = re.compile(r"(?:^|\n)[ \t]*A:[ \t]*(?=\S)")
_CHATTER = re.compile(
    r"(?<=\w[.!?])\s+(?:I hope (?:this|that|it) helps|(?:please )?let me know|feel free to|if you have any)\b", re.IGNORECASE
)
_LOOP = 240  # characters
_TOKENS_BEHIND = re.compile(r"[\s-]*tokens?\b|\s*/\s*\d", re.IGNORECASE)
_IS = re.compile(
    r"(?:\b(?:is|are|was|were|be|equals?)|[:=])\s+(?:(?:about|approximately|only|exactly|now|still|just|roughly|\$)\s*)*[$£€*\\(]*\Z",
    re.IGNORECASE,
)
_AMOUNT_OF = re.compile(
    r"\b(?:a|an|the|total|sum|average|profit|cost|amount|number|rate|speed|loss|balance)\s+(?:\w+\s+)?of\s+[$£€]?\Z",
    re.IGNORECASE,
)
_SECONDARY = re.compile(
    r"\b(?:in|for|after|from|with|per|each|every|all|the|these|those|at|by|on|within|over|between|than|another|both|during|of|other|read|first|last|next)"
    r"\s+(?:(?:all|the|of|his|her|their|its|about|those|these)\s+)*[$£€]?\Z",
    re.IGNORECASE,
)
_TO_DO = re.compile(r"\bto\s+\w+\s+[$£€]?\Z", re.IGNORECASE)
_COEFFICIENT = re.compile(r"[a-z](?![A-Za-z])\s*[-+*/^]")
_WITH_UNKNOWN = re.compile(r"(?:(?<![A-Za-z])|(?<=\d))[a-z]\s*[-+*/^]\s*\Z")
_IS_ANSWER = re.compile(
    r"\b(?:is|are|was|must\s+be)\s+(?:therefore\s+|thus\s+)?(?:the|our|my)\s+(?:final\s+|correct\s+|right\s+)*answer\b",
    re.IGNORECASE,
)
_TOTALS = re.compile(
    r"\b(?:so|thus|therefore|hence|total|altogether|which (?:is|equals|makes|gives)|leaving|making|giving)\b", re.IGNORECASE
)
_CONCLUDES = re.compile(
    r"\A\W*(?:(?:step\s*)?\d+\s*[.:)]\s*)?(?:therefore|thus|hence|so|in total|altogether|in conclusion|finally)\b", re.IGNORECASE
)
_UNDETERMINED = re.compile(
    r"\b(?:undetermined|undefined|insufficient|not\s+enough|(?:(?:can)?not|n['’]t)\s+(?:be\s+)?determin\w+)\b", re.IGNORECASE
)
_CLAUSE = re.compile(
    r"\b(?:is|are|was|were|be|has|have|had|will|would|can|gets?|lays?|needs?|makes?|earns?|pays?|buys?|sells?|eats?|gives?|takes?|bought|sold|gave|ate)\b",
    re.IGNORECASE,
)
_GOES_ON = re.compile(r"\W*(?:steps?\b|\d+[.)]|next\b|then\b|now\b|finally\b|since\b|after\b)", re.IGNORECASE)


def read_number(text: str, *, ended: bool = True) -> str | None:
    """The number that the reply gives as its answer, in canonical form (`tasks.numbers`); None if it gives none.

    A formula counts by its result (`Answer: 3 * 4 = 12`). Number words count if they are stated to be the answer, or if the reply has
    no digits (`one of them` is not the answer beside `12`).
    """
    reply, followed = reply_of(text[-MAX_CHARACTERS:])
    whole = followed or (ended and not _loops(reply))
    found = [*statements(reply), *_more_statements(reply)]
    for one in sorted(found, key=lambda statement: statement.start, reverse=True):
        if one.kind in ("label", "tag") and _declines_number(first_sentence(one.text)):
            return None
        value = _stated_number(reply, one, whole)
        if value is not None:
            return value
    leading = _leading_number(reply, whole)
    return leading if leading is not None else _final_number(reply, whole)


def _loops(reply: str) -> bool:
    """Does it end in one piece over and over? Then only a limit ended it."""
    tail = reply.rstrip()[-_LOOP:]
    return len(tail) == _LOOP and any(tail[period:] == tail[:-period] for period in range(1, _LOOP // 3 + 1))


def _more_statements(reply: str) -> list[Statement]:
    """What states a number, but no letter: a line `A: 42`, as GSM8K's models write, and `42 is the answer`."""
    found = [Statement(m.start(), "label", first_sentence(reply[m.end() :]), m.end()) for m in _GSM_LINE.finditer(reply)]
    for match in _IS_ANSWER.finditer(reply):
        before = written_numbers(reply[max(0, match.start() - 60) : match.start()])
        if before and re.fullmatch(
            r"[\s*_$\\)\]}]*(?:[a-z]+\s*)?", (offset := reply[max(0, match.start() - 60) : match.start()])[before[-1].end :]
        ):
            at = match.start() - len(offset) + before[-1].start
            found.append(Statement(at, "label", before[-1].text, at))
    return found


def _declines_number(said: str) -> bool:
    """Does it say that there is no number? `cannot be determined from 3 numbers` does, `not sure, maybe 3` does not."""
    numbers = written_numbers(said)
    return declines(said) if not numbers else _UNDETERMINED.search(said, 0, numbers[0].start) is not None


def _stated_number(reply: str, one: Statement, whole: bool) -> str | None:
    if one.kind == "box":
        closed = whole or one.end < len(reply)
        return (normalize_number(plain_latex(one.text)) if closed else None) or number_in(reply, one.at, one.text, whole)
    if one.kind == "hash" and not re.match(r"[^\w\n]*\d[\d,.]*[^\w\n]*(?:\w+[^\w\n]*){0,3}\Z", one.text):
        return None  # a heading
    if one.kind == "tag":
        return number_in(reply, one.at, one.text, whole)
    return number_in(reply, one.at, first_sentence(one.text), whole)


def plain_latex(text: str) -> str:
    """Without LaTeX's words and spaces: `5 \\text{ apples}` -> `5`."""
    return re.sub(
        r"\\[,;!: ]|\^\\circ|\^\{\\circ\}|°", " ", LATEX_TEXT.sub(lambda m: m[1] if re.search(r"\d", m[1]) else " ", text)
    ).strip()


def number_in(reply: str, at: int, said: str, whole: bool) -> str | None:
    """The number that a statement comes to: `said`, which begins at `at` in the reply. None if it has none.

    `whole=False`: the token limit cut the reply off, and a number at the cut does not count.
    """
    numbers = [one for one in written_numbers(said) if one.kind != "ordinal"]
    numbers = [one for one in numbers if not _NOT.search(said[: one.start])] or numbers
    if "=" not in said:
        numbers = [one for one in numbers if not _in_algebra(said, one)]
    if not numbers:
        return None
    first = numbers[0]
    if MARKUP.fullmatch(said[: first.start]) and not _OPERATES.match(said, first.end):
        chosen = first
    elif "=" in said or "≈" in said:
        behind = max(said.rfind("="), said.rfind("≈"))
        chosen = next((one for one in numbers if one.start > behind), None)
        if chosen is None:
            return None
    elif (formula := _EXPRESSION.match(said, max(0, first.start - 1))) and formula.end() > first.end:
        if not whole and at + formula.end() >= len(reply.rstrip()):
            return None
        value = value_of(re.sub(r"[$£€,]|\\", "", formula[0].replace("times", "*").replace("cdot", "*").replace("div", "/")))
        return None if value is None else canonical(value)
    else:
        strong = [one for one in numbers if not one.weak] or numbers
        chosen = strong[-1] if _TOTALS.search(said[first.end :]) else strong[0]
    return None if _is_cut(reply, at, chosen, whole) else chosen.value


def _in_algebra(text: str, one: Written) -> bool:
    """Is it a part of `12x + 21`?"""
    return (
        _COEFFICIENT.match(text, one.end) is not None or _WITH_UNKNOWN.search(text[max(0, one.start - 8) : one.start]) is not None
    )


def _is_cut(reply: str, at: int, one: Written, whole: bool) -> bool:
    """May the token limit have cut this number?"""
    if whole:
        return False
    rest = reply[at + one.end :]
    if (before := written_numbers(reply[: at + one.start])) and before[-1].value == one.value:
        return False  # `so 12 + 9 = 21. The answer is 21`
    if one.kind == "words":
        return rest.strip().lower() in ("", "-", "and")
    return rest in ("", ",", "/", "-", "e", "^") or (rest == "." and any(c in CURRENCY for c in one.text))


def _leading_number(reply: str, whole: bool) -> str | None:
    """A number that the reply begins with, with nothing but a unit in its sentence: ` 14.`, ` $5 per hour`, ` 6 packages of 7`."""
    body = reply.lstrip()
    offset = len(reply) - len(body)
    line = first_sentence(body[:MAX_LINE])
    numbers = written_numbers(line)
    if not numbers or numbers[0].kind == "ordinal" or not MARKUP.fullmatch(line[: numbers[0].start]):
        return None
    first = numbers[0]
    rest = line[first.end :]
    if re.match(r"[.)][ \t]+\S", body[first.end :]) and (first.value == "1" or re.search(rf"\s{_next(first)}[.)]\s", body)):
        return None  # a list: `1. … 2. …`
    if _OPERATES.match(rest) or _in_algebra(line, first) or re.search(r"[=≈]", line):
        return None
    if (len(re.findall(r"\w+", rest)) > 6 or _CLAUSE.search(rest)) and not re.match(r"\s*[(,.;:—–-]", rest):
        return None
    return None if _is_cut(reply, offset, first, whole) else first.value


def _next(one: Written) -> str:
    return str(int(one.value) + 1) if one.value.isdigit() else "(?!)"


def _final_number(reply: str, whole: bool) -> str | None:
    """What the last sentence with a number comes to. Where the reply was cut, only if it draws the conclusion and no further step was begun."""
    if (chatter := _CHATTER.search(reply)) is not None:
        reply, whole = reply[: chatter.start()], True
    numbers = [one for one in written_numbers(reply) if _counts(reply, one)]
    numbers = [one for one in numbers if not one.weak] or numbers
    if not numbers:
        return None
    at, sentence = [(at, said) for at, said in sentences_of(reply) if at <= numbers[-1].start][-1]
    concludes = _CONCLUDES.match(sentence) is not None
    end = at + len(sentence)
    if not whole and (not concludes or end >= len(reply) or _GOES_ON.match(reply, end)):
        return None
    inside = [one for one in numbers if one.start >= at]
    return _concluded(sentence, at, inside).value if concludes else inside[-1].value


def _concluded(sentence: str, at: int, numbers: Sequence[Written]) -> Written:
    """The number that a conclusion is about: `it will take her 9 minutes to read 18 pages`, `she pays $20 for 4`."""
    behind = max(sentence.rfind("="), sentence.rfind("≈"))
    if behind >= 0 and (results := [one for one in numbers if one.start - at > behind]):
        return results[0]
    before = [(one, sentence[: one.start - at]) for one in numbers]
    equal = [one for one, text in before if _IS.search(text)]
    main = [one for one, text in before if _AMOUNT_OF.search(text) or not _SECONDARY.search(text)]
    to_do = [_TO_DO.search(sentence[: one.start - at]) is not None for one in main]
    if not equal and any(to_do):  # `needs 36 yards to make 12`, but `has to work 42 hours`
        return next((one for one, infinitive in zip(main, to_do, strict=True) if not infinitive), main[0])
    return (equal or main or numbers)[-1]


def _counts(reply: str, one: Written) -> bool:
    """Not an ordinal, a number of a list, of a step or of tokens."""
    before, after = reply[max(0, one.start - 24) : one.start], reply[one.end : one.end + 12]
    if one.kind == "ordinal" or _in_algebra(reply, one) or _NUMBERED.search(before) or _TOKENS_BEHIND.match(after):
        return False
    return not (_LISTED.search(before) and re.match(r"[.):]\s+\S|[.)]?\s*\Z", after) and (one.value != "1" or after.strip()))


# ------------------------------------------------------------------------------------------------------------------- texts

_QUOTES = "\"'“”‘’«»`*_ \t"


def read_text(text: str) -> str | None:
    """The reply's statement of its answer, else its first line, without quotes, markup and final full stop; None if nothing is written."""
    reply, _ = reply_of(text[-MAX_CHARACTERS:])
    for one in reversed(statements(reply)):
        if one.kind != "hash" and (said := trimmed(LATEX_TEXT.sub(r"\1", one.text))):
            return said
    return next((said for line in reply.splitlines() if (said := trimmed(line))), None)


def trimmed(line: str) -> str:
    """Without quotes, Markdown and a full stop around it; the stop of `U.S.` and `J. S. B.` stays."""
    bare = line.strip().strip(_QUOTES)
    if bare.endswith(".") and not bare.endswith("..") and not re.search(r"\b\w\.\w\.\Z|\b[A-Z]\.\Z", bare):
        bare = bare[:-1].strip(_QUOTES)
    return bare


def normalized_answer(text: str) -> str:
    """Text as answers are compared: without regard to case, Unicode form, white space, punctuation and English articles.

    Signs in and before numbers stay (`3.5`, `-5`), and so does whatever would leave nothing (`A`, `The The`, `+`).
    """
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    kept = _SIGN.sub(_kept, folded)
    bare = " ".join(word for word in kept.split() if word not in ("a", "an", "the"))
    return bare or " ".join(kept.split()) or folded


_SIGN = re.compile(r"[^\w\s]|_")


def _kept(match: re.Match[str]) -> str:
    """The sign, or a blank for punctuation that is not part of a number."""
    sign, text, at = match[0], match.string, match.start()
    if not unicodedata.category(sign).startswith("P"):
        return sign
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    if (sign in ".,/:" and before.isdigit() and after.isdigit()) or (sign == "-" and after.isdigit() and not before.isalnum()):
        return sign
    initial = sign == "." and before.isalpha() and not text[max(0, at - 2) : at - 1].isalnum()  # U.S.
    return "" if sign in "'’" or initial else " "
