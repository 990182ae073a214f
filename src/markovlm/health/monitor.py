"""Is this run healthy? Pure functions over metric rows, the same for a live run and for an old log.

A row is one training step: a flat mapping of metric names to numbers or None (docs/metrics.md lists the names). `judge(rows)`
gives a verdict with its evidence; `HealthMonitor` is the same judgement one row at a time and can be stored in a checkpoint.
`text_signals` turns a group of CoTs into the four numbers that show repetition.

Two things speak. Outcomes (reward, log-prob, right answers) are under a *sequential test* with a stated mean time between false
alarms (`detect`, `tracks`), and dev evaluations under a test of two proportions (`evaluations`). The rest is the table `THRESHOLDS`, fixed by
reasoning, each row with its reason; it is kept for what an outcome does not show, or shows too late. Four ideas keep it quiet on healthy runs:

* *Persistence.* A signal must be beyond its threshold in `needed` of the last `rows` rows. A single spike is never a verdict.
* *The run's own scale.* Log-probs and rewards are compared with the run's early level, allowing for the noise between
  neighbouring rows: one sample a row (old logs) needs a longer look than a mean over 64.
* *Standing.* Low entropy, identical or compressible CoTs and a policy far from the base are what success looks like on a small
  task. Where the answers are right (`solved`) these signals are silent; where the run has gained on its early level
  they are a warning at most, if their row in the table says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from markovlm.health.alarm import Alarm
from markovlm.health.course import CLAMP, FAST, MIN_ROWS, Course, Scale
from markovlm.health.early import EarlyBreak
from markovlm.health.evaluations import Evaluations, Measured
from markovlm.health.rules import RULE, THRESHOLDS, WATCHES
from markovlm.health.thresholds import Threshold
from markovlm.health.tracks import Track
from markovlm.health.verdict import Evidence, Level, Verdict

Standing = Literal["solved", "gained", "neither"]
Row = Mapping[str, "float | None"]


SOLVED_FRACTION = 0.75  # teacher-forced answers right in three of four samples
SOLVED_LOGPROB = -0.3  # used where that fraction is not logged: mean probability of an answer token above 0.74


COURSES: Mapping[str, float] = {  # signal -> noise floor
    "answer_logprob": 0.25,
    "reward_mean": 0.25,
    "normalized_reward_mean": 0.25,
    "answer_correct_fraction": 0.05,
}
_CORE = ("loss", "answer_logprob", "reward_mean", "normalized_reward_mean")
WATCHED = (
    *_CORE, "answer_correct_fraction", "ratio_mean", "ratio_max", "ratio_clipped_fraction", "longest_char_run", "cot_length",
    "distinct_bigram_fraction", "compression_ratio", "identical_cot_fraction", "entropy", "groups_without_spread", "grad_norm",
    "kl", "notes_frozen", "notes_copied", "notes_overflow", "notes_kept",
    "copies_question_fraction", "question_specificity", "answer_run_on_fraction",
    "cot_length_saturated_fraction", "sampler_gap", "sampler_kl", "reward_std", "accuracy", "sampler_prob_gap", "behavior_kl",
)  # fmt: skip
OUTCOMES = frozenset(watched.signal for watched in WATCHES if watched.outcome)


COARSEST = 1.0 / 16.0  # medians of shares of fewer samples jump by themselves
_LEAST_GAIN = {"answer_correct_fraction": 0.1}


def _read(row: Row) -> tuple[dict[str, float], int]:
    """The finite watched values of a row, and how many watched values are not finite."""
    values: dict[str, float] = {}
    bad = 0
    for key in WATCHED:
        value = row.get(key)
        if value is None or (value.__class__ is not float and isinstance(value, (bool, str))):
            continue
        if value - value == 0.0:  # finite
            values[key] = value
        else:
            bad += 1
    return values, bad


def _derive(values: dict[str, float]) -> None:
    """Add the signals that are made from metrics: `ratio` (either direction), `off_policy_kl` (its size) and `char_run_share`."""
    if "behavior_kl" in values:
        values["off_policy_kl"] = abs(values["behavior_kl"])
    ratio = values.get("ratio_mean")
    if ratio is None:
        ratio = values.pop("ratio_max", None)
    if ratio is not None:
        values["ratio"] = max(ratio, min(1.0 / ratio, CLAMP)) if ratio > 0.0 else CLAMP
    run = values.get("longest_char_run")
    if run is not None:
        group_repeats = values.get("distinct_bigram_fraction", 0.0) < 0.5
        values["char_run_share"] = run / max(values.get("cot_length", 100.0), 1.0) if run >= 20 and group_repeats else 0.0


class HealthMonitor:
    """`judge`, one row at a time. `state_dict` is plain JSON; loading it continues bit for bit."""

    def __init__(self) -> None:
        self.n = 0
        self._seen = dict.fromkeys((*WATCHED, *(test.signal for test in (*THRESHOLDS, *WATCHES))), 0)
        self._courses = {name: Course(floor) for name, floor in COURSES.items()}
        self._tracks = {watched.signal: Track(watched) for watched in WATCHES}
        self.evaluations = Evaluations()
        self._early = EarlyBreak()
        self._grad = Scale()
        self._alarms = [_alarms_of(row) for row in THRESHOLDS]
        self._busy: set[int] = set()  # numbers of the table rows with an alarm that is on or has hits
        self._speaking: set[int] = set()  # those with an alarm that is on or was
        self._verdict: Verdict | None = None

    def update(self, row: Row) -> Verdict:
        """Take one more row and judge all rows so far."""
        self.absorb(row)
        return self.verdict()

    def verdict(self) -> Verdict:
        """The judgement on the rows so far."""
        if self._verdict is None or self._verdict.rows != self.n:
            self._verdict = self._judge()
        return self._verdict

    def evaluated(self, step: int, accuracy: float, n: int) -> Verdict:
        """Take an evaluation of the policy after `step`: `accuracy` of `n` held-out questions."""
        self.evaluations.add(step, accuracy, n)
        self._verdict = None
        return self.verdict()

    def absorb(self, row: Row) -> None:
        """Take one more row without judging."""
        self.n += 1
        raw_step = row.get("step")
        step = int(raw_step) if raw_step is not None and math.isfinite(raw_step) else self.n
        values, bad = _read(row)
        if not bad and self._core_vanished(values):
            bad = 1
        _derive(values)
        values["non_finite"] = float(bad)
        seen = self._seen
        for name in values:
            seen[name] += 1
        for name, course in self._courses.items():
            if name in values:
                course.add(step, values[name])
        if "grad_norm" in values:
            self._grad.add(values["grad_norm"])
        self._track(step, values)
        self._early.add(step, values)
        self._compare(step, values)

    def _track(self, step: int, values: Mapping[str, float]) -> None:
        """Give a row to the sequential tests."""
        for name, track in self._tracks.items():
            value = values.get(name)
            if value is None:
                continue
            value = min(max(value, -CLAMP), CLAMP)
            if name == "reward_mean":
                log_prob = self._seen["answer_logprob"] and self._courses[name].negative
                track.add(step, value, values.get("reward_std", 0.0), self._tokens_in_reward() if log_prob else None)
            else:
                track.add(step, value)

    def _compare(self, step: int, values: Mapping[str, float]) -> None:
        """Compare a row with the whole table. Rows of the table that are neither beyond nor busy cost one comparison."""
        standing: Standing | None = None
        for number, signal, above, limit in _PLAN:
            value = values.get(signal)
            if value is None:
                continue
            beyond = (
                self._relative(THRESHOLDS[number], step, value) if limit is None else value > limit if above else value < limit
            )
            if beyond:
                standing = standing or self._standing()
                self._apply(number, step, value, standing)
            elif number in self._busy:
                self._miss(number, signal)

    def _relative(self, row: Threshold, step: int, value: float) -> bool:
        """Is a row of the table with a relative measure beyond its lower limit? A cheap test without noise comes first."""
        first = row.collapse if row.warn is None else row.warn
        if first is None:
            return False
        if row.measure != "times_early":
            course = self._courses[row.signal]
            near = course.near_early(first) if row.measure == "below_early" else course.near_best(first, row.measure)
            if not near:
                return False
        return self._beyond(row, first, step, value) is not None

    def _miss(self, number: int, signal: str) -> None:
        index = self._seen[signal]
        for alarm in self._alarms[number].values():
            alarm.miss(index)
        self._note(number)

    def _note(self, number: int) -> None:
        """Keep `_busy` and `_speaking` right after the alarms of a table row changed."""
        alarms = self._alarms[number].values()
        for known, gone in ((self._busy, all(a.idle for a in alarms)), (self._speaking, all(a.silent for a in alarms))):
            if gone:
                known.discard(number)
            else:
                known.add(number)

    def _core_vanished(self, values: Mapping[str, float]) -> bool:
        """Loss, reward and log-prob were there and are all missing now: a logger's way of writing NaN."""
        return not any(key in values for key in _CORE) and any(self._seen[key] >= MIN_ROWS for key in _CORE)

    def _standing(self) -> Standing:
        correct, logprob = self._courses["answer_correct_fraction"], self._courses["answer_logprob"]
        reward = self._courses["reward_mean"]
        measured = self.evaluations.standing()
        if measured is not None:
            return measured
        if correct.n >= FAST:
            if correct.level() >= SOLVED_FRACTION:
                return "solved"
        elif logprob.n >= FAST:
            if logprob.level() >= SOLVED_LOGPROB:
                return "solved"
        elif reward.n >= FAST:
            if reward.bounded and reward.level() >= SOLVED_FRACTION:
                return "solved"
            if "collapsed" not in self._tracks["reward_mean"].on and reward.level() != 0.0:
                return "gained"  # what right and wrong pay is not known
        if any(course.gained(_LEAST_GAIN.get(name, 0.5)) for name, course in self._courses.items()):
            return "gained"
        return "neither"

    def _apply(self, number: int, step: int, value: float, standing: Standing) -> None:
        """Tell the alarms of one table row, whose lower limit was passed, about one value."""
        row = THRESHOLDS[number]
        index = self._seen[row.signal]
        for level, alarm in self._alarms[number].items():
            limit = row.warn if level == "warn" else row.collapse
            excused = (row.solved_excuses and standing == "solved") or (
                level == "collapsed" and row.gain_excuses and standing == "gained"
            )
            found = None if excused or limit is None else self._beyond(row, limit, step, value)
            if found is not None:
                alarm.hit(index, *found)
            else:
                alarm.miss(index)
        self._note(number)

    def _beyond(self, row: Threshold, limit: float, step: int, value: float) -> tuple[int, float, float] | None:
        """(step, value, limit in the signal's own unit) of the onset, where the value is beyond the limit."""
        if row.measure == "value":
            beyond = value > limit if row.comparison == "above" else value < limit
            return (step, value, limit) if beyond else None
        if row.measure == "times_early":
            level = self._grad.level
            bound = None if level is None else max(level, row.floor) * limit
            return (step, min(value, CLAMP), bound) if bound is not None and value > bound else None
        course = self._courses[row.signal]
        fraction = row.measure == "fraction_of_best"
        if course.n < MIN_ROWS or (row.signal == "reward_mean" and course.bounded != fraction):
            return None
        if row.measure == "below_early":
            return course.below_early(limit * self._tokens_in_reward() if row.signal == "reward_mean" else limit)
        if fraction and self._tracks[row.signal].grain > COARSEST:
            return None
        return course.below_best(limit, fraction)

    def _tokens_in_reward(self) -> float:
        """How many nats of reward make one nat per token: the answer's length where the reward is a sum, else 1."""
        reward, logprob = self._courses["reward_mean"], self._courses["answer_logprob"]
        if reward.n and logprob.n and reward.early < logprob.early < 0.0:
            return reward.early / logprob.early
        return 1.0

    def _judge(self) -> Verdict:
        found = [e for number in sorted(self._speaking) for e in _gravest(self._alarms[number])]
        tested = [e for track in self._tracks.values() if (e := track.evidence()) is not None]
        fell = self.evaluations.evidence()
        if fell is not None:
            tested.append(replace(fell, says=RULE[fell.kind].sentence))
        broke = self._broke_early()
        if broke is not None and not any((e.name, e.level) == (broke.name, "collapsed") for e in (*tested, *found)):
            tested = [broke, *(e for e in tested if (e.name, e.kind) != (broke.name, broke.kind))]
        found = tested + [e for e in found if (e.name, e.kind) not in {(t.name, t.kind) for t in tested}]
        rising = self.rising
        if found and all(e.level == "warn" for e in found) and (rising or self._standing() == "solved"):
            found = [e for e in found if e.kind not in _OF_SUCCESS or e.recovered]
        if rising:
            found = [e if e.kind == "non_finite" or e.level != "collapsed" else replace(e, level="warn") for e in found]
        found.sort(key=lambda e: (e.level != "collapsed", e.level != "collapsed" and e.name not in OUTCOMES, e.step))
        signals = tuple(found)
        if not any(e.level == "collapsed" for e in found) and not self._enough():
            return Verdict("unknown", None, (), self.n)
        if not found:
            return Verdict("healthy", None, (), self.n)
        return Verdict("collapsed" if found[0].level == "collapsed" else "warn", found[0].step, signals, self.n, rising)

    def _broke_early(self) -> Evidence | None:
        key = self._early.found["key"] if self._early.found is not None else "reward_mean"
        rule = RULE["reward_crash" if key == "reward_mean" else "accuracy_crash"]
        return self._early.evidence(rule.name, rule.sentence)

    @property
    def rising(self) -> bool:
        """Is accuracy rising: the evaluations', or where there are none the share of right answers in the rows?

        Not while the rows themselves say that an outcome is lost: an evaluation is older than the last row.
        """
        if any(track.falling for name, track in self._tracks.items() if name in OUTCOMES):
            return False
        if len(self.evaluations.rows) > 1:
            return self.evaluations.rising
        return self._courses["answer_correct_fraction"].rising()

    def _enough(self) -> bool:
        return any(count >= MIN_ROWS for name, count in self._seen.items() if name != "non_finite")

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        return {
            "n": self.n,
            "seen": dict(self._seen),
            "courses": {name: course.state() for name, course in self._courses.items()},
            "grad": self._grad.state(),
            "tracks": {name: track.state() for name, track in self._tracks.items()},
            "evaluations": self.evaluations.state(),
            "early": self._early.state(),
            "alarms": {name: {level: alarm.state() for level, alarm in self._alarms[n].items()} for n, name in enumerate(_NAMES)},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`. A state of an earlier version is passed over: the run is then judged from here on."""
        if "tracks" not in state:
            return
        self.n = state["n"]
        self._seen |= state["seen"]
        for name, course in self._courses.items():
            course.load(state["courses"][name])
        for name, stored in state["tracks"].items():  # an older run knew fewer of them
            if name in self._tracks:
                self._tracks[name].load(stored)
        self.evaluations.load(state["evaluations"])
        self._grad.load(state["grad"])
        if "early" in state:
            self._early.load(state["early"])
        stored_alarms = state["alarms"] if isinstance(state["alarms"], Mapping) else {}  # before, they had no names
        for n, name in enumerate(_NAMES):
            for level, alarm in self._alarms[n].items():
                if name in stored_alarms:
                    alarm.load(stored_alarms[name][level])
        for number in range(len(THRESHOLDS)):
            self._note(number)
        self._verdict = None


def _alarms_of(row: Threshold) -> dict[Level, Alarm]:
    alarms: dict[Level, Alarm] = {}
    if row.warn is not None:
        alarms["warn"] = Alarm(row, "warn")
    if row.collapse is not None:
        alarms["collapsed"] = Alarm(row, "collapsed")
    return alarms


# What success looks like on a small task: no warning by itself while accuracy rises. Every healthy run of docs/detection.md shows it.
_OF_SUCCESS = frozenset({"identical_cots", "entropy_death"})

# (number in the table, signal, above?, the lower of the two limits, or None where it depends on the run)
_PLAN: tuple[tuple[int, str, bool, float | None], ...] = tuple(
    (
        n,
        row.signal,
        row.comparison == "above",
        (row.collapse if row.warn is None else row.warn) if row.measure == "value" else None,
    )
    for n, row in enumerate(THRESHOLDS)
)

# A name for each row of the table in stored states: what it tests and for which rule.
_NAMES: tuple[str, ...] = tuple(f"{row.kind}: {row.signal} {row.measure} {row.warn} {row.collapse}" for row in THRESHOLDS)


def _gravest(alarms: Mapping[Level, Alarm]) -> Iterable[Evidence]:
    """The collapse of one threshold, else its warning."""
    found = [e for alarm in alarms.values() if (e := alarm.evidence()) is not None]
    collapsed = [e for e in found if e.level == "collapsed"]
    return (collapsed or [e for e in found if e.recovered] or found)[:1]


def judge(rows: Iterable[Row], evaluations: Iterable[Measured] = ()) -> Verdict:
    """The verdict on a sequence of metric rows in step order, and on evaluations of the policy on the way.

    >>> judge([{"step": s, "answer_logprob": -1.0 if s < 50 else -9.0} for s in range(1, 101)]).onset_step
    50
    """
    monitor = HealthMonitor()
    for row in rows:
        monitor.absorb(row)
    for measured in sorted(evaluations, key=lambda e: e.step):
        monitor.evaluations.add(measured.step, measured.accuracy, measured.n)
    return monitor.verdict()
