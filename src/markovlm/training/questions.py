"""The order of training questions: a pure function of (seed, index), so that a data cursor is one number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from markovlm.rollouts.streams import stream
from markovlm.tasks.base import ENDLESS, Example
from markovlm.tasks.mixture import under_its_name

_BLOCK = 4096  # questions whose tasks are drawn at once


class Questions:
    """`questions[i]`: epoch after epoch, each in its own seeded order."""

    def __init__(self, examples: Sequence[Example], seed: int):
        self.examples = examples
        self.seed = seed
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """The number of different questions."""
        return len(self.examples)

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


class MixedQuestions(Questions):
    """Several tasks: the task of question i is drawn by weight from (seed, i), and its next question is taken."""

    def __init__(self, parts: Mapping[str, Sequence[Example]], weights: Mapping[str, float], seed: int):
        super().__init__((), seed)
        self.parts = {name: Questions(examples, seed) for name, examples in parts.items()}
        total = sum(weights[name] for name in parts)
        self._shares = [weights[name] / total for name in parts]
        self._tasks = np.zeros(0, dtype=np.int64)  # of question 0, 1, …: as many as were asked for so far
        self._before = np.zeros((0, len(parts)), dtype=np.int64)  # questions of each task before question i

    def __len__(self) -> int:
        return sum(len(questions) for questions in self.parts.values())

    def __getitem__(self, index: int) -> Example:
        while index >= len(self._tasks):
            self._draw_block()
        number = int(self._tasks[index])
        name = list(self.parts)[number]
        (example,) = under_its_name(name, [self.parts[name][int(self._before[index, number])]])
        return example

    def _draw_block(self) -> None:
        drawn = stream(self.seed, "tasks", len(self._tasks) // _BLOCK).choice(len(self.parts), size=_BLOCK, p=self._shares)
        ones = np.eye(len(self.parts), dtype=np.int64)[drawn]
        start = self._before[-1] + np.eye(len(self.parts), dtype=np.int64)[self._tasks[-1]] if len(self._tasks) else 0
        self._tasks = np.concatenate([self._tasks, drawn])
        self._before = np.concatenate([self._before, start + ones.cumsum(0) - ones])
