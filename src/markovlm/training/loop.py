"""Training from the first question to the last checkpoint."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markovlm.config import RunConfig
from markovlm.errors import MarkovlmError, PeerLost, RunFailed
from markovlm.models.fingerprint import base_fingerprint
from markovlm.rollouts.types import Sampler
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import CannotWrite, read_rows
from markovlm.texts.markup import curve_svg, html_table
from markovlm.training.distributed import World
from markovlm.training.keeping import checkpoint, evaluate_dev, judge_evaluation, judge_row, keeps_checkpoint
from markovlm.training.metrics import metric_row, sample_rows
from markovlm.training.start import close_sampler, start_run
from markovlm.training.state import Progress, Run, Silent, note_event
from markovlm.training.step import take_step
from markovlm.training.tracking import tracking

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Where a run is, and its result."""

    run: Path
    steps: int
    seconds: float
    best_step: int | None
    interrupted: bool

    def to_frame(self) -> pl.DataFrame:
        """One row per step: metrics.jsonl (docs/run-directory.md)."""
        import polars as pl

        return pl.DataFrame(list(read_rows(self.run / "metrics.jsonl")), infer_schema_length=None, strict=False)

    def _repr_html_(self) -> str:
        rows = list(read_rows(self.run / "metrics.jsonl"))
        table = html_table(
            str(self.run), ["steps", "seconds", "best step"], [(self.steps, round(self.seconds, 1), self.best_step)]
        )
        return table + curve_svg([row.get("reward_mean") for row in rows], "mean reward of a step, nats per answer token")


def train(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    sampler: Sampler | None = None,
    check: bool = True,
    stop: Callable[[], bool] | None = None,
) -> TrainResult:
    """Train in the run directory `out`: a new run, or with `resume` the one that is there (`config` then is its own).

    `stop` is asked after every step: True ends the run there, with a checkpoint. Raises UserError for what can't be started, RunFailed
    for what failed during training; finished work is on disk either way.
    """
    started = time.perf_counter()
    world = World()
    directory = RunDirectory(out)
    if world.is_main and not resume:
        directory.create()
    with directory.locked() if world.is_main else contextlib.nullcontext():
        try:
            run = start_run(config, directory, world, resume, (progress if world.is_main else None) or Silent(), sampler, check)
        except BaseException:
            if world.is_main and not resume:
                directory.discard()
            raise
        try:
            run.asked_to_stop = stop or run.asked_to_stop
            with _interruptible(run), tracking(run):
                _loop(run)
            _check_base(run)
        except CannotWrite as error:
            kept = f"finished work is kept: {error.remedy} and continue with --resume {directory.path}"
            raise RunFailed(f"{error.failure}; {kept}") from error
        finally:
            close_sampler(run)
            world.stop()
        interrupted = run.step < config.training.steps
        note_event(run, "interrupted" if interrupted else "end", f"after step {run.step} of {config.training.steps}")
    best = run.best["step"] if run.best else None
    return TrainResult(directory.path, run.step, time.perf_counter() - started, best, interrupted)


def _loop(run: Run) -> None:
    try:
        _steps(run)
    except PeerLost as error:  # in whichever collective it was noticed
        if run.main:
            run.directory.event("failed", run.step, str(error))
        raise


def _steps(run: Run) -> None:
    training = run.config.training
    run.progress.start(training.steps, run.step)
    if run.step == 0 and not run.saved:
        evaluate_dev(run)
        checkpoint(run)
    while run.step < training.steps and not _stopped(run):
        began = time.perf_counter()
        step = run.step + 1
        before = run.learner.objective.state_dict()
        try:
            result = take_step(run.learner, run.questions.of_step(step, run.config.rollouts.questions_per_step), step)
        except PeerLost:
            raise
        except Exception as error:  # a plug-in's, a driver's: whatever it is, the steps before it are kept
            _failed(run, error, before)
            raise
        row = metric_row(run.config, result, run.setup.prompter.text, step, time.perf_counter() - began, run.learner.lr_scale)
        run.step = step
        _log_step(run, row, result)
        if judge_row(run, row):
            continue
        if training.eval_every and (step % training.eval_every == 0 or step == training.steps) and judge_evaluation(run):
            continue
        if keeps_checkpoint(run, step):
            checkpoint(run)
    checkpoint(run)


def _failed(run: Run, error: Exception, before: dict[str, Any]) -> None:
    """Note why a step failed, on the process where it did, and save the whole steps before it where they are still at hand."""
    expected = isinstance(error, MarkovlmError)
    run.directory.event("failed", run.step, str(error) if expected else f"{type(error).__name__}: {error}")
    run.learner.objective.load_state_dict(before)
    if run.learner.objective.passes == 1:  # else part of the step may be applied already
        with contextlib.nullcontext() if expected else contextlib.suppress(Exception):  # what is broken may break this too
            checkpoint(run)


def _log_step(run: Run, row: dict[str, Any], result: Any) -> None:
    if not run.main:
        return
    every = run.config.logging.samples_every
    if every and (row["step"] % every == 0 or row["step"] == 1):
        run.directory.append("samples.jsonl", sample_rows(result, run.setup.prompter.text, row["step"]))
    run.directory.append("metrics.jsonl", [row])
    if result.splits:
        note_event(run, "retry", f"out of memory: the work was split {result.splits} times and repeated on the same data")
    if run.trackers is not None:
        run.trackers.log({key: value for key, value in row.items() if value is not None}, step=row["step"])
    run.progress.step(row)


def _check_base(run: Run) -> None:
    """The frozen policy is the model one started from: its weights have the same bits."""
    if base_fingerprint(run.setup.lm) != run.fingerprint:
        raise RunFailed("the base weights changed during training, so the frozen policy was not frozen; do not use this run")


def _stopped(run: Run) -> bool:
    """Has any process been asked to stop?"""
    return any(run.learner.world.gather([run.stop.is_set() or run.asked_to_stop()]))


@contextlib.contextmanager
def _interruptible(run: Run) -> Iterator[None]:
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
