"""Training from the first question to the last checkpoint."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from markovlm import __version__
from markovlm.config import RunConfig, build_config, dump_yaml, flatten, load_yaml
from markovlm.errors import PeerLost, RunFailed, StopVerdict, UserError
from markovlm.evaluation.evaluate import Evaluation, evaluate, how_evaluated
from markovlm.models.fingerprint import base_fingerprint
from markovlm.objectives import build_objective
from markovlm.rollouts.types import Sampler
from markovlm.runs.checkpoint import load_adapter, load_state, restore_optimizer, save_checkpoint, update_state
from markovlm.runs.directory import RunDirectory
from markovlm.runs.setup import Setup, load_for_training, prepare
from markovlm.tasks.base import Example, Loaded
from markovlm.training.distributed import World
from markovlm.training.guard import Guard, doubts
from markovlm.training.metrics import metric_row, sample_rows
from markovlm.training.questions import Questions
from markovlm.training.selfcheck import check_sampler
from markovlm.training.step import Learner, take_step

_SHOWN_SKIPS = 5
_CHANGEABLE = {  # on resume, besides logging
    "loading.device",
    "training.steps",
    "training.eval_every",
    "training.checkpoint_every",
    "training.microbatch_tokens",
}


class Progress(Protocol):
    """Who watches a run; every method may do nothing."""

    def start(self, steps: int, done: int) -> None: ...
    def step(self, row: dict[str, Any]) -> None: ...
    def evaluation(self, row: dict[str, Any]) -> None: ...
    def note(self, message: str) -> None: ...


class Silent:
    """Watches nothing."""

    def start(self, steps: int, done: int) -> None: ...
    def step(self, row: dict[str, Any]) -> None: ...
    def evaluation(self, row: dict[str, Any]) -> None: ...
    def note(self, message: str) -> None: ...


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Where a run is and what it came to."""

    run: Path
    steps: int
    seconds: float
    best_step: int | None
    interrupted: bool


@dataclass(slots=True)
class _Run:
    """A run in progress on this process."""

    directory: RunDirectory
    setup: Setup
    learner: Learner
    questions: Questions
    dev: list[Example]
    fingerprint: str
    progress: Progress  # silent on all processes but the main one
    guard: Guard
    best: dict[str, Any] | None = None
    trackers: Any = None
    step: int = 0  # last step that is whole
    saved: set[int] = field(default_factory=set[int])  # steps with a checkpoint
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def config(self) -> RunConfig:
        return self.setup.config

    @property
    def main(self) -> bool:
        return self.learner.world.is_main


def train(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    sampler: Sampler | None = None,
    check: bool = True,
) -> TrainResult:
    """Train in the run directory `out`: a new run, or with `resume` the one that is there (`config` then is its own).

    Raises UserError for what can't be started, RunFailed for what broke on the way; finished work is on disk either way.
    """
    started = time.perf_counter()
    world = World()
    directory = RunDirectory(out)
    if world.is_main and not resume:
        directory.create()
    with directory.locked() if world.is_main else contextlib.nullcontext():
        try:
            run = _start(config, directory, world, resume, (progress if world.is_main else None) or Silent(), sampler)
        except BaseException:
            if world.is_main and not resume:
                directory.discard()
            raise
        try:
            with _interruptible(run), _trackers(run):
                if check:
                    gap = check_sampler(run.learner, run.questions.of_step(run.step + 1, 2), run.step + 1)
                    _event(run, "check", "sampler and scorer agree", mean_gap=gap)
                _loop(run)
            _check_base(run)
        finally:
            world.stop()
        interrupted = run.step < config.training.steps
        _event(run, "interrupted" if interrupted else "end", f"after step {run.step} of {config.training.steps}")
    best = run.best["step"] if run.best else None
    return TrainResult(directory.path, run.step, time.perf_counter() - started, best, interrupted)


# ----------------------------------------------------------------------------------------------------------- start


def _start(
    config: RunConfig, directory: RunDirectory, world: World, resume: bool, progress: Progress, sampler: Sampler | None
) -> _Run:
    if config.rollouts.questions_per_step < world.size:
        raise UserError(
            f"rollouts.questions_per_step ({config.rollouts.questions_per_step}) must be at least the number of processes ({world.size})"
        )
    directory.clear_leftovers() if world.is_main else None
    saved = directory.saved_steps() if resume else []
    step = saved[-1] if saved else 0
    adapter = directory.checkpoint(step) if saved else None
    local = (
        f"cuda:{world.local_rank}"
        if world.size > 1 and config.loading.device in ("auto", "cuda") and torch.cuda.is_available()
        else None
    )
    setup = prepare(config, adapter=adapter, trainable=True, local_device=local)
    world.start(setup.lm.device.type)
    directory.path = world.broadcast(directory.path)  # a default --out is a random name, drawn by each process
    learner = _learner(setup, world, sampler)
    data = load_for_training(setup)
    dev_examples = list(data.dev.examples) if data.dev else []
    questions = Questions(data.train.examples, setup.config.seed)
    guard = Guard(setup.config.health)
    run = _Run(directory, setup, learner, questions, dev_examples, base_fingerprint(setup.lm), progress, guard, step=step)
    if resume:
        _restore(run, adapter)
    else:
        _describe(run)
    _warn_at_start(run, [loaded for loaded in (data.train, data.dev) if loaded is not None])
    return run


def _warn_at_start(run: _Run, loaded: list[Loaded]) -> None:
    """Once: doubtful settings, what stands in for a split, rows that were left out."""
    for message in doubts(run.config):
        _warn(run, message)
    for note in dict.fromkeys(note for part in loaded for note in part.notes):
        _warn(run, note)
    skipped = [line for part in loaded for line in part.skipped]
    for line in skipped[:_SHOWN_SKIPS]:
        _warn(run, f"skipped: {line}")
    if len(skipped) > _SHOWN_SKIPS:
        _warn(run, f"skipped: {len(skipped) - _SHOWN_SKIPS} more rows")


def _learner(setup: Setup, world: World, sampler: Sampler | None) -> Learner:
    config = setup.config
    parameters = [parameter for _, parameter in setup.lm.adapter_parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=config.training.weight_decay)
    sharing = config.training.prompt_sharing
    if sharing == "auto":
        sharing = "padded" if config.loading.gradient_checkpointing else "shared"
    return Learner(
        config, setup.lm, setup.prompter, sampler or setup.sampler(), build_objective(config.objective), optimizer, world, sharing
    )


def _describe(run: _Run) -> None:
    """config.yaml and environment.json of a new run."""
    if not run.main:
        return
    run.directory.write("environment.json", json.dumps(environment(run.setup, run.fingerprint), indent=1) + "\n")
    run.directory.write("config.yaml", dump_yaml(run.config))
    _event(run, "start", f"{run.config.objective.name} on {run.config.task} with {run.config.model}")


def _restore(run: _Run, adapter: Path | None) -> None:
    """Continue from the checkpoint `adapter`, or from the beginning where a run died before its first."""
    recorded = _recorded_fingerprint(run.directory)
    if recorded is not None and recorded != run.fingerprint:
        raise UserError(
            f"{run.directory.path}: the base model {run.config.model!r} is not the one this run was trained on "
            f"(fingerprint {run.fingerprint[:12]}, recorded {recorded[:12]}); restore that model to resume"
        )
    if adapter is not None:
        _load_trainer_state(run, adapter)
    if run.main:
        if run.guard.rollbacks and not run.directory.is_put_aside(run.guard.rollbacks):  # killed in the middle of a rollback
            run.directory.put_aside(run.step, run.guard.rollbacks)
        dropped = run.directory.cut_after(run.step if adapter is not None else -1)
        if not (run.directory.path / "environment.json").exists():
            _describe(run)
        _event(run, "resume", f"from step {run.step}", rows_dropped=dropped)


def _load_trainer_state(run: _Run, checkpoint: Path) -> None:
    """Everything of a checkpoint but the adapter."""
    state = load_state(checkpoint)
    restore_optimizer(checkpoint, run.learner.optimizer, run.setup.lm.device)
    run.learner.objective.load_state_dict(state["objective"])
    run.learner.lr_scale, run.learner.attempt = state["lr_scale"], state["attempt"]
    run.saved = {step for step in run.directory.saved_steps() if step <= state["step"]}
    run.guard.load_state_dict(state["guard"])
    run.best = state["best"]


def _trainer_state(run: _Run) -> dict[str, Any]:
    """The inverse of `_load_trainer_state`, without the optimizer."""
    return {
        "objective": run.learner.objective.state_dict(),
        "lr_scale": run.learner.lr_scale,
        "attempt": run.learner.attempt,
        "guard": run.guard.state_dict(),
        "best": run.best,
        "base_fingerprint": run.fingerprint,
    }


def _recorded_fingerprint(directory: RunDirectory) -> str | None:
    try:
        return json.loads((directory.path / "environment.json").read_text(encoding="utf-8")).get("base_fingerprint")
    except (OSError, ValueError):
        return None


def resumed_config(out: Path, overrides: dict[str, Any]) -> RunConfig:
    """The configuration of the run in `out`. Only `training.steps` and what changes no number may be overridden."""
    if not out.exists():
        raise UserError(f"--resume {out}: does not exist; name a run directory")
    if not out.is_dir():
        raise UserError(f"--resume {out}: is a file; name a run directory")
    path = out / "config.yaml"
    if not path.exists():
        raise UserError(f"--resume {out}: has no config.yaml, so it is not a run (or died before it began); start it anew")
    for key in flatten(overrides):
        if key not in _CHANGEABLE and not key.startswith("logging."):
            raise UserError(f"--resume keeps the run's configuration: {key} can't be changed; start a new run for that")
    return build_config(load_yaml(path), overrides, source=str(path))


def environment(setup: Setup, fingerprint: str) -> dict[str, Any]:
    """What a run depended on: versions, machine, seed, base model."""
    import accelerate
    import peft
    import transformers

    return {
        "markovlm": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "accelerate": accelerate.__version__,
        "platform": platform.platform(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "torch_threads": torch.get_num_threads(),
        "device": str(setup.lm.device),
        "device_name": torch.cuda.get_device_name(setup.lm.device) if setup.lm.device.type == "cuda" else platform.processor(),
        "dtype": str(next(setup.lm.causal_lm.parameters()).dtype).removeprefix("torch."),
        "seed": setup.config.seed,
        "model": setup.config.model,
        "base_fingerprint": fingerprint,
        "trainable_parameters": sum(p.numel() for _, p in setup.lm.adapter_parameters()),
    }


# ------------------------------------------------------------------------------------------------------------ loop


def _loop(run: _Run) -> None:
    try:
        _steps(run)
    except PeerLost as error:  # in whichever collective it was noticed
        if run.main:
            run.directory.event("failed", run.step, str(error))
        raise


def _steps(run: _Run) -> None:
    training = run.config.training
    run.progress.start(training.steps, run.step)
    if run.step == 0 and not run.saved:
        _evaluate(run)
        _checkpoint(run)
    while run.step < training.steps and not _stopped(run):
        began = time.perf_counter()
        step = run.step + 1
        before = run.learner.objective.state_dict()
        try:
            result = take_step(run.learner, run.questions.of_step(step, run.config.rollouts.questions_per_step), step)
        except PeerLost:
            raise
        except RunFailed as error:
            _failed(run, error, before)
            raise
        row = metric_row(run.config, result, run.setup.prompter.text, step, time.perf_counter() - began, run.learner.lr_scale)
        run.step = step
        _log_step(run, row, result)
        if _judge(run, row):
            continue
        if training.eval_every and (step % training.eval_every == 0 or step == training.steps):
            _evaluate(run)
        if _keeps(run, step):
            _checkpoint(run)
    _checkpoint(run)


def _keeps(run: _Run, step: int) -> bool:
    """Does `step` get a checkpoint?"""
    return step % run.config.training.checkpoint_every == 0 or step == run.config.training.steps


def _failed(run: _Run, error: RunFailed, before: dict[str, Any]) -> None:
    """Note why a step failed, on the process where it did, and save the whole steps before it where they are still at hand."""
    run.directory.event("failed", run.step, str(error))
    run.learner.objective.load_state_dict(before)
    if run.learner.objective.passes == 1:  # else part of the step may be applied already
        _checkpoint(run)


def _log_step(run: _Run, row: dict[str, Any], result: Any) -> None:
    if not run.main:
        return
    every = run.config.logging.samples_every
    if every and (row["step"] % every == 0 or row["step"] == 1):
        run.directory.append("samples.jsonl", sample_rows(result, run.setup.prompter.text, row["step"]))
    run.directory.append("metrics.jsonl", [row])
    if result.splits:
        _event(run, "retry", f"out of memory: the work was split {result.splits} times and repeated on the same data")
    if run.trackers is not None:
        run.trackers.log({key: value for key, value in row.items() if value is not None}, step=row["step"])
    run.progress.step(row)


def _judge(run: _Run, row: dict[str, Any]) -> bool:
    """Let the guard see a row. True where it took the run back; raises StopVerdict where it ends it."""
    guard = run.guard
    if guard.see(row):
        assert guard.verdict is not None
        evidence = [asdict(signal) for signal in guard.verdict.signals]
        _event(run, "verdict", guard.verdict.describe(), verdict=guard.verdict.verdict, signals=evidence)
        run.progress.note(f"health: {guard.verdict.describe()}")
    if not guard.collapsed or guard.config.policy == "warn":
        return False
    assert guard.verdict is not None
    saved = run.directory.saved_steps()
    target = guard.way_back(saved)
    if target is not None:
        _roll_back(run, target)
        return True
    _checkpoint(run)
    good = guard.last_healthy(saved)
    healthy = "no checkpoint was healthy" if good is None else f"the last healthy checkpoint is step {good}"
    message = f"{run.directory.path}: stopped by health.policy={guard.config.policy}: {guard.verdict.describe()}; {healthy}"
    _event(run, "stopped", message)
    raise StopVerdict(message)


def _roll_back(run: _Run, target: int) -> None:
    """Return to the checkpoint `target` at half the learning rate; what came after it is put aside, not lost."""
    collapsed_at, verdict = run.step, run.guard.verdict
    rollbacks = run.guard.rollbacks + 1
    scale, attempt = run.learner.lr_scale / 2, run.learner.attempt + 1
    checkpoint = run.directory.checkpoint(target)
    load_adapter(run.setup.lm, checkpoint)
    _load_trainer_state(run, checkpoint)
    run.guard.rollbacks, run.learner.lr_scale, run.learner.attempt = rollbacks, scale, attempt
    run.step = target
    if run.main:
        update_state(checkpoint, _trainer_state(run))  # first: a kill from here on resumes after the rollback, or repeats it
        run.directory.put_aside(target, rollbacks)
    message = f"from step {collapsed_at} back to step {target}, learning rate times {scale:g} ({rollbacks} of {run.config.health.max_rollbacks})"
    _event(run, "rollback", message, from_step=collapsed_at, lr_scale=scale, reason=verdict.describe() if verdict else "")
    run.progress.note(f"rollback: {message}")


def _evaluate(run: _Run) -> None:
    """Dev accuracy of the policy as it is, the questions dealt over the processes; a new best is recorded."""
    if not run.dev:
        return
    began = time.perf_counter()
    config, world = run.config, run.learner.world
    how = how_evaluated(config, run.setup.prompter.style, step=run.step)
    mine = evaluate(
        run.setup.lm, run.learner.sampler, run.setup.prompter, world.share(run.dev), how, batch_size=config.evaluation.batch_size
    )
    done = Evaluation(world.gather(mine.readings), how, mine.extractors)
    if not run.main:
        return
    row = {
        "step": run.step,
        "role": "dev",
        "split": config.data.dev_split,
        "checkpoint": f"step-{run.step:06d}",
        **done.summary(),
    }
    row["evaluation_seconds"] = time.perf_counter() - began
    run.directory.append("evals.jsonl", [row])
    if run.trackers is not None:
        run.trackers.log({"dev_accuracy": row["accuracy"], "dev_logprob": row["logprob"]}, step=run.step)
    # accuracy decides; for text answers, and between equals, the log-likelihood does
    score = [row["accuracy"] or 0.0, row["logprob"]]
    if _keeps(run, run.step) and (run.best is None or score > run.best["score"]):  # the best *checkpoint*
        run.best = {"step": run.step, "score": score, "accuracy": row["accuracy"], "logprob": row["logprob"]}
        accuracy = "" if row["accuracy"] is None else f"accuracy {row['accuracy']:.3f}, "
        message = f"{config.data.dev_split} {accuracy}answer log-likelihood {score[1]:.3f} (n={row['n']})"
        _event(run, "best", message, accuracy=row["accuracy"], logprob=row["logprob"])
    run.progress.evaluation(row)


def _checkpoint(run: _Run) -> None:
    """Save the last whole step, unless it is saved."""
    if run.step in run.saved:
        return
    run.saved.add(run.step)
    run.guard.saved(run.step)
    if run.main:
        path = save_checkpoint(run.directory, run.step, run.setup.lm, run.learner.optimizer, _trainer_state(run))
        _event(run, "checkpoint", str(path.relative_to(run.directory.path)))


def _check_base(run: _Run) -> None:
    """The frozen policy is the model one started from: its weights have the same bits."""
    if base_fingerprint(run.setup.lm) != run.fingerprint:
        raise RunFailed("the base weights changed during training: the frozen policy was not frozen; do not use this run")


def _event(run: _Run, kind: str, message: str, **details: Any) -> None:
    if run.main:
        run.directory.event(kind, run.step, message, **details)


def _warn(run: _Run, message: str) -> None:
    _event(run, "warning", message)
    run.progress.note(message)


def _stopped(run: _Run) -> bool:
    """Has any process been asked to stop?"""
    return any(run.learner.world.gather([run.stop.is_set()]))


@contextlib.contextmanager
def _interruptible(run: _Run) -> Iterator[None]:
    """Ctrl-C (or SIGTERM) ends the run after the step in progress, with a checkpoint; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if run.stop.is_set():
            raise KeyboardInterrupt
        run.stop.set()
        run.progress.note(f"stopping after step {run.step + 1}; the run resumes with --resume {run.directory.path}")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _trackers(run: _Run) -> Iterator[None]:
    """accelerate's experiment trackers, on the main process."""
    names = run.config.logging.trackers
    if not names or not run.main:
        yield
        return
    from accelerate import Accelerator

    try:
        run.trackers = Accelerator(
            cpu=run.setup.lm.device.type == "cpu", log_with=list(names), project_dir=str(run.directory.path)
        )
        run.trackers.init_trackers("markovlm", config={"run": run.directory.path.name})
    except (ImportError, ValueError) as error:
        raise UserError(f"logging.trackers: {', '.join(names)} cannot be used: {str(error).splitlines()[0]:.200}") from None
    try:
        yield
    finally:
        run.trackers.end_training()
