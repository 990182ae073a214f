"""Sums: written and read back exactly, drawn reproducibly, split so that nothing held out can leak."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from markovlm.tasks.arithmetic_data import (
    SPLITS,
    ArithmeticSpec,
    draw,
    format_question,
    parse_question,
    questions,
    running_sums,
    split_of,
)

NONZERO = st.integers(-(10**6), 10**6).filter(bool)
TERM_LISTS = st.lists(NONZERO, min_size=2, max_size=12).map(tuple)
SPECS = st.builds(
    lambda low, extra, value, negative: ArithmeticSpec(low, low + extra, value, negative),
    st.integers(2, 6), st.integers(0, 4), st.integers(30, 5000), st.booleans(),
)  # fmt: skip


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("min_terms", {"min_terms": 1}),
        ("min_terms", {"min_terms": 2.5}),
        ("max_terms", {"min_terms": 4, "max_terms": 3}),
        ("max_terms", {"max_terms": True}),
        ("max_value", {"max_value": 0}),
        ("max_value", {"max_value": "99"}),
        ("negative", {"negative": 1}),
    ],
)
def test_a_wrong_setting_is_refused_by_name(field, settings):
    with pytest.raises(ValueError, match=rf"^{field}: "):
        ArithmeticSpec(**settings)


@pytest.mark.parametrize(
    ("terms", "text"),
    [((17, 4, 79), "17+4+79"), ((17, -4, 79), "17-4+79"), ((-5, -6), "-5-6"), ((1, 99), "1+99")],
)
def test_questions_are_written_and_read(terms, text):
    assert format_question(terms) == text
    assert parse_question(text) == terms


@given(TERM_LISTS)
def test_reading_inverts_writing(terms):
    assert parse_question(format_question(terms)) == terms


def test_spaces_around_signs_are_allowed():
    assert parse_question("  17 + 4 -79 ") == (17, 4, -79)


@pytest.mark.parametrize(
    "text",
    ["", " ", "17", "17+", "+17+4", "17++4", "17+-4", "1 7+4", "17+4=21", "17*4", "017+4", "17+0", "1.5+2", "١٧+٤",
     "__import__('os').getcwd()", "17+4\n;2", "x+y"],
)  # fmt: skip
def test_nonsense_is_refused(text):
    with pytest.raises(ValueError, match="not a sum"):
        parse_question(text)


@given(st.text(alphabet="0123456789+- x=", max_size=20))
def test_what_is_accepted_is_a_sum(text):
    try:
        terms = parse_question(text)
    except ValueError:
        return
    assert format_question(terms) == text.replace(" ", "")


@pytest.mark.parametrize("terms", [(), (17,), (17, 0)])
def test_what_is_no_question_is_not_written(terms):
    with pytest.raises(ValueError, match="at least two terms"):
        format_question(terms)


def test_running_sums():
    assert running_sums((17, 4, 79)) == "17+4=21,21+79=100"
    assert running_sums((5, -9, 4, 1)) == "5-9=-4,-4+4=0,0+1=1"
    assert running_sums((2, 3)) == "2+3=5"


@given(TERM_LISTS)
def test_running_sums_are_right_and_end_in_the_answer(terms):
    steps = running_sums(terms).split(",")
    assert len(steps) == len(terms) - 1
    for step in steps:
        left, right = step.split("=")
        assert sum(int(number) for number in re.findall(r"-?\d+", left)) == int(right)
    assert int(steps[-1].split("=")[1]) == sum(terms)


@given(st.lists(NONZERO, min_size=2, max_size=5))
def test_every_order_of_the_terms_has_one_split(terms):
    assert len({split_of(order) for order in itertools.permutations(terms)}) == 1


def test_the_split_is_fixed_for_ever():
    """Literal values: a change here would let old training questions into new test sets."""
    held_out = {k: split_of((17, 4, k)) for k in range(1, 31) if split_of((17, 4, k)) != "train"}
    assert held_out == {2: "dev", 7: "dev", 15: "test", 17: "dev", 25: "test", 29: "test"}


def test_split_shares():
    """20,000 multisets: the standard error of the test share is sqrt(.15*.85/20000) = 0.0025; four of them allowed."""
    counts = Counter(split_of(terms) for terms in _multisets(20_000))
    assert counts["train"] / 20_000 == pytest.approx(0.80, abs=0.012)
    assert counts["dev"] / 20_000 == pytest.approx(0.05, abs=0.007)
    assert counts["test"] / 20_000 == pytest.approx(0.15, abs=0.011)


def _multisets(n: int) -> list[tuple[int, ...]]:
    return list(itertools.islice(itertools.combinations_with_replacement(range(1, 100), 3), n))


@settings(max_examples=60)
@given(SPECS, st.sampled_from(SPLITS), st.integers(-5, 10**9), st.integers(0, 10**12))
def test_a_draw_fits_its_spec_and_split(spec, split, seed, index):
    terms = draw(spec, split, seed, index)
    assert terms == draw(spec, split, seed, index)
    assert spec.min_terms <= len(terms) <= spec.max_terms
    assert all(1 <= abs(term) <= spec.max_value for term in terms)
    assert terms[0] > 0
    assert spec.negative or min(terms) > 0
    assert split_of(terms) == split


def test_draws_are_fixed_for_ever():
    drawn = [draw(ArithmeticSpec(), "test", 0, index) for index in range(3)]
    assert drawn == [(79, 69, 51), (31, 7, 13, 25, 6), (14, 75, 50, 99, 57)]


def test_draws_are_uniform_over_lengths_values_and_signs():
    """6,000 draws: each rate below has a standard error under 0.0065; four of them allowed."""
    spec = ArithmeticSpec(negative=True)
    drawn = [draw(spec, "train", 1, index) for index in range(6000)]
    lengths = Counter(len(terms) for terms in drawn)
    assert all(lengths[k] / 6000 == pytest.approx(1 / 3, abs=0.026) for k in (3, 4, 5))
    later = [term for terms in drawn for term in terms[1:]]
    assert sum(term < 0 for term in later) / len(later) == pytest.approx(0.5, abs=0.015)
    assert sum(terms[0] <= 33 for terms in drawn) / 6000 == pytest.approx(1 / 3, abs=0.026)
    assert {terms[0] for terms in drawn} == set(range(1, 100))


def test_seeds_and_splits_give_different_questions():
    streams = {tuple(draw(ArithmeticSpec(), split, seed, index) for index in range(5)) for split in SPLITS for seed in range(4)}
    assert len(streams) == 12


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match=r"^split: must be one of train, dev, test; got 'validation'"):
        draw(ArithmeticSpec(), "validation", 0, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("split", SPLITS)
def test_question_lists_have_no_duplicates_and_grow_at_the_end(split):
    spec = ArithmeticSpec(max_terms=3, max_value=20)  # 1,540 multisets: repeats are certain among 200 draws
    listed = questions(spec, split, 3, 60)
    assert len({tuple(sorted(terms)) for terms in listed}) == 60
    assert all(split_of(terms) == split for terms in listed)
    assert listed[:25] == questions(spec, split, 3, 25)


def test_a_spec_with_too_few_questions_says_so():
    spec = ArithmeticSpec(min_terms=2, max_terms=2, max_value=9)  # 9*10/2 = 45 multisets
    have = {split: sum(split_of(t) == split for t in _pairs(9)) for split in SPLITS}
    assert sum(have.values()) == 45
    assert len(questions(spec, "test", 0, have["test"])) == have["test"]
    with pytest.raises(ValueError, match=f"^n: 46 distinct questions asked for.* has {have['train']}$"):
        questions(spec, "train", 0, 46)


def test_an_empty_split_says_so():
    lone = ArithmeticSpec(min_terms=2, max_terms=2, max_value=1)  # 1+1 is its only question
    other = next(split for split in SPLITS if split != split_of((1, 1)))
    with pytest.raises(ValueError, match=f"belongs to the {other} split"):
        draw(lone, other, 0, 0)


def _pairs(max_value: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations_with_replacement(range(1, max_value + 1), 2))
