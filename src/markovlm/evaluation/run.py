"""Evaluating checkpoints of a run, foreign adapters, or a plain model, on the same questions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from markovlm.config import RunConfig, build_config, load_recorded
from markovlm.errors import UserError
from markovlm.evaluation.evaluate import Evaluation, How, evaluate, how_evaluated
from markovlm.evaluation.store import Label, Readings, Stored, as_quantized, quantization_of, rescore, weights_identity
from markovlm.models.registry import resolve
from markovlm.runs.asking import options_of, part_of, source_of, task_of
from markovlm.runs.checkpoint import load_adapter
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import clean, read_rows
from markovlm.runs.setup import Setup, is_endless, load_examples
from markovlm.runs.targets import BASE, Target, dev_rows
from markovlm.tasks.base import Example
from markovlm.tasks.folds import question_key


@dataclass(frozen=True, slots=True)
class Control:
    """How an evaluation departs from the way the run was trained to be read."""

    non_markovian: bool = False  # the reader sees the question too
    no_cot: bool = False  # the answer directly, with no CoT

    def apply(self, how: How) -> How:
        if self.no_cot:
            return replace(how, cot_tokens=0, conditioning="non_markovian")
        return replace(how, conditioning="non_markovian") if self.non_markovian else how


@dataclass(frozen=True, slots=True)
class Result:
    """One checkpoint, evaluated."""

    checkpoint: str
    step: int
    evaluation: Evaluation
    label: Label
    dev: Evaluation | None = None  # on the selection split, where it was evaluated too
    notes: tuple[str, ...] = ()  # what a reader must know of the questions
    skipped: tuple[str, ...] = ()  # rows that were left out


Counting = Callable[[str, int], Any]
B = TypeVar("B", bound=Sized)  # a batch


def evaluate_targets(
    targets: Sequence[Target],
    split: str,
    limit: int | None,
    control: Control,
    store: Path | None,
    counting: Counting | None = None,
    *,
    choose: bool = False,
) -> list[Result]:
    """Evaluate every target on the same questions. Rows are kept under `store` as they come: an interrupted evaluation continues.

    `choose`: also evaluate on the selection split if a best checkpoint is to be chosen and training left no comparable evaluations of
    all of them.
    """
    results: list[Result] = []
    steps = [target.step for target in targets if target.step is not None]
    for target, setup in prepared(targets):
        loaded = target.load(setup, split, limit)
        examples = list(loaded.examples)
        how = control.apply(how_evaluated(setup.config, setup.prompter))
        done, label = _evaluate_one(target, setup, examples, split, how, store, counting)
        dev = None
        if choose and len(steps) > 1 and target.step is not None and chosen_in_training(target, steps, split, how) is None:
            dev = _evaluate_dev(target, setup, examples, split, how, store, counting)
        notes = (*loaded.notes, *warnings_of(target, examples, split))
        results.append(Result(target.checkpoint, target.step or 0, done, label, dev, notes, loaded.skipped))
        if target.run is not None:
            record(target, split, done.summary())
        del setup  # the next one may not fit beside it
    return results


def prepared(targets: Sequence[Target]) -> Iterator[tuple[Target, Setup]]:
    """Load each target; where only the adapter's weights change, only they are read."""
    setup: Setup | None = None
    before: tuple[RunConfig, str] | None = None
    for target in targets:
        shape = _adapter_shape(target)
        if setup is not None and before is not None and before == (target.config, shape) and target.adapter is not None:
            load_adapter(setup.lm, target.adapter)
        else:
            setup = None  # let go of the old model first
            setup = target.prepare()
        before = None if shape is None else (target.config, shape)
        yield target, setup


def _adapter_shape(target: Target) -> str | None:
    if target.adapter is None:
        return None
    path = target.adapter / "adapter_config.json"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _evaluate_one(
    target: Target, setup: Setup, examples: list[Example], split: str, how: How, store: Path | None, counting: Counting | None
) -> tuple[Evaluation, Label]:
    """Evaluate what is not kept yet."""
    label = label_of(target, setup, split, how)
    kept = Readings(store, label) if store is not None else None
    known = kept.known(setup.task, examples) if kept else {}
    add = kept.add if kept else None
    with keeping(counting, f"{target.checkpoint} on {split}", len(examples), len(known), add) as keep:
        todo = [example for example in examples if example.id not in known]
        if todo:
            size = setup.config.evaluation.batch_size
            fresh = evaluate(setup.lm, setup.sampler(), setup.prompter, todo, how, batch_size=size, on_batch=keep)
            known |= {reading.id: reading for reading in fresh.readings}
    return Evaluation([known[example.id] for example in examples], how, setup.task.extractors), label


@contextmanager
def keeping(
    counting: Counting | None, doing: str, total: int, done: int, add: Callable[[B], None] | None
) -> Iterator[Callable[[B], None]]:
    """What each batch is passed to as it is finished: `add` keeps it, and a progress bar that begins at `done` counts it."""
    with counting(doing, total) if counting else nullcontext() as advance:

        def keep(batch: B) -> None:
            if add is not None:
                add(batch)
            if advance is not None:
                advance(len(batch))

        if advance is not None:
            advance(done)
        yield keep


def _evaluate_dev(
    target: Target,
    setup: Setup,
    reported: Sequence[Example],
    split: str,
    how: How,
    store: Path | None,
    counting: Counting | None,
) -> Evaluation | None:
    """On the selection split; None if there is none apart from the reported questions."""
    dev = setup.config.data.dev_split
    if dev == split:
        return None
    try:
        examples = list(setup.load(dev, setup.config.evaluation.dev_size).examples)
    except UserError:
        return None
    keys = {question_key(example) for example in reported}
    if any(question_key(example) in keys for example in examples):
        return None
    return _evaluate_one(target, setup, examples, dev, how, store, counting)[0]


def chosen_in_training(target: Target, steps: Sequence[int], split: str, how: How) -> dict[int, dict[str, Any]] | None:
    """Dev rows of training for all `steps`, if they are comparable with one another and made as `how` says."""
    dev = target.config.data.dev_split
    if target.run is None or not target.own_questions or dev == split:
        return None
    rows = dev_rows(target.run, dev)
    wanted = json.loads(json.dumps(asdict(how)))
    picked = {
        step: rows[step] for step in steps if step in rows and {"answer_end": "open", **rows[step].get("how", {})} == wanted
    }
    return picked if len(picked) == len(steps) and len({row["n"] for row in picked.values()}) == 1 else None


def label_of(target: Target, setup: Setup, split: str, how: How) -> Label:
    """What an evaluation of `target` made as `how` says is about."""
    config = setup.config
    if target.adapter is not None and not target.adapter.is_dir():
        raise UserError(f"{target.adapter}: no longer exists: its run has deleted it meanwhile; evaluate a later checkpoint")
    folders = [path for path in (Path(resolve(config.model)).expanduser(), target.adapter) if path is not None and path.is_dir()]
    commit = getattr(setup.lm.causal_lm.config, "_commit_hash", None) or ""
    return Label(
        checkpoint=target.checkpoint,
        step=target.step or 0,
        split=split,
        task=config.task,
        task_options=options_of(config),
        data=source_of(config),
        whole_files=not target.own_questions,
        model=config.model,
        weights=commit + weights_identity(folders) + as_quantized(config.loading.quantization),
        how=how,
    )


def warnings_of(target: Target, examples: Sequence[Example], split: str) -> list[str]:
    """Warnings: a task other than the one trained on; questions that were trained on."""
    trained, config = target.trained, target.config
    if trained is None:
        return []
    known = {trained.task, *trained.tasks}
    found = [f"trained on {trained.task}, evaluated on {config.task}"] if config.task not in known else []
    if target.own_questions and split == trained.data.train_split:
        return [*found, f"the run was trained on these questions (the {split} split): this is not a test"]
    if target.own_questions and split in ("dev", "test"):
        return found  # the loader keeps them apart from train
    try:
        train = load_examples(trained, task_of(trained), trained.data.train_split)
    except UserError as error:
        return [*found, f"could not check whether the run was trained on these questions: {error}"]
    if is_endless(train.examples):
        return found
    keys = {question_key(example) for example in train.examples}
    seen = sum(question_key(example) in keys for example in examples)
    if seen:
        found.append(f"{seen} of {len(examples)} questions are in the run's training split: this is not a test")
    return found


def record(target: Target, split: str, summary: Mapping[str, Any]) -> None:
    """Append a row to evals.jsonl, unless it, or the same on more questions, is there. Questions not the run's are marked."""
    assert target.run is not None
    row: dict[str, Any] = {"step": target.step or 0, "role": "test", "split": split, "checkpoint": target.checkpoint, **summary}
    if target.trained is not None and target.trained.tasks and target.own_questions:
        row["how"] = {**row["how"], "task": target.config.task}
    elif not target.own_questions:
        row["how"] = {**row["how"], "task": target.config.task, "data": target.config.data.path or source_of(target.config)}
        if target.trained is not None and (options := options_of(target.config)) != options_of(target.trained):
            row["how"] = {**row["how"], "task_options": options}
    quantization = target.config.loading.quantization
    if target.trained is not None and quantization != target.trained.loading.quantization:
        row["how"] = {**row["how"], "quantization": quantization}
    if target.trained is not None and target.config.chain != target.trained.chain:  # other chunks, or other things predicted
        row["how"] = {**row["how"], "chain": target.config.chain.model_dump(mode="json", exclude_defaults=True)}
    row = json.loads(json.dumps(clean(row)))
    same = ("step", "role", "split", "checkpoint", "how")
    rows = [old for old in read_rows(target.run.path / "evals.jsonl") if all(old.get(key) == row[key] for key in same)]
    if row not in rows and all(old["n"] <= row["n"] for old in rows):
        target.run.append("evals.jsonl", [row])


def rescore_targets(
    store: Path,
    split: str,
    checkpoints: Sequence[str] | None,
    run: RunDirectory | None,
    dev_split: str,
    extractors: Sequence[str] = (),
) -> list[Result]:
    """Apply the current extractors to kept evaluations of a split, in step order; nothing is generated. `checkpoints`: only these.

    Results may differ in how they were made: see `Result.label`. Kept evaluations of the selection split are included.
    """
    kept = rescore(store, extractors)
    found = [one for one in kept if one.label.split == split and (checkpoints is None or one.label.checkpoint in checkpoints)]
    if not found:
        there = ", ".join(sorted({f"{one.label.checkpoint} on {one.label.split}" for one in kept}))
        raise UserError(f"--rescore: no kept answers match ({split} split); kept are {there}")
    found.sort(key=lambda one: (one.label.comparable, one.label.checkpoint != BASE, one.label.step))
    for one in found if run is not None else ():
        _record_again(run, one)
    dev = {replace(one.label, split=split).file: one.evaluation for one in kept if one.label.split == dev_split != split}
    return [Result(one.label.checkpoint, one.label.step, one.evaluation, one.label, dev.get(one.label.file)) for one in found]


def _record_again(run: RunDirectory | None, one: Stored) -> None:
    """The new scores of kept readings, as a row of evals.jsonl, where they differ from what stands there."""
    assert run is not None
    trained = build_config(load_recorded(run.config), source=str(run.config))
    asked = part_of(trained, one.label.task) if one.label.task in trained.tasks else trained
    same = one.label.data == source_of(asked)
    data = asked.data if same else trained.data.model_copy(update={"path": one.label.data, "hub": None, "hub_subset": None})
    own = options_of(asked) == one.label.task_options
    update = {
        "loading": trained.loading.model_copy(update={"quantization": quantization_of(one.label)}),
        "task": one.label.task,
        "data": data,
        "tasks": {},
        "task_options": asked.task_options if own else one.label.task_options,
    }
    target = Target(str(run.path), trained.model_copy(update=update), run, one.label.step or None, trained=trained)
    if one.label.checkpoint != BASE and target.step is None:
        target = replace(target, step=0)
    if one.label.split != trained.data.dev_split:
        record(target, one.label.split, one.evaluation.summary())
