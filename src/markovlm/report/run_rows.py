"""The table of runs as records: of each run its verdict, the levels of its signals, and its accuracies.

rows = run_rows(diagnoses)              # one RunRow a run, in their order
rows[0].signals["answer_logprob"].end   # Level(mean=-0.31, error=0.02, rows=30, first_step=271, last_step=300)
[row.as_json() for row in rows]         # tables/runs.json; the same as a table: tables.runs(diagnoses)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markovlm.health.diagnose import Diagnosis
from markovlm.health.levels import Levels, levels
from markovlm.health.series import course
from markovlm.logs.records import LoggedEvaluation

# What the table of runs shows of each run where it is logged, in this order; more is better in all of them.
SIGNALS = (
    "normalized_reward_mean",
    "reward_mean",
    "answer_logprob",
    "cot_contains_answer",
    "answer_correct_fraction",
    "accuracy",
)


@dataclass(frozen=True, slots=True)
class RunRow:
    """One row of the table of runs."""

    run: str
    task: str | None
    verdict: str
    doubt: str | None
    rows: int
    last_step: int | None
    onset_step: int | None
    signals: Mapping[str, Levels]  # by metric; only what the run logs
    base: LoggedEvaluation | None
    best: LoggedEvaluation | None
    last: LoggedEvaluation | None

    def as_json(self) -> dict[str, Any]:
        """`{"run": …, "verdict": …, "signals": {metric: {"start": {"mean": …}}}, "accuracy": {"base": …}}`"""
        return {
            "run": self.run,
            "task": self.task,
            "verdict": self.verdict,
            "doubt": self.doubt,
            "rows": self.rows,
            "last_step": self.last_step,
            "onset_step": self.onset_step,
            "signals": {key: levels.as_json() for key, levels in self.signals.items()},
            "accuracy": {
                name: None if e is None else _evaluation(e)
                for name, e in (("base", self.base), ("best", self.best), ("last", self.last))
            },
        }


def _evaluation(e: LoggedEvaluation) -> dict[str, Any]:
    s = e.score
    return {"step": e.step, "split": e.split, "n": e.n, "accuracy": s.accuracy, "low": s.low, "high": s.high, "extractor": e.main}


def run_rows(all_of_them: Sequence[Diagnosis]) -> list[RunRow]:
    """The table of runs as rows, in the order given."""
    return [run_row(d) for d in all_of_them]


def run_row(d: Diagnosis) -> RunRow:
    """One run's row."""
    signals = {key: levels(c) for key in SIGNALS if (c := course(d.run, key)) is not None}
    return RunRow(
        d.run.name, d.run.task, d.verdict, d.doubt, d.run.steps, d.run.last_step, d.onset_step,
        signals, d.case.base, d.case.best, d.case.last,
    )  # fmt: skip
