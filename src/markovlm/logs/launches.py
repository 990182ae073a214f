"""Several launches of a training in one log: where one ends and the next begins.

A step that goes back is one of three things. To the start, and on from there: a new launch, a run of its own. To somewhere in between: the
same run, resumed from a checkpoint (`Columns` replaces what was logged from there on). With an epoch that goes on: a step that counts within
its epoch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from markovlm.logs.records import RunData
from markovlm.logs.schema import HELD_OUT

LEAST = 3  # different steps that a launch must have logged before another can begin
_SURE = 8  # rows of a launch after which a lone last row at the start again is taken for the next
_HELD = 1_000  # rows without a training metric that wait for one that has
MOST = 200  # launches of one log; what follows is read as one
LAUNCH = re.compile(r"launch-(\d{1,6})")  # `FILE::launch-2`


@dataclass(slots=True)
class LogRow:
    """One row of a log under our keys, on its way into columns."""

    line: int
    step: int | None
    values: dict[str, float]
    epoch: float | None = None
    part: tuple[float, float] | None = None  # of printed logs: (restarts of the progress bar before it, step the bar began at)
    after_end: bool = False  # the Trainer's closing row was before it

    @property
    def trains(self) -> bool:
        return any(not key.startswith((HELD_OUT, "_")) and key != "epoch" for key in self.values)


@dataclass(slots=True)
class Launches:
    """Decides for each row whether a launch begins with it."""

    count: int = 1
    _first: int | None = None
    _last: int | None = None
    _steps: set[int] = field(default_factory=set)  # some of this launch's, as many as are needed
    _epoch: float | None = None
    _part: tuple[float, float] | None = None
    _rows: int = 0
    _offset: int = 0  # added to steps that count within an epoch

    def begins(self, row: LogRow, following: LogRow | None) -> bool:
        """Whether a launch begins with this row; never without a training metric. Numbers rows whose step counts within an epoch."""
        if not row.trains:
            return False
        new = self._is_new(row, following) and self.count < MOST
        if new:
            self.count += 1
            self._first = self._last = None
            self._steps.clear()
            self._offset = self._rows = 0
        self._rows += 1
        if row.step is not None:
            row.step += self._offset
            if self._first is None or row.step < self._first:
                self._first = row.step
            self._last = row.step if self._last is None else max(self._last, row.step)
            if len(self._steps) < LEAST:
                self._steps.add(row.step)
        self._epoch = row.epoch if row.epoch is not None else self._epoch
        self._part = row.part if row.part is not None else self._part
        return new

    def _is_new(self, row: LogRow, following: LogRow | None) -> bool:
        if row.step is None:
            restarted = row.part is not None and self._part is not None and row.part[0] > self._part[0]
            return row.after_end or (restarted and row.part is not None and row.part[1] == 0.0)
        if self._last is None or self._first is None or row.step + self._offset > self._last:
            return False
        if row.after_end:
            return True
        if row.step + self._offset == self._last or len(self._steps) < LEAST or row.step > self._start(row, following):
            return False
        if self._offset or (row.epoch is not None and self._epoch is not None and row.epoch > self._epoch):
            self._offset = self._last - row.step + max(1, self._gap(row, following))
            return False
        if following is None:  # the last row: a launch that has just begun, or a lone row out of order
            return self._rows >= _SURE
        return following.step is None or following.step > row.step

    def _start(self, row: LogRow, following: LogRow | None) -> int:
        """The highest step at which a launch may begin: this one's first, or one logging interval."""
        assert self._first is not None
        return max(self._first, self._gap(row, following))

    @staticmethod
    def _gap(row: LogRow, following: LogRow | None) -> int:
        return following.step - row.step if following is not None and following.step is not None and row.step is not None else 0


def with_following(rows: Iterable[LogRow]) -> Iterator[tuple[LogRow, LogRow | None]]:
    """Each row with the next one that trains."""
    waiting: list[LogRow] = []
    for row in rows:
        if (row.trains and waiting) or len(waiting) > _HELD:
            yield from ((before, row if row.trains else None) for before in waiting)
            waiting = []
        waiting.append(row)
    yield from ((before, None) for before in waiting)


def one_a_step(rows: Iterable[LogRow]) -> Iterator[LogRow]:
    """Neighbouring rows of one step with the same keys (every process prints its own, every micro-batch is logged) as their mean."""
    held: LogRow | None = None
    count = 1
    for row in rows:
        if held is not None and row.step is not None and row.step == held.step and row.values.keys() == held.values.keys():
            count += 1
            for key, value in row.values.items():
                held.values[key] += (value - held.values[key]) / count
            continue
        if held is not None:
            yield held
        held, count = row, 1
    if held is not None:
        yield held


def number(launches: Sequence[RunData]) -> None:
    """Name the launches of one log (runs in their order): `NAME (launch 2 of 3)`."""
    for k, run in enumerate(launches, 1):
        run.launch = (k, len(launches))
        run.name = f"{run.name} (launch {k} of {len(launches)})"
