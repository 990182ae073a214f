"""What a log parser is, ours or a plug-in's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import polars as pl

from markovlm.errors import UserError
from markovlm.logs.records import RunData
from markovlm.plugins import calling, named
from markovlm.registry import OURS, READERS


@dataclass(frozen=True, slots=True)
class LogReader:
    """A log parser: recognises files of one kind by content, and reads them."""

    name: str
    recognises: Callable[[Path, Sequence[Mapping[str, Any]]], bool]  # path, its first JSON objects
    read: Callable[[Path, int], RunData]  # path, samples to keep at most
    part_of_another: Callable[[Path, Collection[str]], bool] = lambda *_: False  # of a run among these names of its folder?


def reader_of(path: Path, first_rows: Sequence[Mapping[str, Any]]) -> LogReader | None:
    """The log parser that recognises this file, if any; plug-ins are asked first. Raises UserError if one raises."""
    for name, found in sorted(READERS.usable().items(), key=lambda one: READERS.source(one[0]) == OURS):
        with calling(READERS, name, "recognises"):
            if found.recognises(path, first_rows):
                return found
    return None


def read_with(reader: LogReader, path: Path, max_samples: int) -> RunData:
    """What a reader makes of a file; one that it raises on is a run with that as its problem. Raises UserError if it gives no
    `RunData`.
    """
    try:
        with calling(READERS, reader.name, "it"):
            made: object = reader.read(path, max_samples)
    except UserError as error:
        return RunData(path=path, kind="unknown", name=path.stem, problems=[f"{path.name}: {error}"])
    if not isinstance(made, RunData):
        raise UserError(f"{named(READERS, reader.name)} returned {type(made).__name__}; it must return a markovlm.RunData")
    steps: object = (
        made.metrics["step"].dtype if isinstance(made.metrics, pl.DataFrame) and "step" in made.metrics.columns else None
    )
    if steps is None or not cast("pl.DataType", steps).is_integer():
        what = "not a polars DataFrame with a column step" if steps is None else f"steps of type {steps}"
        raise UserError(
            f"{named(READERS, reader.name)}: its metrics are {what}; they must have a column `step` of integers (docs/plugins.md)"
        )
    return made
