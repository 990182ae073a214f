"""From a stream of other people's rows to a run: keys translated, numbers read, restarts resolved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from markovlm.logs.columns import MAX_ROWS, Columns
from markovlm.logs.dialects import Dialect, Translator, dialect_of, plain_key, training_of
from markovlm.logs.records import Kind, RunData
from markovlm.logs.rows import Problems, integer

Row = tuple[int, "int | None", Mapping[str, Any]]  # line, step where the carrier knows it, the row
LOOK = 200  # rows whose keys settle the dialect
_NO_STEPS = ("train_runtime", "train_samples_per_second")  # the Hugging Face Trainer's last row is no step
_BESIDE = ("_bar", "_begun", "_part", "epoch")  # kept for `settle`
_NON_NUMBERS = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf"), "infinity": float("inf")}


def as_number(value: Any) -> float | None:
    """A float from a number or its text (`'0.375'`, `nan`, `np.float64(0.5)`); None for anything else, True and False too."""
    if value.__class__ is float:
        return value
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return float(value) if abs(value) < 2**1000 else None
    if not isinstance(value, str) or len(value) > 64:
        return None
    text = value.strip().lower()
    if text.startswith(("np.", "numpy.", "tensor(")) and text.endswith(")"):
        text = text[text.index("(") + 1 : -1].partition(",")[0]
    text = text.replace("_", "x")  # Python reads 1_0 as ten; a log means no number by it
    if text in _NON_NUMBERS:
        return _NON_NUMBERS[text]
    try:
        return float(text)
    except ValueError:
        return None


def numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row; dictionaries inside it become `outer/inner`, one level down."""
    out: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            for inner, below in islice(value.items(), 200):
                found = as_number(below)
                if found is not None:
                    out[f"{key}/{inner}"] = found
            continue
        found = as_number(value)
        if found is not None:
            out[str(key)] = found
    return out


def step_of(row: Mapping[str, Any], names: Iterable[str]) -> int | None:
    """The step a row gives itself (`12`, `"12/500"`)."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str):
            value = value.partition("/")[0]
        found = integer(value)
        if found is not None:
            return found
    return None


def fill(
    run: RunData,
    rows: Iterator[Row],
    problems: Problems,
    dialect: Dialect | None = None,
    settle: Callable[[Columns], None] | None = None,
    max_rows: int = MAX_ROWS,
) -> set[str]:
    """Read all rows into `run.metrics`; returns the keys of the first rows.

    The dialect is told from those keys where it is not given. `settle` may number rows before they are put in order. A file that
    holds several runs, one after the other, gives the last.
    """
    first = list(islice(rows, LOOK))
    keys = {str(key) for _, _, row in first for key in row}
    dialect = dialect or dialect_of(keys)
    translator, columns = Translator(dialect), Columns(max_rows)
    ended, runs = False, 1
    for line, step, row in chain(first, rows):
        if any(key in row for key in _NO_STEPS):
            ended = len(columns) > 0
            continue
        numbers = numbers_of(row)
        values = translator.row(numbers)
        if not values:
            continue
        step = step if step is not None else step_of(row, dialect.step)
        if ended and (step is None or step <= columns.steps[-1]):
            columns.clear()
            runs += 1
        ended = False
        values |= {key: numbers[key] for key in _BESIDE if settle is not None and key in numbers}
        columns.add(step, line, values)
    if runs > 1:
        problems.note(f"{runs} runs, one after the other; the last is shown")
    if settle is not None:
        settle(columns)
    run.metrics, run.lines = columns.finish(problems)
    run.training = training_of(keys, run.metrics.columns)
    run.framework = framework_of(dialect, keys, run)
    if not len(columns):
        _say_what_there_was(keys, dialect, problems)
    return keys


def _say_what_there_was(keys: Iterable[str], dialect: Dialect, problems: Problems) -> None:
    """A table of which nothing could be used: its columns, and what to do."""
    here = ", ".join(sorted(key[:40] for key in keys)[:12]) or "none"
    if dialect.name == "":
        asked = ", ".join(name[:40] for names in dialect.keys.values() for name in names)
        problems.note(f"--map: no column is called {asked}; it has {here}")
    else:
        problems.note(f"no column is a metric we know (it has {here}); name them: --map reward=COLUMN")


def framework_of(dialect: Dialect, keys: Iterable[str], run: RunData) -> str:
    """The dialect's name, where its own keys (and not just `loss`) are there."""
    names = set(keys)
    if "global_step/max_steps" in names:
        return "ms-swift"
    if dialect.score({plain_key(key) for key in names} | names):
        return dialect.name
    return "transformers" if {"learning_rate", "loss"} <= set(keys) or run.kind == "trainer_state" else ""


def new_run(path: Path, kind: Kind, name: str | None = None) -> RunData:
    """An empty run of somebody else's making."""
    return RunData(path=path, kind=kind, name=name or path.stem, files={"metrics": path})
