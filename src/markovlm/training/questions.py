"""The order of training questions: a pure function of (seed, index), so that a data cursor is one number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from markovlm.rollouts.streams import stream
from markovlm.tasks.base import ENDLESS, Example


class Questions:
    """`questions[i]`: epoch after epoch, each in its own seeded order."""

    def __init__(self, examples: Sequence[Example], seed: int):
        self.examples = examples
        self.seed = seed
        self._order: tuple[int, np.ndarray] | None = None

    def __getitem__(self, index: int) -> Example:
        size = len(self.examples)
        if size >= ENDLESS:
            return self.examples[index]
        epoch, at = divmod(index, size)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, stream(self.seed, "order", epoch).permutation(size))
        return self.examples[int(self._order[1][at])]

    def of_step(self, step: int, per_step: int) -> list[Example]:
        """The questions of step `step` (1-based)."""
        first = (step - 1) * per_step
        return [self[first + offset] for offset in range(per_step)]
