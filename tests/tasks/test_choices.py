"""Choices that people type, in the ways they type them."""

from __future__ import annotations

import pytest

from markovlm.errors import UserError
from markovlm.tasks.base import Example
from markovlm.tasks.choices import asked_example, split_choices


@pytest.mark.parametrize(
    ("text", "question", "choices"),
    [
        ("Which is a metal?\nA. iron\nB. wood\nC. glass", "Which is a metal?", ("iron", "wood", "glass")),
        ("Which is a metal? (A) iron (B) wood", "Which is a metal?", ("iron", "wood")),
        ("Which is a metal?\n\nOptions:\na) iron\nb) wood\n\nAnswer:", "Which is a metal?", ("iron", "wood")),
        ("Which is a metal? A: iron, B: wood", "Which is a metal?", ("iron,", "wood")),
        ("Vitamin A. helps. Which?\nA. one\nB. two", "Vitamin A. helps. Which?", ("one", "two")),
        ("Choose.\nA. one\nB. two\nThink well.", "Choose.\nThink well.", ("one", "two")),
        ("Plan A) is bad, what about C) none?", "Plan A) is bad, what about C) none?", ()),
        ("Mr. A. Smith met B) nobody", "Mr. A. Smith met B) nobody", ()),  # two styles
        ("A. iron\nB. wood", "A. iron\nB. wood", ()),  # no question before them
    ],
)
def test_choices_listed_in_a_question(text: str, question: str, choices: tuple[str, ...]) -> None:
    assert split_choices(text) == (question, choices)


def test_a_question_of_ones_own_as_an_example() -> None:
    assert asked_example(" Q? ", ("iron", " wood "), "letter", "arc") == Example("asked", "Q?", "", ("iron", "wood"))
    assert asked_example(Example("7", "Q?", "b", ("x", "y")), (), "letter", "arc") == Example("7", "Q?", "B", ("x", "y"))
    assert asked_example("17+4", (), "number", "arithmetic") == Example("asked", "17+4", "")
    assert asked_example("A) 1 B) 2", (), "number", "gsm8k").question == "A) 1 B) 2"  # of other tasks it is text


@pytest.mark.parametrize(
    ("question", "choices", "kind", "says"),
    [
        (" ", (), "number", "is empty"),
        ("Q?", (), "letter", "--choice TEXT"),
        ("Q?", ("one",), "letter", "1 given, expected 2 to 10"),
        ("Q?", ("one", " "), "letter", "choice B is empty"),
        ("Q?", ("one", "two"), "number", "leave them out"),
        (Example("1", "Q?", "C", ("x", "y")), (), "letter", "is not one of A, B"),
    ],
)
def test_what_cannot_be_asked_is_one_line(question: str | Example, choices: tuple[str, ...], kind: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        asked_example(question, choices, kind, "some")  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(caught.value)
