"""Grouping of tokens: by hand on short texts, by properties on any."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovlm.analysis.units import FILLERS, KINDS, OPERATOR_WORDS, Unit, units_of

PIECES = st.lists(st.text(alphabet="aZé'’19,. \n+-=(\ufffd東😀\u0301", max_size=4), max_size=12)


def texts(pieces, by="word"):
    return [unit.text for unit in units_of(pieces, by)]


def kinds(text):
    """Kinds of the words of `text`, one token a character."""
    return {unit.text.strip(): unit.kind for unit in units_of(list(text), "word")}


def test_digits_become_numbers():
    assert units_of(list("17+4=21"), "word") == [
        Unit("17", (0, 1), "number"),
        Unit("+", (2,), "operator"),
        Unit("4", (3,), "number"),
        Unit("=", (4,), "operator"),
        Unit("21", (5, 6), "number"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,080 + 3.5", ["1,080", " +", " 3.5"]),
        ("16*67=1,072", ["16", "*", "67", "=", "1,072"]),  # true only as one number
        ("76+45=121,121+30=151", ["76", "+", "45", "=", "121", ",", "121", "+", "30", "=", "151"]),  # true only as two
        ("76+45=121,120+30=150", ["76", "+", "45", "=", "121", ",", "120", "+", "30", "=", "150"]),
        ("1,2,300", ["1", ",", "2", ",", "300"]),  # "1,2" groups no thousands, so no comma here does
        ("don't  it’s", ["don't", "  it’s"]),
        ("'so'", ["'", "so", "'"]),
        ("e\u0301te\u0301 über", ["e\u0301te\u0301", " über"]),
        ("x2: (ok).", ["x", "2", ":", " (", "ok", ")", "."]),
        ("東京 a", ["東", "京", " a"]),
        ("a\n\n b \n", ["a", "\n\n b", " \n"]),
    ],
)
def test_words_of_single_characters(text, words):
    assert texts(list(text)) == words


def test_a_token_is_never_split():
    # " of the" covers two words; "7+" the end of one and the start of nothing that goes on
    assert texts(["cat", " of the", " ha", "t", "1", "7+", "4"]) == ["cat", " of the", " hat", "17+", "4"]


def test_white_space_goes_with_what_follows():
    assert texts(["the ", "cat ", "sat", " ", "\n", "down", "\n"]) == ["the ", "cat ", "sat", " \ndown", "\n"]


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (["so", "", "", " 😀", "!"], ["so", " 😀", "!"]),  # '' joins the next
        (["so", ""], ["so"]),  # and the last where there is no next
        (["caf", "\ufffd", "\ufffd", " au"], ["caf\ufffd\ufffd", " au"]),  # a word is not cut inside its last letter
        (["\ufffd", "\ufffd", "!", "a"], ["\ufffd\ufffd!", "a"]),
        (["\ufffd", "s"], ["\ufffds"]),
        (["", ""], [""]),
        ([], []),
    ],
)
def test_pieces_of_characters(pieces, words):
    assert texts(pieces) == words


def test_by_token_leaves_all_alone_but_knows_the_word():
    found = units_of([" Mr", " Jan", "et", "\ufffd", "", " ", "1", "7"], "token")
    assert [unit.positions for unit in found] == [(i,) for i in range(8)]
    assert [unit.kind for unit in found] == ["word", "name", "name", "name", "other", "space", "number", "number"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 plus 4 divided", {"3": "number", "plus": "operator", "4": "number", "divided": "operator"}),
        ("5² ½", {"5": "number", "²": "number", "½": "number"}),
        ("So Janet's ducks", {"So": "filler", "Janet's": "name", "ducks": "word"}),
        ("Ducks lay. Eggs \nRun", {"Ducks": "word", "lay": "word", ".": "punctuation", "Eggs": "word", "Run": "word"}),
        ('He said "Go', {"He": "word", "said": "word", '"': "punctuation", "Go": "name"}),
        ("- Count", {"-": "operator", "Count": "word"}),
        ("option A of a set", {"option": "word", "A": "name", "of": "filler", "a": "filler", "set": "word"}),
        ("well-known", {"well": "filler", "-": "punctuation", "known": "word"}),
        ("n-m", {"n": "word", "-": "operator", "m": "word"}),
        ("3 x 4", {"3": "number", "x": "operator", "4": "number"}),
        ("x = $", {"x": "word", "=": "operator", "$": "other"}),
        ("I’m", {"I’m": "filler"}),
        ("−×÷<>%^", dict.fromkeys("−×÷<>%^", "operator")),
    ],
)
def test_kinds(text, expected):
    assert kinds(text) == expected


def test_a_unit_of_several_words_has_the_first_kind_of_the_table():
    found = units_of([" of the", " of cats", " =4", " to Rome", " , and", " ,="], "word")
    assert [unit.kind for unit in found] == ["filler", "word", "number", "name", "filler", "operator"]


def test_sentences_by_first_visible_character(monkeypatch):
    # "?! B" begins in the second sentence although its last word is in the third; blanks go with what follows
    cut = SimpleNamespace(sentences=lambda text: ["So it is. ", "Is it?! ", "Be it.\n"])
    monkeypatch.setitem(sys.modules, "markovlm.analysis.segments", cut)
    pieces = ["So", " it", " is", ".", " ", "", "Is", " it", "?! B", "e", " it.", "\n"]
    assert units_of(pieces, "sentence") == [
        Unit("So it is.", (0, 1, 2, 3), "sentence"),
        Unit(" Is it?! B", (4, 5, 6, 7, 8), "sentence"),
        Unit("e it.\n", (9, 10, 11), "sentence"),
    ]


def test_sentences_of_the_real_splitter():
    assert texts(["He has 3.", "5 kg", ".", " So", " what", "?"], "sentence") == ["He has 3.5 kg.", " So what?"]


def test_only_three_ways():
    with pytest.raises(ValueError, match="paragraph"):
        units_of(["a"], "paragraph")  # type: ignore[arg-type]


@pytest.mark.parametrize("by", ["token", "word", "sentence"])
@given(pieces=PIECES)
def test_every_position_is_in_one_unit(by, pieces):
    found = units_of(pieces, by)
    assert [position for unit in found for position in unit.positions] == list(range(len(pieces)))
    assert "".join(unit.text for unit in found) == "".join(pieces)
    assert all(unit.text == "".join(pieces[i] for i in unit.positions) for unit in found)
    assert {unit.kind for unit in found} <= set(KINDS)


@given(PIECES)
def test_the_words_don_t_depend_on_empty_pieces(pieces):
    spread = [part for piece in pieces for part in ("", piece)]
    if any(pieces):
        assert texts(spread) == texts([piece for piece in pieces if piece])


def test_the_lists_are_lower_case_and_apart():
    assert {word.lower() for word in FILLERS} == FILLERS
    assert not FILLERS & OPERATOR_WORDS
