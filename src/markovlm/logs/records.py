"""What a report knows about one run, whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

if TYPE_CHECKING:
    from markovlm.studies.records import Study

Kind = Literal[
    "native", "g1", "g1b", "g1c", "g1d", "g2", "g3", "g4", "evaluation", "unknown",
    "trainer_state", "console", "jsonl", "csv", "parquet", "tensorboard", "wandb", "trackio", "mlflow",
]  # fmt: skip
Training = Literal["reinforcement", "supervised", "preference", "unknown"]


@dataclass(slots=True)
class LoggedSample:
    """One sampled CoT. `correct` is None if the log does not say."""

    step: int
    question: str
    cot: str
    answer: str
    baseline_cot: str | None = None
    reward: float | None = None
    normalized_reward: float | None = None
    advantage: float | None = None
    answer_logprob: float | None = None
    correct: bool | None = None
    cot_tokens: int | None = None
    # what the reader answered, where the log has it; of our own runs up to its first token that is not the gold one
    answered: str | None = None
    line: int = 0  # line of the file it was read from, from 1
    source: str = ""  # file name


@dataclass(frozen=True, slots=True)
class Score:
    """One extractor's result: accuracy and its 95 % interval, and the share of outputs without an answer."""

    accuracy: float
    low: float | None = None
    high: float | None = None
    no_answer: float | None = None


@dataclass(frozen=True, slots=True)
class LoggedEvaluation:
    """One row of evals.jsonl, or one evaluation of the research code. `main` names the extractor of `accuracy`."""

    step: int
    split: str
    n: int
    scores: Mapping[str, Score]
    main: str
    logprob: float | None = None
    likeliest: float | None = None  # share of replies that begin with all gold tokens
    run_on: float | None = None  # share that begin with them and do not end there
    checkpoint: str | None = None
    how: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0
    source: str = ""
    texts: int | None = None  # of chains: the texts that the n questions are about
    placed: bool = True  # False: the file does not say of which checkpoint it is, not even whether of the base

    @property
    def score(self) -> Score:
        """The main extractor's."""
        return self.scores[self.main]

    @property
    def of_actor(self) -> bool:
        """False for the untrained base or another model evaluated beside the run."""
        return self.checkpoint != "base"


@dataclass(slots=True)
class RunData:
    """One run: its settings, its columns, and what could not be read. `metrics` always has the column `step`."""

    path: Path
    kind: Kind
    name: str
    config: dict[str, Any] = field(default_factory=dict)  # flat, dotted names
    environment: dict[str, Any] = field(default_factory=dict)
    metrics: pl.DataFrame = field(default_factory=lambda: pl.DataFrame({"step": []}, schema={"step": pl.Int64}))
    lines: dict[int, int] = field(default_factory=dict)  # step -> line of its row, where they differ from the row number
    samples: list[LoggedSample] = field(default_factory=list)
    sample_rows: int = 0  # rows in the file, of which `samples` are a choice
    evals: list[LoggedEvaluation] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    guessed_task: str | None = None  # where the settings don't name it and the questions leave no doubt
    studies: list[Study] = field(default_factory=list)  # of RUN/loadbearing/
    problems: list[str] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)  # role (metrics, samples, evals, …) -> file
    config_text: str = ""  # the configuration as a file to copy
    framework: str = ""  # of a log that others wrote: "TRL", "verl", …; "" where it is ours or not known
    training: Training = "reinforcement"  # a supervised or preference run has no sampled reward: nothing to judge
    _row_of: dict[int, int | None] = field(default_factory=dict, repr=False, compare=False)
    rows_mean_over: int = 1  # a row is the mean over this many steps (`logging_steps`)
    launch: tuple[int, int] = (1, 1)  # (number, of how many) where one log holds several launches, each a run of its own
    earlier: list[RunData] = field(default_factory=list, repr=False)  # the launches before this one in the same log

    @property
    def steps(self) -> int:
        """Rows of metrics."""
        return self.metrics.height

    @property
    def last_step(self) -> int | None:
        """The last step logged."""
        return int(self.metrics["step"][-1]) if self.steps else None

    @property
    def task(self) -> str | None:
        """Name of the task, where known."""
        value = self.config.get("task")
        return str(value) if value is not None else self.guessed_task

    @property
    def native(self) -> bool:
        return self.kind == "native"

    @property
    def error(self) -> dict[str, Any] | None:
        """The event of the error that ended the log."""
        return next((e for e in self.events if e.get("kind") == "error" and e.get("text")), None)

    def row_of(self, step: int) -> int | None:
        """The number of a step's row, from 1. A report asks for the same few steps many times, so answers are kept."""
        if step not in self._row_of:
            index = int(self.metrics["step"].search_sorted(step))
            there = index < self.steps and self.metrics["step"][index] == step
            self._row_of[step] = index + 1 if there else None
        return self._row_of[step]

    def has(self, key: str) -> bool:
        """Whether the column exists with at least one value."""
        return key in self.metrics.columns and self.metrics[key].null_count() < self.steps


def training_rows(run: RunData) -> pl.DataFrame:
    """The rows of training: a step that was only evaluated has a row too, which says nothing about loss or reward."""
    told = [key for key in run.metrics.columns if key != "step" and not key.startswith("eval_")]
    if run.native or len(told) + 1 == len(run.metrics.columns) or not told:
        return run.metrics
    return run.metrics.filter(pl.any_horizontal(pl.col(key).is_not_null() for key in told))
