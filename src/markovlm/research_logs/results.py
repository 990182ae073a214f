"""Evaluations of the research code: files of their own, and `<task>_results_<model>.jsonl` beside a log."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from markovlm.logs.files import open_lines, stem_of, whole
from markovlm.logs.readers import LogReader
from markovlm.logs.records import LoggedEvaluation, LoggedSample, RunData, Score
from markovlm.logs.rows import Problems, integer, interval_of, number, objects, parse, text

PREFIX = re.compile(r"^(Question|Context|Reasoning|Helpful Text|Answer):\s?")


def is_result(row: Mapping[str, Any]) -> bool:
    """Whether this is an evaluation result of the research code."""
    return "accuracy" in row and ("results" in row or "total_examples" in row)


def is_named_log(path: Path) -> bool:
    """Whether it is `log.jsonl` or the like: evaluations beside it belong to it."""
    return path.name.removesuffix(".gz") in ("log.jsonl", "log.log")


def read_beside(run: RunData, path: Path) -> None:
    """`<task>_results_<model>.jsonl` files in the log's own folder."""
    if not is_named_log(path):
        return
    for file in sorted(path.parent.glob("*_results_*.jsonl")):
        problems = Problems()
        try:
            with open_lines(file, problems) as lines:
                found = [(line, row) for line, _, row in objects(lines, problems) if is_result(row)]
        except OSError as error:
            run.problems.append(f"{file.name}: {error.strerror}")
            continue
        run.files.setdefault("evals", file)
        run.evals += [e for line, row in found if (e := result(row, line, file.name, run.last_step, problems))]
        run.problems += problems.lines(file.name)
    run.evals.sort(key=lambda e: e.step)


def _belongs_to_log(path: Path, names: Collection[str]) -> bool:
    """Is this file read with a log among the `names` of its folder?"""
    return "_results_" in path.name and path.suffix == ".jsonl" and any(is_named_log(Path(name)) for name in names)


def result(row: Mapping[str, Any], line: int, source: str, last_step: int | None, problems: Problems) -> LoggedEvaluation | None:
    """One evaluation of the research code. `accuracy_wb` and the like are further extractors."""
    listed = row.get("results")
    results: list[Any] = listed if isinstance(listed, list) else []
    n = integer(row.get("total_examples")) or len(results)
    none = _share_without_answer(results)
    scores: dict[str, Score] = {}
    for key, value in row.items():
        accuracy = number(value, key, line, problems) if key.startswith("accuracy") and not isinstance(value, Mapping) else None
        if accuracy is not None and 0.0 <= accuracy <= 1.0:
            low, high = interval_of(accuracy, n)
            name = "reported" if key == "accuracy" else key.removeprefix("accuracy_")
            scores[name] = Score(accuracy, low, high, none if name == "reported" else None)
    if "reported" not in scores:
        return None
    step = integer(row.get("batch_index"))
    return LoggedEvaluation(
        step=step if step is not None else (last_step or 0),
        split="test",
        n=n,
        scores=scores,
        main="reported",
        checkpoint=None if row.get("model_path") is None else str(row["model_path"]),
        line=line,
        source=source,
        placed=step is not None or last_step is not None or row.get("model_path") is not None,
    )


def _share_without_answer(results: list[Any]) -> float | None:
    """Share of outputs in which no answer was found ("[invalid]", "X", nothing)."""
    if not results:
        return None
    given = [_given(r) for r in results if isinstance(r, Mapping)]
    return sum(map(_no_answer, given)) / len(results)


def _no_answer(given: Any) -> bool:
    return given is None or str(given).strip() in ("", "[invalid]", "X")


def _given(row: Mapping[str, Any]) -> Any:
    return row.get("predicted", row.get("generated_answer"))


def _read_file(path: Path) -> RunData | None:
    """A stand-alone evaluation file ({accuracy, results}, one object or one a line); None if it is none."""
    problems = Problems()
    try:
        found = parse(whole(path))
        rows = list(enumerate(found, 1)) if isinstance(found, list) else [(1, found)]
    except ValueError:
        with open_lines(path, problems) as lines:
            rows = [(line, row) for line, _, row in objects(lines, problems)]
    results = [(line, row) for line, row in rows if isinstance(row, Mapping) and is_result(row)]
    if not results:
        return None
    run = RunData(path=path, kind="evaluation", name=stem_of(path), files={"evals": path})
    run.evals = [e for line, row in results if (e := result(row, line, path.name, None, problems))]
    run.samples = [s for line, row in results for s in _result_samples(row, line, path.name)]
    run.sample_rows = sum(len(row["results"]) for _, row in results if isinstance(row.get("results"), list))
    run.problems = problems.lines(path.name)
    return run


RESULT_SAMPLES = 60  # answers of an evaluation file that a report shows, wrong and unread ones first


def _result_samples(row: Mapping[str, Any], line: int, source: str) -> list[LoggedSample]:
    """Some answers of an evaluation: no answer found, wrong, right, a third of each where there are enough."""
    listed = row.get("results")
    entries = [r for r in listed if isinstance(r, Mapping)] if isinstance(listed, list) else []
    groups: dict[str, list[Mapping[str, Any]]] = {"none": [], "wrong": [], "right": []}
    for entry in entries:
        groups["none" if _no_answer(_given(entry)) else "right" if _is_right(entry) else "wrong"].append(entry)
    chosen = [(kind, entry) for kind, found in groups.items() for entry in found[: RESULT_SAMPLES // 3]]
    return [_result_sample(entry, kind == "right", integer(row.get("batch_index")) or 0, line, source) for kind, entry in chosen]


def _is_right(entry: Mapping[str, Any]) -> bool:
    said = next((entry[key] for key in ("correct", "is_correct") if isinstance(entry.get(key), bool)), None)
    return said if said is not None else str(_given(entry)).strip() == str(_gold(entry)).strip()


def _gold(entry: Mapping[str, Any]) -> Any:
    return next((entry[key] for key in ("gold", "actual", "true_answer", "answer") if key in entry), None)


def _result_sample(entry: Mapping[str, Any], right: bool, step: int, line: int, source: str) -> LoggedSample:
    def get(*keys: str) -> str:
        return PREFIX.sub("", text(next((entry[key] for key in keys if key in entry), None), line, source))

    given = _given(entry)
    said = get("generated_text", "output", "raw_answer") or str(given)
    cot = get("reasoning", "cot", "chain_of_thought")
    return LoggedSample(
        step=step,
        question=get("question"),
        cot=cot,
        answer=text(_gold(entry), line, source),
        answered=said,
        correct=right,
        line=line,
        source=source,
    )


def _recognises(path: Path, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Is this an evaluation? One JSON object over many lines has no first rows."""
    return any(map(is_result, rows)) or (path.name.removesuffix(".gz").endswith(".json") and _read_file(path) is not None)


def _read(path: Path, _max_samples: int) -> RunData:
    """A stand-alone evaluation file."""
    return _read_file(path) or RunData(path=path, kind="evaluation", name=stem_of(path), problems=[f"{path.name}: no evaluation"])


READER = LogReader("research_results", _recognises, _read, _belongs_to_log)
