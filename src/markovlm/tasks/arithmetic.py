"""Sums such as `17+4+79`, generated: an endless stream to train on, fixed lists to evaluate on."""

from __future__ import annotations

from markovlm.errors import UserError
from markovlm.tasks.arithmetic_data import MAX_FRUITLESS_DRAWS, ArithmeticSpec, Split, Terms, draw, format_question
from markovlm.tasks.base import Example, Loaded
from markovlm.tasks.generated import HELD_OUT_SEED, DrawnTask


def _held_out(spec: ArithmeticSpec, split: Split, wanted: int, asked: bool) -> Loaded:
    """Distinct questions. Raises UserError if fewer than `asked` for exist."""
    found = _distinct(spec, split, wanted)
    short = len(found) < wanted
    if not found or (short and asked):
        raise UserError(f"arithmetic: {wanted} {split} questions asked for, but {spec} has only {len(found)}")
    notes = (f"{split}: {spec} has only {len(found)} questions",) if short else ()
    return Loaded([_example(split, terms) for terms in found], notes=notes)


def _distinct(spec: ArithmeticSpec, split: Split, wanted: int) -> list[Terms]:
    """What `arithmetic_data.questions` gives, but where the spec has fewer, those."""
    found: dict[Terms, Terms] = {}
    index = newest = 0
    while len(found) < wanted and index - newest < MAX_FRUITLESS_DRAWS:
        try:
            terms = draw(spec, split, HELD_OUT_SEED, index)
        except ValueError:
            break  # no question of the spec is in this split
        key = tuple(sorted(terms))
        if key not in found:
            found[key], newest = terms, index
        index += 1
    return list(found.values())


def _example(split: str, terms: Terms) -> Example:
    question = format_question(terms)
    return Example(f"arithmetic/{split}/{question}", question, str(sum(terms)))


TASK = DrawnTask(
    "arithmetic",
    "generated sums, answer a number",
    prompt_kind="arithmetic",
    default_cot_tokens=150,
    max_answer_tokens=10,
    spec=ArithmeticSpec,
    option_help={
        "min_terms": "fewest terms of a sum",
        "max_terms": "most terms of a sum",
        "max_value": "largest term",
        "negative": "subtract terms too",
    },
    draw=lambda spec, split, seed, index: _example(split, draw(spec, split, seed, index)),
    held_out=_held_out,
    sizes={"dev": 200, "test": 500},
)
