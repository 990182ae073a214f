"""A run directory of this package (DESIGN, "A run directory"), also while the run is still writing it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from markovlm.content import check_regular, parse_yaml, read_content
from markovlm.logs.choose import Light, choose
from markovlm.logs.files import open_lines
from markovlm.logs.records import LoggedEvaluation, LoggedSample, RunData, Score
from markovlm.logs.rows import (
    Problems,
    frame,
    integer,
    interval_of,
    number,
    objects,
    order_by_step,
    parse,
    read_numbers_fast,
    read_small_json,
    text,
)
from markovlm.logs.schema import METRIC

MOST_KEYS = 2_000  # metrics of a run; ours first
MOST_SETTINGS = 4 << 20  # bytes of config.yaml
MAX_FAST_BYTES = 200_000_000  # of samples.jsonl read at once
MAX_SAMPLE_ROWS = 300_000  # rows of samples.jsonl looked at; beyond, every k-th


def read_native(path: Path, max_samples: int) -> RunData:
    """A run directory, or the `metrics.jsonl` in one."""
    folder = path if path.is_dir() else path.parent
    run = RunData(path=path, kind="native", name=folder.resolve().name)
    _read_settings(run, folder)
    metrics = folder / "metrics.jsonl" if path.is_dir() else path
    if metrics.exists():
        run.files["metrics"] = metrics
        _guarded(run, metrics, lambda: _read_metrics(run, metrics))
    else:
        run.problems.append("metrics.jsonl: missing")
    for name, reader in (("evals", _read_evals), ("events", _read_events)):
        file = folder / f"{name}.jsonl"
        if file.exists():
            run.files[name] = file
            _guarded(run, file, lambda reader=reader, file=file: reader(run, file))
    samples = folder / "samples.jsonl"
    if samples.exists():
        run.files["samples"] = samples
        _guarded(run, samples, lambda: _read_samples(run, samples, max_samples))
    if (folder / "loadbearing").is_dir():
        from markovlm.studies.files import read_studies  # pydantic: a log without studies is judged without it

        run.studies = read_studies(folder / "loadbearing", run.problems)
    return run


def _guarded(run: RunData, path: Path, work: Any) -> None:
    try:
        check_regular(path)
        work()
    except OSError as error:
        run.problems.append(f"{path.name}: {error.strerror or 'cannot be read'}")


def _read_settings(run: RunData, folder: Path) -> None:
    config = folder / "config.yaml"
    if config.exists():
        run.files["config"] = config
        try:
            run.config_text = read_content(config, MOST_SETTINGS).decode("utf-8", "replace")
            loaded = parse_yaml(run.config_text)
        except OSError as error:
            run.problems.append(f"config.yaml: {error.strerror or 'cannot be read'}")
            loaded = None
        except yaml.YAMLError:
            run.problems.append("config.yaml: cannot be read as YAML")
            loaded = None
        if isinstance(loaded, Mapping):
            from markovlm.config.keys import flatten  # imports pydantic, which logs of others have no use for

            run.config = flatten({str(k): v for k, v in loaded.items()})
    environment = folder / "environment.json"
    if environment.exists():
        run.files["environment"] = environment
        loaded = read_small_json(environment, run.problems)
        run.environment = loaded if isinstance(loaded, dict) else {}


def _read_metrics(run: RunData, path: Path) -> None:
    problems = Problems()
    with open_lines(path, problems) as file:
        data = file.read()
    lines = data[: data.rfind(b"\n") + 1]
    if not problems.plain and ((lines and lines == data) or _is_torn(data[len(lines) :])):
        fast = read_numbers_fast(lines)
        if fast is not None:
            run.metrics = fast
            if lines != data:
                run.problems.append(f"{path.name}: the last line is incomplete")
            return
    rows: list[tuple[int, dict[str, Any]]] = [(line, row) for line, _, row in objects(data.splitlines(keepends=True), problems)]
    run.metrics = metrics_frame(rows, problems, run.lines)
    run.problems += problems.lines(path.name)


def _is_torn(tail: bytes) -> bool:
    try:
        parse(tail)
    except ValueError:
        return bool(tail)
    return False


def metrics_frame(rows: list[tuple[int, dict[str, Any]]], problems: Problems, lines: dict[int, int]) -> pl.DataFrame:
    """Rows of numbers, read one by one, as a frame. Fills `lines` with step -> line."""
    order = order_by_step([integer(row.get("step")) for _, row in rows], what="step", problems=problems, start=1)
    keys = dict.fromkeys(str(key) for _, row in rows for key in row if key != "step")
    if len(keys) > MOST_KEYS:
        problems.note(f"{len(keys):,} metrics; only {MOST_KEYS:,} were read")
        keys = dict.fromkeys(sorted(keys, key=lambda key: key not in METRIC)[:MOST_KEYS])
    columns: dict[str, list[float | None]] = {key: [] for key in keys}
    for step, index in order:
        line, row = rows[index]
        lines[step] = line
        for key, column in columns.items():
            column.append(number(row.get(key), key, line, problems))
    return frame(columns, [step for step, _ in order])


def run_of_rows(rows: Sequence[Mapping[str, Any]]) -> RunData:
    """A run given as metric rows in step order; rows without `step` are numbered from 1."""
    run, problems = RunData(path=Path("rows"), kind="native", name="rows"), Problems()
    numbered = [(line, {"step": line, **row}) for line, row in enumerate(rows, start=1)]
    run.metrics = metrics_frame(numbered, problems, run.lines)
    run.problems += problems.lines("rows")
    return run


def _read_evals(run: RunData, path: Path) -> None:
    problems = Problems()
    with open(path, "rb") as file:
        for line, _, row in objects(file, problems):
            found = evaluation(row, line, path.name, problems)
            if found is not None:
                run.evals.append(found)
    run.evals.sort(key=lambda e: e.step)
    run.problems += problems.lines(path.name)


def evaluation(row: Mapping[str, Any], line: int, source: str, problems: Problems) -> LoggedEvaluation | None:
    """One row of evals.jsonl; None with a problem where it has neither an accuracy nor a log-likelihood."""
    n = integer(row.get("n")) or 0
    scores = {}
    extractors = row.get("extractors")
    for name, entry in (extractors if isinstance(extractors, Mapping) else {}).items():
        if isinstance(entry, Mapping):
            score = _score(entry, n, line, problems)
            if score is not None:
                scores[str(name)] = score
    overall = _score(row, n, line, problems)
    logprob = number(row.get("logprob"), "logprob", line, problems)
    if overall is None and not scores and logprob is None:
        problems.add("an evaluation without accuracy", line)
        return None
    main = next((name for name, score in scores.items() if overall and score.accuracy == overall.accuracy), None)
    if main is None and overall is not None:
        main = "accuracy"
        scores = {main: overall} | scores
    how = row.get("how")
    return LoggedEvaluation(
        step=integer(row.get("step")) or 0,
        split=str(row.get("split") or "?"),
        n=n,
        scores=scores,
        main=main or next(iter(scores), ""),
        logprob=logprob,
        likeliest=number(row.get("answer_correct_fraction"), "answer_correct_fraction", line, problems),
        run_on=number(row.get("answer_run_on_fraction"), "answer_run_on_fraction", line, problems),
        checkpoint=None if row.get("checkpoint") is None else str(row["checkpoint"]),
        how=dict(how) if isinstance(how, Mapping) else {},
        texts=integer(row.get("texts")),
        line=line,
        source=source,
    )


def _score(entry: Mapping[str, Any], n: int, line: int, problems: Problems) -> Score | None:
    accuracy = number(entry.get("accuracy"), "accuracy", line, problems)
    if accuracy is None or not 0.0 <= accuracy <= 1.0:
        return None
    interval = entry.get("ci95")
    bounds = [number(b, "ci95", line, problems) for b in interval] if isinstance(interval, list) and len(interval) == 2 else []
    if len(bounds) != 2 or None in bounds:
        bounds = list(interval_of(accuracy, n))
    return Score(accuracy, bounds[0], bounds[1], number(entry.get("no_answer"), "no_answer", line, problems))


def _read_events(run: RunData, path: Path) -> None:
    problems = Problems()
    with open(path, "rb") as file:
        run.events = [row | {"line": line} for line, _, row in objects(file, problems)]
    run.problems += problems.lines(path.name)


def _read_samples(run: RunData, path: Path, limit: int) -> None:
    """Look at every row (every k-th of a very long file), then read the chosen ones again."""
    problems = Problems()
    light = _light_rows_fast(path)
    if light is None:
        light = _light_rows(run, path, problems)
    run.sample_rows = max(run.sample_rows, len(light))
    with open(path, "rb") as file:
        for index in choose(light, limit):
            file.seek(light[index].offset)
            row = parse(file.readline())
            run.samples.append(_sample(row, light[index].line, path.name, problems))
    run.problems += problems.lines(path.name)


def _light_rows_fast(path: Path) -> list[Light] | None:
    """The few numbers of a clean file of bearable size; None if anything is unusual."""
    if path.stat().st_size > MAX_FAST_BYTES:
        return None
    data = path.read_bytes()
    if not data.endswith(b"\n") or b"\n\n" in data:
        return None
    schema = {"step": pl.Int64, "reward": pl.Float64, "correct": pl.Boolean}
    try:
        found = pl.read_ndjson(io.BytesIO(data), schema=schema)
    except (pl.exceptions.PolarsError, ValueError):
        return None
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n"))
    if len(ends) != found.height or found["step"].null_count():
        return None
    offsets = np.concatenate(([0], ends[:-1] + 1)).tolist()
    rows = zip(offsets, found["step"].to_list(), found["reward"].to_list(), found["correct"].to_list(), strict=True)
    return [Light(step, offset, line, reward, correct) for line, (offset, step, reward, correct) in enumerate(rows, 1)]


def _light_rows(run: RunData, path: Path, problems: Problems) -> list[Light]:
    """The same, row by row, every k-th of a very long file."""
    light: list[Light] = []
    stride = _stride(path)
    with open(path, "rb") as file:
        for line, offset, row in _every(file, stride, problems):
            step = integer(row.get("step"))
            correct = row.get("correct")
            reward = row.get("reward")
            light.append(
                Light(
                    step=step or 0,
                    offset=offset,
                    line=line,
                    reward=float(reward) if isinstance(reward, (int, float)) and not isinstance(reward, bool) else None,
                    correct=correct if isinstance(correct, bool) else None,
                )
            )
    run.sample_rows = len(light) * stride
    if stride > 1:
        run.problems.append(f"{path.name}: long; one row in {stride} was read")
    return light


def _stride(path: Path) -> int:
    """Every how many rows to look at, from the size of the file and of its first rows."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(1 << 20)
    rows = max(1, head.count(b"\n"))
    return max(1, round(size / max(1, len(head)) * rows / MAX_SAMPLE_ROWS))


def _every(file: Any, stride: int, problems: Problems) -> Any:
    """`objects` of every `stride`-th line, with true line numbers and offsets."""
    if stride == 1:
        yield from objects(file, problems)
        return
    offset = 0
    for line, raw in enumerate(file, 1):
        start, offset = offset, offset + len(raw)
        if line % stride == 1:
            for _, _, row in objects([raw], problems):
                yield line, start, row


def _sample(row: Mapping[str, Any], line: int, source: str, problems: Problems) -> LoggedSample:
    def get(key: str) -> float | None:
        return number(row.get(key), key, line, problems)

    baseline, correct = row.get("baseline_cot"), row.get("correct")
    return LoggedSample(
        step=integer(row.get("step")) or 0,
        question=text(row.get("question"), line, source),
        cot=text(row.get("cot"), line, source),
        answer=text(row.get("answer"), line, source),
        answered=None if row.get("answered") is None else text(row["answered"], line, source),
        baseline_cot=None if baseline is None else text(baseline, line, source),
        reward=get("reward"),
        normalized_reward=get("normalized_reward"),
        advantage=get("advantage"),
        answer_logprob=get("answer_logprob"),
        correct=correct if isinstance(correct, bool) else None,
        cot_tokens=integer(row.get("cot_tokens")),
        line=line,
        source=source,
    )
