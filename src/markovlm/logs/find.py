"""Find runs and read them: native run directories and the research code's logs, one file never failing the others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from markovlm.errors import UserError
from markovlm.logs.foreign import is_external, read_external
from markovlm.logs.native import read_native
from markovlm.logs.readers import reader_of
from markovlm.logs.records import RunData
from markovlm.logs.research import first_objects, is_foreign, is_result, read_foreign, read_result_file

SAMPLES_PER_RUN = 150
SAMPLES_IN_ALL = 3_000
_LOG_SUFFIXES = (".jsonl", ".log")
_OWN_FILES = ("samples.jsonl", "evals.jsonl", "events.jsonl")  # read with their run, never as runs


def find_runs(paths: Sequence[str | Path]) -> list[Path]:
    """The runs named by arguments, in their order: run directories, logs, and what directories contain.

    Raises UserError for a path that does not exist and for a directory without runs.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"{path}: no such file or directory; name a run directory, a log, or a directory of them")
        inside = list(_inside(path)) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"{path}: no runs found; a run has config.yaml and metrics.jsonl, a log is *.jsonl or *.log")
        found |= dict.fromkeys(inside)
    return list(found)


def _inside(folder: Path) -> Iterator[Path]:
    """Runs in a directory tree, by name. What lies inside a run directory belongs to it."""
    for here, folders, files in os.walk(folder):
        folders.sort()
        path = Path(here)
        if _is_run_directory(set(files)):
            folders.clear()
            yield path
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in sorted(files):
            if (name.endswith(_LOG_SUFFIXES) and name not in _OWN_FILES and _looks_foreign(path / name)) or is_external(
                path / name
            ):
                yield path / name


def _is_run_directory(files: set[str]) -> bool:
    return "config.yaml" in files and bool(files & {"metrics.jsonl", "events.jsonl"})


def _looks_foreign(path: Path) -> bool:
    try:
        rows = list(first_objects(path))
    except OSError:
        return True  # shown as a run with a problem
    return reader_of(path, rows) is not None or (is_foreign(rows) and not any(is_result(row) for row in rows))


def read_run(path: str | Path, max_samples: int = SAMPLES_PER_RUN) -> RunData:
    """One run. Whatever is wrong with its files is in `problems`; this does not raise for content."""
    path = Path(path)
    try:
        if path.is_dir():
            return read_native(path, max_samples)
        return _read_file(path, max_samples)
    except OSError as error:
        return RunData(path=path, kind="unknown", name=path.stem, problems=[f"{path.name}: {error.strerror or 'cannot be read'}"])


def _read_file(path: Path, max_samples: int) -> RunData:
    if path.suffix == ".json":
        found = read_result_file(path)
        if found is not None:
            return found
    rows = list(first_objects(path))
    plugged = reader_of(path, rows)
    if plugged is not None:
        return plugged.read(path, max_samples)
    if is_foreign(rows):
        return read_foreign(path, max_samples)
    if any("step" in row and "question" not in row for row in rows):
        return read_native(path, max_samples)
    external = read_external(path, max_samples)
    if external is not None:
        return external
    what = "empty" if path.stat().st_size == 0 else "not a log: no line is a record of a known kind"
    return RunData(path=path, kind="unknown", name=path.stem, problems=[f"{path.name}: {what}"])


def read_runs(paths: Sequence[str | Path], max_samples: int | None = None) -> Iterator[RunData]:
    """All runs named by the arguments, with names that differ."""
    found = find_runs(paths)
    limit = max_samples if max_samples is not None else max(6, min(SAMPLES_PER_RUN, SAMPLES_IN_ALL // max(1, len(found))))
    taken: dict[str, int] = {}
    for path in found:
        run = read_run(path, limit)
        count = taken[run.name] = taken.get(run.name, 0) + 1
        if count > 1:
            run.name = f"{run.name} ({count})"
        yield run
