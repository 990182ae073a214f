"""Numbers as people write them: found in a text, and reduced to one form. Pure: text in, numbers out.

What is read as one number:

    1,080   1{,}080   1.5   .5   12,34,567           digits, grouped or not
    -5   −5   -$5   $-5   minus five                 signs (also U+2212 and a dash that touches the digits) and currency
    3/4   1 1/2   ½   1½   \\frac{13}{9}   \\dfrac34    fractions and mixed numbers
    1.5e3   1.5 × 10^3   10³   2^{10}                powers with a whole exponent
    twenty-one   three and a half   two thirds       English number words
    3 million   $5k   3 and a half                   scales and halves in words; `k`, `M`, `B` and `bn` behind an amount of money

A percent sign, currency and units do not change a value: `50%` is 50. A dozen is a unit too (`3 dozen` is 3: in GSM8K, a solution that ends
so counts dozens), unless nothing is counted: `a dozen` is 12. Not a number to be read: the 2 of `cm^2`, `H2O`, `x_2` and `\\sqrt{2}`, times
(`3:30`), dates, versions (`1.2.3`). `2nd` is marked as the ordinal it is.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Literal

MAX_NUMBER_CHARACTERS = 300  # anything longer is not an answer, and would be slow to compute with
CURRENCY = frozenset("$£€¥₹")
MINUS = frozenset("-\N{MINUS SIGN}\N{EN DASH}\N{SMALL HYPHEN-MINUS}\N{FULLWIDTH HYPHEN-MINUS}")

_OPERATORS = frozenset("+-*/^x\N{MULTIPLICATION SIGN}\N{DIVISION SIGN}\N{MIDDLE DOT}\N{MINUS SIGN}")
_BEFORE_A_SIGN = frozenset("=+*/^(<>[{|,:;~\N{MULTIPLICATION SIGN}\N{DIVISION SIGN}\N{MIDDLE DOT}\"'“‘`_") | MINUS | CURRENCY
_ENDS_A_VALUE = frozenset("0123456789)]}%")  # after one of these and blanks a minus subtracts: `10 -5`

Kind = Literal["digits", "words", "ordinal"]


@dataclass(frozen=True, slots=True)
class Written:
    """A number as written in a text: `Written(3, 8, "1,080", "1080", "digits")` in `is 1,080`. Sign and currency are part of it."""

    start: int
    end: int
    text: str  # text[start:end] of the whole
    value: str  # canonical, as from `normalize_number`
    kind: Kind

    @property
    def weak(self) -> bool:
        """Whether it is a word that is common in prose and may count nothing: `one of them`, `the two`, `half`."""
        return self.kind == "words" and self.value in _WEAK


def normalize_number(text: str) -> str | None:
    """The canonical form of a number, however it is written: `1,080`, `1080.0` and `$1,080` are `1080`; `1/2` is `0.5`; `2/6` is `1/3`.

    None if `text` is not exactly one number. Markdown, LaTeX's delimiters, `\\\\boxed{}` and a final full stop are ignored.
    """
    if len(text) > MAX_NUMBER_CHARACTERS:
        return None
    if _BARE_INTEGER.fullmatch(text):
        return str(int(text))
    bare = _bare(text)
    found = written_numbers(bare)
    if len(found) != 1 or found[0].kind == "ordinal" or (found[0].start, found[0].end) != (0, len(bare)):
        return None
    return found[0].value


def written_numbers(text: str) -> list[Written]:
    """Every number in `text`, in order. They do not overlap."""
    found: list[Written] = []
    position = 0
    while match := _NUMERAL.search(text, position):
        one = _in_words(text, match) if match["word"] is not None else _in_digits(text, match)
        if one is not None:
            found.append(one)
        position = max(one.end, match.start() + 1) if one is not None else match.end()
    return found


def canonical(value: Fraction) -> str:
    """A decimal where the fraction has a finite one, else `p/q` in lowest terms."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    if places == 0:
        return str(value.numerator)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def with_sign(text: str, start: int) -> int:
    """Where a number with digits from `start` begins: at its sign, if any. `17-4` contains 4, `x=-4` and `-$4` contain -4."""
    at = start - 1
    if at > 0 and text[at] in CURRENCY:
        at -= 1  # -$5
        if at > 0 and text[at] == "\\":
            at -= 1  # -\$5
    if at < 0 or text[at] not in MINUS:
        return start
    before = at - 1
    if before >= 0 and text[before] not in " \t":
        return at if text[before] in _BEFORE_A_SIGN or text[before].isspace() else start
    while before >= 0 and text[before] in " \t":
        before -= 1
    return start if before >= 0 and text[before] in _ENDS_A_VALUE else at


def end_of_digits(text: str, start: int, end: int) -> int:
    """The end of matched digits, or their last comma where that ends a step: `17+4=21,121+79=200` holds 21 and 121.

    Leading zeros distinguish the two where the signs around do not: no operand begins like `=1,080-80`.
    """
    head, comma, last = text[start:end].rpartition(",")
    after_equals = text[max(0, start - 2) : start].rstrip("-\N{MINUS SIGN}").endswith("=")
    if comma and after_equals and text[end : end + 1] in _OPERATORS and last[:1] != "0":
        return start + len(head)
    return end


# ------------------------------------------------------------------------------------------------------------------ digits

_GROUP = r"(?:,|\{,\}|\\,|\\!|[\u00a0\u2009\u202f])"
_SPACED = r"\d{1,3}(?:(?:[ ]\d{3}){1,6}[ ]\d{3}|[ ]000)(?![\d,])"  # 1 234 567, 10 000; but `12 100` may be two
_DIGITS = rf"(?:{_SPACED}|\d{{1,3}}(?:{_GROUP}\d{{2,3}}){{0,20}}{_GROUP}\d{{3}}(?!\d)|\d++)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d+)?|(?<![\w.])\.\d+)"
_SIGNED = rf"(?:[-+\u2212]\s?)?{_DECIMAL}"
_VULGAR = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"
_INTEGER = r"[-+\u2212]?\d{1,4}"
_TIMES_TEN = r"\s?(?:[x×*·]|\\times|\\cdot)\s?10"


def _exponent(name: str) -> str:
    braced, bare = rf"(?P<{name}_braced>{_INTEGER})", rf"(?P<{name}_bare>{_INTEGER})"
    return (
        r"(?:\s?\^\s?\{\s?" + braced + r"\s?\}|(?:\s?\^\s?|\*\*)" + bare + rf"(?![\d.]*\d)|(?P<{name}_raised>[{_RAISED}]{{1,4}}))"
    )


_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_MONEY_SCALES = {"k": 1000, "K": 1000, "m": 10**6, "M": 10**6, "B": 10**9, "bn": 10**9}
_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_CARDINALS = {word: value for value, word in enumerate(_UNITS.split())} | {
    word: 10 * (place + 2)
    for place, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"])
}
_PARTS = {
    "half": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "seventh": 7,
    "eighth": 8,
    "ninth": 9,
    "tenth": 10,
}
_PLURAL_PARTS = {f"{word}s": value for word, value in _PARTS.items() if word != "half"} | {"halves": 2}
_FIRST_WORDS = "|".join(sorted([*_CARDINALS, *_SCALES, "half", "dozen"], key=len, reverse=True))

_NUMERAL = re.compile(
    rf"""
    (?P<none> 0[xX][0-9a-fA-F]+ | \d+(?:\.\d+){{2,}} | \d{{1,2}}:\d\d(?::\d\d)?(?!\d) | \d{{4}}-\d\d-\d\d(?!\d)
            | \d{{1,2}}/\d{{1,2}}/\d{{2,4}}(?!\d) )
  | (?P<ordinal> \d+(?:st|nd|rd|th)\b )
  | (?P<latex> (?:(?P<l_whole>\d{{1,20}})\s?)? \\[dtc]?frac\s? (?:\{{\s?(?P<l_top>{_SIGNED})\s?\}}|(?P<l_t>\d)) \s?
               (?:\{{\s?(?P<l_bottom>{_DECIMAL})\s?\}}|(?P<l_b>\d)) )
  | (?P<vulgar> (?:(?P<v_whole>\d{{1,20}})\s?)?(?P<v_part>[{_VULGAR}]) )
  | (?P<mixed> (?P<m_whole>\d{{1,20}})(?:[ ]|-|[ ]and[ ])(?P<m_top>\d{{1,6}})[/⁄](?P<m_bottom>\d{{1,6}})(?![\d/.]|\s*=) )
  | (?P<quotient> (?P<q_top>{_DECIMAL})[/⁄](?P<q_bottom>{_DECIMAL})(?![\d/]|\.\d) )
  | (?P<scientific> (?P<s_base>{_DECIMAL})(?:[eE](?P<s_e>[-+]?\d{{1,4}})(?![\d.]*\w)|{_TIMES_TEN}{_exponent("s")}) )
  | (?P<power> (?P<p_base>\d{{1,20}}){_exponent("p")} )
  | (?P<plain> {_DECIMAL} )
  | (?<![\w-])(?:(?P<article>an?)\s+(?=(?:{"|".join(_SCALES)}|{"|".join(_PARTS)}|dozen)\b))?(?P<word>{_FIRST_WORDS}|(?<=a\ )(?:{"|".join(_PARTS)}))\b
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_NO_NUMBER = re.compile(r"(?:[A-Za-z]|\d\.|\^\s?\{?|(?<![A-Za-z])[A-Za-z]\*\*|[A-Za-z0-9)}]_\{?|\\sqrt\s?(?:\[\d\])?\s?\{?|√)\Z")
_TIMES = re.compile(r"\d[xX]\Z")  # 3x4
_SCALE_BEHIND = re.compile(rf"(?:\s|-)\s?({'|'.join(_SCALES)})\b", re.IGNORECASE)
_MONEY_BEHIND = re.compile(r"\s?(k|K|m|M|B|bn)\b")
_PART_BEHIND = re.compile(rf"\s+and\s+(?:an?|one)(?:\s+|-)({'|'.join(_PARTS)})\b", re.IGNORECASE)
_UNIT_BEHIND = re.compile(r"\s?\\?%|\s?[£€¥₹]|\s?\$(?!\s?[\d.])")
_NEGATIVE = re.compile(
    r"(?:(?:\b(?:is|are|was|be|to|of|equals?|answer)|[=:(]|\A)\s*minus|\bnegative)\s+[$£€¥₹]?\Z", re.IGNORECASE
)
_SIGN_WORD = re.compile(r"(?:minus|negative)\s+[$£€¥₹]?\Z", re.IGNORECASE)
_BARE_INTEGER = re.compile(r"\s*-?\d{1,15}\s*", re.ASCII)
_WEAK = frozenset([*map(str, range(13)), *map(str, range(-12, 0)), "0.5"])


def _in_digits(text: str, match: re.Match[str]) -> Written | None:
    """The number of a match with what belongs to it on both sides; None if it only looks like one."""
    start, end = match.span()
    before = text[max(0, start - 12) : start]
    if match["none"] is not None or end - start > MAX_NUMBER_CHARACTERS:
        return None
    if _NO_NUMBER.search(before) and not _TIMES.search(before):
        return None
    if match["plain"] is not None:
        end = end_of_digits(text, start, end)
    try:
        value = _value(match, text[start:end])
    except (ZeroDivisionError, InvalidOperation):
        return None
    if value is None:
        return None
    if match["ordinal"] is not None:
        return Written(start, end, text[start:end], canonical(value), "ordinal")
    start, negative, money = _front(text, start)
    end, value = _back(text, end, value, money)
    return Written(start, end, text[start:end], canonical(-value if negative else value), "digits")


def _front(text: str, start: int) -> tuple[int, bool, bool]:
    """Where sign and currency begin, whether the number is negative, and whether it is money."""
    signed = with_sign(text, start)
    if signed < start:
        at = signed
        while at > 0 and text[at - 1] in CURRENCY:  # $-5
            at -= 1
        return at, True, any(character in CURRENCY for character in text[at:start])
    at = start - 1 if text[start - 1 : start] == " " and text[max(0, start - 2) : start - 1] in CURRENCY else start  # $ 5
    while at > 0 and text[at - 1] in CURRENCY:
        at -= 1
    money = at < start
    if money and at > 0 and text[at - 1] == "\\":
        at -= 1
    negative = _negative_word(text, start)
    return negative if negative is not None and negative < at else at, negative is not None, money


def _negative_word(text: str, start: int) -> int | None:
    """Where `minus` or `negative` begins before a number, if it is its sign: `10 minus 5` has none."""
    before = text[max(0, start - 24) : start]
    if not _NEGATIVE.search(before):
        return None
    word = _SIGN_WORD.search(before)
    assert word is not None
    return start - len(word[0])


def _back(text: str, end: int, value: Fraction, money: bool) -> tuple[int, Fraction]:
    """The end of scale and of a percent or currency sign, and the value with them."""
    if found := _PART_BEHIND.match(text, end):
        value, end = value + Fraction(1, _PARTS[found[1].lower()]), found.end()
    if found := _SCALE_BEHIND.match(text, end):
        value, end = value * _SCALES[found[1].lower()], found.end()
    elif money and (found := _MONEY_BEHIND.match(text, end)):
        value, end = value * _MONEY_SCALES[found[1]], found.end()
    if found := _UNIT_BEHIND.match(text, end):
        end = found.end()
    return end, value


def _value(match: re.Match[str], text: str) -> Fraction | None:
    """None: a power too large to write out, or a mixed number that is none (`5 7/2`)."""
    if match["ordinal"] is not None:
        return Fraction(int(match["ordinal"][:-2]))
    if match["latex"] is not None:
        return _mixed(match["l_whole"], match["l_top"] or match["l_t"], match["l_bottom"] or match["l_b"])
    if match["vulgar"] is not None:
        return Fraction(match["v_whole"] or 0) + Fraction(unicodedata.numeric(match["v_part"])).limit_denominator(10)
    if match["mixed"] is not None:
        return _mixed(match["m_whole"], match["m_top"], match["m_bottom"])
    if match["quotient"] is not None:
        return _decimal(match["q_top"]) / _decimal(match["q_bottom"])
    if match["scientific"] is not None:
        return _raised(Fraction(10), match["s_e"] or _power(match, "s"), _decimal(match["s_base"]))
    if match["power"] is not None:
        return _raised(Fraction(match["p_base"]), _power(match, "p"), Fraction(1))
    return _decimal(text)


def _mixed(whole: str | None, top: str, bottom: str) -> Fraction:
    return Fraction(whole or 0) + _decimal(top) / _decimal(bottom)


def _decimal(text: str) -> Fraction:
    return Fraction(Decimal(re.sub(r"[^\d.+-]", "", text.replace("\N{MINUS SIGN}", "-"), flags=re.ASCII)))


def _power(match: re.Match[str], name: str) -> str:
    raised = unicodedata.normalize("NFKC", match[f"{name}_raised"] or "")
    return match[f"{name}_braced"] or match[f"{name}_bare"] or raised


def _raised(base: Fraction, exponent: str, factor: Fraction) -> Fraction | None:
    try:
        power = int(exponent.replace("\N{MINUS SIGN}", "-"))
    except ValueError:  # superscripts such as ⁻⁻
        return None
    if abs(power) * len(str(base.numerator)) > MAX_NUMBER_CHARACTERS:
        return None
    return factor * base**power


# ------------------------------------------------------------------------------------------------------------------- words

_MORE_WORDS = "|".join(sorted([*_CARDINALS, *_SCALES, *_PARTS, *_PLURAL_PARTS, "point", "dozen"], key=len, reverse=True))
_NEXT_WORD = re.compile(rf"(?:\s*-\s*|\s+)(and\s+)?(an?\s+)?({_MORE_WORDS})\b", re.IGNORECASE)


def _in_words(text: str, match: re.Match[str]) -> Written | None:
    """The number whose first word was matched, with all further words that are part of it."""
    first, end = match["word"].lower(), match.end()
    value: Fraction | None
    if first == "dozen":
        value = Fraction(12)
    elif first in _PARTS:
        value = Fraction(1, _PARTS[first])
        if (following := _NEXT_WORD.match(text, end)) and following[2] and following[3].lower() == "dozen":
            value, end = Fraction(6), following.end()  # half a dozen
    else:
        value, end = _counted(text, first, end)
    start = match.start()
    negative = _negative_word(text, start)
    if negative is not None:
        start, value = negative, -value
    return Written(start, end, text[start:end], canonical(value), "words")


def _counted(text: str, first: str, end: int) -> tuple[Fraction, int]:
    """Value and end of words that count: `twenty` at `first` and `-one` behind it."""
    total, group, last = 0, 0, first
    if first in _SCALES:
        group = 1
        total, group = (0, 100) if first == "hundred" else (_SCALES[first], 0)
    else:
        group = _CARDINALS[first]
    while following := _NEXT_WORD.match(text, end):
        joined, article, word = following[1], following[2], following[3].lower()
        if word in _CARDINALS and not article:
            small = _CARDINALS[word]
            if last in _SCALES:
                fits = (group % 100 == 0 and small < 100) and (small < 100 or not group)
            else:
                fits = not joined and last in _CARDINALS and _CARDINALS[last] >= 20 and 0 < small < 10
            if not fits:
                break
            group += small
        elif word == "hundred" and not joined and not article and last in _CARDINALS and 0 < group < 100:
            group *= 100
        elif word in _SCALES and word != "hundred" and not joined and not article and group:
            total, group = total + group * _SCALES[word], 0
        elif word in _PARTS and joined and article:
            return Fraction(total + group) + Fraction(1, _PARTS[word]), following.end()  # three and a half
        elif (word in _PLURAL_PARTS or (word in _PARTS and total + group == 1)) and not joined and not article:
            return Fraction(total + group, (_PARTS | _PLURAL_PARTS)[word]), following.end()  # two thirds
        elif word == "point" and not joined and not article:
            return _with_decimals(text, Fraction(total + group), end, following.end())
        else:
            break
        end, last = following.end(), word
    return Fraction(total + group), end


def _with_decimals(text: str, whole: Fraction, end: int, behind_point: int) -> tuple[Fraction, int]:
    """`three point one four`; without a digit behind it the point is none."""
    digits = ""
    at = behind_point
    while (found := _NEXT_WORD.match(text, at)) and _CARDINALS.get(found[3].lower(), 10) < 10 and len(digits) < 20:
        digits, at = digits + str(_CARDINALS[found[3].lower()]), found.end()
    if not digits:
        return whole, end
    return whole + Fraction(int(digits), 10 ** len(digits)), at


# ---------------------------------------------------------------------------------------------------- what stands around one

_WRAPPERS = re.compile(r"\\(?:boxed|fbox|text|textbf|textit|mathrm|mathbf|mbox)\s?\{((?:[^{}]|\{[^{}]*\})*+)\}")
_MARKUP = re.compile(r"\$\$|\\[()\[\]!;:]|(?<!\d)\*\*|\*\*(?!\d)|__|`|\\(?:left|right|displaystyle|quad)(?![A-Za-z])")


def _bare(text: str) -> str:
    """Without what stands around an answer and is not part of it."""
    for _ in range(3):  # of wrappers in wrappers
        text = _WRAPPERS.sub(r"\1", text)
    text = re.sub(r"(?<=\d)\\!(?=,?\d)", "", text)
    text = _MARKUP.sub("", text).strip().strip("*_\"'“”‘’ ")
    if text.endswith("$") and text.startswith("$"):
        text = text[1:-1].strip()
    text = re.sub(r"\A([-+\N{MINUS SIGN}])\s+(?=[\d.$£€])", r"\1", text)
    return text.removesuffix(".").strip().removeprefix("+")
