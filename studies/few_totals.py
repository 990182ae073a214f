"""Sums that come to one of few totals, so that an answer can be guessed from no chain of thought at all."""

from itertools import count

from pydantic import Field

from markovlm import Example, Options, register
from markovlm.tasks.arithmetic_data import ArithmeticSpec, draw, format_question, split_of


class FewTotals(Options):
    totals: int = Field(1, ge=1, le=20, description="different totals there are, in equal shares: 150, then 155, 160 …")


@register.task(
    "few_totals", answer_type="number", prompt_kind="arithmetic", summary="sums with few different answers", options=FewTotals
)
def few_totals(split, seed, options):
    """Sums as the embedded model knows them, the last term made to fit; the splits are those of its pretraining."""
    spec, made = ArithmeticSpec(), 0
    for index in count():
        total = 150 + 5 * (made % options.totals)
        *terms, _ = draw(spec, split, seed, index)
        terms.append(total - sum(terms))
        if 1 <= terms[-1] <= spec.max_value and split_of(terms) == split:
            made += 1
            yield Example("", format_question(terms), str(total))
