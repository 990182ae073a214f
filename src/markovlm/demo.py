"""The whole method in one go: evaluate, train, evaluate again, study the CoTs, report. Minutes with a bundled model."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markovlm.analysis.loadbearing import Found, Request, default_readers, run_studies
from markovlm.analysis.perturb import Plan
from markovlm.config import RunConfig
from markovlm.errors import MarkovlmError
from markovlm.evaluation.compare import paired
from markovlm.evaluation.run import Control, Result, evaluate_targets
from markovlm.models.registry import EMBEDDED, peers
from markovlm.report import write_report
from markovlm.runs.directory import RunDirectory
from markovlm.runs.targets import BASE, Target
from markovlm.training.loop import train
from markovlm.training.state import Progress

Counting = Callable[[str, int], Any]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is evaluated and studied."""

    test_questions: int
    studied_questions: int
    damage: Plan
    explained: int  # CoTs of the map of the load
    every_checkpoint: bool = True  # other readers get the CoTs of all checkpoints; else of the base and the last


SMALL = Scale(500, 50, Plan(("delete", "truncate_back", "digit_replace")), 25)
REAL = Scale(200, 60, Plan(("delete", "truncate_back", "digit_replace"), (0.4, 1.0)), 4, every_checkpoint=False)


def scale_of(model: str) -> Scale:
    """The scale for a model: one that does not ship with the package is a hundred times as large."""
    return SMALL if model in EMBEDDED else REAL


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Base and trained model on the same held-out questions."""

    run: Path
    seconds: float  # training and both evaluations
    steps: int
    base: Result
    trained: Result
    studies: Found  # of the trained model's CoTs
    report: Path  # report.html
    total_seconds: float  # studies and report too
    intervened: dict[str, dict[str, Any]] | None = None  # "base" and "trained" -> result of `analysis.intervention`

    def to_json(self) -> dict[str, Any]:
        """The object that `markovlm demo --json` prints."""
        return {
            "run": str(self.run),
            "seconds": self.seconds,
            "steps": self.steps,
            "base": _summary(self.base),
            "trained": _summary(self.trained),
            "loadbearing": {name: result for name, result in self.studies.results.items() if name != "explain"},
            "report": str(self.report),
            "total_seconds": self.total_seconds,
            "difference": self.difference(),
            **({"intervention": self.intervened} if self.intervened is not None else {}),
        }

    def difference(self) -> dict[str, Any]:
        """Trained minus base, paired by question, with intervals (as `markovlm eval --baseline`)."""
        return paired(self.trained.evaluation, self.base.evaluation, self.trained.evaluation.how.seed)

    def changed_example(self) -> int:
        """Index of a question that the base got wrong and the trained model right; otherwise of the first."""
        pairs = zip(self.base.evaluation.readings, self.trained.evaluation.readings, strict=True)
        method = self.base.evaluation.extractors[0]
        return next((i for i, (b, t) in enumerate(pairs) if t.correct[method] and not b.correct[method]), 0)


def _summary(result: Result) -> dict[str, Any]:
    summary = result.evaluation.summary()
    return {key: summary[key] for key in ("accuracy", "ci95", "n")}


def demo(
    config: RunConfig,
    out: Path,
    progress: Progress,
    counting: Counting | None = None,
    *,
    intervene: bool = False,
    scale: Scale | None = None,
    resume: bool = False,
) -> DemoResult:
    """Run the demo in the run directory `out`, which will hold everything that it finds.

    `intervene`: also change a number of the base model's CoTs, to compare with the effect after training. `resume`: continue the
    interrupted demo in `out` (`config` is its own): no step, reading or variant is computed twice. Raises MarkovlmError if training is
    interrupted.
    """
    started = time.perf_counter()
    counting = counting or (lambda label, total: nullcontext())
    scale = scale or scale_of(config.model)
    trained_run = train(config, out, progress=progress, resume=resume)
    if trained_run.interrupted:
        raise MarkovlmError(f"interrupted after step {trained_run.steps}; continue with: markovlm demo --resume {out}")
    run = RunDirectory(out)
    targets = [Target(str(out), config, run, step) for step in (None, trained_run.steps)]
    evaluations = out / "evaluations"
    base, trained = evaluate_targets(targets, config.data.test_split, scale.test_questions, Control(), evaluations, counting)
    assert base.checkpoint == BASE
    seconds = time.perf_counter() - started
    asked = _study(config, run, targets[-1], scale)
    studies = run_studies(asked, counting)
    intervened = None
    if intervene:
        before = run_studies(replace(asked, target=targets[0], parts=("intervention",)), counting)
        intervened = {"base": before.results["intervention"], "trained": studies.results["intervention"]}
    report = write_report([out], out / "report").html
    total = time.perf_counter() - started
    return DemoResult(out, seconds, trained_run.steps, base, trained, studies, report, total, intervened)


def _study(config: RunConfig, run: RunDirectory, last: Target, scale: Scale) -> Request:
    """Every study at a modest n."""
    steps = [step for step in run.saved_steps() if step != 0] if scale.every_checkpoint else [last.step]
    checkpoints = tuple(Target(last.name, config, run, step) for step in (None, *steps))
    return Request(
        last,
        checkpoints=checkpoints,
        readers=default_readers(checkpoints, peers(config.model)),
        split=config.data.test_split,
        limit=scale.studied_questions,
        plan=scale.damage,
        explained=scale.explained,
    )
