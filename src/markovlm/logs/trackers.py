"""TensorBoard event files, trackio's and MLflow's databases, MLflow's folders."""

from __future__ import annotations

import logging
import re
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markovlm.logs.dialects import plain_key, translator_of
from markovlm.logs.external import Row, as_number, fill, new_run, step_of
from markovlm.logs.files import split_run
from markovlm.logs.records import RunData
from markovlm.logs.rows import Problems, integer, parse
from markovlm.logs.schema import HELD_OUT
from markovlm.logs.settings import take_settings

MAX_KEYS = 2_000
MAX_POINTS = 2_000_000  # of one MLflow metric
_STEPS = ("train/global_step", "trainer/global_step", "training/global_step", "global_step", "step")

# --- TensorBoard ---------------------------------------------------------------------------------------------------------


def read_tensorboard(path: Path) -> RunData:
    """One launch: the event file `path`, and those of its folder whose steps go on from it."""
    folder = path.resolve().parent
    run, problems = new_run(path, "tensorboard", _event_name(folder)), Problems()
    if not _has_tensorboard():
        run.problems.append("event files need the package tensorboard: pip install 'markovlm[trackers]'")
        return run
    launches = event_launches(folder)
    mine = next((k for k, files in enumerate(launches) if path.resolve() in files), None)
    files = launches[mine] if mine is not None else [path.resolve()]
    fill(run, _event_rows(files, problems), problems)
    run.problems += problems.lines(path.name)
    if mine is not None and len(launches) > 1:
        run.launch = (mine + 1, len(launches))
        run.name = f"{run.name} (launch {mine + 1} of {len(launches)})"
    return run


def event_launches(folder: Path) -> list[list[Path]]:
    """The event files of a folder by launch, in the order of their names, which begin with a time.

    A launch writes its first scalars at step 0 or 1, or after one logging interval; a file that begins later goes on from the launch before it, and
    so does one that only evaluates.
    """
    files = sorted(folder.resolve().glob("*tfevents*"), key=_by_numbers)
    if not _has_tensorboard():
        return [files]
    launches: list[list[Path]] = []
    for file in files:
        found = file.stat()
        first, gap, trains = _beginning(file, found.st_size, found.st_mtime_ns)
        if launches and (first is None or not trains or first > max(1, gap)):
            launches[-1].append(file)
        else:
            launches.append([file])
    return launches


def _by_numbers(file: Path) -> list[tuple[int, str]]:
    """`events.out.tfevents.TIME.HOST.PID.COUNT`: the tenth file of a second comes after its ninth."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name)]


@lru_cache(maxsize=4096)
def _beginning(file: Path, _size: int, _changed: int) -> tuple[int | None, int, bool]:
    """(first step with scalars, steps to the next, does it train?) of an event file, read once while it stays as it is."""
    first, keys = None, set()
    for _, step, row in _event_rows([file], Problems()):
        keys |= {key for key in row if not plain_key(key).startswith(HELD_OUT)}
        if first is None:
            first = step
        elif step is not None and step != first:
            return first, step - first, bool(keys)
    return first, 0, bool(keys)


def _has_tensorboard() -> bool:
    return find_spec("tensorboard") is not None


def _event_rows(files: Sequence[Path], problems: Problems) -> Iterator[Row]:
    """The scalars of event files, those of one step together."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto import event_pb2

    count = 0
    for file in files:
        step, row = None, {}
        for raw in RawEventFileLoader(str(file)).Load():
            count += 1
            try:
                event = event_pb2.Event.FromString(raw)  # pyright: ignore[reportAttributeAccessIssue]
            except Exception:  # protobuf has no public base of what it raises for damaged bytes
                problems.add("a damaged event", count)
                continue
            values = dict(_scalars(event))
            if values and event.step != step:
                if row:
                    yield count, step, row
                step, row = event.step, {}
            row |= values
        if row:
            yield count, step, row


def _scalars(event: Any) -> Iterator[tuple[str, float]]:
    for value in event.summary.value:
        kind = value.WhichOneof("value")
        if kind == "simple_value":
            yield value.tag, float(value.simple_value)
        elif kind == "tensor" and len(value.tensor.float_val) == 1:
            yield value.tag, float(value.tensor.float_val[0])
        elif kind == "tensor" and len(value.tensor.tensor_content) == 4 and value.tensor.dtype == 1:
            yield value.tag, struct.unpack("<f", value.tensor.tensor_content)[0]


def _event_name(folder: Path) -> str:
    """The run's name: the folder's, or what is above the folders that trainers put event files in."""
    named = [part for part in folder.parts[::-1] if part not in ("runs", "tensorboard", "logs", "tb")]
    return named[0] if named else folder.name


# --- SQLite: trackio, MLflow ---------------------------------------------------------------------------------------------

SQLITE = b"SQLite format 3\0"


def _open(path: Path) -> sqlite3.Connection:
    """Read-only, and without a trace: only where a writer's journal lies beside the file is it taken part in."""
    where = f"file:{quote(str(path.resolve()))}"
    journal = path.with_name(f"{path.name}-wal")
    if journal.is_file() and journal.stat().st_size:
        connection = sqlite3.connect(f"{where}?mode=ro", uri=True)
        try:
            connection.execute("select 1 from sqlite_master limit 1").fetchall()
        except sqlite3.Error:
            connection.close()
        else:
            return connection
    return sqlite3.connect(f"{where}?immutable=1", uri=True)


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"pragma table_info({table})")}  # the table's name is ours


def runs_in_database(path: Path) -> list[str]:
    """The runs of a trackio or MLflow database, the oldest first; none where it is another database."""
    try:
        with closing(_open(path)) as connection:
            have = _columns(connection, "metrics")
            if {"run_name", "metrics", "step"} <= have:
                key = "run_id" if "run_id" in have else "run_name"
                return [str(row[0]) for row in connection.execute(f"select {key} from metrics group by {key} order by min(id)")]
            if {"run_uuid", "key", "value", "step"} <= have:
                return [
                    str(row[0])
                    for row in connection.execute("select run_uuid from metrics group by run_uuid order by min(timestamp)")
                ]
    except sqlite3.Error:
        pass
    return []


def read_database(path: Path) -> RunData:
    """One run of a database: `FILE::RUN`, or the newest where only the file is named."""
    file, name = split_run(path)
    run, problems = new_run(path, "trackio", name or file.stem), Problems()
    run.files["metrics"] = file
    try:
        with closing(_open(file)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            known = runs_in_database(file)
            wanted = name or (known[-1] if known else "")
            if name is None and len(known) > 1:
                problems.note(f"{len(known)} runs; the newest is shown. Choose one with {file.name}::RUN, or give its folder")
            if "run_uuid" in _columns(connection, "metrics"):
                run.kind = "mlflow"
                _read_mlflow_database(run, connection, wanted, problems)
            else:
                _read_trackio(run, connection, wanted, problems)
    except sqlite3.Error as error:
        problems.note(f"not a readable database ({error})")
    run.problems += problems.lines(file.name)
    return run


def _read_trackio(run: RunData, connection: sqlite3.Connection, wanted: str, problems: Problems) -> None:
    key = "run_id" if "run_id" in _columns(connection, "metrics") else "run_name"
    named = connection.execute(f"select run_name from metrics where {key} = ? limit 1", (wanted,)).fetchone()
    run.name = str(named[0])[:200] if named else run.name

    def rows() -> Iterator[Row]:
        query = f"select id, step, metrics from metrics where {key} = ? order by id"
        for number, step, text in connection.execute(query, (wanted,)):
            row = _object(text)
            found = step_of(row, _STEPS[:-1])
            yield int(number), found if found is not None else integer(step), row

    fill(run, rows(), problems)
    if key in _columns(connection, "configs"):
        for (text,) in connection.execute(f"select config from configs where {key} = ?", (wanted,)):
            take_settings(run, _object(text))


def _object(text: Any) -> dict[str, Any]:
    try:
        found = parse(text.encode() if isinstance(text, str) else bytes(text))
    except (ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_mlflow_database(run: RunData, connection: sqlite3.Connection, wanted: str, problems: Problems) -> None:
    def rows() -> Iterator[Row]:
        query = "select step, key, value, is_nan from metrics where run_uuid = ? order by step, timestamp"
        count = 0
        for step, entries in groupby(connection.execute(query, (wanted,)), key=lambda entry: entry[0]):
            row = {str(key): float("nan") if is_nan else value for _, key, value, is_nan in entries}
            count += len(row)
            yield count, integer(step), row

    fill(run, rows(), problems)
    take_settings(run, dict(connection.execute("select key, value from params where run_uuid = ?", (wanted,))))
    named = connection.execute("select name from runs where run_uuid = ?", (wanted,)).fetchone()
    run.name = str(named[0])[:200] if named and named[0] else run.name


# --- MLflow folders ------------------------------------------------------------------------------------------------------


def is_mlflow_run(files: set[str], folders: list[str]) -> bool:
    """Whether a directory with these entries is one run of MLflow's file store."""
    return "meta.yaml" in files and "metrics" in folders and "params" in folders


def read_mlflow_folder(path: Path) -> RunData:
    """One run of MLflow's file store: a file a metric, lines of `timestamp value step`."""
    run, problems = new_run(path, "mlflow", path.resolve().name), Problems()
    files = {str(file.relative_to(path / "metrics")): file for file in sorted((path / "metrics").rglob("*")) if file.is_file()}
    if len(files) > MAX_KEYS:
        problems.note(f"{len(files):,} metrics; only {MAX_KEYS:,} were read")
    translator = translator_of(files)
    table: dict[int, dict[str, float]] = {}
    for key, file in list(files.items())[:MAX_KEYS]:
        if translator.place(key) is None:
            continue
        with open(file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                parts = line[:200].decode("utf-8", "replace").split()
                value, step = (as_number(parts[1]), integer(parts[2])) if len(parts) >= 3 else (None, None)
                if value is None or step is None or number > MAX_POINTS:
                    problems.add(f"{key}: not `timestamp value step`", number)
                    continue
                table.setdefault(step, {})[key] = value
    fill(run, ((number, step, row) for number, (step, row) in enumerate(sorted(table.items()), 1)), problems)
    params = path / "params"
    if params.is_dir():
        take_settings(
            run, {p.name: p.read_text("utf-8", "replace")[:500] for p in sorted(params.iterdir())[:MAX_KEYS] if p.is_file()}
        )
    name = path / "tags" / "mlflow.runName"
    if name.is_file():
        run.name = name.read_text("utf-8", "replace").strip()[:200] or run.name
    run.problems += problems.lines(path.name)
    return run
