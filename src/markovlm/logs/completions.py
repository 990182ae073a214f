"""Tables of completions that trainers write beside their metrics, as samples: TRL's Parquet, verl's rollouts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from markovlm.logs.choose import Light, choose
from markovlm.logs.external import as_number
from markovlm.logs.records import LoggedSample, RunData
from markovlm.logs.rows import Problems, integer, objects, text

MAX_FILES = 400  # tables of one run that are opened; of more, every k-th
MAX_ROWS = 400  # of one table
_NOT_REWARDS = {"step", "prompt", "completion", "advantage", "prompt_id", "problem_id", "timestamp"}
_FOLDERS = ("completions", "rollout", "rollouts", "rollout_data", "generations", "validation")
_FILE = re.compile(r"(completions_\d+|\d+)\.(parquet|jsonl)")


def read_completions(run: RunData, limit: int) -> None:
    """Fill `run.samples` from the tables that belong to a log: in its own folder, its output directory, or beside them."""
    tables = _tables(run.files.get("metrics", run.path))
    if not tables or run.samples:
        return
    stride = -(-len(tables) // MAX_FILES)
    problems = Problems()
    if stride > 1:
        problems.note(f"{len(tables):,} tables of completions; one in {stride} was read")
    found: list[LoggedSample] = []
    rows = 0
    for table in tables[::-1][::stride][::-1]:
        here = list(_samples(table, problems))
        rows += len(here)
        found += here
        if len(found) > 20 * max(limit, 50):  # bounded: keep a choice, early and late
            found = _chosen(found, 10 * max(limit, 50))
    run.samples = _chosen(found, limit)
    run.sample_rows = rows * stride
    run.files["samples"] = tables[-1].parent
    run.problems += problems.lines(tables[-1].parent.name)


def _chosen(samples: list[LoggedSample], limit: int) -> list[LoggedSample]:
    light = [Light(s.step, 0, s.line, s.reward, s.correct) for s in samples]
    return [samples[i] for i in choose(light, limit)]


def _tables(path: Path) -> list[Path]:
    """The tables near a log, in the order of their steps."""
    homes = [path.parent]
    if path.parent.name.startswith("checkpoint-"):
        homes.append(path.parent.parent)
    for home in homes:
        for name in _FOLDERS:
            folder = home / name
            if folder.is_dir():
                found = [file for file in folder.iterdir() if _FILE.fullmatch(file.name)]
                if found:
                    return sorted(found, key=lambda file: (int(re.findall(r"\d+", file.name)[0]), file.name))
    return []


def _samples(path: Path, problems: Problems) -> Iterator[LoggedSample]:
    try:
        rows = _parquet(path) if path.suffix == ".parquet" else _jsonl(path, problems)
        for line, row in rows:
            sample = _sample(row, line, path, problems)
            if sample is not None:
                yield sample
    except (pl.exceptions.PolarsError, OSError) as error:
        problems.note(f"{path.name}: cannot be read ({str(error).splitlines()[0][:80]})")


def _parquet(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    yield from enumerate(pl.scan_parquet(path).head(MAX_ROWS).collect().iter_rows(named=True), 1)


def _jsonl(path: Path, problems: Problems) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with open(path, "rb") as file:
        for line, _, row in objects(iter(lambda: file.readline(4 << 20), b""), problems):
            if line > MAX_ROWS:
                return
            yield line, row


def _sample(row: Mapping[str, Any], line: int, path: Path, problems: Problems) -> LoggedSample | None:
    """TRL: step, prompt, completion, a column a reward function, advantage. verl: step, input, output, score, gts."""
    question, cot = row.get("prompt", row.get("input")), row.get("completion", row.get("output"))
    if question is None or cot is None:
        return None
    step = integer(row.get("step"))
    if step is None:
        step = int(re.findall(r"\d+", path.name)[0])
    if "completion" in row:
        parts = {key: value for key, value in row.items() if key not in _NOT_REWARDS and as_number(value) is not None}
        reward = sum(as_number(value) or 0.0 for value in parts.values()) if parts else as_number(row.get("reward"))
    else:
        reward = as_number(row.get("score", row.get("reward")))
    right = row.get("acc", row.get("correct"))
    return LoggedSample(
        step=step,
        question=_said(question, line, path.name),
        cot=_said(cot, line, path.name),
        answer=text(row.get("gts", row.get("ground_truth", row.get("answer"))), line, path.name),
        reward=reward,
        advantage=as_number(row.get("advantage")),
        correct=None if as_number(right) is None and not isinstance(right, bool) else bool(right) if right in (0, 1) else None,
        line=line,
        source=path.name,
    )


def _said(value: Any, line: int, source: str) -> str:
    """A prompt or completion: text, or a conversation's messages one after the other, each after the reasoning that TRL keeps apart."""
    if isinstance(value, list) and value and all(isinstance(message, Mapping) for message in value):
        said = [(message.get("reasoning_content"), message.get("content", "")) for message in value]
        value = "\n".join(str(one) for reasoning, content in said for one in ((reasoning, content) if reasoning else (content,)))
    return text(value, line, source)
