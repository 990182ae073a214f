"""The last digit of a sum: the embedded model writes running sums, and has never been asked for anything but the whole total."""

from itertools import count

from markovlm import Example, register
from markovlm.tasks.arithmetic_data import ArithmeticSpec, draw, format_question


@register.task("last_digit", answer_type="number", prompt_kind="arithmetic", summary="the last digit of a sum")
def last_digit(split, seed, options):
    """Sums as the embedded model knows them; the splits are those of its pretraining."""
    for index in count():
        terms = draw(ArithmeticSpec(), split, seed, index)
        yield Example("", format_question(terms), str(sum(terms) % 10))
