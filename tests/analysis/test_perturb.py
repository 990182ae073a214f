"""Perturbations against their definitions (METHOD §4). Expected texts are derived by hand."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovlm.analysis.perturb import PERTURBATIONS, Context, TokenPool, perturb_ids, perturb_text, token_pool
from markovlm.analysis.segments import sentences

CONTEXT = Context(question="17+4+79", other_cot="somebody else's thoughts")
TEXT_NAMES = [name for name, row in PERTURBATIONS.items() if row.level != "token"]
TOKEN_NAMES = [name for name, row in PERTURBATIONS.items() if row.level == "token"]
ANY_TEXT = st.text(max_size=50) | st.text(st.sampled_from("0123456789,.=+- \nab!é\u0301²٣"), max_size=50)
SEEDS = st.integers(0, 2**32)
POOL = TokenPool(with_digit=(5, 6, 7), replacements=(1, 2, 5, 6, 7))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def perturbed(name: str, text: str, severity: float = 1.0, seed: int = 0) -> str:
    return perturb_text(name, text, severity, rng(seed), CONTEXT)


def over_seeds(name: str, text: str, n: int = 60, severity: float = 1.0) -> set[str]:
    return {perturbed(name, text, severity, seed) for seed in range(n)}


# What holds for all.


def test_the_table():
    five = ["delete", "truncate_front", "truncate_back", "digit_replace", "char_replace"]
    tokens = ["token_delete", "token_truncate_front", "token_truncate_back", "token_digit_replace", "token_replace"]
    assert list(PERTURBATIONS)[:5] == five
    assert tokens == TOKEN_NAMES
    assert all(PERTURBATIONS[name].severities == (0.2, 0.4, 0.6, 0.8, 1.0) for name in [*five, *tokens, "truncate_sentences"])
    assert all((row.on_text is None) == (row.level == "token") != (row.on_ids is None) for row in PERTURBATIONS.values())


def test_the_page_shows_the_table():
    page = (Path(__file__).parents[2] / "docs" / "perturbations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \| (.*) \|$", page, flags=re.MULTILINE)
    assert rows == [(row.name, row.level, row.summary, row.source) for row in PERTURBATIONS.values()]


@pytest.mark.parametrize("severity", [-0.1, 1.01, math.nan, math.inf])
def test_a_severity_outside_0_to_1_is_refused(severity):
    with pytest.raises(ValueError, match="severity"):
        perturbed("delete", "abc", severity)
    with pytest.raises(ValueError, match="severity"):
        perturb_ids("token_delete", (1,), severity, rng(), POOL)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="Unknown perturbation 'melt'"):
        perturbed("melt", "abc")
    with pytest.raises(ValueError, match="use perturb_ids"):
        perturbed("token_delete", "abc")
    with pytest.raises(ValueError, match="use perturb_text"):
        perturb_ids("delete", (1,), 0.5, rng(), POOL)


@given(st.sampled_from(TEXT_NAMES), ANY_TEXT, SEEDS)
def test_severity_0_changes_nothing(name, text, seed):
    assert perturbed(name, text, 0, seed) == text
    assert perturbed(name, text, 0.0, seed) == text


@given(st.sampled_from(TEXT_NAMES), ANY_TEXT, st.floats(0, 1), SEEDS)
def test_no_text_is_too_odd_and_the_generator_decides_alone(name, text, severity, seed):
    assert perturbed(name, text, severity, seed) == perturbed(name, text, severity, seed)


@pytest.mark.parametrize("name", [n for n in TEXT_NAMES if n not in ("other_cot", "question")])
def test_empty_text_stays_empty(name):
    assert perturbed(name, "") == ""


# Characters.


@pytest.mark.parametrize(
    ("severity", "front", "back"),
    [(0.2, "cdefghij", "abcdefgh"), (0.4, "efghij", "abcdef"), (0.6, "ghij", "abcd"), (0.8, "ij", "ab"), (1.0, "", "")],
)
def test_truncation(severity, front, back):
    assert perturbed("truncate_front", "abcdefghij", severity) == front
    assert perturbed("truncate_back", "abcdefghij", severity) == back


@pytest.mark.parametrize(
    ("n", "severity", "kept", "left"),
    # kept floor(n(1-s)) by truncation; left n - floor(n s) by deletion. Floats get floor(10 * (1 - 0.8)) and
    # floor(100 * 0.29) wrong.
    [(10, 0.8, 2, 2), (5, 0.8, 1, 1), (20, 0.6, 8, 8), (100, 0.29, 71, 71), (3, 0.2, 2, 3), (7, 0.4, 4, 5), (1, 0.2, 0, 1)],
)
def test_how_many_characters_stay(n, severity, kept, left):
    for name, expected in {"truncate_front": kept, "truncate_back": kept, "delete": left}.items():
        assert len(perturbed(name, "é" * n, severity)) == expected
    for name, expected in {"token_truncate_front": kept, "token_truncate_back": kept, "token_delete": left}.items():
        assert len(perturb_ids(name, (1,) * n, severity, rng(), POOL)) == expected


def test_deletion_keeps_the_order_and_takes_every_place_alike():
    left = Counter(perturbed("delete", "abcde", 0.4, seed) for seed in range(3000))
    assert all("".join(sorted(text)) == text and len(set(text)) == 3 for text in left)
    # 10 ways to choose 2 of 5, each 300 times: standard deviation sqrt(3000 * .1 * .9) = 16.4
    assert len(left) == 10
    assert all(abs(count - 300) < 5 * 16.4 for count in left.values())


def test_characters_are_code_points():
    assert perturbed("truncate_front", "e\u0301😀é", 0.5) == "😀é"
    assert perturbed("truncate_back", "e\u0301😀é", 0.5) == "e\u0301"


def test_every_digit_and_nothing_else_is_replaced():
    text = "a1 ²٣, x"
    new = over_seeds("digit_replace", text, 300)
    assert all(re.fullmatch(r"a[0-9] [0-9][0-9], x", one) for one in new)
    assert {one[1] for one in new} == {one[4] for one in new} == set("0123456789")
    assert perturbed("digit_replace", "no digits") == "no digits"


def test_every_letter_and_digit_and_nothing_else_is_replaced():
    text = "a1 é٣_-\u0301!"
    new = over_seeds("char_replace", text, 900)
    assert all(re.fullmatch("[0-9A-Za-z]{2} [0-9A-Za-z]{2}_-\u0301!", one) for one in new)
    assert len({one[0] for one in new}) == len({one[3] for one in new}) == 62


@pytest.mark.parametrize(("severity", "changed"), [(0.2, 0.18), (0.6, 0.54), (1.0, 0.9)])
def test_a_replacement_may_be_the_same(severity, changed):
    new = perturbed("digit_replace", "7" * 10_000, severity)
    # s * 9/10 of them differ, with a standard deviation of at most .005
    assert abs(sum(c != "7" for c in new) / 10_000 - changed) < 0.025
    assert len(set(Counter(new)) - {"7"}) == 9


@given(ANY_TEXT, SEEDS, st.sampled_from(["digit_replace", "char_replace"]))
def test_generators_in_the_same_state_make_damage_that_nests(text, seed, name):
    light, heavy = (perturbed(name, text, severity, seed) for severity in (0.3, 0.7))
    assert all(b == a for original, a, b in zip(text, light, heavy, strict=True) if a != original)
    numbered = "".join(map(chr, range(0x4E00, 0x4E00 + len(text))))
    assert set(perturbed("delete", numbered, 0.7, seed)) <= set(perturbed("delete", numbered, 0.3, seed))


# Tokens.


def test_the_pool_of_a_vocabulary():
    texts = ["<eos>", "7", " 7", "128", " v2", "the", "", "²", "<|digit 1|>"]
    pool = token_pool(texts, {0, 8})
    assert pool == TokenPool(with_digit=(1, 2, 3, 4, 7), replacements=(1, 2, 3, 4, 5, 7))


def test_token_truncation_and_deletion():
    ids = (10, 11, 12, 13, 14)
    assert perturb_ids("token_truncate_front", ids, 0.4, rng(), POOL) == (12, 13, 14)
    assert perturb_ids("token_truncate_back", ids, 0.4, rng(), POOL) == (10, 11, 12)
    left = {perturb_ids("token_delete", ids, 0.4, rng(seed), POOL) for seed in range(200)}
    assert len(left) == 10
    assert all(tuple(sorted(set(some))) == some for some in left)
    for name in ("token_truncate_front", "token_truncate_back", "token_delete"):
        assert perturb_ids(name, ids, 1.0, rng(), POOL) == ()


def test_tokens_that_hold_digits_are_replaced_by_others_of_their_kind():
    drawn = [perturb_ids("token_digit_replace", (1, 5, 2, 7, 99), 1.0, rng(seed), POOL) for seed in range(200)]
    assert {ids[::2] for ids in drawn} == {(1, 2, 99)}
    assert {ids[1] for ids in drawn} == {ids[3] for ids in drawn} == {5, 6, 7}


def test_any_token_is_replaced_by_any_ordinary_one():
    drawn = Counter(perturb_ids("token_replace", (99,), 1.0, rng(seed), POOL)[0] for seed in range(2000))
    assert set(drawn) == {1, 2, 5, 6, 7}
    assert all(abs(count - 400) < 5 * 17.9 for count in drawn.values())  # sqrt(2000 * .2 * .8) = 17.9
    assert sum(i != 99 for i in perturb_ids("token_replace", (99,) * 10_000, 0.4, rng(), POOL)) == pytest.approx(4000, abs=250)


@given(st.sampled_from(TOKEN_NAMES), st.lists(st.integers(0, 9), max_size=20).map(tuple), st.floats(0, 1), SEEDS)
def test_ids_stay_plain_integers_and_severity_0_changes_nothing(name, ids, severity, seed):
    assert perturb_ids(name, ids, 0.0, rng(seed), POOL) == ids
    for pool in (POOL, token_pool([], set())):  # an empty pool replaces nothing
        new = perturb_ids(name, ids, severity, rng(seed), pool)
        assert type(new) is tuple
        assert all(type(i) is int for i in new)


# Meaning.


def test_two_numbers_of_different_value_change_places():
    # three different pairs; the two 21 are equal
    assert over_seeds("swap_numbers", "21, 5 and 21 of 7") == {
        "5, 21 and 21 of 7", "7, 5 and 21 of 21", "21, 21 and 5 of 7", "21, 5 and 7 of 21", "21, 7 and 21 of 5",
    }  # fmt: skip
    assert over_seeds("swap_numbers", "17-4 = -3.5") == {"4-17 = -3.5", "-3.5-4 = 17", "17--3.5 = 4"}
    assert over_seeds("swap_numbers", "$1,080 for 12") == {"$12 for 1,080"}
    for text in ("", "no digits", "one 5", "5 and 5.0", "1,080 = 1080"):
        assert over_seeds("swap_numbers", text) == {text}


def test_one_intermediate_result_changes():
    new = over_seeds("change_result", "17+4=21,21+79=100,100+5=105", 400)
    assert all(re.fullmatch(r"17\+4=(..),21\+79=(...),100\+5=105", one) for one in new)
    first, second = ({one.split(",")[i].partition("=")[2] for one in new} for i in (0, 1))
    assert len(new) == len(first) + len(second) - 2  # one of them at a time
    assert {"21"} < first <= set(map(str, range(10, 100)))
    assert {"100"} < second <= set(map(str, range(100, 1000)))


def test_the_last_result_changes_only_where_it_is_the_only_one():
    assert over_seeds("change_result", "3+4 = $7.", 300) == {f"3+4 = ${digit}." for digit in "012345689"}
    assert {one.partition(" and ")[0] for one in over_seeds("change_result", "3 and x = y", 300)} == set("012456789")
    assert {one[:3] for one in over_seeds("change_result", "x=-5", 300)} == {"x=-"}


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("=1,080", r"=[1-9],\d{3}"),
        ("=-12.50", r"=-[1-9]\d\.\d\d"),
        ("=0.5", r"=\d\.\d"),
        ("=.5", r"=\.\d"),
        ("=007", r"=[1-9]\d\d"),
    ],
)
def test_the_form_of_a_changed_number_stays(text, form):
    new = over_seeds("change_result", text)
    assert text not in new
    assert all(re.fullmatch(form, one) for one in new)


def test_without_a_number_no_result_changes():
    assert over_seeds("change_result", "x = y") == {"x = y"}


def test_sentences_stand_in_another_order():
    assert over_seeds("shuffle_sentences", "17+4=21,21+79=100") == {"21+79=100,17+4=21"}
    assert over_seeds("shuffle_sentences", "One.\n\nTwo. Three") == {
        "One.\n\nThree Two.", "Two.\n\nOne. Three", "Two.\n\nThree One.", "Three\n\nOne. Two.", "Three\n\nTwo. One.",
    }  # fmt: skip
    for text in ("One.", "no end", "Same. Same.", ""):
        assert over_seeds("shuffle_sentences", text) == {text}


@given(ANY_TEXT, SEEDS)
def test_shuffling_keeps_every_character(text, seed):
    new = perturbed("shuffle_sentences", text, 1.0, seed)
    assert sorted(new) == sorted(text)
    if len({piece.strip(" \t\r\n,;，；") for piece in sentences(text)}) < 2:
        assert new == text


@pytest.mark.parametrize(
    ("severity", "expected"),
    # 3 sentences: floor(3 * .8) = 2, floor(1.8) = 1, floor(1.2) = 1, floor(.6) = 0, 0
    [(0.2, "One. Two. "), (0.4, "One. "), (0.6, "One. "), (0.8, ""), (1.0, "")],
)
def test_the_first_sentences_stay(severity, expected):
    assert perturbed("truncate_sentences", "One. Two. Three.", severity) == expected


def test_replacements():
    assert perturbed("other_cot", "mine") == "somebody else's thoughts"
    assert perturbed("question", "mine") == "17+4+79"
    assert perturbed("filler", "mine, é and 😀") == " ... ... ... "
    assert perturbed("filler", "x") == " "
