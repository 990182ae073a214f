"""Numbers as people write them. Each expected value is what a reader takes the text to mean, worked out by hand."""

from __future__ import annotations

import time
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovlm.tasks.numbers import MINUS, canonical, normalize_number, written_numbers

FORMS = {
    "1080": ["1,080", "1080", "1080.0", "$1,080", " 1080 ", "+1080", "1080.", "\\boxed{1080}", "1{,}080", "1.08e3", "$1,080.00$"],
    "27": ["\\$27.00", "$27", "27€", "27 %", "27\\%", "**27**", "__27__", "`27`", "$$27$$", "\\(27\\)", "\\[27\\]", "\\text{27}", "'27'"],
    "-3": ["-3", "−3", "–3", "-3.0", "- 3", "minus three", "negative 3", "-$3", "−$3", "$-3", "-\\$3.00"],
    "0": ["0", "-0", "0.0", ".0", "0%", "zero"],
    "0.5": ["0.5", ".5", "1/2", "2/4", "0.50", "½", "\\frac{1}{2}", "\\frac12", "\\dfrac{1}{2}", "one half", "half", "a half", "1⁄2"],
    "-0.05": ["-0.05", "-1/20", "-\\frac{1}{20}", "\\frac{-1}{20}", "-5e-2", "−5 × 10^{-2}"],
    "1.5": ["1.5", "1 1/2", "1½", "1 ½", "1\\frac{1}{2}", "1 and 1/2", "1-1/2", "one and a half", "1 and a half", "$1\\frac{1}{2}$"],
    "1/3": ["1/3", "2/6", "⅓", "\\tfrac13", "one third", "one-third", "a third"],
    "13/9": ["13/9", "\\dfrac{13}{9}", "\\frac{13}{9}.", "\\boxed{\\dfrac{13}{9}}"],
    "1500": ["1.5e3", "1.5E+3", "1.5 × 10^3", "1.5 x 10^3", "1.5\\times 10^{3}", "1.5 * 10**3", "fifteen hundred", "$1.5k", "1.5 thousand"],
    "1000": ["1e3", "10³", "10^3", "10^{3}", "10**3", "a thousand", "1 000", "1\u202f000", "1\\,000"],
    "1234567": ["12,34,567", "1,234,567", "1 234 567", "1{,}234{,}567"],
    "4.4": ["4.4", "4.40", "four point four"],
    "21": ["twenty-one", "Twenty One", "twenty\u00a0one", "21"],
    "105": ["one hundred and five", "a hundred five", "one hundred five"],
    "2012": ["two thousand and twelve", "two thousand twelve"],
    "1200005": ["one million two hundred thousand and five", "1,200,005"],
    "3000000": ["3 million", "three million", "3,000,000", "$3M", "3 × 10^6"],
    "12": ["a dozen", "twelve"],
    "6": ["half a dozen", "six"],
    "2/3": ["two thirds", "two-thirds", "⅔", "2/3"],
    None: [
        "", "-", ".", "12 apples", "1,08", "1/0", "1 2/", "e5", "nan", "inf", "٤٢x", "1e999", "1" * 400, "--1", "5!", "2nd", "3:30",
        "1.2.3", "0x1F", "12/3/2020", "2020-05-06", "x_2", "cm^2", "H2O", "\\sqrt{2}", "3\\sqrt{2}", "9^{9^9}", "10^999", "twenty ten",
        "sixteen one", "seventeen minus five", "several", "no one", "v1.2", "1 2", "three dozen",
    ],
}  # fmt: skip


@pytest.mark.parametrize("value", list(FORMS))
def test_every_way_to_write_a_number_has_one_form(value):
    assert {form: normalize_number(form) for form in FORMS[value]} == dict.fromkeys(FORMS[value], value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("She has 16 - 3 - 4 = 9 eggs, worth 9*2 = $18.", ["16", "3", "4", "9", "9", "2", "18"]),
        ("17+4=21,121+79=200", ["17", "4", "21", "121", "79", "200"]), ("x=-4, 17-4, 10 -5", ["-4", "17", "4", "10", "5"]),
        ("between 5–10 or 5-10", ["5", "10", "5", "10"]), ("in the 2nd week", ["2"]), ("12 m^2 of H2O", ["12"]),
        ("day.12 eggs, wait...5", ["12", "5"]), ("3x4 boxes", ["3", "4"]), ("**-5**", ["-5"]), ("(42).", ["42"]), ("[42]", ["42"]),
        ("10 minus 5 is minus 5", ["10", "5", "-5"]), ("from seven to twenty-seven", ["7", "27"]), ("anyone, often, weight", []),
        ("a forty-five-year-old", ["45"]), ("2 1/2 of 3/4", ["2.5", "0.75"]), ("5-1/2 = 4.5", ["5", "0.5", "4.5"]),
        ("**3** 4 times", ["3", "4"]), ("$\\frac{32}{46} \\times 100\\% = \\fbox{70}\\%$", ["16/23", "100", "70"]),
        ("12 100 gram bars", ["12", "100"]), ("共5个", ["5"]), ("at 3:30 he had 4", ["4"]), ("one, two, three", ["1", "2", "3"]),
    ],
)  # fmt: skip
def test_numbers_of_a_text(text, values):
    found = written_numbers(text)
    assert [one.value for one in found] == values
    assert all(text[one.start : one.end] == one.text for one in found)


def test_ordinals_and_words_are_marked():
    kinds = [(one.value, one.kind, one.weak) for one in written_numbers("the 3rd of 15, one of twenty-one")]
    assert kinds == [("3", "ordinal", False), ("15", "digits", False), ("1", "words", True), ("21", "words", False)]


@given(st.integers(-(10**18), 10**18), st.integers(0, 6))
def test_normal_form_keeps_the_value_and_stays(number, places):
    text = normalize_number(f"{Decimal(number).scaleb(-places):,f}")
    assert text is not None
    assert Fraction(text) == Fraction(number, 10**places)
    assert normalize_number(text) == text


@given(st.fractions(max_denominator=10**6), st.sampled_from(["{}/{}", "\\frac{{{}}}{{{}}}", "$\\dfrac{{{}}}{{{}}}$"]))
def test_normal_form_of_fractions(value, form):
    text = normalize_number(form.format(value.numerator, value.denominator))
    assert text is not None
    assert Fraction(text) == value
    assert normalize_number(text) == text


WORDS = [
    "zero",
    "one",
    "two",
    "nine",
    "ten",
    "nineteen",
    "twenty",
    "ninety",
    "hundred",
    "thousand",
    "million",
    "and",
    "point",
    "half",
]


@given(
    st.lists(
        st.sampled_from([*WORDS, "thirds", "a", "dozen", "minus", "-", ",", "3", "1/2", "$", "%", "^", "{", "}"]), max_size=12
    )
)
def test_spans_are_in_order_and_their_values_canonical(words):
    text = " ".join(words)
    found = written_numbers(text)
    ends = [0] + [end for one in found for end in (one.start, one.end)]
    assert ends == sorted(ends)
    for one in found:
        assert canonical(Fraction(one.value)) == one.value


def _spelled(number):
    """As `num2words` would, for numbers below a million: another way to make the phrases than the reader's."""
    stems = ["thir", "four", "fif", "six", "seven", "eigh", "nine"]
    small = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    small += [f"{stem}teen" for stem in stems]
    tens = [f"{stem}ty" for stem in ["twen", "thir", "for", *stems[2:]]]
    if number < 20:
        return small[number]
    if number < 100:
        return tens[number // 10 - 2] + (f"-{small[number % 10]}" if number % 10 else "")
    big, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    rest = number % big
    return f"{_spelled(number // big)} {name}" + (f"{' and' if rest < 100 else ''} {_spelled(rest)}" if rest else "")


@given(st.integers(0, 999_999))
def test_a_spelled_number_has_its_value(number):
    assert normalize_number(_spelled(number)) == str(number)
    (found,) = written_numbers(f"There were {_spelled(number)} of them.")
    assert found.value == str(number)


@pytest.mark.parametrize("sign", sorted(MINUS))
def test_signs(sign):
    assert [one.value for one in written_numbers(f"It is {sign}5.")] == ["-5"]


@pytest.mark.parametrize(
    "piece",
    [
        "1,", "11,", "1 000 ", "one ", "one-", "hundred and ", "1/", "\\frac{", "\\frac{1}", "½", "1e", "10^", "$", "-", "1.",
        "point one ", "^{", "1 1/",
    ],
)  # fmt: skip
def test_hostile_texts_take_no_time(piece):
    start = time.process_time()
    written_numbers(piece * 10_000)
    normalize_number(piece * 100)
    assert time.process_time() - start < 2
