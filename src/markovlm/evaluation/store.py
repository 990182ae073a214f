"""Kept evaluations: one JSONL file for each checkpoint, split and way of evaluating.

The first row says what was evaluated and how; each further row is one question with its CoT, the raw answer and what every extractor
read. So an interrupted evaluation continues, and a new extractor re-scores without generating again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from markovlm.errors import UserError
from markovlm.evaluation.answering import score_text
from markovlm.evaluation.evaluate import AnswerReading, Evaluation, How
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import encode_rows, read_rows, replace_whole, writing
from markovlm.tasks import get_task
from markovlm.tasks.base import LIKELIHOOD, Example, Task
from markovlm.tasks.extractors import with_extractors

_HEADER = "evaluation"  # the value of `kind` in the first row
_FIELDS = {field.name for field in fields(AnswerReading)}
_LATER = {"likeliest", "exact", "answer_ended"}  # fields that readings of older versions lack
_HOW = {field.name for field in fields(How)}
_OPEN = "open"


@dataclass(frozen=True, slots=True)
class Label:
    """What a file of kept answers is about. Rows of different labels never mix."""

    checkpoint: str
    step: int
    split: str
    task: str
    task_options: dict[str, Any]
    data: str | None  # path of original files; None: the Hub, or generated
    whole_files: bool  # a single data file was taken whole, not cut into disjoint splits
    model: str
    weights: str  # identity of base and adapter
    how: How

    @property
    def file(self) -> str:
        """Its file name: checkpoint, split, and a hash of everything else."""
        return f"{self.checkpoint}-{self.split}-{digest_of(self.identity())}.jsonl"

    def identity(self) -> dict[str, Any]:
        """Everything but checkpoint, step and split: the part that the hash in the file name is made from."""
        rest = {key: value for key, value in asdict(self).items() if key not in ("checkpoint", "step", "split")}
        if self.how.answer_end == _OPEN:  # the only way there was when the first files were named
            del rest["how"]["answer_end"]
        return rest

    @property
    def comparable(self) -> tuple[str, ...]:
        """What must be equal for two evaluations to be compared: everything but the policy that was evaluated."""
        rest = {key: value for key, value in asdict(self).items() if key not in ("checkpoint", "step", "model", "weights")}
        return (json.dumps(rest, sort_keys=True),)


def digest_of(value: Any) -> str:
    """An eight-letter hash of a JSON value, for file names."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=4).hexdigest()


class Readings:
    """The file of one label under `folder`."""

    def __init__(self, folder: Path, label: Label):
        self.path = folder / label.file
        self.label = label

    def known(self, task: Task, examples: Sequence[Example]) -> dict[str, AnswerReading]:
        """Whole rows of those examples that are here already, by id. Creates the file if there is none."""
        self._open()
        asked = {example.id: example for example in examples}
        known: dict[str, AnswerReading] = {}
        for reading in _readings(read_rows(self.path)):
            example = asked.get(reading.id)
            if example is not None and (reading.question, reading.gold) == (example.question, example.answer):
                complete = set(reading.extracted) == set(task.extractors)
                known[reading.id] = reading if complete else rescored(task, reading)
        return known

    def add(self, readings: Sequence[AnswerReading]) -> None:
        """Append whole rows."""
        RunDirectory(self.path.parent).append(self.path.name, [asdict(reading) for reading in readings])

    def _open(self) -> None:
        folder = RunDirectory(self.path.parent)
        with writing(self.path):
            folder.path.mkdir(parents=True, exist_ok=True)
        folder.mend_last_line(self.path.name)
        if not read_rows(self.path):
            folder.append(self.path.name, [_header(self.label)])


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of kept answers, read back."""

    label: Label
    evaluation: Evaluation


def rescore(folder: Path, extractors: Sequence[str] = ()) -> list[Stored]:
    """Apply the current extractors (or these, instead of the task's own) to every kept answer, and rewrite the files. Nothing is
    generated and no model or data file is needed. Raises UserError if nothing is kept.
    """
    found: list[Stored] = []
    for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
        rows = read_rows(path)
        label = _label(rows[0]) if rows else None
        if label is None:
            continue
        task = with_extractors(get_task(label.task, label.task_options), extractors)
        readings = list({reading.id: rescored(task, reading) for reading in _readings(rows)}.values())
        if not readings:
            continue
        replace_whole(path, encode_rows([_header(label), *(asdict(reading) for reading in readings)]))
        found.append(Stored(label, Evaluation(readings, label.how, task.extractors)))
    if not found:
        raise UserError(f"--rescore: no kept answers in {folder}; evaluate without --rescore first")
    return found


def rescored(task: Task, reading: AnswerReading) -> AnswerReading:
    """The row with its answer text read again by the extractors of `task`."""
    example = Example(reading.id, reading.question, reading.gold, tuple(reading.choices))
    ended = reading.answer_ended is not False
    scored = score_text(task, example, reading.cot, reading.answer, reading.choice_logprobs, ended=ended)
    if LIKELIHOOD in task.extractors and not reading.choice_logprobs:
        raise UserError(f"{reading.id}: the kept answer has no likelihoods of the choices; evaluate again without --rescore")
    return replace(reading, extracted=scored.extracted, correct=scored.correct, failure=scored.failure)


def _header(label: Label) -> dict[str, Any]:
    return {"kind": _HEADER, **asdict(label)}


def _label(row: Mapping[str, Any]) -> Label | None:
    """The label of a first row; None for a file of another kind."""
    values = {key: value for key, value in row.items() if key != "kind"}
    if row.get("kind") != _HEADER or set(values) != {field.name for field in fields(Label)}:
        return None
    said = {"answer_end": _OPEN, **values["how"]}
    if set(said) != _HOW:
        return None
    how = How(**{**said, "stop": tuple(said["stop"])})
    return Label(**{**values, "how": how})


def _readings(rows: Sequence[Mapping[str, Any]]) -> list[AnswerReading]:
    """The rows that are readings of this version's shape."""
    return [AnswerReading(**{**row, "choices": tuple(row["choices"])}) for row in rows if _FIELDS - _LATER <= set(row) <= _FIELDS]


def weights_identity(paths: Sequence[Path]) -> str:
    """A hash that distinguishes weights: of the contents of small files, of names, sizes and times of large ones."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(path for folder in paths for path in folder.glob("*") if path.suffix in (".safetensors", ".bin")):
        stat = path.stat()
        digest.update(f"{path.name}:{stat.st_size}:".encode())
        digest.update(path.read_bytes() if stat.st_size <= _READ_WHOLE else str(stat.st_mtime_ns).encode())
    return digest.hexdigest()


def as_quantized(quantization: str) -> str:
    """What quantization of the base adds to the identity of its weights."""
    return "" if quantization == "none" else f"+{quantization}"


def quantization_of(label: Label) -> str:
    """The inverse: how the weights of `label` were quantized."""
    return label.weights.partition("+")[2] or "none"


_READ_WHOLE = 1 << 28  # bytes
