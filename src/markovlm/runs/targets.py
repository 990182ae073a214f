"""What a command operates on: a run and one of its checkpoints, foreign adapters, or a plain model.

Opening one does not import torch, so that what is missing is reported at once.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from markovlm.config import RunConfig, build_config, load_recorded
from markovlm.content import read_content
from markovlm.errors import UserError
from markovlm.models.gguf import gguf_file
from markovlm.models.registry import check_path, defaults_under, known_at
from markovlm.runs.asking import options_of, part_of, source_of
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import read_rows
from markovlm.tasks import get_task
from markovlm.tasks.base import Loaded

if TYPE_CHECKING:
    from markovlm.runs.setup import Setup

BASE = "base"
_MOST = 1 << 20  # bytes of a PEFT configuration
_FOREIGN = re.compile(r"(?:adapter|checkpoint|step)[-_]?(\d+)")  # adapter_1000, checkpoint-500


@dataclass(frozen=True, slots=True)
class Target:
    """What a command operates on: a run or a directory of adapters with one checkpoint, or a model without an adapter."""

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
        """Its name in evaluation rows."""
        if self.foreign is not None:
            return self.foreign.name
        return BASE if self.step is None else f"step-{self.step:06d}"

    @property
    def own_questions(self) -> bool:
        """Whether the questions are those of the run itself, whose splits must then be cut as in training."""
        if self.run is None:
            return False
        if self.trained is None:
            return True
        own = part_of(self.trained, self.config.task) if self.config.task in self.trained.tasks else self.trained
        return _questions(self.config) == _questions(own)

    def prepare(self) -> Setup:
        """Load it. A model that is no longer referenced is freed first: two may not fit in memory."""
        from markovlm.models.memory import release_memory
        from markovlm.runs.manifest import check_base
        from markovlm.runs.setup import prepare

        gc.collect()
        release_memory()
        setup = prepare(self.config, adapter=self.adapter)
        if self.run is not None:
            check_base(self.run, setup.lm)
        return setup

    def load(self, setup: Setup, split: str, limit: int | None = None) -> Loaded:
        """Examples of a split: cut as in training if the questions are the run's own, otherwise as the files have them."""
        return setup.load(split, limit, disjoint=self.own_questions)


def _questions(config: RunConfig) -> tuple[Any, ...]:
    return config.task, source_of(config), tuple(sorted(options_of(config).items(), key=lambda pair: pair[0]))


def sighted(target: Target) -> Target:
    """The same weights, read with the question visible whatever they were trained for."""
    return conditioned(target, "non_markovian")


def conditioned(target: Target, conditioning: Literal["markovian", "non_markovian"]) -> Target:
    """The same weights, read with the question hidden or visible whatever they were trained for."""
    objective = target.config.objective.model_copy(update={"conditioning": conditioning})
    return replace(target, config=target.config.model_copy(update={"objective": objective}))


def is_run(path: Path) -> bool:
    """Whether the path is a directory that training made."""
    return (path / "config.yaml").is_file() and (path / "checkpoints").is_dir()


# ---------------------------------------------------------------------------------------------------------- opening


def open_targets(name: str, checkpoints: str, overrides: dict[str, Any]) -> list[Target]:
    """Find out what `name` is: a run directory, a directory of PEFT adapters (or one adapter), or a model.

    `checkpoints` is last, best, all, base, or steps like 100,200. Raises UserError for what does not exist.
    """
    path = Path(name).expanduser()
    if is_run(path):
        return _run_targets(name, RunDirectory(path), checkpoints, overrides)
    if path.is_file() and gguf_file(name) is None:
        raise UserError(f"{name}: is a file, not a run directory, model directory, GGUF file or Hub id")
    adapters = foreign_adapters(path)
    if adapters:
        return _foreign_targets(name, adapters, checkpoints, overrides)
    if path.is_dir() and not (path / "config.json").exists() and gguf_file(name) is None:
        raise UserError(
            f"{name}: neither a run (config.yaml and checkpoints/), nor adapters (adapter_1000/adapter_config.json, ...), "
            "nor a model (config.json, or a GGUF file)"
        )
    check_path(name)
    if overrides.get("model", name) != name:
        raise UserError(f"--model {overrides['model']}: {name} is already the model; name one of them")
    for word in _words(checkpoints):
        if word not in ("last", "all", BASE):
            raise UserError(f"--checkpoints: {name} is a plain model and has no checkpoint {word!r}; leave the flag out")
    return [Target(name, build_config(defaults_under(overrides, {"model": name}), overrides, {"model": name}), None, None)]


def _run_targets(name: str, run: RunDirectory, checkpoints: str, overrides: dict[str, Any]) -> list[Target]:
    layer, source = load_recorded(run.config), str(run.config)
    trained = build_config(layer, source=source)
    if overrides.get("model", trained.model) != trained.model:
        raise UserError(f"--model {overrides['model']}: {name} was trained on {trained.model} and can only be evaluated with it")
    config = build_config(_for_task(layer, trained, overrides), overrides, source=source)
    steps = dict.fromkeys(_steps(str(run.path), run.saved_steps(), checkpoints, lambda saved: best_on_dev(run, saved)))
    return [Target(name, config, run, step, trained=trained) for step in steps]


def _for_task(layer: dict[str, Any], trained: RunConfig, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The run's configuration, less what belongs to its own task where another one is asked for.

    Of a run on several tasks: one of them, by default the first. The CoT budget stays that of the run; prompts are in the style the
    tokenizer is made for, and answers are read by the other task's extractors.
    """
    task = overrides.get("task", next(iter(trained.tasks), trained.task))
    if task in trained.tasks:
        return {**layer, **part_of(trained, task).model_dump(mode="json", include={"task", "tasks", "task_options", "data"})}
    if task == trained.task:
        return layer
    get_task(task)
    kept = {key: value for key, value in layer.items() if key not in ("task", "tasks", "task_options", "data")}
    if trained.evaluation.extractors:
        kept["evaluation"] = {key: value for key, value in layer["evaluation"].items() if key != "extractors"}
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
    config = build_config(defaults_under(overrides, {"model": model}), overrides, {"model": model})

    def refuse(_: Sequence[int]) -> int:
        raise UserError("--checkpoints best: these adapters have no evaluations yet; use all (the best is then chosen on dev)")

    steps = dict.fromkeys(_steps(name, list(adapters), checkpoints, refuse))
    return [Target(name, config, None, step, foreign=None if step is None else adapters[step]) for step in steps]


def _base_of(adapter: Path) -> str:
    path = adapter / "adapter_config.json"
    try:
        base = json.loads(read_content(path, _MOST)).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as a PEFT configuration ({' '.join(str(error).split()):.80})") from None
    if not base:
        raise UserError(f"{path}: does not name its base model; give it with --model")
    return known_at(str(base)) or str(base)


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
    """Step -> the last evaluation on dev questions during training at that step."""
    rows = [row for row in read_rows(run.path / "evals.jsonl") if row.get("role") == "dev"]
    return {row["step"]: row for row in rows if split is None or row.get("split") == split}


def best_on_dev(run: RunDirectory, among: Sequence[int]) -> int:
    """The step with the best evaluation on dev questions during training. Raises UserError if there is none."""
    rows = {step: row for step, row in dev_rows(run).items() if step in among}
    if not rows:
        raise UserError(f"--checkpoints best: {run.path} has no dev evaluation at a saved checkpoint; use last or all")
    return max(sorted(rows), key=lambda step: score(rows[step]))


def score(summary: Mapping[str, Any]) -> tuple[float, float]:
    """What checkpoints are chosen by: accuracy of the default extractor, then log-likelihood (the only one for free texts)."""
    return summary["accuracy"] or 0.0, summary["logprob"]
