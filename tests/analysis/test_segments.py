"""Sentences and numbers. Expected pieces are cut by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovlm.analysis.segments import Span, numbers, results, sentences

ANY_TEXT = st.text(max_size=80) | st.text(st.sampled_from("0123456789,.;:+-*/=$x()\n \t'\"!?ABab…。é\u0301²٣"), max_size=60)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []), ("\n", ["\n"]), ("x", ["x"]), ("hmm that looks easy", ["hmm that looks easy"]),
        ("Add 17. Then 4!  So? End", ["Add 17. ", "Then 4!  ", "So? ", "End"]),
        ("It is 3.5 kg. Yes", ["It is 3.5 kg. ", "Yes"]),
        ('He said "go." (Really.) Then left.', ['He said "go." ', "(Really.) ", "Then left."]),
        ("**Done.** Next", ["**Done.** ", "Next"]),
        ("Mr. J. K. Rowling and Dr. Who, e.g. here, i.e. there. End", ["Mr. J. K. Rowling and Dr. Who, e.g. here, i.e. there. ", "End"]),
        ("The answer is B. Iron rusts.", ["The answer is B. ", "Iron rusts."]),
        ("1. Add.\n2. Take.\n\n\nEnd", ["1. Add.\n", "2. Take.\n\n\n", "End"]),
        ("\n a\nb \n", ["\n a\n", "b \n"]),
        ("Wait... what", ["Wait... ", "what"]), ("So do I. Then", ["So do I. ", "Then"]), ("a\r\nb\rc", ["a\r\n", "b\r", "c"]),
        ("一。二！三", ["一。", "二！", "三"]),
    ],
)  # fmt: skip
def test_sentences(text, pieces):
    assert sentences(text) == pieces


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("17+4=21,21+79=100", ["17+4=21,", "21+79=100"]),
        ("17+4=21,121+79=200,200+5=205", ["17+4=21,", "121+79=200,", "200+5=205"]),
        ("17+4=21; 21+79=100.", ["17+4=21; ", "21+79=100."]),
        ("17,4,79", ["17,", "4,", "79"]),
        ("It costs 1,080 and 12,345.60 more", ["It costs 1,080 and 12,345.60 more"]),
        ("First 1,080, then 5,", ["First 1,080, ", "then 5,"]),
        ("One, two. Three, four.", ["One, two. ", "Three, four."]),  # commas count only where sentences do not help
    ],
)
def test_one_sentence_is_cut_after_its_steps(text, pieces):
    assert sentences(text) == pieces


@given(ANY_TEXT)
def test_pieces_joined_are_the_text_and_none_is_blank(text):
    pieces = sentences(text)
    assert "".join(pieces) == text
    assert all(pieces)
    if text.strip():
        assert all(piece.strip() for piece in pieces)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("17-4", ["17", "4"]), ("10 - 5", ["10", "5"]), ("10 -5", ["10", "5"]), ("(3)-5", ["3", "5"]), ("3–5", ["3", "5"]),
        ("x=-4", ["-4"]), ("is -5.", ["-5"]), ("-$5", ["-$5"]), ("$-5", ["-5"]), ("3--5", ["3", "-5"]), ("21\n-5", ["21", "-5"]),
        ("3.5", ["3.5"]), ("is .5", [".5"]), ("3.50.", ["3.50"]), ("wait...5", ["5"]), ("100%", ["100"]), ("3x4=12", ["3", "4", "12"]),
        ("1,080", ["1,080"]), ("$1,080.", ["1,080"]), ("12,345.60", ["12,345.60"]), ("1,234,567", ["1,234,567"]),
        ("1,080+20=1,100", ["1,080", "20", "1,100"]), ("1,200+80=1,280", ["1,200", "80", "1,280"]),
        ("1080,200", ["1080", "200"]), ("17,4,79", ["17", "4", "79"]), ("1,0800", ["1", "0800"]), ("5, 100", ["5", "100"]),
        ("17+4=21,21+79=100", ["17", "4", "21", "21", "79", "100"]),
        ("17+4=21,121+79=200", ["17", "4", "21", "121", "79", "200"]),
        ("4-25=-21,121+79=200", ["4", "25", "-21", "121", "79", "200"]),
        ("540*2=1,080-80=1,000", ["540", "2", "1,080", "80", "1,000"]),
        ("H2O", ["2"]), ("007", ["007"]), ("", []), ("-", []), ("٣²", []),
    ],
)  # fmt: skip
def test_numbers(text, written):
    assert [span.text for span in numbers(text)] == written


def test_a_span_says_where_the_number_is_and_what_it_is_worth():
    assert numbers("is $1,080.0 = -7") == [Span(4, 11, "1,080.0", "1080"), Span(14, 16, "-7", "-7")]


def test_results_stand_right_after_equals_signs():
    assert [span.text for span in results("17+4=21, 21 + 79 = **$100**, x<=3, y = z 5, 4-9=-5")] == ["21", "100", "-5"]


@given(ANY_TEXT)
def test_spans_are_in_order_and_hold_every_ascii_digit(text):
    spans = numbers(text)
    assert all(text[span.start : span.end] == span.text for span in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    held = sum(c in "0123456789" for span in spans for c in span.text)
    assert held == sum(c in "0123456789" for c in text)


def test_long_texts_take_no_time():
    for unit in ("17+4=21,121+79=200,", "1,111", " ", "a. ", "-", ",", "\n", "9"):
        text = unit * (20_000 // len(unit))
        assert "".join(sentences(text)) == text
        numbers(text)
