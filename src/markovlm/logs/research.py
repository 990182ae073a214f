"""The research code's logs (scottviteri/MarkovianTraining), every generation, recognised by what their records contain."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, cast

import polars as pl
import yaml

from markovlm.logs.choose import Light, choose
from markovlm.logs.files import array_elements, beginning, open_lines, whole
from markovlm.logs.records import Evaluation, Kind, RunData, Sample, Score
from markovlm.logs.rows import MAX_TEXT, Problems, frame, integer, interval_of, number, objects, order_by_step, parse, text
from markovlm.logs.schema import FOREIGN_CONFIG, foreign_keys
from markovlm.texts.question import contains_answer, question_signals, specificity
from markovlm.texts.repetition import text_signals

TEXT_ROWS = 500  # CoTs of a log whose repetition is measured; in a longer log every k-th
_HEADER_KEYS = {
    "task_type",
    "model_type",
    "model_learning_rate",
    "num_batches",
    "batch_size",
    "use_ei",
    "use_ppo",
    "normalize_loss",
    "lr",
}
_SUM = re.compile(r"\s*\d+(\s*[+*-]\s*\d+){2,}\s*")
_PREFIX = re.compile(r"^(Question|Context|Reasoning|Helpful Text|Answer):\s?")


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
    return [(ours, [(dotted, tuple(dotted.split("."))) for dotted in theirs]) for ours, theirs in foreign_keys(kind).items()]


def generation(row: Mapping[str, Any]) -> Kind | None:
    """The generation of a record, or None where it is no record of the research code."""
    metrics = row.get("Training Metrics")
    if isinstance(metrics, Mapping):
        if "Loss" not in metrics and "Actor Answer Log Probs" not in metrics:
            return "g2"
        newer = ("Raw Loss", "First Loss", "actor_critic_kl")
        return "g4" if any(key in metrics for key in newer) or "Actor Reward Metrics" in row else "g3"
    if "Normalized Reward" not in row and "Avg Log Prob" not in row:
        return None
    if "Loss" in row and "Aggregate loss" not in row:
        return "g1d"
    if "Fraction Active Samples" in row or "Num Active Samples" in row:
        return "g1c"
    return "g1b" if "PPO Ratio" in row else "g1"


def header(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The hyperparameters of a header line, flat or under "hyperparameters"; None for any other object."""
    inner = row.get("hyperparameters")
    if isinstance(inner, Mapping):
        return dict(inner)
    if generation(row) is None and len(_HEADER_KEYS & row.keys()) >= 2:
        return dict(row)
    return None


def header_generation(settings: Mapping[str, Any]) -> Kind:
    """The generation of a log that has only its header."""
    if "lora_rank" in settings or "parallel_samples" in settings:
        return "g4"
    return "g3" if "kl_penalty" in settings else "g1"


def is_foreign(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Do these first objects of a file come from the research code?"""
    return any(generation(row) is not None or header(row) is not None for row in rows)


def is_result(row: Mapping[str, Any]) -> bool:
    """Is this an evaluation result of the research code?"""
    return "accuracy" in row and ("results" in row or "total_examples" in row)


# --- a log -------------------------------------------------------------------------------------------------------------


def read_foreign(path: Path, max_samples: int) -> RunData:
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
    _read_results_beside(run, path)
    return run


def _name(path: Path) -> str:
    return f"{path.parent.parent.name}/{path.parent.name}" if _stem(path) == "log" else _stem(path)


def _stem(path: Path) -> str:
    """`a.jsonl.gz` -> `a`"""
    return path.with_suffix("").stem if path.suffix == ".gz" else path.stem


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
        name = FOREIGN_CONFIG.get(key, key)
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
    return _PREFIX.sub("", value[:MAX_TEXT]) if isinstance(value, str) else ""


_TEXTS = {  # nested? -> question, CoT, answer
    True: (("Example", "Question"), ("Example", "Actor Reasoning"), ("Example", "Answer")),
    False: (("Prev Observation",), ("Action",), ("Observation",)),
}


_ADVANTAGE = {True: ("Training Metrics", "Advantage"), False: ("Advantage",)}


def _cot(row: dict[str, Any]) -> str:
    """The CoT of a record, for measuring."""
    cot = get(row, _TEXTS["Training Metrics" in row][1])
    return cot[:MAX_TEXT] if isinstance(cot, str) else ""


def _sample(row: dict[str, Any], entry: Light, source: str, problems: Problems) -> Sample:
    nested = "Training Metrics" in row
    question, cot, answer = (_PREFIX.sub("", text(get(row, path), entry.line, source)) for path in _TEXTS[nested])
    critic = get(row, ("Example", "Critic Reasoning"))
    columns = _columns(row, "g4" if nested else "g1", {}, entry.line, Problems())
    return Sample(
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


# --- evaluations -------------------------------------------------------------------------------------------------------


def is_named_log(path: Path) -> bool:
    """`log.jsonl` and the like: evaluations beside it belong to it."""
    return path.name.removesuffix(".gz") in ("log.jsonl", "log.log")


def _read_results_beside(run: RunData, path: Path) -> None:
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


def result(row: Mapping[str, Any], line: int, source: str, last_step: int | None, problems: Problems) -> Evaluation | None:
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
    return Evaluation(
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


def read_result_file(path: Path) -> RunData | None:
    """A stand-alone evaluation file ({accuracy, results}, one object or one a line); None where it is none."""
    problems = Problems()
    try:
        rows = [(1, parse(whole(path)))]
    except ValueError:
        with open_lines(path, problems) as lines:
            rows = [(line, row) for line, _, row in objects(lines, problems)]
    results = [(line, row) for line, row in rows if isinstance(row, Mapping) and is_result(row)]
    if not results:
        return None
    run = RunData(path=path, kind="evaluation", name=_stem(path), files={"evals": path})
    run.evals = [e for line, row in results if (e := result(row, line, path.name, None, problems))]
    run.samples = [s for line, row in results for s in _result_samples(row, line, path.name)]
    run.sample_rows = sum(len(row["results"]) for _, row in results if isinstance(row.get("results"), list))
    run.problems = problems.lines(path.name)
    return run


RESULT_SAMPLES = 60  # answers of an evaluation file that a report shows, wrong and unread ones first


def _result_samples(row: Mapping[str, Any], line: int, source: str) -> list[Sample]:
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


def _result_sample(entry: Mapping[str, Any], right: bool, step: int, line: int, source: str) -> Sample:
    def get(*keys: str) -> str:
        return _PREFIX.sub("", text(next((entry[key] for key in keys if key in entry), None), line, source))

    given = _given(entry)
    said = get("generated_text", "output", "raw_answer") or str(given)
    cot = get("reasoning", "cot", "chain_of_thought")
    return Sample(
        step=step,
        question=get("question"),
        cot=cot,
        answer=text(_gold(entry), line, source),
        answered=said,
        correct=right,
        line=line,
        source=source,
    )


def first_objects(path: Path, count: int = 5, most: int = 1 << 22) -> Iterator[dict[str, Any]]:
    """The first few JSON objects of a file (within its first 4 MB)."""
    data = beginning(path, most)
    if data.lstrip()[:1] == b"[":
        found = (row for row in array_elements(data.decode("utf-8", "replace")) if isinstance(row, dict))
        yield from islice(found, count)
        return
    for _, (_, _, row) in zip(range(count), objects(data.splitlines(keepends=True), Problems()), strict=False):
        yield row
