"""Extraction, comparison and failure kinds. Expected readings follow METHOD §6 and what the research code reads."""

from __future__ import annotations

import random
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovlm.errors import UserError
from markovlm.tasks.answers import (
    FAILURE_KINDS,
    METHODS,
    classify_failure,
    extract,
    is_correct,
    is_repetitive,
)
from markovlm.tasks.numbers import normalize_number

TEXT = st.text(st.sampled_from("ABCDEFabcdefxyz 0123456789=,.:-*()[]\n$ANSWERanswerisISoption"), max_size=60)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("x = 42", "42"), ("The answer is 10 = 10", "10"), ("5 + 5 = 10", "10"), ("42 apples", "42"), ("Total: 100", "100"),
        ("1,234,567", "1234567"), ("The result is -10", "-10"), ("42.5", "42"), ("  =   10  ", "10"), ("$42", "42"),
        ("First 10, then Answer: 42", "10"), ("= -13", "-13"), ("007", "7"), ("0", "0"), ("-0", "0"),
        ("No numbers here", None), ("", None), ("12 =", None), ("1 = 2 = three", None),
    ],
)  # fmt: skip
def test_simple(text, answer):
    assert extract(text, "simple") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("First 10, then Answer: 42", "42"), ("x = 5, Answer: 10", "10"), ("ANSWER: 42", "42"), ("Answer 42", "42"),
        ("the final answer is 42.", "42"), ("Correct answer = -7", "-7"), ("10 = 10, Answer: 42", "42"), ("Answer:\n 42", "42"),
        ("First 5, then 3 + 2 = 10", "10"), ("x = 10\ny = 5\nx + y = 15", "15"), ("7 = seven", "7"), ("x = y, so 5 = z", "5"),
        ("The result is 42", "42"), ("Answer: 1,000", "1000"), ("= 1,234", "1234"), ("Answer: 42.5", "42"),
        ("Answer: #100", "100"), ("Answer: $30 of 50", "30"), ("  Answer:   42  ", "42"), ("Answer: 1, answer: 2", "1"),
        ("No numbers here", None), ("", None), ("Answer: unknown", None),
    ],
)  # fmt: skip
def test_anchor(text, answer):
    assert extract(text, "anchor") == answer


@pytest.mark.parametrize(
    ("text", "letter"),
    [("The answer is D", "E"), ("Select B", "E"), ("b is the answer", "B"), ("C", "C"), ("xyz 1", None), ("", None)],
)
def test_legacy_reads_letters_inside_words(text, letter):
    assert extract(text, "legacy") == letter
    assert extract(text, "legacy", choices=["only", "two"]) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is B", "B"), ("I choose A", "A"), ("Answer: C", "C"), ("Option D is correct", "D"), ("E", "E"), ("(C)", "C"),
        ("Answer: B.", "B"), ("A.", "A"), ("The answer is B, which...", "B"), ("answer: b", "B"), ("- B", "B"), ("A -", "A"),
        ("A or B", "A"), ("not C but D", "C"), ("Between C and D, choose C", "C"), ("option c, or choice d", "C"),
        ("A) red\nB) blue\nAnswer: C", "C"), ("A) red\nB) blue", None), ("* A. red\nD it is", "D"), ("  - B: blue\n E", "E"),
        ("a) red", "A"),  # a header in lower case is read as a letter, as the research code does
        ("The best choice", None), ("Decide carefully", None), ("F is not valid", None), ("123", None), ("", None),
    ],
)  # fmt: skip
def test_word_boundary(text, letter):
    assert extract(text, "word_boundary") == letter


def test_word_boundary_knows_how_many_choices_there_are():
    assert extract("E or B", "word_boundary", choices=["w", "x", "y", "z"]) == "B"
    assert extract("G", "word_boundary", choices=list("1234567")) == "G"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is $\\frac{1}{2}$", "0.5"), ("so \\boxed{1,080}", "1080"), ("$\\frac{2}{6}$", "1/3"), (" 42.50\n", "42.5"),
        ("Answer: -7", "-7"), ("no number", None), ("", None), (" **42**", "42"), ("Great! It is 42!", "42"), ("(42).", "42"), ("[42]", "42"),
        ("\\$27.00", "27"), ("**1,080** and that!", "1080"), ("−5", "-5"), ("a^2 + b^2 = 25", "25"), ("so 4! = 24", "24"), ("Answer: 2**5", "32"),
    ],
)  # fmt: skip
def test_math_verify(text, value):
    assert extract(text, "math_verify") == value


@pytest.mark.parametrize(
    "text",
    [
        "x = 9^{9^{9^9}}", "10^99999999", "9^(99999999!)", "2**2**2**2**2", "9" * 5000, "\\frac{" * 400, "9^{9}^{9}", "((9^99)^99)^99", "9!!!!",
        "$9^9^9$", "(99!)! - 1", "**9**9**9**",
    ],
)  # fmt: skip
def test_math_verify_is_not_kept_busy(text):
    start = time.monotonic()
    extract(text, "math_verify")
    assert time.monotonic() - start < 5


def test_math_verify_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(extract("\\frac{3}{4}", "math_verify")))
    thread.start()
    thread.join()
    assert found == ["0.75"]


def test_math_verify_equality():
    assert is_correct("\\sqrt{4}", "2", "number", method="math_verify")
    assert not is_correct("\\sqrt{4}", "2", "number")
    assert not is_correct("\\sqrt{5}", "2", "number", method="math_verify")


@pytest.mark.parametrize(
    ("method", "text", "whole", "cut"),
    [
        ("final_number", " 125", "125", None),
        ("final_number", " 12 eggs", "12", "12"),
        ("final_letter", " B", "B", "B"),
        ("anchor", " 12", "12", "12"),
    ],
)
def test_whether_a_reply_ended_can_be_told(method, text, whole, cut):
    assert extract(text, method) == whole
    assert extract(text, method, ended=False) == cut


def test_first_line():
    assert extract("\n  Paris, of course \nRome", "first_line") == "Paris, of course"
    assert extract(" \n", "first_line") is None


@pytest.mark.parametrize("method", ["likelihood", "llm", "invalid_method"])
def test_methods_that_do_not_read_text(method):
    with pytest.raises(UserError, match="Unknown extraction method"):
        extract("42", method)
    with pytest.raises(ValueError, match="Unknown extraction method"):
        extract("42", method)


@given(st.text(), st.sampled_from(sorted(set(METHODS) - {"math_verify"})))
def test_any_text_gives_an_answer_in_canonical_form_or_none(text, method):
    answer = extract(text, method)
    if answer is None:
        return
    if METHODS[method].answer_type == "number":
        assert normalize_number(answer) == answer
    elif METHODS[method].answer_type == "letter":
        assert answer in tuple("ABCDE")
    else:
        assert answer.strip()


@given(TEXT, st.integers(-(10**12), 10**12))
def test_a_labelled_integer_is_found_behind_any_text_without_a_label(text, number):
    bare = text.lower().replace("answer", "")
    assert extract(f"{bare.replace('a', '')} Answer: {number:,}", "anchor") == str(number)


@given(TEXT, st.sampled_from("ABCDE"))
def test_a_labelled_letter_is_found_behind_any_text_without_a_label(text, letter):
    bare = "".join(character for character in text if character not in "nNoO")
    assert extract(f"{bare}\nThe answer is {letter}.", "word_boundary") == letter


@given(st.integers(-(10**15), 10**15))
def test_an_equation_gives_its_result(number):
    assert extract(f"1 + 2 = {number}", "simple") == extract(f"1 + 2 = {number}", "anchor") == str(number)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"math_verify"}))
@pytest.mark.parametrize("piece", ["\n", " ", "A) ", "ANSWER", "ANSWER ", "=", "1", "- ", "1,", "\n- \n", "\u0130"])
def test_long_hostile_texts_take_no_time(method, piece):
    start = time.process_time()
    extract(piece * 20_000, method)
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    ("predicted", "gold", "kind", "right"),
    [
        ("1080", "1,080", "number", True), ("118", "118,000", "number", False), (None, "1", "number", False),
        ("x", "1", "number", False),
        ("b", "B", "letter", True), ("C", "B", "letter", False),
        ("  Paris ", "paris", "text", True), ("Paris, France", "paris", "text", False),
        (" Paris.", "Paris", "text", True), ("The Paris", "Paris", "text", True), (" 3.", "3", "text", True), ("three", "3", "text", True),
        ("Paris. It is the capital.", "Paris", "text", True), ("It is Paris.", "Paris", "text", False), ("1080", "1,080", "text", True),
        ("-5", "5", "text", False), ("A", "the", "text", False), ("½", "0.5", "number", True), ("twenty-one", "21", "number", True),
        ("13/9", "\\dfrac{13}{9}", "number", True), ("−5", "5", "number", False), ("50%", "50", "number", True),
    ],
)  # fmt: skip
def test_is_correct(predicted, gold, kind, right):
    assert is_correct(predicted, gold, kind) is right


def kind(answer_text, predicted, gold, answer_type="number", cot="First 3 + 4 = 7 and then so on.", choices=()):
    return classify_failure(
        cot=cot, answer_text=answer_text, predicted=predicted, gold=gold, answer_type=answer_type, choices=choices
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (kind(" 42.5", "42", "42.5"), "not_extracted"),
        (kind(" 10, no: 42", "10", "42"), "not_extracted"),
        (kind(" 42 is not 10", "10", "42"), "other"),  # mentioned, but not where an answer stands
        (kind(" the iron one", None, "A", "letter", choices=["iron", "wood"]), "not_extracted"),
        (kind(" iron or wood", None, "A", "letter", choices=["iron", "wood"]), "format"),
        (kind(" B) wood", None, "B", "letter"), "not_extracted"),
        (kind(" 5", "5", "6", cot="4" * 100), "repetition"),
        (kind(" ", None, "6"), "no_answer"),
        (kind(" ...", None, "6"), "no_answer"),
        (kind(" a dozen", None, "12"), "not_extracted"),
        (kind(" several", None, "12"), "format"),
        (kind(" 5", "5", "6", cot="2 + 2 = 5, so 5"), "wrong_arithmetic"),
        (kind(" 5", "5", "6"), "other"),
        (kind(" I say Paris", "I say Paris", "paris", "text"), "not_extracted"),
        (kind(" Rome", "Rome", "paris", "text"), "other"),
    ],
)
def test_failure_kinds(found, expected):
    assert found == expected


@given(TEXT, st.one_of(st.none(), st.integers(-99, 99).map(str)), TEXT)
def test_every_failure_has_a_kind(answer_text, predicted, cot):
    assert kind(answer_text, predicted, "123456", cot=cot) in FAILURE_KINDS


def test_repetition():
    numbers = random.Random(0)
    sums = ",".join(f"{numbers.randrange(999)}+{numbers.randrange(99)}={numbers.randrange(999)}" for _ in range(40))
    assert is_repetitive("4" * 48)
    assert is_repetitive("12 12 12 " * 12)
    assert is_repetitive("I will think about it. " * 20)
    assert is_repetitive(" ".join(f"{i} is a number that we think about when we think of numbers we" for i in range(3)) * 4)
    assert not is_repetitive(sums)
    assert not is_repetitive("She eats 3 and bakes 4, so 16 - 3 - 4 = 9 are left, and 9 * 2 = 18 dollars are made.")
    assert not is_repetitive("444")


@pytest.mark.parametrize("text", ["118", " -7", "007", "0", "-0", " 123456789012345 ", "1 2", "3.0"])
def test_bare_integers_are_read_as_the_library_reads_them(text):
    from markovlm.tasks import answers

    parsed = answers._math_verify_parse(text)
    assert extract(text, "math_verify") == answers.normalize_number(str(parsed[0]))
