"""What belongs to each split of the word problems: which texts a model of them may be trained on."""

from __future__ import annotations

from markovlm.tasks.arithmetic_data import Split
from markovlm.tasks.words_pools import DISTRACTORS, HE, QUESTIONS, SHE, TEMPLATES, THINGS


def templates_of(split: Split) -> frozenset[str]:
    """Every template of a split: events, questions, distractors."""
    pools = [*TEMPLATES.values(), *QUESTIONS.values(), DISTRACTORS]
    return frozenset(template for pool in pools for template in pool[split])


def words_of(split: Split) -> frozenset[str]:
    """The names and things of a split."""
    return frozenset((*SHE[split], *HE[split], *THINGS[split]))
