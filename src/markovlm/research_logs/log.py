"""Training logs of the research code, every generation, recognised by what their records contain."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import polars as pl
import yaml

from markovlm.logs.choose import Light, choose
from markovlm.logs.files import open_lines, stem_of
from markovlm.logs.readers import LogReader
from markovlm.logs.records import Kind, LoggedSample, RunData
from markovlm.logs.rows import MAX_TEXT, Problems, frame, integer, number, objects, order_by_step, parse, text
from markovlm.research_logs.keys import SETTINGS, generation, header, header_generation, keys_of
from markovlm.research_logs.results import PREFIX, read_beside
from markovlm.texts.question import contains_answer, question_signals, specificity
from markovlm.texts.repetition import text_signals

TEXT_ROWS = 500  # CoTs of a log whose repetition is measured; in a longer log every k-th
_SUM = re.compile(r"\s*\d+(\s*[+*-]\s*\d+){2,}\s*")


def get(row: Any, path: tuple[str, ...]) -> Any:
    """The value under a path of keys, or None. (`("Training Metrics", "Loss")`)"""
    for part in path:
        if not isinstance(row, dict):
            return None
        row = row.get(part)
    return row


@cache
def _plan(kind: Kind) -> list[tuple[str, list[tuple[str, tuple[str, ...]]]]]:
    """The key table of a generation with its dotted paths split: our key, [(dotted, path), …]."""
    return [(ours, [(dotted, tuple(dotted.split("."))) for dotted in theirs]) for ours, theirs in keys_of(kind).items()]


def read_log(path: Path, max_samples: int) -> RunData:
    """A log of the research code."""
    run = RunData(path=path, kind="unknown", name=_name(path), files={"metrics": path})
    problems = Problems()
    settings: dict[str, Any] = {}
    kinds: Counter[Kind] = Counter()
    rows: list[tuple[int, int, dict[str, Any]]] = []  # (line, offset, columns): texts are not kept
    with open_lines(path, problems) as file:
        for line, offset, row in objects(file, problems):
            kind = generation(row)
            if kind is None:
                found = header(row)
                if found is None:
                    problems.add("neither a header nor a record", line)
                settings |= found or {}
                continue
            kinds[kind] += 1
            if isinstance(row.get("Task Type"), str):
                settings.setdefault("task_type", row["Task Type"])
            rows.append((line, offset, _columns(row, kind, settings, line, problems)))
    run.kind = kinds.most_common(1)[0][0] if kinds else header_generation(settings)
    _take_settings(run, settings)
    if not rows:
        problems.note("a header and no records" if settings else "no records")
    elif not settings:
        problems.note("no header: the hyperparameters are unknown")
    order = order_by_step([row["step"] for _, _, row in rows], what="Batch Index", problems=problems, start=0)
    run.lines = {step: rows[index][0] for step, index in order}
    run.metrics = _metrics(rows, order)
    run.sample_rows = len(order)
    _read_texts(run, rows, order, max_samples, problems)
    run.problems += problems.lines(path.name)
    if run.samples and all(_SUM.fullmatch(s.question) for s in run.samples):
        run.guessed_task = "arithmetic"
    read_beside(run, path)
    return run


def _name(path: Path) -> str:
    return f"{path.parent.parent.name}/{path.parent.name}" if stem_of(path) == "log" else stem_of(path)


def _columns(row: Mapping[str, Any], kind: Kind, settings: Mapping[str, Any], line: int, problems: Problems) -> dict[str, Any]:
    """The record under our keys, numbers only."""
    out: dict[str, Any] = {"step": integer(row.get("Batch Index"))}
    for ours, theirs in _plan(kind):
        for dotted, path in theirs:
            value = get(row, path)
            if value is not None:
                out[ours] = value if value.__class__ is float else number(value, dotted, line, problems)
                break
    active = out.pop("active", None)
    if active is not None:
        out["no_gradient_fraction"] = 1.0 - active
    weighted = out.pop("weighted_kl", None)
    if weighted is not None and "kl" not in out:
        out["kl"] = _unweighted(weighted, get(row, ("Training Metrics", "KL Type")), settings)
    return out


def _unweighted(value: float, kind: Any, settings: Mapping[str, Any]) -> float | None:
    """The KL itself; a weighted one is divided by the weight in the header, and is missing where that is not known."""
    if not (isinstance(kind, str) and kind.lower().startswith("weighted")):
        return value
    weight = settings.get("kl_penalty")
    return value / weight if isinstance(weight, (int, float)) and weight > 0 else None


def _take_settings(run: RunData, settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        name = SETTINGS.get(key, key)
        run.config[name] = value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
    if settings:
        run.config["objective.name"] = _objective(settings)
        run.config_text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)


def _objective(settings: Mapping[str, Any]) -> str:
    """Our name for what the research code was told to do."""
    ei, ppo = settings.get("use_ei"), settings.get("use_ppo")
    expert = bool(ei) and not settings.get("use_pg")
    if ppo is True:
        return "expert_iteration + ppo_frozen_anchor" if expert else "ppo_frozen_anchor"
    if expert:
        return "expert_iteration"
    parallel = settings.get("parallel_samples")
    return "grpo" if parallel is True or (isinstance(parallel, int) and parallel > 1) else "policy_gradient"


def _metrics(rows: list[tuple[int, int, dict[str, Any]]], order: list[tuple[int, int]]) -> pl.DataFrame:
    keys = dict.fromkeys(key for _, _, row in rows for key in row if key != "step")
    columns = {key: [rows[index][2].get(key) for _, index in order] for key in keys}
    return frame(columns, [step for step, _ in order])


# --- texts -------------------------------------------------------------------------------------------------------------


def _read_texts(
    run: RunData,
    rows: list[tuple[int, int, dict[str, Any]]],
    order: list[tuple[int, int]],
    limit: int,
    problems: Problems,
) -> None:
    """Second reading: repetition of every k-th CoT as columns, and the chosen samples whole."""
    if not order:
        return
    light = [
        Light(
            step,
            rows[i][1],
            rows[i][0],
            rows[i][2].get("normalized_reward_mean", rows[i][2].get("answer_logprob")),
            {0.0: False, 1.0: True}.get(rows[i][2].get("cot_contains_answer", -1.0)),
        )
        for step, i in order
    ]
    chosen = set(choose(light, limit))
    stride = max(1, -(-len(order) // TEXT_ROWS))
    repetition: dict[int, dict[str, float]] = {}
    asked = _Asked()
    with open_lines(run.path) as file:
        for index, entry in enumerate(light):
            if index % stride and index not in chosen:
                continue
            file.seek(entry.offset)
            row = cast("dict[str, Any]", parse(file.readline()))
            if index % stride == 0:
                repetition[index] = text_signals([_cot(row)]) | asked.signals(row)
            if index in chosen:
                run.samples.append(_sample(row, entry, run.path.name, problems))
    measured = (
        "distinct_bigram_fraction",
        "longest_char_run",
        "compression_ratio",
        "copies_question_fraction",
        "question_specificity",
    )
    if "cot_contains_answer" not in run.metrics.columns:
        measured += ("cot_contains_answer",)
    for key in measured:
        column = [repetition[i].get(key) if i in repetition else None for i in range(len(order))]
        if not any(value is not None for value in column):
            continue
        run.metrics = run.metrics.with_columns(pl.Series(key, column, dtype=pl.Float64))


class _Asked:
    """A CoT against its own question and against that of the CoT measured before."""

    def __init__(self) -> None:
        self.before: str | None = None

    def signals(self, row: dict[str, Any]) -> dict[str, float]:
        question, cot, answer = (_plain_text(row, part) for part in range(3))
        found = question_signals([question], [cot], [answer])
        if self.before is not None and (specific := specificity(question, cot, self.before)) is not None:
            found["question_specificity"] = specific
        self.before = question
        return found


def _plain_text(row: dict[str, Any], part: int) -> str:
    value = get(row, _TEXTS["Training Metrics" in row][part])
    return PREFIX.sub("", value[:MAX_TEXT]) if isinstance(value, str) else ""


_TEXTS = {  # nested? -> question, CoT, answer
    True: (("Example", "Question"), ("Example", "Actor Reasoning"), ("Example", "Answer")),
    False: (("Prev Observation",), ("Action",), ("Observation",)),
}


_ADVANTAGE = {True: ("Training Metrics", "Advantage"), False: ("Advantage",)}


def _cot(row: dict[str, Any]) -> str:
    """The CoT of a record, for measuring."""
    cot = get(row, _TEXTS["Training Metrics" in row][1])
    return cot[:MAX_TEXT] if isinstance(cot, str) else ""


def _sample(row: dict[str, Any], entry: Light, source: str, problems: Problems) -> LoggedSample:
    nested = "Training Metrics" in row
    question, cot, answer = (PREFIX.sub("", text(get(row, path), entry.line, source)) for path in _TEXTS[nested])
    critic = get(row, ("Example", "Critic Reasoning"))
    columns = _columns(row, "g4" if nested else "g1", {}, entry.line, Problems())
    return LoggedSample(
        step=entry.step,
        question=question,
        cot=cot,
        answer=answer,
        baseline_cot=None if critic is None else text(critic, entry.line, source),
        reward=columns.get("answer_logprob"),
        normalized_reward=columns.get("normalized_reward_mean"),
        advantage=number(get(row, _ADVANTAGE[nested]), "Advantage", entry.line, problems),
        answer_logprob=columns.get("answer_logprob"),
        correct=_holds(cot, answer),
        line=entry.line,
        source=source,
    )


def _holds(cot: str, answer: str) -> bool | None:
    """Whether the CoT holds the answer: these logs say no more of a sample. A lone letter is found in any text: None."""
    return None if len(answer.strip()) < 2 and not answer.strip().isdigit() else contains_answer(cot, answer)


def recognises(_path: Path, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether these first objects of a file come from the research code."""
    return any(generation(row) is not None or header(row) is not None for row in rows)


READER = LogReader("research_log", recognises, read_log)
