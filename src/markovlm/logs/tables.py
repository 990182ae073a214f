"""JSONL, CSV and Parquet of any framework: a step column and metrics. Read in pieces, whatever their length."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from markovlm.logs.external import Row, fill, new_run, step_of
from markovlm.logs.files import beginning, open_lines, open_stream, split_run
from markovlm.logs.frameworks import Framework
from markovlm.logs.records import RunData
from markovlm.logs.rows import Problems, objects

STEPS = (
    "step", "Step", "global_step", "train/global_step", "training/global_step", "_step", "steps", "current_steps", "global_step/max_steps",
    "iteration", "iter", "progress/batch", "trainer/global_step", "rollout/step",
)  # fmt: skip
MAX_LINE = 8 << 20
_EXPORTED = re.compile(r"^(?P<run>.+?) - (?P<key>[^ ].*?)(?P<rest>__MIN|__MAX)?$")  # a W&B panel's CSV: `NAME - train/reward`


def lines(path: Path) -> Iterator[bytes]:
    """Lines of a file, the objects of a JSON array one a line; a line that is absurdly long is cut (and will be no JSON)."""
    with open_stream(path) as file:
        array = file.read(64).lstrip()[:1] == b"["
    with open_lines(path) if array else open_stream(path) as file:
        while line := file.readline(MAX_LINE):
            yield line
            while not line.endswith(b"\n") and len(line) == MAX_LINE:
                line = file.readline(MAX_LINE)


def _jsonl_rows(path: Path, problems: Problems) -> Iterator[Row]:
    for line, _, row in objects(lines(path), problems):
        inner = row.get("data")
        if isinstance(inner, Mapping) and "step" in row:  # verl's file logger
            yield line, step_of(row, ("step",)), inner
        else:
            yield line, step_of(row, STEPS), row


def is_metrics_rows(rows: list[dict[str, Any]]) -> bool:
    """Are these first objects of a JSONL rows of metrics with a step?"""
    if any({"input", "output"} <= row.keys() or {"prompt", "completion"} <= row.keys() or "question" in row for row in rows):
        return False  # completions, not metrics
    flat = [row["data"] if isinstance(row.get("data"), Mapping) and "step" in row else row for row in rows]
    numeric = [row for row in flat if sum(isinstance(v, (int, float)) or _numeric(v) for v in row.values()) >= 2]
    return bool(numeric) and any(any(key in row for key in (*STEPS, "loss", "reward", "policy_loss")) for row in (*rows, *flat))


def _numeric(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\s*[-+]?[\d.]+(e[-+]?\d+)?\s*", value, re.IGNORECASE) is not None


def read_jsonl(path: Path, framework: Framework | None = None) -> RunData:
    """A JSONL of metric rows (ms-swift, LLaMA-Factory, verl, tinker-cookbook, anybody's)."""
    run, problems = new_run(path, "jsonl", name_of(path)), Problems()
    fill(run, _with_step(_jsonl_rows(path, problems), framework), problems, framework)
    run.problems += problems.lines(path.name)
    return run


GENERIC = (
    "logging", "trainer_log", "metrics", "log", "train", "history", "train_log", "progress", "output", "completions", "results",
)  # fmt: skip


def name_of(path: Path) -> str:
    """A run's name: the file's, or the folder's where every run has a file of this name."""
    return path.resolve().parent.name if path.stem.lower() in GENERIC and path.resolve().parent.name else path.stem


def _with_step(rows: Iterator[Row], framework: Framework | None) -> Iterator[Row]:
    """With the step that a mapping names, where there is one."""
    if framework is None:
        yield from rows
        return
    for line, step, row in rows:
        found = step_of(row, framework.step)
        yield line, found if found is not None else step, row


# --- CSV -----------------------------------------------------------------------------------------------------------------


def csv_header(head: bytes) -> list[str] | None:
    """The column names where the head of a file is that of a CSV with a step column; None for anything else."""
    first = head.split(b"\n", 1)[0].decode("utf-8-sig", "replace").strip("\r")
    if not 3 <= len(first) <= 1 << 16 or first[0] in "{[":
        return None
    for delimiter in (",", "\t", ";"):
        try:
            names = next(csv.reader([first], delimiter=delimiter))
        except (csv.Error, StopIteration):
            continue
        if len(names) >= 2 and any(name.strip() in STEPS for name in names):
            return [delimiter, *(name.strip() for name in names)]
    return None


def read_csv(path: Path, framework: Framework | None = None) -> RunData:
    """A CSV with a header. A W&B panel's export loses its run's name; of several `FILE::RUN` is read, or the first, which is said."""
    named, (path, wanted) = path, split_run(path)
    run, problems = new_run(named, "csv", wanted or name_of(path)), Problems()
    run.files["metrics"] = path
    head = beginning(path, 1 << 16).decode("utf-8-sig", "replace")
    with io.TextIOWrapper(open_stream(path), encoding="utf-8-sig", errors="replace", newline="") as file:
        found = csv_header(head.encode()) or _any_header(head)
        delimiter, names = found[0], _plain(found[1:])
        if wanted is not None and wanted not in (known := _runs(names)):
            run.problems.append(f"{path.name}: there is no run {wanted[:60]!r}; it has {', '.join(known)[:300]}")
            return run
        names, notice = _exported(names, wanted)
        if notice:
            problems.note(notice)
        usual = csv.field_size_limit(1 << 20)  # of the whole process: files of questions are read by the usual one
        try:
            rows = _csv_rows(csv.reader(_whole_lines(file), delimiter=delimiter), names, problems)
            fill(run, _with_step(rows, framework), problems, framework)
        finally:
            csv.field_size_limit(usual)
    run.problems += problems.lines(path.name)
    return run


def _any_header(head: str) -> list[str]:
    first = head.split("\n", 1)[0].strip("\r")
    delimiter = max((",", "\t", ";"), key=first.count)
    return [delimiter, *(name.strip() for name in first.split(delimiter))]


def runs_in_export(path: Path) -> list[str]:
    """The names of the runs in a W&B panel's CSV of several."""
    if not path.is_file() or not path.name.removesuffix(".gz").endswith((".csv", ".tsv")):
        return []
    runs = _runs(_plain((csv_header(beginning(path, 1 << 16)) or [""])[1:]))
    return runs if len(runs) > 1 else []


def _plain(names: list[str]) -> list[str]:
    return [re.sub(r"\s+", " ", name) for name in names]


def _runs(names: list[str]) -> list[str]:
    return list(dict.fromkeys(match["run"] for match in _exports(names).values()))


def _exports(names: list[str]) -> dict[str, re.Match[str]]:
    """Those that are a run's name and a key, where this is what a panel exports."""
    found = {name: match for name in names if (match := _EXPORTED.match(name)) is not None}
    return {} if len(found) < len(names) - 3 else found


def _exported(names: list[str], wanted: str | None) -> tuple[list[str], str]:
    """(names without that of the run `wanted` in front, what was left out). `NAME - train/reward__MIN` are the panel's bounds: dropped."""
    found = _exports(names)
    if not found:
        return names, ""
    runs = _runs(names)
    one = runs[0] if wanted is None else wanted
    plain = [
        name if name not in found else "" if found[name]["rest"] or found[name]["run"] != one else found[name]["key"]
        for name in names
    ]
    return plain, f"{len(runs)} runs in one table; the first, {one[:60]}, is shown" if len(runs) > 1 and wanted is None else ""


def _whole_lines(file: io.TextIOBase) -> Iterator[str]:
    """Lines without NUL bytes, which the csv module refuses."""
    while line := file.readline(MAX_LINE):
        yield line.replace("\0", "")


def _csv_rows(reader: Any, names: list[str], problems: Problems) -> Iterator[Row]:
    line = 1
    try:
        next(reader, None)
        for line, cells in enumerate(reader, 2):
            if len(cells) != len(names):
                if cells:
                    problems.add(f"{len(cells)} cells where the header has {len(names)}", line)
                continue
            row = {name: cell for name, cell in zip(names, cells, strict=True) if name and cell}
            yield line, step_of(row, STEPS), row
    except csv.Error as error:
        problems.note(f"not valid CSV from line {line + 1} on ({error})")


# --- Parquet -------------------------------------------------------------------------------------------------------------


def read_parquet(path: Path, framework: Framework | None = None) -> RunData:
    """A Parquet table with a step column (trackio's export, anybody's)."""
    run, problems = new_run(path, "parquet", name_of(path)), Problems()
    try:
        table = pl.scan_parquet(path)
        schema = table.collect_schema()
        wanted = [name for name, kind in schema.items() if kind.is_numeric() or kind == pl.String]
        fill(run, _with_step(_parquet_rows(table.select(wanted), schema), framework), problems, framework)
    except (pl.exceptions.PolarsError, OSError) as error:
        problems.note(f"not a readable Parquet file ({str(error).splitlines()[0][:100]})")
    run.problems += problems.lines(path.name)
    return run


def _parquet_rows(table: pl.LazyFrame, schema: Mapping[str, Any]) -> Iterator[Row]:
    numeric = [name for name, kind in schema.items() if kind.is_numeric() or name == "metrics"]
    start, size = 0, 20_000
    while True:
        part = table.select(numeric).slice(start, size).collect()
        for at, row in enumerate(part.iter_rows(named=True), start + 1):
            clean = {key: value for key, value in row.items() if value is not None}
            yield at, step_of(clean, STEPS), clean
        if part.height < size:
            return
        start += size


def parquet_columns(path: Path) -> list[str]:
    """Column names of a Parquet file; none where it can't be read."""
    try:
        return list(pl.scan_parquet(path).collect_schema())
    except (pl.exceptions.PolarsError, OSError):
        return []
