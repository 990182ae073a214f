"""The whole method on the embedded model, in about a minute: evaluate, train, evaluate again."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markovlm.config import RunConfig
from markovlm.errors import MarkovlmError
from markovlm.evaluation.run import BASE, Control, Result, Target, evaluate_targets
from markovlm.report import write_report
from markovlm.training.loop import Progress, train
from markovlm.training.runlog import RunDirectory

TEST_QUESTIONS = 500
Counting = Callable[[str, int], Any]


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Base and trained model on the same held-out questions."""

    run: Path
    seconds: float  # training and both evaluations
    steps: int
    base: Result
    trained: Result
    report: Path  # report.html

    def to_json(self) -> dict[str, Any]:
        """The shape that `markovlm demo --json` promises."""
        return {
            "run": str(self.run),
            "seconds": self.seconds,
            "steps": self.steps,
            "base": _summary(self.base),
            "trained": _summary(self.trained),
            "report": str(self.report),
        }

    def changed_example(self) -> int:
        """Index of a question that the base got wrong and the trained model right; else the first."""
        pairs = zip(self.base.evaluation.readings, self.trained.evaluation.readings, strict=True)
        method = self.base.evaluation.extractors[0]
        return next((i for i, (b, t) in enumerate(pairs) if t.correct[method] and not b.correct[method]), 0)


def _summary(result: Result) -> dict[str, Any]:
    summary = result.evaluation.summary()
    return {key: summary[key] for key in ("accuracy", "ci95", "n")}


def demo(config: RunConfig, out: Path, progress: Progress, counting: Counting | None = None) -> DemoResult:
    """Run it in the run directory `out`. Everything it finds is in that directory too."""
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
    report = write_report([out], out / "report").html
    return DemoResult(out, seconds, trained_run.steps, base, trained, report)
