"""Word problems of one to four steps, generated: a stream without end to train on, fixed lists to evaluate on.

The facts of a question are kept: `problem_of(example.id, options)` gives the `words_data.Problem` it was made from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from markovlm.errors import UserError
from markovlm.tasks.arithmetic_data import Split
from markovlm.tasks.base import Example, Loaded
from markovlm.tasks.generated import HELD_OUT_SEED, DrawnTask
from markovlm.tasks.words_data import Problem, WordsSpec, draw

_ID = re.compile(r"words/(train|dev|test)/(\d+)/(\d+)")


def problem_of(example_id: str, options: Mapping[str, Any] | None = None) -> Problem:
    """The facts behind an example's id, under the options it was drawn with. Raises UserError on an id of another task."""
    match = _ID.fullmatch(example_id)
    if not match:
        raise UserError(f"{example_id!r} is not a question of task words (words/SPLIT/SEED/INDEX)")
    return draw(TASK.spec_of(options or {}), cast(Split, match[1]), int(match[2]), int(match[3]))


def _example(spec: WordsSpec, split: Split, seed: int, index: int) -> Example:
    problem = draw(spec, split, seed, index)
    return Example(f"words/{split}/{seed}/{index}", problem.question, str(problem.answer))


def _held_out(spec: WordsSpec, split: Split, wanted: int, _asked: bool) -> Loaded:
    """Questions that differ. Raises UserError if there are fewer."""
    found: dict[str, Example] = {}
    for index in range(20 * wanted + 1000):
        if len(found) == wanted:
            return Loaded(list(found.values()))
        example = _example(spec, split, HELD_OUT_SEED, index)
        found.setdefault(example.question, example)
    raise UserError(f"words: {wanted} {split} questions asked for, but {spec} has only {len(found)} that differ")


TASK = DrawnTask(
    "words",
    "generated word problems of 1 to 4 steps, answer a number",
    max_answer_tokens=10,
    spec=WordsSpec,
    option_help={
        "min_steps": "fewest steps, 1 to 4",
        "max_steps": "most steps, 1 to 4",
        "distractors": "most sentences that change nothing, 0 to 3",
        "max_value": "largest result of a step",
        "templates": "held_out: each split has its own sentence templates; train: every split uses those of training",
        "question": "position of the question: either, end or start",
    },
    draw=_example,
    held_out=_held_out,
    sizes={"dev": 200, "test": 500},
)
