"""Which of other people's formats a file or folder is in, recognised by content, and its reader."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from markovlm.logs import wandb_offline
from markovlm.logs.completions import read_completions
from markovlm.logs.console import looks_printed, read_console
from markovlm.logs.files import beginning, split_run
from markovlm.logs.frameworks import Framework
from markovlm.logs.records import RunData
from markovlm.logs.rows import Problems, objects
from markovlm.logs.tables import (
    STEPS,
    csv_header,
    is_metrics_rows,
    lines,
    parquet_columns,
    read_csv,
    read_jsonl,
    read_parquet,
    runs_in_export,
)
from markovlm.logs.trackers import (
    SQLITE,
    event_launches,
    is_mlflow_run,
    read_database,
    read_mlflow_folder,
    read_tensorboard,
    runs_in_database,
)
from markovlm.logs.trainer_state import NAME, is_trainer_state, read_trainer_state

HEAD = 1 << 16  # bytes that tell most kinds
Reader = Callable[[Path], RunData]


def reader_for(path: Path, mapping: Framework | None = None) -> Reader | None:
    """The reader of a file; None if it is of no known kind. Raises OSError if it can't be read."""
    head = beginning(path, HEAD)
    if not head.strip():
        return None
    if head.startswith(wandb_offline.MAGIC):
        return wandb_offline.read_wandb
    if head.startswith(SQLITE):
        return read_database if runs_in_database(path) else None
    if head.startswith(b"PAR1"):
        return _reader_of_parquet(path, mapping)
    if _is_event_file(head):
        return read_tensorboard
    if is_trainer_state(head):
        return read_trainer_state
    if b"\0" in head[:4096]:
        return None
    rows = _first_rows(path, head) if _ROWS.match(head) else []
    if (mapping is not None and _ROWS.match(head)) or is_metrics_rows(rows):
        return lambda path: read_jsonl(path, mapping)
    if rows:  # objects, but no metrics: completions, questions
        return None
    if csv_header(head) is not None or (mapping is not None and path.suffix in (".csv", ".tsv")):
        return lambda path: read_csv(path, mapping)
    if path.name.removesuffix(".gz").endswith(".json"):  # not an object a line: a model's vocabulary is searched for nothing
        return None
    return read_console if looks_printed(path) else None


def _reader_of_parquet(path: Path, mapping: Framework | None) -> Reader | None:
    names = set(parquet_columns(path))
    if not names & set(STEPS) and mapping is None:
        return None
    return None if {"prompt", "completion"} <= names else lambda path: read_parquet(path, mapping)


_ROWS = re.compile(rb"\s*(\[\s*)?\{")  # a JSON object a line, or an array of them


def _first_rows(path: Path, head: bytes) -> list[dict[str, Any]]:
    """The first few objects; a line that the head cuts is none of them."""
    array = head.lstrip()[:1] == b"["
    whole = head if len(head) < HEAD else head[: head.rfind(b"\n") + 1]
    found = objects(lines(path) if array else whole.splitlines(keepends=True), Problems())
    return [row for _, (_, _, row) in zip(range(8), found, strict=False)]


def _is_event_file(head: bytes) -> bool:
    """A TFRecord whose first record is TensorBoard's version event."""
    return b"brain.Event:" in head[:64]


_SUFFIXES = (".json", ".jsonl", ".log", ".txt", ".out", ".err", ".csv", ".tsv", ".parquet", ".wandb", ".db", ".sqlite")


def external_runs(folder: Path, folders: list[str], files: list[str]) -> Iterator[Path]:
    """Runs of others among the entries of one directory (not of those below). `folders` loses what belongs to a run found here."""
    if is_mlflow_run(set(files), folders):
        folders.clear()
        yield folder
        return
    checkpoints = [name for name in folders if name.startswith("checkpoint-") and (folder / name / NAME).is_file()]
    if checkpoints:  # an output directory of the Hugging Face Trainer: the newest state is its run
        folders[:] = [name for name in folders if not name.startswith("checkpoint-")]
        if NAME not in files:
            yield max((folder / name / NAME for name in checkpoints), key=_step_of_checkpoint)
    if any(name.endswith(".wandb") for name in files):  # files/output.log is what this very run printed
        folders[:] = [name for name in folders if name not in ("files", "logs")]
    if any("tfevents" in name for name in files):
        yield from (folder / launch[0].name for launch in event_launches(folder))
    for name in files:
        if "tfevents" in name or not name.removesuffix(".gz").endswith(_SUFFIXES):
            continue
        path = folder / name
        try:
            reader = reader_for(path)
        except OSError:
            continue
        if reader is read_database:
            yield from (Path(f"{path}::{run}") for run in runs_in_database(path))
        elif reader is not None:
            yield from runs_of_table(path)


def runs_of_table(path: Path) -> list[Path]:
    """The file, or `FILE::RUN` for each run where it is an export of several."""
    return [Path(f"{path}::{run}") for run in runs_in_export(path)] or [path]


def _step_of_checkpoint(path: Path) -> tuple[int, str]:
    number = path.parent.name.rpartition("-")[2]
    return (int(number) if number.isdecimal() else -1, path.parent.name)


def is_external_path(path: Path) -> bool:
    """Whether this argument names a run inside a file (`project.db::RUN`)."""
    file, run = split_run(path)
    return run is not None and file.is_file()


def read_external(path: Path, max_samples: int, mapping: Framework | None = None) -> RunData | None:
    """One log of others as a run, with its completion tables as samples; None if it is none."""
    if is_external_path(path):
        run = read_csv(path, mapping) if runs_in_export(split_run(path)[0]) else read_database(path)
    elif path.is_dir():
        run = read_mlflow_folder(path)
    else:
        reader = reader_for(path, mapping)
        if reader is None:
            return None
        run = reader(path)
    read_completions(run, max_samples)
    return run
