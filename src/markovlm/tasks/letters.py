"""The choice that a reply names, as a person reads it: by letter, by text, by number. Pure: text in, letter out.

As for numbers and texts (`tasks.reading`), the last statement counts, then what the reply begins with, then what it ends with. An
article and the pronoun I are not letters, nor are units, variables of a formula and the headers of a list of all choices.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from markovlm.tasks.base import LETTERS
from markovlm.tasks.numbers import normalize_number, written_numbers
from markovlm.tasks.reading import (
    LATEX_TEXT,
    MARKUP,
    MAX_CHARACTERS,
    normalized_answer,
    number_in,
    plain_latex,
    read_number,
    trimmed,
)
from markovlm.tasks.statements import declines, first_sentence, reply_of, sentences_of, statements

DEFAULT_LETTERS = 5  # A to E, where the choices are not known

_FILLER = (
    r"(?:(?:the|an?\s+(?=option|choice|letter)|option|choice|letter|answer|that|it|is|be|would|should|clearly|definitely|probably|likely|"
    r"most|therefore|thus|then|hence|indeed|simply|either|final|correct|right|best|i|we|you|['’]d|think|believe|say|guess|go|with|choose|"
    r"pick|select|select:)(?:\s+|(?<=:)))*"
)
_OPENS = r"[\s*_`\"'“‘(\[{<$\\]*(?:\\?(?:text|textbf|mathrm|mathbf)\s?\{)?[\s(\[]*"
_LETTER_AFTER = r"(?![\w'’]|-\w|\.\w)"
_FUNCTION_WORD = re.compile(
    r"\s+(?:is|are|was|because|since|as|and|or|which|with|for|due|by|but|if|in|per|instead|rather|not|here|from|above|where|while|so|then|that)\b"
)
_PRONOUN = re.compile(r"\s+[a-z]|['’]")
_DENIES = re.compile(
    r"(?:\b(?:not|never|neither|nor|except|excluding|eliminat\w+|rul(?:e|es|ed|ing)\s+out|reject\w*|discard\w*|instead\s+of|rather\s+than|other\s+than|than|unlike|incorrect(?:ly)?|wrong(?:ly)?)|n['’]t)"
    r"\s+(?:(?:be|the|option|options|choice|choices|answer|letter|is|out|only|just|really|actually)\s+)*[*_\"'“(\[]*\Z",
    re.IGNORECASE,
)
_IS_WRONG = re.compile(
    r"[\s*_)\]\"'”.:]*(?:is|are|was|would\s+be|seems|looks|can\s+be)\s+(?:(?:also|clearly|definitely|simply|just|very|quite|still)\s+)*"
    r"(?:(?:can)?not|n['’]t|incorrect|wrong|false|tempting|out\b|ruled\s+out|eliminated|impossible|unlikely|irrelevant|invalid|close)",
    re.IGNORECASE,
)
_IS_RIGHT = re.compile(
    r"[\s*_)\]\"'”]*(?:,?\s*(?:is|must\s+be|would\s+be|should\s+be|seems|has\s+to\s+be|appears\s+to\s+be))\s+(?:(?:therefore|thus|clearly|definitely|probably|most\s+likely|likely|also|indeed|obviously)\s+)*"
    r"(?:the\s+)?(?:(?:most|only|one|single)\s+)*(?:correct|right|best|true|answer|likely|appropriate|accurate|plausible|suitable|closest)\b(?!\s+(?:if|when|only))",
    re.IGNORECASE,
)
_CHOOSES = re.compile(
    r"\b(?:(?:i|we)(?:['’](?:d|ll|m|ve)|\s+(?:would|will|have\s+to|must|am|can|should))?\s+(?:therefore\s+)?(?:say|go(?:ing)?\s+(?:with|for)|choose|pick|select|opt\s+for|vote\s+for|guess|conclude|answer|choosing|chose|picked|selected)|"
    r"(?:choose|pick|select|go\s+with|opt\s+for|going\s+with)|(?:leav(?:es|ing)|left)\s+(?:us\s+)?(?:only\s+)?(?:with\s+)?(?:only\s+)?|"
    r"my\s+(?:choice|answer|pick|guess)\s+is|it\s+(?:is|must\s+be|has\s+to\s+be)|(?:must|has\s+to|should|would|could)\s+be|points?\s+to|corresponds?\s+to|matches)\s*:?\s*"
    r"(?:(?:option|choice|answer|letter|the|that)\s+)*",
    re.IGNORECASE,
)

_LIST_GOES_ON = re.compile(r"[\s*_)\]]*(?:,|/|&|\band\b|\bor\b|\bnor\b)+[\s*_(\[]*(?:(?:and|or|nor)\b[\s*_(\[]*)?")
_NEGATES = re.compile(
    r"\b(?:not|worst|least|never|no|none|neither|eliminat\w+|unlikely|incorrect|wrong|false)\b|n['’]t\b", re.IGNORECASE
)
_IN_FORMULA_BEFORE = re.compile(r"(?:[_^]\s?\{?|\\\w*\{~?|[=+*/<>≈∝·×]\s*|\\\w*\s*|~|\d\s*|(?<![\w])[B-HJ-Z]\s)\Z")
_OTHERS = re.compile(r"[\s*_)\].]*(?:(?:,\s*)?(?:and|or|&)\s*[*_]*[(\[]?|,\s*[*_]*[(\[])[*_]*(?=[A-Ja-j][)\]*_.,\s]|[A-J]\Z)")
_IN_FORMULA_AFTER = re.compile(r"\s*(?:[=+*/^_<>≈∝·×]|\\[a-zA-Z])|\(|\s[B-HJ-Z](?![\w'’])")

_EMPTY_LABEL = re.compile(r"(?m)^[ \t]*[AQ]:[ \t]*$")  # of an answer or question to come
_PART = re.compile(r"\(([Aa])\)\s")  # of an answer in parts: `(a) …  (b) …`
_TELLING = 7  # characters of a choice that is not in a long text by chance, as `two` may be
_NUMBERED_CHOICE = re.compile(r"\W*(?:the\s+)?(?:option|choice)\s+(?:number\s+|no\.?\s+|#)?(\d)\b(?![.,]\d)", re.IGNORECASE)
_BEHIND_A_HEADER = re.compile(r"\A\s*[*_(]*[A-J][.):]+[*_]*\s+\Z")
_BOLD_CHOICE = re.compile(r"(?<=[ \t])\*\*\(?([A-J])(?:[.):]\s[^*\n]{2,200}|[.)]*)\*\*")
_BULLETS = " \t-*•."


class _Letters:
    """What is known of the choices while a reply is read."""

    def __init__(self, choices: Sequence[str]):
        self.letters = LETTERS[: len(choices) or DEFAULT_LETTERS]
        self.written = [trimmed(choice) for choice in choices]
        self.choices = [normalized_answer(choice) for choice in choices]
        self.named_choices = [choice for choice in self.choices if len(choice) > 1 and re.search(r"[^\W\d]{2}", choice)]
        self.values = [_first_value(choice) for choice in choices]
        some = f"[{self.letters}{self.letters.lower()}]"
        self.next_letter = re.compile(rf"{_OPENS}({some}){_LETTER_AFTER}")
        self.alone = re.compile(
            rf"(?<![\w'’\\^°-])([{self.letters}]|(?:(?<=option\s)|(?<=choice\s)|(?<=letter\s)|(?<=answer\s))[{self.letters.lower()}]){_LETTER_AFTER}"
        )
        self.header = re.compile(
            rf"[ \t]*(?:[-*•+>][ \t]*)?[*_(\[]*([{self.letters}{self.letters.lower()}])[*_]*[.):\]][*_]*(?=\s|\Z)"
        )

    def here(self, text: str, at: int = 0, *, filler: bool = True) -> tuple[str, int, int] | None:
        """The letter at `at` (after filler words and opening signs), and its span."""
        if filler and (skipped := re.compile(_FILLER, re.IGNORECASE).match(text, at)):
            found = self.here(text, skipped.end(), filler=False)
            if found is not None or skipped.end() == at:
                return found
        match = self.next_letter.match(text, at)
        if match is None:
            return None
        return (match[1].upper(), match.start(1), match.end(1)) if self.is_letter(text, match.start(1)) else None

    def is_letter(self, text: str, at: int) -> bool:
        """Whether the character at `at` names a choice, rather than being an article, pronoun or part of a word."""
        letter, before, rest = text[at], text[max(0, at - 2) : at], text[at + 1 :]
        if re.search(r"[(\[{*_$\"“']\Z", before) and re.match(r"[)\]}*_$\"”'.:]", rest):
            return True
        if letter in "Ii":
            return letter == "I" and not _PRONOUN.match(rest)
        if letter.islower() and not re.match(r"\s*(?:[).:,;!?*_\]}]|\n|\Z)", rest):
            return letter != "a" and _FUNCTION_WORD.match(rest) is not None
        if letter == "A" and re.match(r"\s+[a-z]", rest) and not _FUNCTION_WORD.match(rest):
            word = normalized_answer(rest.split()[0]) if rest.split() else ""
            return bool(self.choices) and self.choices[0].startswith(word) and bool(word)
        return True

    def last_alone(self, text: str) -> str | None:
        """The last letter that stands alone in `text` and is not denied; None if it is one of several: `(A) or (B)`."""
        found: list[tuple[str, int]] = []
        denied = -1  # where the last denied letter ends
        for match in self.alone.finditer(text):
            at = match.start(1)
            before, after = text[max(0, at - 60) : at], text[at + 1 : at + 60]
            if not self.is_letter(text, at):
                continue
            if _DENIES.search(before) or _IS_WRONG.match(after) or (denied >= 0 and _LIST_GOES_ON.fullmatch(text, denied, at)):
                denied = at + 1  # and so are those of `not (A), (B) or (C)`
                continue
            if _IN_FORMULA_BEFORE.search(before) or _IN_FORMULA_AFTER.match(after):
                continue
            if match[1] == "A" and not re.match(r"\s*(?:[).:,;!?*_\]}\"”]|\n|\Z)", after) and not _IS_RIGHT.match(after):
                continue  # an article at the start of a sentence
            found.append((match[1].upper(), at))
        if not found:
            return None
        letter, at = found[-1]
        joined = re.search(r"(?:\b(?:and|or)\b|[,/&])[\s*_(\[]*\Z", text[max(0, at - 12) : at])
        return None if joined and any(other != letter for other, _ in found) else letter

    def by_text(self, text: str, at_least: int = 2) -> str | None:
        """The letter of the one choice whose text is in `text`, or that `text` begins; longer choices win over shorter ones."""
        if not self.choices:
            return None
        words = f" {normalized_answer(text)} "
        there = [choice for choice in self.named_choices if f" {choice} " in words]
        there = [choice for choice in there if not any(choice != other and f" {choice} " in f" {other} " for other in there)]
        if len(set(there)) == 1 and self.choices.count(there[0]) == 1 and len(there[0]) >= at_least:
            return self.letters[self.choices.index(there[0])]
        return None

    def named(self, sentence: str) -> str | None:
        """Like `by_text`, for a sentence without denial."""
        return None if _NEGATES.search(sentence) else self.by_text(sentence, 2 if len(sentence.split()) <= 12 else _TELLING)

    def whole(self, text: str) -> str | None:
        """The letter of the choice that `text` equals, as text or as a number."""
        if not self.choices:
            return None
        bare = trimmed(text)
        if self.written.count(bare) == 1:
            return self.letters[self.written.index(bare)]
        said = normalized_answer(text)
        same = [letter for letter, choice in zip(self.letters, self.choices, strict=False) if choice and choice == said]
        if len(same) == 1:
            return same[0]
        return self.of_value(normalize_number(plain_latex(text)))

    def numbered(self, text: str) -> str | None:
        """C for `option 3`."""
        match = _NUMBERED_CHOICE.match(text)
        return self.letters[int(match[1]) - 1] if match and 0 < int(match[1]) <= len(self.letters) else None

    def of_value(self, value: str | None) -> str | None:
        """The letter of the one choice that equals this number, with whatever unit."""
        return self.letters[self.values.index(value)] if value is not None and self.values.count(value) == 1 else None


def _first_value(choice: str) -> str | None:
    """The number of a choice that is one, with or without a unit: `12 m/s`."""
    numbers = written_numbers(choice)
    formula = re.search(r"[=+<>]", choice) is not None
    return numbers[0].value if len(numbers) == 1 and not formula and MARKUP.fullmatch(choice[: numbers[0].start]) else None


def read_letter(text: str, choices: Sequence[str] = (), *, ended: bool = True) -> str | None:
    """The letter of the choice that the reply gives as its answer; None if it gives none.

    `choices` limits the letters (A to E without it) and lets a choice be named by its text, or by its number. A letter that is denied
    (`not B`, `A is tempting`) is not the answer; an article or pronoun is not a letter, nor are the headers of a list of all choices.
    """
    reply, followed = reply_of(text[-MAX_CHARACTERS:])
    known = _Letters(choices)
    stated = [*_stated_letters(reply, known), *_chosen_letters(reply, known)]
    if stated:
        return max(stated, key=lambda one: one[0])[1]
    body = _EMPTY_LABEL.sub("", reply).strip()
    if not body or _several(body, known):
        return None
    lines = [line for line in body.splitlines() if line.strip()]
    headers = [match[1].upper() for line in lines if (match := known.header.match(line))]
    listed = len(headers) > 1 and headers[:2] == list(known.letters[:2])
    parts = _PART.match(body)
    listed = listed or (parts is not None and re.search(rf"[.!?\n]\s*\({'Bb'[parts[1] == 'a']}\)\s", body) is not None)
    if not listed or known.next_letter.fullmatch(lines[0].strip("*_$)]}.: ")):
        leading = known.here(body, filler=False)
        if leading is not None and (body[leading[1]].isupper() or len(lines[0].split()) <= 8):
            return leading[0]
    first, last = first_sentence(body), sentences_of(body)[-1][1]
    if listed or sum(known.whole(line.strip(_BULLETS)) is not None for line in lines) > 1:
        return _behind_a_list(lines, known)
    if (named := known.numbered(first) or known.whole(first)) or declines(first):
        return named
    return (
        known.named(first)
        or known.last_alone(last)
        or known.named(last)
        or known.by_text(body, at_least=_TELLING)
        or known.last_alone(body)
        or _by_number(body, known, ended or followed)
    )


def _behind_a_list(lines: Sequence[str], known: _Letters) -> str | None:
    """What the last line says where the reply lists the choices: nothing, if it is one of the list."""
    last = lines[-1].strip(_BULLETS)
    alone = known.next_letter.fullmatch(last.strip("*_$)]}.: "))
    if alone is not None:
        return alone[1].upper() if known.next_letter.fullmatch(lines[-2].strip("*_$)]}.: -•")) is None else None
    return None if known.whole(last) is not None or known.header.match(lines[-1]) else known.last_alone(last)


def _stated_letters(reply: str, known: _Letters) -> list[tuple[int, str | None]]:
    """Place and letter of everything that is stated to be the answer; None if it is stated that there is none, or more than one."""
    found: list[tuple[int, str | None]] = []
    for one in statements(reply):
        said = one.text if one.kind in ("box", "tag") else first_sentence(one.text)
        if one.kind == "hash" and not re.match(rf"{_OPENS}[A-Za-z]\W*\Z", said):
            continue
        letter = _letter_said(said, known)
        if letter is not None or declines(said) or _several(said, known):
            found.append((one.at, letter))
    return found


def _several(said: str, known: _Letters) -> bool:
    """`(B) and (D)`: more than one is stated."""
    here = known.here(said)
    others = None if here is None else _OTHERS.match(said, here[2])
    return others is not None and known.here(said, others.end(), filler=False) is not None


def _letter_said(said: str, known: _Letters) -> str | None:
    if _several(said, known):
        return None
    here = known.here(said)
    if here is not None and not _IS_WRONG.match(said, here[2]) and not _DENIES.search(said[: here[1]]):
        return here[0]
    plain = LATEX_TEXT.sub(r"\1", said)
    return (
        known.numbered(said)
        or known.whole(plain)
        or known.by_text(plain)
        or known.last_alone(said)
        or known.of_value(number_in(said, 0, said, whole=True))
    )


def _chosen_letters(reply: str, known: _Letters) -> list[tuple[int, str | None]]:
    """`B is correct`, `I'd say C`, `… leaves (D)`."""
    found: list[tuple[int, str | None]] = []
    for match in known.alone.finditer(reply):
        at = match.start(1)
        quoted = _BEHIND_A_HEADER.search(reply[:at]) is not None  # `B. A is correct` is choice B
        if _IS_RIGHT.match(reply, at + 1) and not quoted and not _DENIES.search(reply[max(0, at - 60) : at]):
            found.append((at, match[1].upper()))
    bold = [
        match for match in _BOLD_CHOICE.finditer(reply) if match[1] in known.letters and not _IS_WRONG.match(reply, match.end())
    ]
    if len({match[1] for match in bold}) == 1:
        found.append((bold[-1].start(), bold[-1][1]))  # `it is most like **C. water vapor**`
    for match in _CHOOSES.finditer(reply):
        here = known.here(reply, match.end(), filler=False)
        if here is not None and not _DENIES.search(reply[max(0, here[1] - 60) : here[1]]) and not _IS_WRONG.match(reply, here[2]):
            sentence = first_sentence(reply[here[1] :])
            if re.search(rf"\b(?:and|or)\s+[*_]*[(\[][*_]*(?!{here[0]})[{known.letters}][)\]]", sentence):
                continue  # `leaves (A) … and (B)`
            found.append((here[1], here[0]))
    return found


def _by_number(body: str, known: _Letters, whole: bool) -> str | None:
    """The choice whose number the reply comes to."""
    return known.of_value(read_number(body, ended=whole)) if any(known.values) else None
