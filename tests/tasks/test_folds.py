"""Splits: which file or fold a split is, and that no two share a question."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markovlm.errors import RunFailed, UserError
from markovlm.tasks.base import Example
from markovlm.tasks.folds import WHOLE, assert_disjoint, cut_for, question_key, take, without_overlap

SOURCES = [{WHOLE}, {"train"}, {"dev"}, {"train", "test"}, {"dev", "test"}, {"train", "dev"}, {"train", "dev", "test"}]


def example(question, *choices):
    return Example("id", question, "1", tuple(choices))


@pytest.mark.parametrize("available", SOURCES, ids=lambda names: "+".join(sorted(names)))
@given(st.lists(st.text(max_size=6), max_size=60))
def test_disjoint_splits_share_no_question_and_lose_none_of_theirs(available, questions):
    files = {name: [example(f"{name} {q}") for q in questions] for name in available}
    cuts = {split: cut_for(split, available, True, "here") for split in ("train", "dev", "test")}
    splits = {split: take(files[cut.origin], cut) for split, cut in cuts.items()}
    for one, other in combinations(splits.values(), 2):
        assert_disjoint(one, other)
    assert sum(map(len, splits.values())) == sum(map(len, files.values()))


@pytest.mark.parametrize("available", SOURCES, ids=lambda names: "+".join(sorted(names)))
def test_a_split_that_the_source_has_is_taken_whole_on_its_own(available):
    assert all(cut_for(split, available, False, "here").is_all for split in available)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_nobody_trains_on_a_lonely_test_file(split):
    with pytest.raises(UserError, match=f"here: no {split} split; it has test"):
        cut_for(split, {"test"}, False, "here")


def test_a_folder_with_one_file_of_test_says_how_to_train_on_that(tmp_path):
    with pytest.raises(UserError, match="it has test; a file that is named itself is cut into all three"):
        cut_for("train", {"test"}, True, str(tmp_path))


def test_what_makes_two_questions_the_same():
    assert question_key(example("How  MANY?\n")) == question_key(example("how many?"))
    assert question_key(example("Q", "a", "b")) == question_key(example("q", "B", "a"))
    assert question_key(example("Q", "a", "b")) != question_key(example("Q", "a", "c"))


def test_overlap_is_found_and_removed():
    train, test = [example("One?"), example("Two?")], [example("two? ")]
    with pytest.raises(RunFailed, match="1 training questions are also held out"):
        assert_disjoint(train, test)
    assert without_overlap(train, test) == train[:1]
