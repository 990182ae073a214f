"""Find runs and read them: native run directories, logs of others, what registered readers know; one file never fails the others."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markovlm.content import check_regular, first_few
from markovlm.errors import UserError
from markovlm.logs.dialects import dialect_of
from markovlm.logs.duplicates import without_duplicates
from markovlm.logs.families import how_to_name
from markovlm.logs.files import first_objects, split_run
from markovlm.logs.foreign import external_runs, is_external_path, read_external, runs_of_table
from markovlm.logs.frameworks import OURS, Framework
from markovlm.logs.launches import LAUNCH, number
from markovlm.logs.native import read_native
from markovlm.logs.readers import read_with, reader_of
from markovlm.logs.records import RunData
from markovlm.logs.schema import METRIC

SAMPLES_PER_RUN = 150
SAMPLES_IN_ALL = 3_000
_LOG_SUFFIXES = (".jsonl", ".ndjson", ".log", ".json", ".txt")  # and the same with .gz
_OWN_FILES = ("samples.jsonl", "evals.jsonl", "events.jsonl")  # read with their run, never as runs
MOST_LISTED = 100  # files of a directory named one by one as left out


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file found in a directory that was not read, and why."""

    path: Path
    why: str

    def as_json(self) -> dict[str, str]:
        return {"path": str(self.path), "why": self.why}


def find_runs(paths: Sequence[str | Path], skipped: list[Skipped] | None = None) -> list[Path]:
    """The runs named by arguments, in their order: run directories, logs, and what directories contain.

    Other files in directories are added to `skipped`. Raises UserError for a path that does not exist and for a directory
    without runs.
    """
    found: dict[Path, None] = {}
    left = skipped if skipped is not None else []
    for path in map(Path, paths):
        if not path.exists() and not is_external_path(path):
            raise UserError(f"{path}: no such file or directory; name a run directory, a log, or a directory of them")
        before = len(left)
        inside = list(_inside(path, left)) if path.is_dir() else runs_of_table(path)
        if not inside:
            why = "".join(f"; {s.path.name}: {s.why}" for s in left[before : before + 3])
            raise UserError(f"{path}: no runs found; a run has config.yaml and metrics.jsonl, a log is *.jsonl or *.log{why}")
        found |= dict.fromkeys(inside)
    return list(found)


def _inside(folder: Path, skipped: list[Skipped]) -> Iterator[Path]:
    """Runs in a directory tree, by name. What lies inside a run directory belongs to it."""
    others: Counter[str] = Counter()
    listed = unlisted = 0
    for here, folders, files in os.walk(folder):
        folders.sort()
        path = Path(here)
        if _is_run_directory(set(files)):
            folders.clear()
            yield path
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        others_here = _externals(path, folders, files)
        here = list(others_here)
        taken = {Path(str(run).partition("::")[0]).name for run in others_here if run != path}
        for name in sorted(name for name in files if not name.startswith(".") and name not in taken):
            if not name.removesuffix(".gz").endswith(_LOG_SUFFIXES):
                if "tfevents" not in name:
                    others[Path(name).suffix or "no suffix"] += 1
                continue
            why = _why_not(path / name, files)
            if why is None:
                here.append(path / name)
            elif why and listed < MOST_LISTED:
                skipped.append(Skipped(path / name, why))
                listed += 1
            elif why:
                unlisted += 1
        yield from sorted(here)
    if unlisted:
        skipped.append(Skipped(folder, f"{unlisted:,} more files that are not logs"))
    if others:
        kinds = first_few([f"{n:,} {suffix}" for suffix, n in others.most_common()], 6)
        n = sum(others.values())
        skipped.append(Skipped(folder, f"{n:,} file{'' if n == 1 else 's'} with names unlike a log's, not opened ({kinds})"))


def _externals(path: Path, folders: list[str], files: list[str]) -> list[Path]:
    """Runs of others in one directory. Only what is a file is opened, and metric rows of ours are left to their run."""
    regular = [name for name in sorted(files) if not name.startswith(".") and name not in _OWN_FILES and _is_regular(path / name)]
    found = []
    for run in external_runs(path, folders, regular):
        if run.suffix == ".jsonl" and (reader_of(run, rows := first_objects(run)) or _is_ours(run, rows)):
            continue
        found.append(run)
    return found


def _is_regular(path: Path) -> bool:
    try:
        check_regular(path)
    except OSError:
        return False
    return True


def _is_run_directory(files: set[str]) -> bool:
    return "config.yaml" in files and bool(files & {"metrics.jsonl", "events.jsonl"})


def _why_not(path: Path, names: Sequence[str]) -> str | None:
    """Why a file of a directory is no run: None if it is one, an empty text where it belongs to a run that is read anyway."""
    if path.name in _OWN_FILES:
        return "belongs to a run directory without config.yaml"
    try:
        check_regular(path)
        if path.stat().st_size == 0:
            return "empty"
        rows = first_objects(path)
    except FileNotFoundError:
        return "a link to nothing"
    except OSError as error:
        return error.strerror if error.errno == 0 else None  # what can't be read is shown as a run with a problem
    reader = reader_of(path, rows)
    if reader is None:
        return _unknown(path, rows)
    return "" if reader.part_of_another(path, names) else None


def _unknown(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "contains no JSON objects"
    if any("step" in row for row in rows) and path.name.startswith("metrics"):
        return "metric rows without a config.yaml beside them; to have them judged, name the file itself"
    keys = ", ".join(str(key)[:30] for key in list(rows[0])[:4])
    return f"not a known log format: its first record has {keys}" if keys else "not a known log format: its first record is empty"


def read_launches(path: str | Path, max_samples: int = SAMPLES_PER_RUN, mapping: Framework | None = None) -> list[RunData]:
    """The runs in one place, in their order: one, or where a log holds several launches each of them. `FILE::launch-2` is that one alone.

    Whatever is wrong with the files is in `problems`; this does not raise for content.
    """
    path = Path(path)
    file, wanted = split_run(path)
    launch = LAUNCH.fullmatch(wanted) if wanted is not None and file.is_file() and not path.exists() else None
    run = _read_one(file if launch is not None else path, max_samples, mapping)
    runs = [*run.earlier, run]
    run.earlier = []
    for before in runs[:-1]:
        before.config = before.config or dict(run.config)
    if len(runs) > 1:
        number(runs)
    if launch is None:
        return runs
    found = next((one for one in runs if one.launch[0] == int(launch[1])), None)
    if found is None:
        runs[-1].problems.append(f"{file.name}: there is no launch {launch[1]}; it has {len(runs)}")
    return [found or runs[-1]]


def read_run(path: str | Path, max_samples: int = SAMPLES_PER_RUN, mapping: Framework | None = None) -> RunData:
    """One run; of a log with several launches the last."""
    return read_launches(path, max_samples, mapping)[-1]


def _read_one(path: Path, max_samples: int, mapping: Framework | None) -> RunData:
    try:
        if path.is_dir() and not (path / "metrics").is_dir():
            return read_native(path, max_samples)
        if not path.is_dir() and not is_external_path(path):
            check_regular(path)
        return _read_file(path, max_samples, mapping)
    except OSError as error:
        return RunData(path=path, kind="unknown", name=path.stem, problems=[f"{path.name}: {error.strerror or 'cannot be read'}"])


def _read_file(path: Path, max_samples: int, mapping: Framework | None) -> RunData:
    external = read_external(path, max_samples, mapping) if mapping is not None or not path.is_file() else None
    if external is not None:
        return external
    rows = first_objects(path)
    reader = reader_of(path, rows)
    if reader is not None:
        return read_with(reader, path, max_samples)
    if any("step" in row and "question" not in row for row in rows) and _is_ours(path, rows):
        return read_native(path, max_samples)
    external = read_external(path, max_samples)
    if external is not None:
        return external
    what = "empty" if path.stat().st_size == 0 else how_to_name(rows) or "not a log: no line is a record of a known kind"
    return RunData(path=path, kind="unknown", name=path.stem, problems=[f"{path.name}: {what}"])


def _is_ours(path: Path, rows: Sequence[Mapping[str, Any]]) -> bool:
    """The `metrics.jsonl` of a run directory, or rows that have nothing but our keys."""
    keys = {key for row in rows for key in row}
    return (path.parent / "config.yaml").exists() or dialect_of(keys) is OURS or keys <= METRIC.keys()


def read_runs(
    paths: Sequence[str | Path], skipped: list[Skipped] | None = None, mapping: Framework | None = None
) -> Iterator[RunData]:
    """All runs named by the arguments, each once (also if two logs record the same training), with names that differ.

    Files in directories that are not runs are added to `skipped`.
    """
    found = find_runs(paths, skipped)
    limit = max(6, min(SAMPLES_PER_RUN, SAMPLES_IN_ALL // max(1, len(found))))
    taken: dict[str, int] = {}
    runs = [run for path in found for run in read_launches(path, limit, mapping)]
    if mapping is not None and not any(run.metrics.width > 1 for run in runs):
        said = next((line for run in runs for line in run.problems if "--map" in line), "--map: no file has any of its columns")
        raise UserError(said)
    for run in without_duplicates(runs):
        count = taken[run.name] = taken.get(run.name, 0) + 1
        if count > 1:
            run.name = f"{run.name} ({count})"
        yield run
