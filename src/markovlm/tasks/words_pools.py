"""Names, things and sentence templates of the task `words`, each in the pool of one split. Standard library only.

A template is a sentence with slots. Templates of a kind are a product of parts (verb, object, tail); the sum of the parts'
positions decides the split. So every verb and every tail occurs in training, and no held-out *combination* does: what is
held out is the sentence, not its words. Held-out names and things occur in no training text at all.

Slots: `{N}` the person (or pronoun) the story is about, `{M}` another one, `{t}` the things counted, `{u}` other things,
`{g}` what groups come in, `{k}` a number, `{m}` a number of groups.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, get_args

from markovlm.tasks.arithmetic_data import SPLITS, Split

Kind = Literal["start", "start_groups", "gain", "lose", "gain_groups", "lose_groups", "times", "more", "fewer"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Asked = Literal["own", "other", "together"]  # whose things the question is about

SHE: dict[Split, tuple[str, ...]] = {
    "train": (
        "Anna", "Maria", "Lena", "Nora", "Clara", "Emma", "Mina", "Rosa", "Sara", "Lily", "Carla", "Dana", "Marta", "Tina",
        "Lara", "Mona", "Sandra", "Karin", "Ellen", "Helen", "Linda", "Diana", "Monica", "Laura", "Marina", "Elena",
        "Karla", "Melissa", "Sonia", "Valeria", "Martina", "Daniela", "Carmen", "Rina", "Lorena", "Nina", "Alina", "Selma",
    ),
    "dev": ("Hanna", "Mira", "Elsa", "Corina", "Dora", "Malina"),
    "test": ("Maya", "Lina", "Sarina", "Marlen", "Tara", "Delia", "Nadia", "Rosana", "Carina", "Milena"),
}  # fmt: skip
HE: dict[Split, tuple[str, ...]] = {
    "train": (
        "Tim", "Ben", "Carl", "Martin", "Leo", "Dan", "Mario", "Anton", "Simon", "Marco", "Robin", "Alan", "Karl", "Milan",
        "Oscar", "Stan", "Leon", "Erik", "Ivan", "Roman", "Damon", "Marvin", "Calvin", "Adrian", "Lars", "Nolan", "Brandon",
        "Elton", "Carlos", "Dario", "Marlon", "Sandro", "Timon", "Rolan", "Daniel", "Samson", "Alvin", "Gordon",
    ),
    "dev": ("Tom", "Marlo", "Delan", "Edwin", "Rino", "Alex"),
    "test": ("Sam", "Dino", "Alon", "Carlo", "Marin", "Loran", "Elias", "Benson", "Arno", "Timor"),
}  # fmt: skip
THINGS: dict[Split, tuple[str, ...]] = {
    "train": (
        "apples", "plums", "marbles", "coins", "stamps", "cards", "books", "pens", "shells", "stones", "balls", "candles",
        "buttons", "beads", "cookies", "lemons", "melons", "tickets", "pencils", "flowers", "roses", "eggs", "cups", "plates",
        "carrots", "onions", "peaches", "cherries", "stickers", "markers", "ribbons", "posters", "letters", "rings", "spoons",
        "bottles", "blocks", "dolls", "mugs", "nails", "corks", "straws", "badges", "bolts", "crayons", "boards",
    ),
    "dev": ("grapes", "tokens", "erasers", "brushes", "papers", "bells", "magnets", "berries"),
    "test": ("pears", "kites", "mandolins", "crackers", "needles", "postcards", "ropes", "oranges", "bricks", "planets",
             "tulips", "bananas"),
}  # fmt: skip
GROUPS = ("bags", "boxes", "packs", "baskets")

Parts = tuple[tuple[str, ...], ...]  # a template is one of each, joined

_WHERE = ("", " at the market", " after lunch", " on the way home", " in the garden", " on Monday", " at school")
_PLACE = ("", " at home", " in a drawer", " on the table", " in the kitchen", " on a shelf", " in the car")
_PARTS: dict[Kind, tuple[Parts, ...]] = {
    "start": ((("{N} has ", "{N} starts with ", "{N} owns ", "{N} keeps ", "At first {N} has "), ("{k} {t}",), _PLACE),),
    "start_groups": (
        (
            ("{N} has ", "{N} starts with ", "{N} owns ", "{N} keeps ", "At first {N} has "),
            ("{m} {g} of {k} {t}", "{m} {g} with {k} {t} each", "{m} full {g} of {k} {t}"),
            _PLACE,
        ),
    ),
    "gain": (
        (
            ("{N} buys ", "{N} finds ", "{N} gets ", "{N} picks up ", "{N} collects ", "{N} wins ", "Then {N} receives "),
            ("{k} more {t}", "{k} {t}", "{k} more", "another {k} {t}"),
            _WHERE,
        ),
        (("{M} gives {N} ", "{M} brings {N} ", "{M} sends {N} "), ("{k} {t}", "{k} more", "another {k} {t}"), _WHERE),
    ),
    "lose": (
        (
            ("{N} loses ", "{N} sells ", "{N} gives away ", "{N} uses ", "{N} drops ", "{N} breaks ", "Then {N} throws away "),
            ("{k} {t}", "{k} of them", "{k} of the {t}"),
            _WHERE,
        ),
        (("{N} gives {M} ", "{N} sends {M} ", "{M} takes "), ("{k} {t}", "{k} of them", "{k} of the {t}"), _WHERE),
    ),
    "gain_groups": (
        (
            ("{N} buys ", "{N} finds ", "{N} gets ", "{N} collects ", "{M} brings {N} ", "{M} gives {N} ", "Then {N} receives "),
            ("{m} {g} of {k} {t}", "{m} {g} of {k}", "{m} {g} with {k} {t} each", "{m} more {g} of {k} {t}"),
            _WHERE,
        ),
    ),
    "lose_groups": (
        (
            ("{N} sells ", "{N} gives away ", "{N} loses ", "{N} uses ", "{N} gives {M} ", "{N} sends {M} ", "Then {N} drops "),
            ("{m} {g} of {k} {t}", "{m} {g} of {k}", "{m} {g} with {k} {t} each"),
            _WHERE,
        ),
    ),
    "times": (
        (
            ("{M} has ", "{M} owns ", "{M} collects ", "{M} keeps ", "But {M} has "),
            ("{k} times as many", "{k} times as many {t}", "{k} times as many {t} as {N}"),
            _PLACE,
        ),
    ),
    "more": ((("{M} has ", "{M} owns ", "{M} collects ", "{M} keeps ", "But {M} has "), ("{k} more {t} than {N}",), _PLACE),),
    "fewer": ((("{M} has ", "{M} owns ", "{M} collects ", "{M} keeps ", "But {M} has "), ("{k} fewer {t} than {N}",), _PLACE),),
}
_WHEN = (" now", " in the end", " after that", " this evening", " today", " all in all")
TAILS = tuple(tail for tail in (*_WHERE, *_PLACE, *_WHEN) if tail)  # where and when
_ASKED: dict[Asked, tuple[Parts, ...]] = {
    "own": (
        (("How many {t} does {N} have",), _WHEN, ("?",)),
        (("Find how many {t} {N} has", "Count the {t} that {N} has", "Say how many {t} {N} has"), _WHEN, (".",)),
    ),
    "other": (
        (("How many {t} does {M} have",), _WHEN, ("?",)),
        (("Find how many {t} {M} has", "Count the {t} that {M} has", "Say how many {t} {M} has"), _WHEN, (".",)),
    ),
    "together": (
        (("How many {t} do they have together",), _WHEN, ("?",)),
        (("Find how many {t} they have together", "Count the {t} that they have together"), _WHEN, (".",)),
    ),
}
_DISTRACTORS: tuple[Parts, ...] = (
    (("{M} has ", "{M} buys ", "{M} finds ", "{N} also has ", "{N} sees "), ("{k} {u}", "{k} old {u}"), _PLACE),
    (("{N} is ", "{M} is ", "The house is ", "The car is "), ("{k} years old",), ("", " now", " today", " this year")),
    (("It is ", "The school is ", "The market is "), ("{k} miles", "{k} steps"), (" away", " from home", " long")),
)


def _split(kinds: Sequence[Parts], end: str) -> dict[Split, tuple[str, ...]]:
    """The templates of these products by split: 1/6 for test, 1/6 for dev."""
    found: dict[Split, list[str]] = {split: [] for split in SPLITS}
    for parts in kinds:
        for at in itertools.product(*(range(len(options)) for options in parts)):
            split: Split = {0: "test", 3: "dev"}.get(sum(at) % 6, "train")  # pyright: ignore[reportAssignmentType]
            found[split].append("".join(options[i] for options, i in zip(parts, at, strict=True)) + end)
    return {split: tuple(templates) for split, templates in found.items()}


TEMPLATES: dict[Kind, dict[Split, tuple[str, ...]]] = {kind: _split(parts, ".") for kind, parts in _PARTS.items()}
QUESTIONS: dict[Asked, dict[Split, tuple[str, ...]]] = {asked: _split(parts, "") for asked, parts in _ASKED.items()}
DISTRACTORS: dict[Split, tuple[str, ...]] = _split(_DISTRACTORS, ".")
