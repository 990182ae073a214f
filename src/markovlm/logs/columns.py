"""Rows of numbers from a stream, kept as columns in bounded memory, and put in step order at the end."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl

from markovlm.logs.rows import Problems
from markovlm.logs.schema import HELD_OUT

MAX_ROWS = 200_000  # kept; of a longer log every second, fourth, … row, so that the whole run is seen
MAX_COLUMNS = 160
_ABSENT = -sys.float_info.max  # marks a value that is not there: NaN is a value here, and must be seen
_NO_STEP = -(2**62)


class LogColumns:
    """The rows given to `add`, as arrays: 9 bytes per number. `finish` resolves restarts and sorts."""

    NO_STEP = _NO_STEP

    def __init__(self) -> None:
        self.steps, self.lines = array("q"), array("q")
        self.columns: dict[str, array[float]] = {}
        self.seen = 0
        self.stride = 1

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, step: int | None, line: int, values: Mapping[str, float]) -> None:
        """One row; a row without a step is numbered at the end."""
        self.seen += 1
        if (self.seen - 1) % self.stride:
            return
        if len(self.steps) >= MAX_ROWS:
            self._thin()
            if (self.seen - 1) % self.stride:
                return
        n = len(self.steps)
        for key, value in values.items():
            column = self.columns.get(key)
            if column is None:
                if len(self.columns) >= MAX_COLUMNS:
                    continue
                column = self.columns[key] = array("d", [_ABSENT]) * n
            column.append(value)
        self.steps.append(_NO_STEP if step is None else step)
        self.lines.append(line)
        for column in self.columns.values():
            if len(column) == n:
                column.append(_ABSENT)

    def take(self, key: str) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        """A column with NaN where it is absent, taken out of what will be the frame."""
        values = self.values(key)
        self.columns.pop(key, None)
        return values

    def values(self, key: str) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        """A column with NaN where it is absent."""
        column = self.columns.get(key)
        if column is None:
            return None
        values = np.array(column, dtype=np.float64)
        values[values == _ABSENT] = np.nan
        return values

    def set_steps(self, steps: Iterable[int]) -> None:
        """Set steps for all rows, found otherwise than from the rows themselves."""
        self.steps = array("q", (int(step) for step in steps))

    def average(self, count: int) -> None:
        """Each `count` neighbouring rows become one, their mean over those that have the value."""
        groups = -(-len(self.steps) // count)
        for key, column in self.columns.items():
            values = np.full(groups * count, _ABSENT)
            values[: len(column)] = column
            there = (values != _ABSENT).reshape(groups, count)
            sums = np.where(there, values.reshape(groups, count), 0.0).sum(axis=1)
            n = there.sum(axis=1)
            self.columns[key] = array("d", np.where(n > 0, sums / np.maximum(n, 1), _ABSENT).tolist())
        self.steps, self.lines = self.steps[::count], self.lines[::count]

    def _thin(self) -> None:
        self.stride *= 2
        self.steps, self.lines = self.steps[::2], self.lines[::2]
        self.columns = {key: column[::2] for key, column in self.columns.items()}

    def finish(self, problems: Problems) -> tuple[pl.DataFrame, dict[int, int]]:
        """(frame in step order, step -> line). Restarts, repeats and missing steps are reported in `problems`."""
        n = len(self.steps)
        if self.stride > 1:
            problems.note(f"{self.seen:,} rows; one in {self.stride} was kept")
        steps = self._numbered(problems)
        merged = self._alive(steps, problems)
        order = sorted(merged)
        data: dict[str, pl.Series] = {"step": pl.Series("step", order, dtype=pl.Int64)}
        kept = np.array([merged[step][-1] for step in order], dtype=np.int64)
        shared = [(place, merged[step]) for place, step in enumerate(order) if len(merged[step]) > 1]
        for key, column in self.columns.items():
            whole = np.frombuffer(column, dtype=np.float64) if n else np.zeros(0)
            values = whole[kept] if n else whole
            for place, rows in shared:  # a step told in several rows: the last that has the key
                values[place] = next((whole[row] for row in reversed(rows) if whole[row] != _ABSENT), _ABSENT)
            series = pl.Series(key, values, dtype=pl.Float64).set(pl.Series(values == _ABSENT, dtype=pl.Boolean), None)
            if series.null_count() < len(series):
                data[key] = series
        return pl.DataFrame(data), {step: self.lines[merged[step][0]] for step in order}

    def _numbered(self, problems: Problems) -> list[int | None]:
        """Steps, or row numbers where steps say nothing."""
        known = [step for step in self.steps if step != _NO_STEP]
        if not self.steps:
            return []
        if not known:
            problems.note("no step in the log; rows are numbered from 1")
        elif len(self.steps) > 8 and len(set(known)) < max(2, len(known) // 50):
            problems.note("the step is constant; rows are numbered from 1 instead")
        else:
            if len(known) < len(self.steps):
                problems.note(f"{len(self.steps) - len(known)} rows without a step are left out")
            return [None if step == _NO_STEP else step for step in self.steps]
        return [1 + row * self.stride for row in range(len(self.steps))]

    def _alive(self, steps: list[int | None], problems: Problems) -> dict[int, list[int]]:
        """step -> its rows. A training row at a step that has one is a restart: what was logged from there on is replaced."""
        core = [key for key in self.columns if not key.startswith(HELD_OUT)]
        signs = {key: self.columns[key] for key in core}
        alive: dict[int, list[int]] = {}
        replaced = 0
        for row, step in enumerate(steps):
            if step is None:
                continue
            before = alive.get(step)
            if before is None:
                alive[step] = [row]
            elif not any(c[row] != _ABSENT and any(c[old] != _ABSENT for old in before) for c in signs.values()):
                before.append(row)
            else:  # a lone repeated row replaces its like; only where the steps go on from there was it a restart
                following = steps[row + 1] if row + 1 < len(steps) else None
                goes_on = following is not None and following > step
                stale = [old for old in alive if old >= step] if goes_on else [step]
                replaced += sum(len(alive.pop(old)) for old in stale)
                alive[step] = [row]
        if replaced:
            problems.note(f"steps are repeated (a restart): {replaced:,} earlier rows are replaced by later ones")
        return alive
