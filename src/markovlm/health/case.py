"""One run as the rules see it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from markovlm.health.held_out import LEAST, HeldOut, held_out_of, main_key
from markovlm.health.moves import EARLY
from markovlm.health.samples import TEXT_KEYS, courses_of_samples, empty_stretches
from markovlm.health.series import (
    Course,
    base_evaluation,
    best_evaluation,
    course,
    evaluation_groups,
    evaluation_series,
    last_evaluation,
    reward_course,
)
from markovlm.health.verdict import Evidence, Verdict
from markovlm.intervals import percent_text
from markovlm.logs.records import LoggedEvaluation, RunData
from markovlm.logs.schema import EVAL_ACCURACY, EVAL_REWARD, held_out
from markovlm.tasks.chance import chance_level

_WINDOW = 5  # rows of the present level
_BEFORE = 10  # rows of the level before the onset


@dataclass
class Case:
    """One run as the rules see it."""

    run: RunData
    verdict: Verdict
    checkpoints: tuple[int, ...] = ()  # steps that can be loaded

    @cached_property
    def series(self) -> list[LoggedEvaluation]:
        return evaluation_series(self.run)

    @cached_property
    def headline(self) -> list[LoggedEvaluation]:
        """The comparable evaluations on the most questions (of trained checkpoints, where there are any): a test of 500 speaks before a
        dev split of 100. Of equals the longest series."""
        groups = evaluation_groups(self.run)
        trained = [group for group in groups if last_evaluation(group)]
        return max(trained or groups, key=lambda group: max(e.n for e in group), default=[])

    @cached_property
    def base(self) -> LoggedEvaluation | None:
        return base_evaluation(self.headline)

    @cached_property
    def best(self) -> LoggedEvaluation | None:
        return best_evaluation(self.headline)

    @cached_property
    def last(self) -> LoggedEvaluation | None:
        return last_evaluation(self.headline)

    @cached_property
    def held_out(self) -> dict[str, HeldOut]:
        """The evaluations inside the log, by column; that of one data set alone only where there are several."""
        found = {
            key: held for key in held_out(self.run.metrics.columns) if (c := self.course(key)) and (held := held_out_of(key, c))
        }
        for prefix, whole in ((EVAL_ACCURACY, "eval_accuracy"), (EVAL_REWARD, "eval_reward")):
            parts = [key for key in found if key.startswith(prefix)]
            if len(parts) == 1 and whole in found and len(found[parts[0]].course) == len(found[whole].course):
                named = found.pop(parts[0])
                found[whole] = replace(found[whole], key=named.key)
        return found

    @cached_property
    def main_held_out(self) -> HeldOut | None:
        """The evaluations that a checkpoint is to be chosen by, where the log has two or more."""
        key = main_key(list(self.held_out))
        return self.held_out[key] if key is not None else None

    @cached_property
    def best_step(self) -> int | None:
        """The best checkpoint: by the series that shows the course, where that has two of them or more, else by the headline; where the log has
        evaluations inside, by those."""
        if not self.run.evals and self.main_held_out is not None and len(self.main_held_out.course) >= LEAST:
            return self.main_held_out.best_step
        several = len({e.step for e in self.series if e.of_actor and e.step > 0}) > 1
        series = self.series if several else self.headline
        found = best_evaluation([e for e in series if not e.of_actor or self.safe_step(e.step) == e.step])
        return found.step if found else None

    @cached_property
    def chance(self) -> float | None:
        """Accuracy of guessing on the run's task."""
        return chance_level(self.run.task)

    @cached_property
    def reward(self) -> Course | None:
        return reward_course(self.run)

    def course(self, key: str) -> Course | None:
        """A metric's course; what only texts show is measured on the samples where no column has it."""
        found = course(self.run, key)
        return self.of_samples.get(key) if found is None and key in TEXT_KEYS else found

    @cached_property
    def of_samples(self) -> dict[str, Course]:
        """What the samples' texts say, where no column has it."""
        return courses_of_samples(self.run)

    @cached_property
    def stretches(self) -> list[tuple[int, int, str]]:
        """(first step, last step, rule) where the CoTs copy or ignore their questions: no checkpoint there is to be recommended."""
        return empty_stretches(self.course)

    def safe_step(self, step: int) -> int | None:
        """The step itself, or the last one before the stretches it lies in; None if there is none."""
        first = int(self.run.metrics["step"][0]) if self.run.steps else 0
        for _ in range(len(self.stretches) + 1):
            inside = [start for start, end, _ in self.stretches if start <= step <= end]
            if not inside:
                return step
            step = min(inside) - 1
        return step if step > first else None

    def setting(self, name: str) -> Any:
        return self.run.config.get(name)

    def value_of(self, name: str) -> float | None:
        """A setting's number: from the run's configuration, else from what its log shows; None where neither says."""
        said = self.setting(name)
        if isinstance(said, (int, float)) and not isinstance(said, bool):
            return float(said)
        if name == "rollouts.max_cot_tokens":
            return self.length_limit
        c = self.course({"training.lr": "lr", "objective.kl_weight": "kl_weight"}.get(name, ""))
        if c is not None:
            return float(c.values.max() if name == "training.lr" else np.median(c.values))
        if (
            name == "objective.kl_weight"
            and self.run.framework in ("TRL", "ms-swift")
            and not self.run.has("kl")
            and self.run.steps
        ):
            return 0.0  # its KL is logged wherever beta is not 0
        return None

    @cached_property
    def length_limit(self) -> float | None:
        """The length at which completions are cut off, where rows say: the longest of rows in which some or all were cut."""
        cut, longest = self.course("cot_length_saturated_fraction"), self.course("cot_length_max") or self.course("cot_length")
        if longest is None:
            return None
        top = float(longest.values.max())
        if cut is None or int((longest.values == top).sum()) < 2:  # a mean over several steps lies under the limit
            return None
        return top if cut.values.max() >= (0.95 if longest.key == "cot_length" else 1e-9) else None

    @property
    def collapsed(self) -> bool:
        return self.verdict.verdict == "collapsed"

    @property
    def kinds(self) -> set[str]:
        """Rules whose live tests speak, at whatever level."""
        return {e.kind for e in self.verdict.signals if not e.recovered}

    def spoken(self, rule: str) -> Evidence | None:
        """What a rule's live tests say, unless it went by."""
        return next((e for e in self.verdict.signals if e.kind == rule and not e.recovered), None)

    @cached_property
    def loss_of_outcome(self) -> Evidence | None:
        """The first evidence that what the run is for (reward, right answers, log-prob) is lost; None if it is not."""
        lost = [e for e in self.verdict.signals if e.level == "collapsed" and e.kind in OUTCOME_KINDS]
        return min(lost, key=lambda e: e.step, default=None)

    @property
    def outcome_lost(self) -> bool:
        return self.loss_of_outcome is not None

    def early(self, key: str) -> float | None:
        """Median of a metric's first eight rows."""
        c = self.course(key)
        return None if c is None else float(np.median(c.values[:EARLY]))

    def now(self, key: str) -> float | None:
        """Median of a metric's last five rows."""
        c = self.course(key)
        return None if c is None else float(np.median(c.values[-_WINDOW:]))

    def before(self, key: str) -> float | None:
        """Median of a metric's ten rows before the onset; without an onset of the middle of the run."""
        c = self.course(key)
        if c is None:
            return None
        onset = self.verdict.onset_step
        prior = c.values[c.steps < onset] if onset is not None else c.values[:0]
        return float(np.median((prior if len(prior) else c.values[: len(c) // 2 + 1])[-_BEFORE:]))

    @cached_property
    def spacing(self) -> int:
        """Steps between rows."""
        steps = self.run.metrics["step"].to_numpy()
        return int(max(1, np.median(np.diff(steps)))) if len(steps) > 1 else 1

    @cached_property
    def outcome(self) -> Course | None:
        """The reward as it is logged, else the share of right answers."""
        return next(
            (c for key in ("reward_mean", "answer_correct_fraction", "accuracy", "answer_logprob") if (c := self.course(key))),
            None,
        )


OUTCOME_KINDS = frozenset({"reward_crash", "accuracy_crash", "logprob_crash", "evaluation_fell"})


percent = partial(percent_text, places=1)  # 57.1 %


def scored(e: LoggedEvaluation) -> str:
    """`57.1 % [54.4, 59.8], n = 1,319`"""
    return f"{percent(e.score.accuracy, e.score.low, e.score.high)}, n = {e.n:,}"
