"""The whole method on an embedded model, in minutes: evaluate, train, evaluate again, study the CoTs, report."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markovlm.analysis.fragility import Plan
from markovlm.analysis.loadbearing import Found, Request, default_readers, run_studies
from markovlm.config import RunConfig
from markovlm.errors import MarkovlmError
from markovlm.evaluation.run import Control, Result, evaluate_targets
from markovlm.models.registry import peers
from markovlm.report import write_report
from markovlm.runs.directory import RunDirectory
from markovlm.runs.targets import BASE, Target
from markovlm.training.loop import train
from markovlm.training.state import Progress

TEST_QUESTIONS = 500
STUDIED_QUESTIONS = 50
STUDIED_DAMAGE = Plan(("delete", "truncate_back", "digit_replace"))
Counting = Callable[[str, int], Any]


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
        """The shape that `markovlm demo --json` promises."""
        return {
            "run": str(self.run),
            "seconds": self.seconds,
            "steps": self.steps,
            "base": _summary(self.base),
            "trained": _summary(self.trained),
            "loadbearing": {name: result for name, result in self.studies.results.items() if name != "explain"},
            "report": str(self.report),
            "total_seconds": self.total_seconds,
            **({"intervention": self.intervened} if self.intervened is not None else {}),
        }

    def changed_example(self) -> int:
        """Index of a question that the base got wrong and the trained model right; else the first."""
        pairs = zip(self.base.evaluation.readings, self.trained.evaluation.readings, strict=True)
        method = self.base.evaluation.extractors[0]
        return next((i for i, (b, t) in enumerate(pairs) if t.correct[method] and not b.correct[method]), 0)


def _summary(result: Result) -> dict[str, Any]:
    summary = result.evaluation.summary()
    return {key: summary[key] for key in ("accuracy", "ci95", "n")}


def demo(
    config: RunConfig, out: Path, progress: Progress, counting: Counting | None = None, *, intervene: bool = False
) -> DemoResult:
    """Run it in the run directory `out`. Everything it finds is in that directory too.

    `intervene`: change a number of the base model's CoTs too, so that there is a before to what comes of it after training.
    """
    started = time.perf_counter()
    counting = counting or (lambda label, total: nullcontext())
    trained_run = train(config, out, progress=progress)
    if trained_run.interrupted:
        raise MarkovlmError(f"interrupted after step {trained_run.steps}; continue with: markovlm train --resume {out}")
    run = RunDirectory(out)
    targets = [Target(str(out), config, run, step) for step in (None, trained_run.steps)]
    base, trained = evaluate_targets(targets, config.data.test_split, TEST_QUESTIONS, Control(), out / "evaluations", counting)
    assert base.checkpoint == BASE
    seconds = time.perf_counter() - started
    asked = _small_study(config, run, targets[-1])
    studies = run_studies(asked, counting)
    intervened = None
    if intervene:
        before = run_studies(replace(asked, target=targets[0], parts=("intervention",)), counting)
        intervened = {"base": before.results["intervention"], "trained": studies.results["intervention"]}
    report = write_report([out], out / "report").html
    total = time.perf_counter() - started
    return DemoResult(out, seconds, trained_run.steps, base, trained, studies, report, total, intervened)


def _small_study(config: RunConfig, run: RunDirectory, last: Target) -> Request:
    """Every study at a modest n; the CoTs of all checkpoints go to other readers."""
    checkpoints = tuple(Target(last.name, config, run, step) for step in (None, *run.saved_steps()) if step != 0)
    return Request(
        last,
        checkpoints=checkpoints,
        readers=default_readers(checkpoints, peers(config.model)),
        split=config.data.test_split,
        limit=STUDIED_QUESTIONS,
        plan=STUDIED_DAMAGE,
        explained=STUDIED_QUESTIONS // 2,
    )
