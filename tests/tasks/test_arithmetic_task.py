"""The arithmetic task: an endless stream to train on, fixed lists to evaluate on."""

from __future__ import annotations

import pytest

from markovlm.errors import UserError
from markovlm.tasks import get_task
from markovlm.tasks.arithmetic_data import ArithmeticSpec, format_question, parse_question, questions, split_of
from markovlm.tasks.base import LoadRequest
from markovlm.tasks.generated import HELD_OUT_SEED

TASK = get_task("arithmetic")


def test_training_questions_by_index():
    stream = TASK.load(LoadRequest("train", seed=3)).examples
    example = stream[123_456_789]
    assert example == stream[123_456_789] == stream[123_456_789 - len(stream)]
    assert example.id == f"arithmetic/train/{example.question}"
    assert example.answer == str(sum(parse_question(example.question)))
    assert stream[5:7] == [stream[5], stream[6]]
    assert stream[0] != TASK.load(LoadRequest("train", seed=4)).examples[0]
    with pytest.raises(IndexError):
        stream[len(stream)]
    assert len(TASK.load(LoadRequest("train", limit=7)).examples) == 7


@pytest.mark.parametrize(("split", "size"), [("dev", 200), ("test", 500)])
def test_held_out_questions_are_distinct_and_do_not_depend_on_the_seed(split, size):
    examples = TASK.load(LoadRequest(split)).examples
    assert len(examples) == len({e.id for e in examples}) == size
    assert all(split_of(parse_question(e.question)) == split for e in examples)
    assert TASK.load(LoadRequest(split, seed=9)).examples == examples
    assert TASK.load(LoadRequest(split, limit=20)).examples == examples[:20]
    assert TASK.load(LoadRequest(split, limit=size + 50)).examples[:size] == examples


def test_options_are_fields_of_the_spec():
    examples = TASK.load(LoadRequest("test", options={"min_terms": 6, "max_terms": 6, "max_value": 9, "negative": True})).examples
    assert {len(parse_question(e.question)) for e in examples} == {6}
    assert any("-" in e.question for e in examples)
    with pytest.raises(UserError, match=r"no option 'terms' \(did you mean 'min_terms'|max_terms"):
        get_task("arithmetic", {"terms": 3})
    with pytest.raises(UserError, match="option max_terms: must be at least min_terms"):
        get_task("arithmetic", {"min_terms": 4, "max_terms": 3})


def test_a_small_spec_gives_what_it_has_and_says_so():
    tiny = {"min_terms": 2, "max_terms": 2, "max_value": 6}  # 21 unordered pairs in all splits together
    loaded = TASK.load(LoadRequest("test", options=tiny))
    assert 1 <= len(loaded.examples) < 21
    assert "has only" in loaded.notes[0]
    assert [e.question for e in loaded.examples] == [
        format_question(terms) for terms in questions(ArithmeticSpec(**tiny), "test", HELD_OUT_SEED, len(loaded.examples))
    ]
    with pytest.raises(UserError, match="100 test questions asked for"):
        TASK.load(LoadRequest("test", limit=100, options=tiny))


def test_no_files(tmp_path):
    with pytest.raises(UserError, match="task arithmetic generates its questions"):
        TASK.load(LoadRequest("test", data=tmp_path))
