"""From a stream of other people's rows to a run: keys translated, numbers read, restarts resolved."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from markovlm.logs.columns import LogColumns
from markovlm.logs.dialects import NESTED, Translator, plain_key, training_of, translator_of
from markovlm.logs.families import likely_reward
from markovlm.logs.frameworks import Framework
from markovlm.logs.launches import Launches, LogRow, one_a_step, with_following
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


# dictionaries that only hold a row together ...
_CONTAINERS = frozenset({"metrics", "data", "logs", "log", "stats", "values", "scalars"})
_GROUPS = frozenset({  # ... and those that group metrics as a slash in a key does
    "train", "training", "eval", "test", "val", "validation", "rewards", "reward", "completions", "sampling", "clip_ratio", "actor", "critic",
    "env", "optim", "policy", "loss", "objective", "response_length", "prompt_length", "rollout", "perf", "timing", "kl", "entropy",
})  # fmt: skip
_TOTAL = re.compile(r"(?:total|sum)_(\w+)")
_COUNTS = ("total_num", "num", "count", "n", "total", "num_samples", "total_count")


def numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row; dictionaries inside it one level down.

    `{"metrics": {"reward": 1}}` is `reward`, `{"rewards": {"format": 1}}` is `rewards/format`. Numbers in any other dictionary (a printed sample,
    a configuration) are kept apart as `outer//inner`, which is no metric's name; of a total and a count there the mean is taken.
    """
    out: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            between = "" if key in _CONTAINERS else f"{key}/" if key in _GROUPS else f"{key}{NESTED}"
            inner = {str(k): found for k, v in islice(value.items(), 200) if (found := as_number(v)) is not None}
            for name, number in inner.items():
                out[f"{between}{name}"] = number
            if between.endswith(NESTED):
                out |= {name: mean for name, mean in _means(inner).items() if name not in row}
            continue
        found = as_number(value)
        if found is not None:
            out[str(key)] = found
    return out


def _means(inner: Mapping[str, float]) -> dict[str, float]:
    """`{"total_reward": 12.0, "total_num": 16}` -> `{"reward": 0.75}`."""
    count = next((inner[name] for name in _COUNTS if inner.get(name, 0.0) > 0.0), None)
    totals = ((found[1], value) for name, value in inner.items() if name not in _COUNTS and (found := _TOTAL.fullmatch(name)))
    return {name: value / count for name, value in totals} if count is not None else {}


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
    framework: Framework | None = None,
    settle: Callable[[LogColumns, RunData], None] | None = None,
) -> set[str]:
    """Read all rows into `run.metrics`; returns the keys of the first rows.

    The framework is recognised by those keys if it is not given. `settle` may number rows before they are put in order. Of a log that holds
    several launches, one after the other, `run` is the last and `run.earlier` has the others, in their order.
    """
    first = list(islice(rows, LOOK))
    keys = {str(key) for _, _, row in first for key in (*row, *numbers_of(row))}
    translator = translator_of(keys, framework)
    read = one_a_step(_read(chain(first, rows), translator, settle is not None, run))
    launches, columns, told = Launches(), LogColumns(), problems
    for row, following in with_following(read):
        if launches.begins(row, following):
            before = RunData(path=run.path, kind=run.kind, name=run.name, files=run.files)
            run.earlier.append(_finished(before, columns, settle, translator, keys, told))
            columns, told = LogColumns(), Problems()
        columns.add(row.step, row.line, row.values)
    _finished(run, columns, settle, translator, keys, told)
    if told is not problems:
        problems.plain += told.plain
    if not len(columns):
        _say_what_there_was(keys, translator.framework, problems)
    elif framework is None:
        _say_how_to_name(run, keys, problems)
    return keys


def _read(rows: Iterable[Row], translator: Translator, beside: bool, run: RunData) -> Iterator[LogRow]:
    """Rows under our keys; what has nothing of ours is passed over. A Trainer's closing row at the end becomes an event of the run."""
    ended = False
    for line, step, row in rows:
        if any(key in row for key in _NO_STEPS):
            ended = True
            continue
        numbers = numbers_of(row)
        values = translator.row(numbers)
        if not values:
            continue
        bar = numbers.get("_part")
        if beside:
            values |= {key: numbers[key] for key in _BESIDE if key in numbers}
        found = LogRow(
            line, step if step is not None else step_of(row, translator.framework.step), values, numbers.get("epoch"),
            None if bar is None else (bar, numbers.get("_begun", 0.0)), ended,
        )  # fmt: skip
        ended = ended and not found.trains
        yield found
    if ended:
        run.events.append({"kind": "end"})


def _finished(
    run: RunData,
    columns: LogColumns,
    settle: Callable[[LogColumns, RunData], None] | None,
    translator: Translator,
    keys: set[str],
    problems: Problems,
) -> RunData:
    """One launch, read to its end."""
    if settle is not None:
        settle(columns, run)
    run.metrics, run.lines = columns.finish(problems)
    run.training = training_of(keys, run.metrics.columns)
    run.framework = framework_of(translator.framework, keys, run)
    return run


def _say_how_to_name(run: RunData, keys: Iterable[str], problems: Problems) -> None:
    """A log of numbers without a known reward: the option that would name one."""
    if run.training == "preference" or set(run.metrics.columns) & {"reward_mean", "answer_logprob", "normalized_reward_mean"}:
        return
    named = [key for key in sorted(keys) if NESTED not in key and not key.startswith("_")]
    likely = likely_reward(key for key in named if not key.startswith("eval"))
    if likely is None and run.training == "supervised" and run.framework in ("transformers", "LLaMA-Factory"):
        return  # the Trainer's own names: nothing was sampled
    here = ", ".join(name[:40] for name in named[:12])
    problems.note(f"no column is recognised as the reward (columns: {here}); name it: --map reward={likely or 'COLUMN'}")


def _say_what_there_was(keys: Iterable[str], framework: Framework, problems: Problems) -> None:
    """A table of which nothing could be used: its columns, and what to do."""
    here = ", ".join(sorted(key[:40] for key in keys)[:12]) or "none"
    if framework.name == "":
        asked = ", ".join(name[:40] for names in framework.keys.values() for name in names)
        problems.note(f"--map: there is no column {asked}; the columns are {here}")
    else:
        problems.note(f"no column is a known metric (columns: {here}); name them: --map reward=COLUMN")


def framework_of(framework: Framework, keys: Iterable[str], run: RunData) -> str:
    """The framework's name, if its own keys (and not just `loss`) are there."""
    names = set(keys)
    if "global_step/max_steps" in names:
        return "ms-swift"
    if framework.score({plain_key(key) for key in names} | names):
        return framework.name
    return "transformers" if {"learning_rate", "loss"} <= set(keys) or run.kind == "trainer_state" else ""


def new_run(path: Path, kind: Kind, name: str | None = None) -> RunData:
    """An empty run of another framework."""
    return RunData(path=path, kind=kind, name=name or path.stem, files={"metrics": path})
