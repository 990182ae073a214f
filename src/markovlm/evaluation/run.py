"""Evaluating checkpoints of a run, foreign adapters, or a plain model, on the same questions."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from markovlm.config import RunConfig, build_config, load_yaml
from markovlm.errors import UserError
from markovlm.evaluation.compare import score
from markovlm.evaluation.evaluate import Evaluation, How, Reading, evaluate, how_evaluated
from markovlm.evaluation.store import Label, Readings, Stored, rescore, weights_identity
from markovlm.models.memory import release_memory
from markovlm.models.registry import model_defaults, resolve
from markovlm.tasks import get_task
from markovlm.tasks.base import Example, Loaded
from markovlm.tasks.folds import question_key
from markovlm.training.checkpoint import load_adapter
from markovlm.training.runlog import RunDirectory, read_rows
from markovlm.training.setup import Setup, is_endless, load_examples, prepare

BASE = "base"
_FOREIGN = re.compile(r"(?:adapter|checkpoint|step)[-_]?(\d+)")  # adapter_1000, checkpoint-500


@dataclass(frozen=True, slots=True)
class Target:
    """What a command was pointed at: a run or a directory of adapters and one checkpoint of it, or a model with no adapter."""

    name: str
    config: RunConfig
    run: RunDirectory | None
    step: int | None  # None: the base model
    foreign: Path | None = None  # an adapter that no run of ours made
    trained: RunConfig | None = None  # what the run was trained with, where `config` may differ from it

    @property
    def adapter(self) -> Path | None:
        if self.foreign is not None:
            return self.foreign
        return None if self.run is None or self.step is None else self.run.checkpoint(self.step)

    @property
    def checkpoint(self) -> str:
        """As evaluation rows name it."""
        if self.foreign is not None:
            return self.foreign.name
        return BASE if self.step is None else f"step-{self.step:06d}"

    @property
    def own_questions(self) -> bool:
        """Are the questions those of the run itself, whose splits must then be cut as they were in training?"""
        if self.run is None:
            return False
        return self.trained is None or _questions(self.config) == _questions(self.trained)

    def prepare(self) -> Setup:
        """Load it. A model that nobody holds any more goes first: two may not fit."""
        gc.collect()
        release_memory()
        return prepare(self.config, adapter=self.adapter)

    def load(self, setup: Setup, split: str, limit: int | None = None) -> Loaded:
        """Examples of a split: cut as in training where the questions are the run's own, else as the files have them."""
        return setup.load(split, limit, disjoint=self.own_questions)


def _questions(config: RunConfig) -> tuple[Any, ...]:
    path = Path(config.data.path).expanduser().resolve() if config.data.path else None
    return config.task, path, tuple(sorted(config.task_options.items(), key=lambda pair: pair[0]))


def sighted(target: Target) -> Target:
    """The same weights, read with the question in sight whatever they were trained for."""
    objective = target.config.objective.model_copy(update={"conditioning": "non_markovian"})
    return replace(target, config=target.config.model_copy(update={"objective": objective}))


def is_run(path: Path) -> bool:
    """A directory that training made."""
    return (path / "config.yaml").is_file() and (path / "checkpoints").is_dir()


# ---------------------------------------------------------------------------------------------------------- opening


def open_targets(name: str, checkpoints: str, overrides: dict[str, Any]) -> list[Target]:
    """What `name` is: a run directory, a directory of PEFT adapters (or one adapter), or a model.

    `checkpoints` is last, best, all, base, or steps like 100,200. UserError where a thing is not there.
    """
    path = Path(name).expanduser()
    if is_run(path):
        return _run_targets(name, RunDirectory(path), checkpoints, overrides)
    if path.is_file():
        raise UserError(f"{name}: is a file; a run directory, a model directory or a Hub id is needed")
    adapters = foreign_adapters(path)
    if adapters:
        return _foreign_targets(name, adapters, checkpoints, overrides)
    if path.is_dir() and not (path / "config.json").exists():
        raise UserError(
            f"{name}: neither a run (config.yaml and checkpoints/), nor adapters (adapter_1000/adapter_config.json, ...), "
            "nor a model (config.json)"
        )
    if overrides.get("model", name) != name:
        raise UserError(f"--model {overrides['model']}: the model is {name} already; name it once")
    for word in _words(checkpoints):
        if word not in ("last", "all", BASE):
            raise UserError(f"--checkpoints: {name} is a plain model, without checkpoints such as {word!r}; leave the flag out")
    return [Target(name, build_config(model_defaults(name), overrides, {"model": name}), None, None)]


def _run_targets(name: str, run: RunDirectory, checkpoints: str, overrides: dict[str, Any]) -> list[Target]:
    layer, source = load_yaml(run.config), str(run.config)
    trained = build_config(layer, source=source)
    if overrides.get("model", trained.model) != trained.model:
        raise UserError(f"--model {overrides['model']}: {name} was trained on {trained.model} and is evaluated with it")
    config = build_config(_for_task(layer, trained, overrides), overrides, source=source)
    steps = dict.fromkeys(_steps(str(run.path), run.saved_steps(), checkpoints, lambda saved: best_on_dev(run, saved)))
    return [Target(name, config, run, step, trained=trained) for step in steps]


def _for_task(layer: dict[str, Any], trained: RunConfig, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The run's configuration, less what belongs to its own task where another one is asked for.

    The CoT budget stays that of the run; prompts are in the style the tokenizer is made for.
    """
    task = overrides.get("task", trained.task)
    if task == trained.task:
        return layer
    get_task(task)
    kept = {key: value for key, value in layer.items() if key not in ("task_options", "data")}
    if trained.prompt.style == "compact":
        kept["prompt"] = {**layer.get("prompt", {}), "style": "auto"}
    return kept


def foreign_adapters(path: Path) -> dict[int, Path]:
    """Step -> adapter directory under `path`, by names such as `adapter_1000`; or `path` itself, as step 0."""
    if (path / "adapter_config.json").is_file():
        return {0: path}
    found: dict[int, Path] = {}
    for entry in sorted(path.iterdir()) if path.is_dir() else ():
        match = _FOREIGN.fullmatch(entry.name)
        if match and (entry / "adapter_config.json").is_file():
            found[int(match[1])] = entry
    return dict(sorted(found.items()))


def _foreign_targets(name: str, adapters: dict[int, Path], checkpoints: str, overrides: dict[str, Any]) -> list[Target]:
    model = overrides.get("model") or _base_of(next(iter(adapters.values())))
    config = build_config(model_defaults(model), overrides, {"model": model})

    def refuse(_: Sequence[int]) -> int:
        raise UserError("--checkpoints best: these adapters have no evaluations yet; use all (the best is then chosen on dev)")

    steps = dict.fromkeys(_steps(name, list(adapters), checkpoints, refuse))
    return [Target(name, config, None, step, foreign=None if step is None else adapters[step]) for step in steps]


def _base_of(adapter: Path) -> str:
    path = adapter / "adapter_config.json"
    try:
        base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read as a PEFT configuration ({' '.join(str(error).split()):.80})") from None
    if not base:
        raise UserError(f"{path}: names no base model; give it with --model")
    return str(base)


def _words(checkpoints: str) -> list[str]:
    return [word.strip() for word in checkpoints.split(",")]


def _steps(where: str, saved: list[int], wanted: str, best: Callable[[Sequence[int]], int]) -> Iterator[int | None]:
    if not saved:
        raise UserError(f"{where}: has no checkpoints yet")
    for word in _words(wanted):
        number = re.sub(r"^(step|adapter|checkpoint)[-_]", "", word)
        if word == "last":
            yield saved[-1]
        elif word == "all":
            yield from saved
        elif word == BASE:
            yield None
        elif word == "best":
            yield best(saved)
        elif number.isascii() and number.isdigit():
            if int(number) not in saved:
                has = ", ".join(map(str, saved))
                raise UserError(f"--checkpoints: {where} has no checkpoint at step {int(number)}; it has {has}")
            yield int(number)
        else:
            raise UserError(f"--checkpoints: {word!r} is not last, best, all, base or a step number")


def dev_rows(run: RunDirectory, split: str | None = None) -> dict[int, dict[str, Any]]:
    """Step -> the last evaluation on dev questions that training made there."""
    rows = [row for row in read_rows(run.path / "evals.jsonl") if row.get("role") == "dev"]
    return {row["step"]: row for row in rows if split is None or row.get("split") == split}


def best_on_dev(run: RunDirectory, among: Sequence[int]) -> int:
    """The step whose evaluation on dev questions during training was best. Raises UserError where there is none."""
    rows = {step: row for step, row in dev_rows(run).items() if step in among}
    if not rows:
        raise UserError(f"--checkpoints best: {run.path} has no evaluation at a saved checkpoint; use last or all")
    return max(sorted(rows), key=lambda step: score(rows[step]))


# ------------------------------------------------------------------------------------------------------- evaluating


@dataclass(frozen=True, slots=True)
class Control:
    """Deviations from how the run was trained to be read."""

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
    """Every target on the same questions. Readings are kept under `store` as they come: an interrupted evaluation continues.

    `choose`: evaluate on the selection split too, where a best checkpoint is to be chosen and training left no
    comparable evaluations of all of them.
    """
    results: list[Result] = []
    steps = [target.step for target in targets if target.step is not None]
    for target, setup in prepared(targets):
        loaded = target.load(setup, split, limit)
        examples = list(loaded.examples)
        # one temperature for all checkpoints, that of the end of training: rows must be comparable
        how = control.apply(how_evaluated(setup.config, setup.prompter.style, step=setup.config.training.steps))
        done, label = _evaluate_one(target, setup, examples, split, how, store, counting)
        dev = None
        if choose and len(steps) > 1 and target.step is not None and chosen_in_training(target, steps, split, how) is None:
            dev = _evaluate_dev(target, setup, examples, split, how, store, counting)
        notes = (*loaded.notes, *_warnings(target, examples, split))
        results.append(Result(target.checkpoint, target.step or 0, done, label, dev, notes, loaded.skipped))
        if target.run is not None:
            _record(target, split, done)
        del setup  # the next one may not fit beside it
    return results


def prepared(targets: Sequence[Target]) -> Iterator[tuple[Target, Setup]]:
    """Each target loaded; where only the adapter's weights change, only they are read."""
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
    with counting(f"{target.checkpoint} on {split}", len(examples)) if counting else nullcontext() as advance:

        def keep(batch: list[Reading]) -> None:
            if kept is not None:
                kept.add(batch)
            if advance is not None:
                advance(len(batch))

        if advance is not None:
            advance(len(known))
        todo = [example for example in examples if example.id not in known]
        if todo:
            size = setup.config.evaluation.batch_size
            fresh = evaluate(setup.lm, setup.sampler(), setup.prompter, todo, how, batch_size=size, on_batch=keep)
            known |= {reading.id: reading for reading in fresh.readings}
    return Evaluation([known[example.id] for example in examples], how, setup.task.extractors), label


def _evaluate_dev(
    target: Target,
    setup: Setup,
    reported: Sequence[Example],
    split: str,
    how: How,
    store: Path | None,
    counting: Counting | None,
) -> Evaluation | None:
    """On the selection split; None where there is none apart from the reported questions."""
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
    picked = {step: rows[step] for step in steps if step in rows and rows[step].get("how") == wanted}
    return picked if len(picked) == len(steps) and len({row["n"] for row in picked.values()}) == 1 else None


def label_of(target: Target, setup: Setup, split: str, how: How) -> Label:
    """What readings of `target` made as `how` says are about."""
    config = setup.config
    folders = [path for path in (Path(resolve(config.model)).expanduser(), target.adapter) if path is not None and path.is_dir()]
    commit = getattr(setup.lm.causal_lm.config, "_commit_hash", None) or ""
    return Label(
        checkpoint=target.checkpoint,
        step=target.step or 0,
        split=split,
        task=config.task,
        task_options=dict(config.task_options),
        data=str(Path(config.data.path).expanduser().resolve()) if config.data.path else None,
        whole_files=not target.own_questions,
        model=config.model,
        weights=commit + weights_identity(folders),
        how=how,
    )


def _warnings(target: Target, examples: Sequence[Example], split: str) -> list[str]:
    """Another task than the one trained on; questions that were trained on."""
    trained, config = target.trained, target.config
    if trained is None:
        return []
    found = [f"trained on {trained.task}, evaluated on {config.task}"] if trained.task != config.task else []
    if target.own_questions and split == trained.data.train_split:
        return [*found, f"these are the questions of the {split} split, which the run was trained on: this is not a test"]
    if target.own_questions and split in ("dev", "test"):
        return found  # the loader keeps them apart from train
    try:
        train = load_examples(trained, get_task(trained.task, trained.task_options), trained.data.train_split)
    except UserError as error:
        return [*found, f"not checked for training questions: {error}"]
    if is_endless(train.examples):
        return found
    keys = {question_key(example) for example in train.examples}
    seen = sum(question_key(example) in keys for example in examples)
    if seen:
        found.append(f"{seen} of {len(examples)} questions are in the run's training split: this is not a test")
    return found


def _record(target: Target, split: str, done: Evaluation) -> None:
    """A row of evals.jsonl, unless it, or the same on more questions, stands there. Questions that are not the run's say so."""
    assert target.run is not None
    row = {"step": target.step or 0, "role": "test", "split": split, "checkpoint": target.checkpoint, **done.summary()}
    if not target.own_questions:
        path = target.config.data.path
        row["how"] = {**row["how"], "task": target.config.task, "data": path}
    row = json.loads(json.dumps(row))
    same = ("step", "role", "split", "checkpoint", "how")
    rows = [old for old in read_rows(target.run.path / "evals.jsonl") if all(old.get(key) == row[key] for key in same)]
    if row not in rows and all(old["n"] <= row["n"] for old in rows):
        target.run.append("evals.jsonl", [row])


def rescore_targets(
    store: Path, split: str, checkpoints: Sequence[str] | None, run: RunDirectory | None, dev_split: str
) -> list[Result]:
    """Kept readings of a split read again by the extractors as they are now, in step order; nothing is generated.

    `checkpoints`: only these. Results may differ in how they were made: `Result.label` tells. Kept readings of the
    selection split come along.
    """
    kept = rescore(store)
    found = [one for one in kept if one.label.split == split and (checkpoints is None or one.label.checkpoint in checkpoints)]
    if not found:
        there = ", ".join(sorted({f"{one.label.checkpoint} on {one.label.split}" for one in kept}))
        raise UserError(f"--rescore: nothing kept of what was asked for ({split} split); there is {there}")
    found.sort(key=lambda one: (one.label.comparable, one.label.checkpoint != BASE, one.label.step))
    for one in found if run is not None else ():
        _record_again(run, one)
    dev = {replace(one.label, split=split).file: one.evaluation for one in kept if one.label.split == dev_split != split}
    return [Result(one.label.checkpoint, one.label.step, one.evaluation, one.label, dev.get(one.label.file)) for one in found]


def _record_again(run: RunDirectory | None, one: Stored) -> None:
    """The new scores of kept readings, as a row of evals.jsonl, where they differ from what stands there."""
    assert run is not None
    trained = build_config(load_yaml(run.config), source=str(run.config))
    data = {"path": one.label.data}
    update = {"task": one.label.task, "task_options": one.label.task_options, "data": trained.data.model_copy(update=data)}
    target = Target(str(run.path), trained.model_copy(update=update), run, one.label.step or None, trained=trained)
    if one.label.checkpoint != BASE and target.step is None:
        target = replace(target, step=0)
    if one.label.split != trained.data.dev_split:
        _record(target, one.label.split, one.evaluation)
