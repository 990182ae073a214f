"""What an audit is asked for: the CoTs by group, how answers are read, by whom, and about what it costs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from markovlm.analysis.perturb import Plan
from markovlm.analysis.segments import sentences
from markovlm.auditing.groups import name_groups
from markovlm.auditing.rows import AuditRow, CotSource
from markovlm.config import build_config
from markovlm.config.data import Data
from markovlm.errors import UserError
from markovlm.models.load import load_tokenizer
from markovlm.registry import TASKS
from markovlm.runs.targets import Target, open_targets
from markovlm.tasks import get_task
from markovlm.tasks.base import LETTERS, AnswerType, Example, Task
from markovlm.tasks.folds import normalized
from markovlm.tasks.numbers import normalize_number

PARTS = ("damage", "leak", "load", "bypass", "legibility", "hints")
DAMAGE = ("delete", "truncate_back", "digit_replace", "truncate_sentences", "shuffle_sentences", "swap_numbers", "change_result")
DAMAGE_SEVERITIES = (0.2, 0.6, 1.0)
ANSWER_TYPES: tuple[AnswerType, ...] = ("number", "letter", "text")
_MOSTLY = 0.9  # of the answers are of a type: the others are left out
_UNLIKE = 0.1  # shares of CoTs with a final answer cut off: groups that differ by more are warned about


@dataclass(frozen=True, slots=True)
class AuditCot:
    """One CoT as it is audited. `number` counts the CoTs of its question, over all groups."""

    example: Example
    number: int
    text: str
    row: AuditRow


@dataclass(frozen=True, slots=True)
class Material:
    """The CoTs of all files, by group in order of appearance, and how their answers are read."""

    groups: Mapping[str, tuple[AuditCot, ...]]
    task: str
    task_options: Mapping[str, Any]
    answer_type: AnswerType
    kinds: tuple[str, ...]  # of the files
    skipped: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def cots(self) -> list[AuditCot]:
        return [cot for group in self.groups.values() for cot in group]


@dataclass(frozen=True, slots=True)
class AuditRequest:
    """Everything an audit needs; nothing is loaded yet."""

    files: tuple[Path, ...]
    material: Material
    readers: tuple[tuple[str, Target], ...]  # name as given
    out: Path
    parts: tuple[str, ...] = PARTS
    plan: Plan = field(default_factory=lambda: Plan(DAMAGE, DAMAGE_SEVERITIES))
    most_sentences: int = 40  # of a CoT, occluded one at a time; those of a longer one are joined
    seed: int = 0
    judge: tuple[str, Target] | None = None  # who says whether CoTs say that they use their hints
    minutes: float | None = None  # that the readers may take: they decide how many questions are read


def gather(
    files: Sequence[Path],
    sources: Sequence[CotSource],
    task: str | None,
    limit: int | None,
    names: Mapping[Path, str] | None = None,
) -> Material:
    """The CoTs of all sources; `names`: groups that the user gives to files. Raises UserError if `task` is not known or no row fits it."""
    groups_of, notes = name_groups(files, sources, names or {})
    bases = [_counted_from(source) for source in sources]
    notes += [
        f"{file.name}: gold answers are positions among the choices, counted from {base}"
        for file, source, base in zip(files, sources, bases, strict=True)
        if any(row.place is not None for row in source.rows)
    ]
    rows = [
        replace(row, group=group, answer=_at_place(row, base))
        for source, groups, base in zip(sources, groups_of, bases, strict=True)
        for row, group in zip(source.rows, groups, strict=True)
    ]
    name, options, kind, note = _task_of(rows, task)
    skipped = [line for source in sources for line in source.skipped]
    numbers: dict[str, int] = {}
    groups: dict[str, list[AuditCot]] = {}
    questions: dict[str, set[str]] = {}
    for row in rows:
        example = _example(row, kind)
        if example is None:
            skipped.append(f"{row.where}: the answer {row.answer[:30]!r} is not a {kind}")
            continue
        seen = questions.setdefault(row.group, set())
        if limit is not None and example.id not in seen and len(seen) >= limit:
            continue
        seen.add(example.id)
        number = numbers[example.id] = numbers.get(example.id, -1) + 1
        groups.setdefault(row.group, []).append(AuditCot(example, number, row.cot, row))
    if not groups:
        raise UserError(f"{files[0]}: no answer is a {kind}; the first is {rows[0].answer[:30]!r}; set --task")
    notes = [note, *notes, *(n for source in sources for n in source.notes), *_about_cutting(groups)]
    return Material(
        {group: tuple(cots) for group, cots in groups.items()},
        name,
        options,
        kind,
        tuple(dict.fromkeys(source.kind for source in sources)),
        tuple(skipped),
        tuple(notes),
    )


def _about_cutting(groups: Mapping[str, Sequence[AuditCot]]) -> list[str]:
    """Where final answers were cut off, and whether groups differ in that."""
    cut = {group: sum(cot.row.cut for cot in cots) for group, cots in groups.items()}
    shares = {group: cut[group] / len(cots) for group, cots in groups.items()}
    if not any(cut.values()):
        return []
    total = sum(map(len, groups.values()))
    notes = [f"{sum(cut.values())} of {total} CoTs ended in a final answer, which was cut off: only the reasoning is audited"]
    most, least = max(shares, key=shares.__getitem__), min(shares, key=shares.__getitem__)
    if shares[most] - shares[least] > _UNLIKE:
        notes.append(
            f"WARNING: a final answer was cut off in {cut[most]} of {len(groups[most])} CoTs of {most}, but in {cut[least]} of "
            f"{len(groups[least])} of {least}: where it stays in the CoT it can be copied, so compare these groups by the CoT cut before its answer"
        )
    return notes


def _counted_from(source: CotSource) -> int:
    """Are gold answers that are places among choices counted from 0 (as the Hub's MMLU does) or from 1?"""
    places = [(row.place, len(row.choices)) for row in source.rows if row.place is not None]
    return 1 if places and all(place > 0 for place, _ in places) and any(place == count for place, count in places) else 0


def _at_place(row: AuditRow, base: int) -> str:
    """The gold answer: its letter, where the source gives its place."""
    if row.place is None:
        return row.answer
    return LETTERS[row.place - base] if base <= row.place < len(row.choices) + base else row.answer


def _task_of(rows: Sequence[AuditRow], task: str | None) -> tuple[str, dict[str, Any], AnswerType, str]:
    """Task, its options, the type of its answers, and a sentence about it."""
    if task is not None and task not in ANSWER_TYPES:
        if task not in TASKS:
            raise UserError(f"--task {task}: must be number, letter, text, or a task: {', '.join(TASKS)}")
        found: Task = get_task(task)
        return task, {}, found.answer_type, f"answers are read as in task {task}"
    kind: AnswerType = task if task is not None else _type_by_answers(rows)  # pyright: ignore[reportAssignmentType]
    by = "as asked" if task is not None else "by the gold answers"
    return "custom", {"answer_type": kind}, kind, f"answers are read as {kind}s, {by}"


def _type_by_answers(rows: Sequence[AuditRow]) -> AnswerType:
    def share(fits: Sequence[bool]) -> float:
        return sum(fits) / len(fits)

    if share([bool(row.choices) and _letter(row) is not None for row in rows]) >= _MOSTLY:
        return "letter"
    if share([normalize_number(row.answer) is not None for row in rows]) >= _MOSTLY:
        return "number"
    return "letter" if share([_letter(row) is not None for row in rows]) >= _MOSTLY else "text"


def _letter(row: AuditRow) -> str | None:
    """The letter of the right choice: the answer itself, or the choice whose text it is."""
    bare = row.answer.strip().strip("().").upper()
    if len(bare) == 1 and bare in LETTERS[: len(row.choices) or len(LETTERS)]:
        return bare
    same = [LETTERS[i] for i, choice in enumerate(row.choices) if normalized(choice) == normalized(row.answer)]
    return same[0] if len(same) == 1 else None


def _example(row: AuditRow, kind: AnswerType) -> Example | None:
    """With an id made of question, choices and gold answer: rows that share it are about the same question, in whatever order its choices."""
    answers = [_canonical(replace(row, answer=one), kind) for one in (row.answer, *row.also)]
    answer, also = answers[0], tuple(dict.fromkeys(one for one in answers[1:] if one and one != answers[0]))
    if not answer:
        return None
    choices = row.choices if kind == "letter" else ()
    right = choices[LETTERS.index(answer)] if choices else answer
    digest = hashlib.blake2b("\x1f".join((row.question, right, *sorted(choices))).encode(), digest_size=8).hexdigest()
    return Example(digest, row.question, answer, choices, also)


def _canonical(row: AuditRow, kind: AnswerType) -> str | None:
    return {"number": normalize_number(row.answer), "letter": _letter(row), "text": row.answer.strip()}[kind]


# ------------------------------------------------------------------------------------------------------------- readers


@dataclass(frozen=True, slots=True)
class ServerTarget(Target):
    """A reader behind an address, `http://HOST:8000` or `http://HOST:8000#MODEL`."""

    address: str = ""


def _is_address(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def open_audience(
    names: Sequence[str], material: Material, over: Mapping[str, Any], *, needed: bool = True
) -> tuple[tuple[str, Target], ...]:
    """Open models, or last checkpoints of runs, as readers. Raises UserError in one line for one that does not exist."""
    if not names and not needed:
        return ()
    if not names:
        raise UserError(
            "--reader: name at least one model to read the CoTs (a Hub id, a directory, a run, a name from `markovlm models`, or the address "
            "of a server)"
        )
    return tuple((name, open_one(name, material, over)) for name in dict.fromkeys(names))


def open_one(name: str, material: Material, over: Mapping[str, Any], flag: str = "--reader") -> Target:
    """One of them."""
    try:
        target: Target
        if _is_address(name):
            target = ServerTarget(name, build_config(dict(over), {"model": name}), None, None, address=name)
        else:
            target = open_targets(name, "last", dict(over))[0]
            # that the second reader is missing is said before the first works
            load_tokenizer(target.config.model, target.config.loading)
    except UserError as error:
        raise UserError(f"{flag} {name}: {error}") from error
    config = target.config
    update: dict[str, Any] = {
        "task": material.task,
        "tasks": {},
        "task_options": dict(material.task_options),
        "objective": config.objective.model_copy(update={"conditioning": "markovian"}),
        "data": Data(),  # pyright: ignore[reportCallIssue]  # a run's columns and kind of answer are its own questions'
    }
    if not (over.get("evaluation") or {}).get("extractors"):
        update["evaluation"] = config.evaluation.model_copy(update={"extractors": ()})  # a run's are those of its own task
    if not (over.get("prompt") or {}).get("style") and config.prompt.style == "compact":
        update["prompt"] = config.prompt.model_copy(update={"style": "auto"})
    return replace(target, config=config.model_copy(update=update))


# ---------------------------------------------------------------------------------------------------------------- cost


def cost(request: AuditRequest, tokens: Sequence[tuple[int, int]]) -> dict[str, int]:
    """About how many tokens one reader computes, by part: `tokens` are (question prompt, CoT) lengths, one per CoT.

    What a variant shares with its CoT is counted once; answers (at most `max_answer_tokens` each) are left out.
    """
    cots = request.material.cots
    cells = [cell for cell in request.plan.cells() if cell[1] > 0]
    readings = {"follows": sum(2 * (p + c) + 2 * p for p, c in tokens)}
    for part in request.parts:
        if part == "damage":
            readings[part] = sum(len(cells) * c for _, c in tokens)
        elif part == "leak":
            readings[part] = sum(c for _, c in tokens)
        elif part == "bypass":
            readings[part] = sum(4 * c + 2 * p for p, c in tokens)
        elif part == "load":
            pieces = (min(len(sentences(cot.text)), request.most_sentences) for cot in cots)
            readings[part] = sum(n * c // 2 for n, (_, c) in zip(pieces, tokens, strict=True))
        elif part == "legibility":
            readings[part] = sum(p + c for p, c in tokens)
    return readings
