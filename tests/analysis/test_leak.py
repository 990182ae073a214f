"""Where the gold answer first stands in a chain of thought. `^` in an expectation marks the place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovlm.analysis.leak import first_appearance, fraction


def check(marked: str, answer: str, answer_type, choices=()) -> None:
    """`marked` holds a `^` before the first copy, or none where there is no copy."""
    place = marked.find("^")
    found = first_appearance(marked.replace("^", "", 1), answer, answer_type, choices)
    assert found == (place if place >= 0 else None)


@pytest.mark.parametrize(
    ("marked", "answer"),
    [
        ("17+4=21,21+79=^100", "100"), ("it is $^1,080.", "1080"), ("^1080.0 it is", "1,080"), ("so ^3.0", "3"), ("^3", "3.0"),
        ("2100 or 100.5 or 1,100 or 1001", "100"), ("21,100", "100"), ("17+4=21,^121+79=200", "121"), ("17+4=^21,121+79=200", "21"),
        ("17-^4", "4"), ("17-4", "-4"), ("17=^-4", "-4"), ("=-4", "4"), ("he lost ^-$4", "-4"), ("about ^50%", "50"),
        ("H2O and v1.2 and x_2, ^2", "2"), ("3x^4", "4"), ("^100km", "100"), ("100,100", "100"),
        ("8/4", "2"), ("is ^1/3 of it", "1/3"), ("is ^2/6 of it", "1/3"), ("21/3", "1/3"), ("^0.5", "1/2"), ("^1/2", "0.5"),
        ("the word has ^three of them", "3"), ("^forty-two it is", "42"), ("it is $^\\dfrac{13}{9}$", "13/9"), ("about ^1.5 × 10^3", "1500"),
        ("one of them is ^twelve", "12"), ("one of them", "1"), ("the result is ^one", "1"), ("so **^one** is left", "1"), ("half of it", "0.5"),
        ("the 2nd of them", "2"), ("^two thirds", "2/3"), ("\\frac{8}{4}", "2"), ("a dozen", "11"),
        ("", "5"), ("no digits", "5"), ("٣", "3"),
    ],
)  # fmt: skip
def test_numbers(marked, answer):
    check(marked, answer, "number")


def test_a_gold_number_that_is_none_is_found_as_text():
    check("they took ^twelve apples", "twelve apples", "number")


@pytest.mark.parametrize(
    ("marked", "letter"),
    [
        ("so ^B.", "B"), ("(^B)", "B"), ("the answer is ^B", "B"), ("Answer: **^B**", "B"), ("^B) blue", "B"), ("A or ^B", "B"),
        ("the answer is ^b", "B"), ("option ^c it is", "C"), ("pick (^d)", "D"), ("I like b and c", "B"),
        ("Because of Bob's B-cells, vitamin B12, non-B", "B"), ("the answerb", "B"),
        ("A dog is an animal", "A"), ("A dog, so ^A.", "A"), ("so (^A)", "A"), ("[^A]", "A"), ("answer is ^A", "A"), ("Answer: ^A", "A"),
        ("Option ^A dominates", "A"), ("choice ^A", "A"), ("^A) red", "A"), ("A dog? It must be ^A", "A"), ("a dog: (^a)", "A"),
        ("the answer is a dog", "A"), ("the choice i made", "I"), ("I think", "I"), ("dog(s)", "S"), ("f(a)", "A"),
        ("", "B"), ("only words", "B"),
    ],
)  # fmt: skip
def test_letters(marked, letter):
    check(marked, letter, "letter")


CHOICES = ("iron oxide", "Iron", "1,080", "12 km/h", "+")


@pytest.mark.parametrize(
    ("marked", "letter"),
    [
        ("it is made of ^IRON, so B", "B"), ("it is ironed", "B"), ("iron oxide, then ^iron", "B"), ("iron oxide it is", "B"),
        ("rust is ^iron\noxide", "A"), ("iron and oxide", "A"), ("that makes $^1080", "C"), ("that makes 10801", "C"),
        ("at ^12 km / h", "D"), ("at 112 km/h", "D"), ("17+4", "E"), ("none, so ^E.", "E"),
    ],
)  # fmt: skip
def test_choices_by_their_text(marked, letter):
    check(marked, letter, "letter", CHOICES)


ANSWER = "The river Thames flows through London and Oxford."


@pytest.mark.parametrize(
    ("marked", "answer"),
    [
        ("We know: ^the  river\nThames, flows THROUGH London", ANSWER),
        ("somewhere ^Thames flows through London and so on", ANSWER),  # any five words in a row of the answer
        ("the river Thames flows", ANSWER),  # four
        ("the river flows through London, then Oxford", ANSWER),
        ("answer=^Paris", "Paris"), ("It is Parisian", "Paris"), ("in ^New york now", "New York"), ("in York New", "New York"),
        ("a ^cafe\u0301", "caf\u00e9"), ("答案是^巴黎。", "巴黎"),
        ("speed ^1080 km", "1,080 km"), ("or ^++", "++"), ("or +", "++"), ("anything", ""), ("", "Paris"),
    ],
)  # fmt: skip
def test_texts(marked, answer):
    check(marked, answer, "text")


@given(
    st.text(max_size=60),
    st.text(max_size=20),
    st.sampled_from(["number", "letter", "text"]),
    st.lists(st.text(max_size=10), max_size=5),
)
def test_any_text_gives_a_place_in_it_or_none(cot, answer, answer_type, choices):
    place = first_appearance(cot, answer, answer_type, tuple(choices))
    assert place is None or (0 <= place < len(cot) and 0 <= fraction(place, cot) < 1)


@given(st.integers(0, 10**6), st.text("abc ", max_size=20), st.text("abc ", max_size=20))
def test_a_number_put_into_words_is_found_where_it_was_put(value, before, after):
    cot = f"{before} {value} {after}"
    assert first_appearance(cot, str(value), "number") == len(before) + 1
    assert first_appearance(cot, str(value + 1), "number") is None


def test_fraction():
    assert fraction(3, "abcd") == 0.75
    assert fraction(0, "abcd") == 0
    assert fraction(0, "") == 0
    assert fraction(9, "abcd") == 1
