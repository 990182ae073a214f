"""Is this run healthy? Pure functions over metric rows, the same for a live run and for an old log.

A row is one training step: a flat mapping of metric names to numbers or None (docs/metrics.md lists the names). `judge(rows)`
gives a verdict with its evidence; `HealthMonitor` is the same judgement one row at a time and can be stored in a checkpoint.
`text_signals` turns a group of CoTs into the four numbers that show repetition.

What counts as an alarm is the table `THRESHOLDS`, fixed by reasoning, each row with its reason. Three ideas keep it quiet on
healthy runs:

* *Persistence.* A signal must be beyond its threshold in `needed` of the last `rows` rows. A single spike is never a verdict.
* *The run's own scale.* Log-probs and rewards are compared with the run's early level, allowing for the noise between
  neighbouring rows: one sample a row (old logs) needs a longer look than a mean over 64.
* *Standing.* Low entropy, identical or compressible CoTs and a policy far from the base are what success looks like on a small
  task. Where the answers are right (`solved`) these signals are silent; where the run has gained on its early level
  they are a warning at most, if their row in the table says so.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

VerdictName = Literal["healthy", "warn", "collapsed", "unknown"]
Level = Literal["warn", "collapsed"]
Measure = Literal["value", "below_early", "below_best", "fraction_of_best", "times_early"]
Standing = Literal["solved", "gained", "neither"]
Row = Mapping[str, "float | None"]

MIN_ROWS = 4  # fewer rows than this say nothing about a course of training
EARLY_ROWS = 10  # the run's early level: mean of its first ten rows (of the first half while there are fewer than twenty)
SOLVED_FRACTION = 0.75  # teacher-forced answers right in three of four samples
SOLVED_LOGPROB = -0.3  # used where that fraction is not logged: mean probability of an answer token above 0.74


# --- repetition in a group of CoTs -------------------------------------------------------------------------------------

_PIECE = re.compile(r"[^\W\d_]{1,12}|\d|[^\w\s]|_")  # words (cut at 12 letters), single digits, single marks
_RUN = re.compile(r"(.)\1{2,}", re.DOTALL)
_CHUNK = 64  # pieces; a fixed length keeps long CoTs of digits comparable with short ones
_MIN_PIECES = 8
_MIN_BYTES = 32


def _distinct_bigrams(text: str) -> float:
    """Share of neighbouring pairs of pieces that are new within a stretch of 64 pieces; 1.0 for very short texts."""
    pieces = _PIECE.findall(text)
    if len(pieces) < _MIN_PIECES:
        return 1.0
    distinct = total = 0
    for start in range(0, len(pieces), _CHUNK):
        chunk = pieces[start : start + _CHUNK]
        if start and len(chunk) < _MIN_PIECES:
            break
        distinct += len(set(pairwise(chunk)))
        total += len(chunk) - 1
    return distinct / total


def _longest_run(text: str) -> int:
    """Length of the longest run of one character (spaces included)."""
    runs = max((len(match.group()) for match in _RUN.finditer(text)), default=0)
    if runs:
        return runs
    return 2 if any(a == b for a, b in pairwise(text)) else min(len(text), 1)


def _compression(text: str) -> float:
    """Compressed over raw bytes (deflate without header, so that short texts are not punished), at most 1.0."""
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) < _MIN_BYTES:
        return 1.0
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return min(1.0, len(packer.compress(raw) + packer.flush()) / len(raw))


def text_signals(texts: Sequence[str]) -> dict[str, float]:
    """Repetition in one group of CoTs. Empty for no texts.

    `distinct_bigram_fraction` (mean; about 0.9 in prose, 0.02 in `4444…`), `longest_char_run` (maximum, characters),
    `compression_ratio` (mean; about 0.5 in prose, 0.05 in loops), `identical_cot_fraction` (0 all different, 1 all the same).

    >>> text_signals(["4" * 150] * 4)["identical_cot_fraction"]
    1.0
    """
    n = len(texts)
    if n == 0:
        return {}
    counts: dict[str, int] = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
    return {
        "distinct_bigram_fraction": sum(_distinct_bigrams(t) * k for t, k in counts.items()) / n,
        "longest_char_run": float(max(_longest_run(t) for t in counts)),
        "compression_ratio": sum(_compression(t) * k for t, k in counts.items()) / n,
        "identical_cot_fraction": (n - len(counts)) / (n - 1) if n > 1 else 0.0,
    }


# --- what counts as an alarm -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Threshold:
    """One row of the table: when a signal is beyond its threshold, for how long, and what that means."""

    signal: str  # name of the metric (or of a derived signal, see `_derived`)
    measure: Measure  # how `warn` and `collapse` are to be read
    comparison: Literal["above", "below"]
    warn: float | None
    collapse: float | None
    needed: int  # this many …
    rows: int  # … of this many rows that carry the signal
    kind: str  # the kind of collapse it shows
    reason: str
    floor: float = 0.0  # `times_early`: the value must also exceed this times the factor
    gain_excuses: bool = False  # with a clear gain over the early level: a warning at most
    solved_excuses: bool = False  # silent while the answers are right


# fmt: off
THRESHOLDS: tuple[Threshold, ...] = (
    Threshold(
        "non_finite", "value", "above", 0, None, 1, 1, "non_finite",
        "A value that is not finite in loss, reward or gradient: one may be an overflow that was skipped.",
    ),
    Threshold(
        "non_finite", "value", "above", None, 0, 3, 3, "non_finite",
        "Three rows in a row: the weights themselves are no longer finite.",
    ),
    Threshold(
        "answer_logprob", "below_early", "below", 1.0, 2.0, 1, 1, "logprob_crash",
        "Nats per answer token under the run's early level, noise allowed for. 2 nats: the gold answer became 7 times less "
        "likely per token than before training.",
    ),
    Threshold(
        "reward_mean", "below_early", "below", 1.0, 2.0, 1, 1, "reward_crash",
        "The same for a log-prob reward (scaled up where the reward is a sum over tokens).",
    ),
    Threshold(
        "normalized_reward_mean", "below_early", "below", 1.0, 2.0, 1, 1, "reward_crash",
        "The same for the reward less the frozen model's: below zero and falling, the CoT is worse than no training.",
    ),
    Threshold(
        "reward_mean", "fraction_of_best", "below", 0.5, 0.2, 1, 1, "reward_crash",
        "A reward between 0 and 1 has no nats to lose: four fifths of the best level gone, the best being at least 0.3.",
    ),
    Threshold(
        "answer_correct_fraction", "fraction_of_best", "below", 0.5, 0.2, 1, 1, "accuracy_crash",
        "Four fifths of the run's best share of right answers are gone, the best being at least 0.3.",
    ),
    Threshold(
        "answer_logprob", "below_best", "below", 2.0, None, 1, 1, "decay",
        "2 nats per answer token under the run's best level: what was learned is being lost, text may still be fluent.",
    ),
    Threshold(
        "normalized_reward_mean", "below_best", "below", 2.0, None, 1, 1, "decay",
        "The same for the normalised reward.",
    ),
    Threshold(
        "ratio", "value", "above", 3.0, 5.0, 3, 3, "ratio_explosion",
        "The clip range ends at 1.2. A mean ratio of 5 (or 1/5) is 1.6 nats of drift, in every token where the ratio is of mean "
        "log-probs. It shows drift, not its cause, so a gain in reward makes it a warning.",
        gain_excuses=True, solved_excuses=True,
    ),
    Threshold(
        "ratio_max", "value", "above", 100.0, 10_000.0, 4, 5, "ratio_explosion",
        "The largest of thousands of token ratios may reach tens by chance; 10,000 in most steps means lost importance weights.",
        gain_excuses=True, solved_excuses=True,
    ),
    Threshold(
        "ratio_clipped_fraction", "value", "above", 0.9, None, 9, 10, "ratio_explosion",
        "Nine of ten ratios outside the clip range: hardly any sample still teaches.",
    ),
    Threshold(
        "char_run_share", "value", "above", 0.3, 0.5, 4, 5, "repeated_character",
        "Longest run of one character over CoT tokens (over 100 where the length is not logged), run of at least 20. A token "
        "is one to "
        "four characters, so 0.5 is an eighth to a half of a CoT. Counted only where the group's bigrams agree: a "
        "rule of dashes in one sample is no collapse.",
        solved_excuses=True,
    ),
    Threshold(
        "distinct_bigram_fraction", "value", "below", 0.35, 0.2, 4, 5, "repetition",
        "Prose has 0.9, running sums of digits 0.6 and more, a repeated phrase of ten words 0.16, one character 0.02.",
        solved_excuses=True,
    ),
    Threshold(
        "compression_ratio", "value", "below", 0.2, 0.1, 4, 5, "repetition",
        "Prose compresses to 0.5, long running sums to 0.2 in the worst case, loops to 0.05.",
        solved_excuses=True,
    ),
    Threshold(
        "identical_cot_fraction", "value", "above", 0.8, 0.95, 4, 5, "identical_cots",
        "Samples of a group are copies of one text, so the group has no spread and teaches nothing; normal only once answers "
        "are right.",
        gain_excuses=True, solved_excuses=True,
    ),
    Threshold(
        "entropy", "value", "below", 0.05, 0.02, 4, 5, "entropy_death",
        "Nats per token. 0.02 is a next token chosen with probability 0.997: no exploration is left. Normal only once "
        "answers are right.",
        gain_excuses=True, solved_excuses=True,
    ),
    Threshold(
        "groups_without_spread", "value", "above", 0.9, None, 9, 10, "identical_cots",
        "Nine of ten groups have equal rewards: no advantage, no learning.",
        solved_excuses=True,
    ),
    Threshold(
        "grad_norm", "times_early", "above", 30.0, 300.0, 3, 5, "gradient_blow_up",
        "Before clipping, against the early median of steps that trained. Clipping bounds the step, not its direction: at "
        "300 times "
        "the usual norm one sample decides it.",
        floor=1.0 / 3.0, gain_excuses=True, solved_excuses=True,
    ),
    Threshold(
        "kl", "value", "above", 4.0, 12.0, 4, 5, "drift",
        "Nats per token from the frozen model. 12 is as far as a uniform choice among 128,000 tokens is from certainty.",
        gain_excuses=True, solved_excuses=True,
    ),
    Threshold(
        "cot_length", "value", "below", 2.0, 1.0, 4, 5, "empty_cot",
        "Tokens. A CoT of less than one token on average is none at all.",
        solved_excuses=True,
    ),
)
# fmt: on

# What each kind of collapse is called in a sentence.
KINDS: Mapping[str, str] = {
    "non_finite": "values that are not finite",
    "logprob_crash": "the answer's log-probability crashed",
    "reward_crash": "the reward crashed",
    "accuracy_crash": "right answers were lost",
    "decay": "what was learned decays",
    "ratio_explosion": "the policy ratio exploded",
    "repeated_character": "the CoT repeats one character",
    "repetition": "the CoT repeats itself",
    "identical_cots": "all CoTs of a group are the same",
    "entropy_death": "the policy has no entropy left while answers are wrong",
    "gradient_blow_up": "the gradient blew up",
    "drift": "the policy is far from the frozen model",
    "empty_cot": "the CoT is empty",
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """One signal that is, or was, beyond its threshold. `step`, `value` and `threshold` belong to the row where it began."""

    name: str
    step: int
    value: float
    threshold: float
    level: Level
    kind: str = ""
    recovered: bool = False  # it was beyond the collapse threshold once and came back

    def describe(self) -> str:
        """`answer_logprob -41 (threshold -4.1) at step 999`."""
        back = ", recovered since" if self.recovered else ""
        return f"{self.name} {self.value:.4g} (threshold {self.threshold:.4g}) at step {self.step}{back}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on the rows so far. `onset_step` is the first step of the gravest evidence; None where healthy or unknown."""

    verdict: VerdictName
    onset_step: int | None
    signals: tuple[Evidence, ...]
    rows: int = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of collapse in order of onset, the gravest level first, without repeats."""
        return tuple(dict.fromkeys(e.kind for e in self.signals))

    def describe(self) -> str:
        """One line for a log or a terminal."""
        if self.verdict == "unknown":
            return f"unknown: {self.rows} rows, too few or without a usable signal"
        if not self.signals:
            return f"healthy over {self.rows} rows"
        what = "; ".join(e.describe() for e in self.signals[:4])
        return f"{self.verdict} from step {self.onset_step}: {KINDS.get(self.signals[0].kind, self.signals[0].kind)} ({what})"


# --- the state of one signal -------------------------------------------------------------------------------------------

_CLAMP = 1e9  # finite but absurd values must not drown sums
_FAST, _MIDDLE, _SLOW = 3, 10, 100  # windows: median of 3, means of 10 and 100 rows
_MARGIN = 4.0  # standard errors allowed for noise


class _Course:
    """The course of one log-prob, reward or fraction: early level, noise, levels over 3, 10 and 100 rows, the best of each."""

    __slots__ = (
        "best_middle", "best_slow", "bounded", "diff_n", "diff_sq", "early", "early_n", "fast", "first", "last", "middle", "n",
        "noise_floor", "recent", "slow", "tail", "total",
    )  # fmt: skip
    _PLAIN = (
        "n",
        "total",
        "diff_n",
        "diff_sq",
        "best_middle",
        "best_slow",
        "bounded",
        "early",
        "early_n",
        "fast",
        "middle",
        "slow",
        "last",
    )

    def __init__(self, noise_floor: float) -> None:
        self.noise_floor = noise_floor
        self.n = 0
        self.last = 0.0
        self.first: list[float] = []
        self.recent: deque[tuple[int, float, float]] = deque(maxlen=_SLOW)  # (step, value, value without spikes)
        self.tail: deque[float] = deque(maxlen=_MIDDLE)
        self.total = 0.0  # running sum of the values without spikes
        self.diff_n = 0
        self.diff_sq = 0.0
        self.fast: float | None = None  # median of the last 3
        self.middle: float | None = None  # median of the last 10
        self.slow: float | None = None  # mean of the last 100, single spikes cut
        self.best_middle = -math.inf
        self.best_slow = -math.inf
        self.bounded = True  # every value so far lies in [0, 1]
        self.early = 0.0
        self.early_n = 0

    def add(self, step: int, value: float) -> None:
        value = min(max(value, -_CLAMP), _CLAMP)
        if self.n:
            self._add_difference(abs(value - self.last))
        calm = value
        if self.middle is not None:  # drawn to within 8 noise widths of the last median; a level that stays moves the median
            reach = 8.0 * (math.sqrt(self.diff_sq) + self.noise_floor)
            away = value - self.middle
            if abs(away) > reach:
                calm = self.middle + math.copysign(reach, away)
        if self.n >= _SLOW:
            self.total -= self.recent[0][2]
        self.total += calm
        self.recent.append((step, value, calm))
        self.tail.append(value)
        self.last = value
        self.n += 1
        if self.bounded and not 0.0 <= value <= 1.0:
            self.bounded = False
        if self.early_n < EARLY_ROWS:
            self._set_early(value)
        self._set_averages()

    def _set_averages(self) -> None:
        tail, n = self.tail, self.n
        if n >= _FAST:
            self.fast = sorted((tail[-1], tail[-2], tail[-3]))[1]
        if n >= _MIDDLE:
            ordered = sorted(tail)
            middle = self.middle = 0.5 * (ordered[4] + ordered[5])
            if middle > self.best_middle:
                self.best_middle = middle
        if n >= _SLOW:
            slow = self.slow = self.total / _SLOW
            if slow > self.best_slow:
                self.best_slow = slow

    def _add_difference(self, diff: float) -> None:
        """Noise from neighbouring rows, each difference winsorised: a crash must not raise the bar that would show it."""
        if self.diff_n:
            most = 3.0 * math.sqrt(self.diff_sq) + self.noise_floor
            if diff > most:
                diff = most
        self.diff_n += 1
        weight = 0.05 if self.diff_n > 20 else 1.0 / self.diff_n
        self.diff_sq += weight * (diff * diff - self.diff_sq)

    def _set_early(self, value: float) -> None:
        if len(self.first) < EARLY_ROWS:
            self.first.append(value)
        self.early_n = max(1, min(EARLY_ROWS, self.n // 2))
        self.early = sum(self.first[: self.early_n]) / self.early_n

    @property
    def noise(self) -> float:
        """Standard deviation of one row around its neighbours, rounded up while it rests on few differences."""
        return math.sqrt(self.diff_sq / 2.0 * (1.0 + 12.0 / max(self.diff_n, 1)))

    def level(self) -> float:
        """Median of the last ten rows (mean of all, while fewer)."""
        return sum(self.tail) / len(self.tail) if self.middle is None else self.middle

    def first_below(self, window: int, limit: float) -> tuple[int, float]:
        """Step and value of the first row of the last `window` rows that is itself below `limit` (else the last row)."""
        rows = list(self.recent)[-window:]
        return next(((s, v) for s, v, _ in rows if v < limit), rows[-1][:2])

    def gained(self, least: float) -> bool:
        """Is the recent mean above the early level by `least` and by more than noise?"""
        if self.n < MIN_ROWS:
            return False
        gain = self.level() - self.early
        return gain > least and gain > _MARGIN * self.noise * math.sqrt(1.0 / len(self.tail) + 1.0 / self.early_n)

    def near_early(self, limit: float) -> bool:
        """Is any average more than `limit` under the early level, noise left out?"""
        bound = self.early - limit
        return (
            (self.fast is not None and self.fast < bound)
            or (self.middle is not None and self.middle < bound)
            or (self.slow is not None and self.slow < bound)
        )

    def near_best(self, limit: float, measure: Measure) -> bool:
        """Is any average under the best one by `limit` (or under that fraction of it), noise left out?"""
        if self.middle is None:
            return False
        if measure == "fraction_of_best":
            return self.middle < self.best_middle * limit or (self.slow is not None and self.slow < self.best_slow * limit)
        return self.middle < self.best_middle - limit or (self.slow is not None and self.slow < self.best_slow - limit)

    def below_early(self, limit: float) -> tuple[int, float, float] | None:
        """(step, value, bound) of the onset where an average is more than `limit` and the noise under the early level."""
        for window, average in ((_FAST, self.fast), (_MIDDLE, self.middle), (_SLOW, self.slow)):
            if average is not None and average < self.early - limit:
                bound = self.early - limit - _MARGIN * self.noise * math.sqrt(1.0 / window + 1.0 / self.early_n)
                if average < bound:
                    return (*self.first_below(window, bound), bound)
        return None

    def below_best(self, limit: float, fraction: bool) -> tuple[int, float, float] | None:
        """The same against the best average of that length, which luck has raised: by `limit`, or under that fraction of it."""
        for window, average, best in ((_MIDDLE, self.middle, self.best_middle), (_SLOW, self.slow, self.best_slow)):
            if average is None or (fraction and best < _BEST_AT_LEAST):
                continue
            if average < (best * limit if fraction else best - limit):
                luck = _MARGIN * self.noise / math.sqrt(window)
                bound = (best - luck) * limit if fraction else best - limit - 2.0 * luck
                if average < bound:
                    return (*self.first_below(window, bound), bound)
        return None

    def state(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in self._PLAIN}
        plain |= {name: None for name in ("best_middle", "best_slow") if plain[name] == -math.inf}  # JSON has no infinity
        return plain | {"first": list(self.first), "recent": [list(row) for row in self.recent]}

    def load(self, state: Mapping[str, Any]) -> None:
        for name in self._PLAIN:
            setattr(self, name, state[name])
        self.best_middle = -math.inf if self.best_middle is None else self.best_middle
        self.best_slow = -math.inf if self.best_slow is None else self.best_slow
        self.first = list(state["first"])
        self.recent = deque(((step, value, calm) for step, value, calm in state["recent"]), maxlen=_SLOW)
        self.tail = deque((value for _, value, _ in list(self.recent)[-_MIDDLE:]), maxlen=_MIDDLE)


class _Scale:
    """The early median of a positive quantity (gradient norm), steps without training left out."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.n = 0
        self.level: float | None = None

    def add(self, value: float) -> None:
        if value <= 0.0 or (len(self.first) == EARLY_ROWS and self.n >= 2 * EARLY_ROWS):
            return
        self.n += 1
        if len(self.first) < EARLY_ROWS:
            self.first.append(min(value, _CLAMP))
        early = sorted(self.first[: max(1, min(EARLY_ROWS, self.n // 2))])
        self.level = early[len(early) // 2]

    def state(self) -> dict[str, Any]:
        return {"first": list(self.first), "n": self.n, "level": self.level}

    def load(self, state: Mapping[str, Any]) -> None:
        self.first, self.n, self.level = list(state["first"]), state["n"], state["level"]


class _Alarm:
    """One threshold at one level: recent hits, and whether it is on. It goes off after twice the rows it was on (20 at least)."""

    __slots__ = ("active", "clear", "hits", "kind", "level", "name", "needed", "on_rows", "recovered", "rows")

    def __init__(self, row: Threshold, level: Level) -> None:
        self.name, self.kind = row.signal, row.kind
        self.level: Level = level
        self.needed, self.rows = row.needed, row.rows
        self.hits: list[tuple[int, int, float, float]] = []  # (index, step, value, limit)
        self.active: tuple[int, float, float] | None = None  # (step, value, limit) of the onset
        self.on_rows = 0
        self.clear = 0
        self.recovered: tuple[int, float, float] | None = None

    @property
    def idle(self) -> bool:
        return self.active is None and not self.hits

    def hit(self, index: int, step: int, value: float, limit: float) -> None:
        """One row beyond the threshold."""
        self.clear = 0
        if self.active is not None:
            self.on_rows += 1
            return
        self._forget(index)
        self.hits.append((index, step, value, limit))
        if len(self.hits) >= self.needed:
            self.active = self.hits[0][1:]
            self.on_rows = len(self.hits)
            self.hits = []

    def miss(self, index: int) -> None:
        """One row on the right side of the threshold."""
        if self.active is None:
            self._forget(index)
            return
        self.clear += 1
        if self.clear < max(20, 2 * self.on_rows):
            return
        if self.level == "collapsed" and self.recovered is None:
            self.recovered = self.active
        self.active, self.on_rows, self.clear = None, 0, 0

    def _forget(self, index: int) -> None:
        if self.hits and self.hits[0][0] <= index - self.rows:
            self.hits = [hit for hit in self.hits if hit[0] > index - self.rows]

    def evidence(self) -> Evidence | None:
        if self.active is not None:
            step, value, limit = self.active
            return Evidence(self.name, step, value, limit, self.level, self.kind)
        if self.recovered is not None:
            step, value, limit = self.recovered
            return Evidence(self.name, step, value, limit, "warn", self.kind, recovered=True)
        return None

    def state(self) -> dict[str, Any]:
        return {
            "hits": [list(hit) for hit in self.hits], "active": self.active and list(self.active), "on_rows": self.on_rows,
            "clear": self.clear, "recovered": self.recovered and list(self.recovered),
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        self.hits = [(index, step, value, limit) for index, step, value, limit in state["hits"]]
        self.active = _onset(state["active"])
        self.recovered = _onset(state["recovered"])
        self.on_rows, self.clear = state["on_rows"], state["clear"]


def _onset(stored: Sequence[Any] | None) -> tuple[int, float, float] | None:
    return (stored[0], stored[1], stored[2]) if stored else None


# --- the judgement -----------------------------------------------------------------------------------------------------

_COURSES: Mapping[str, float] = {  # signal -> noise floor
    "answer_logprob": 0.25,
    "reward_mean": 0.25,
    "normalized_reward_mean": 0.25,
    "answer_correct_fraction": 0.05,
}
_CORE = ("loss", "answer_logprob", "reward_mean", "normalized_reward_mean")
WATCHED = (
    *_CORE, "answer_correct_fraction", "ratio_mean", "ratio_max", "ratio_clipped_fraction", "longest_char_run", "cot_length",
    "distinct_bigram_fraction", "compression_ratio", "identical_cot_fraction", "entropy", "groups_without_spread", "grad_norm",
    "kl",
)  # fmt: skip
_BEST_AT_LEAST = 0.3
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
    """Add the signals that are made from several metrics: `ratio` (either direction) and `char_run_share`."""
    ratio = values.get("ratio_mean")
    if ratio is None:
        ratio = values.pop("ratio_max", None)
    if ratio is not None:
        values["ratio"] = max(ratio, min(1.0 / ratio, _CLAMP)) if ratio > 0.0 else _CLAMP
    run = values.get("longest_char_run")
    if run is not None:
        group_repeats = values.get("distinct_bigram_fraction", 0.0) < 0.5
        values["char_run_share"] = run / max(values.get("cot_length", 100.0), 1.0) if run >= 20 and group_repeats else 0.0


class HealthMonitor:
    """`judge`, one row at a time. `state_dict` is plain JSON; loading it continues bit for bit."""

    def __init__(self) -> None:
        self.n = 0
        self._seen = dict.fromkeys((*WATCHED, *(row.signal for row in THRESHOLDS)), 0)
        self._courses = {name: _Course(floor) for name, floor in _COURSES.items()}
        self._grad = _Scale()
        self._alarms = [_alarms_of(row) for row in THRESHOLDS]
        self._busy: set[int] = set()  # numbers of the table rows with an alarm that is on or has hits
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
        self._compare(step, values)

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
        """Keep `_busy` right after the alarms of a table row changed."""
        if all(alarm.idle for alarm in self._alarms[number].values()):
            self._busy.discard(number)
        else:
            self._busy.add(number)

    def _core_vanished(self, values: Mapping[str, float]) -> bool:
        """Loss, reward and log-prob were there and are all missing now: a logger's way of writing NaN."""
        return not any(key in values for key in _CORE) and any(self._seen[key] >= MIN_ROWS for key in _CORE)

    def _standing(self) -> Standing:
        correct, logprob = self._courses["answer_correct_fraction"], self._courses["answer_logprob"]
        if correct.n >= _FAST:
            if correct.level() >= SOLVED_FRACTION:
                return "solved"
        elif logprob.n >= _FAST and logprob.level() >= SOLVED_LOGPROB:
            return "solved"
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
            return (step, min(value, _CLAMP), bound) if bound is not None and value > bound else None
        course = self._courses[row.signal]
        fraction = row.measure == "fraction_of_best"
        if course.n < MIN_ROWS or (row.signal == "reward_mean" and course.bounded != fraction):
            return None
        if row.measure == "below_early":
            return course.below_early(limit * self._tokens_in_reward() if row.signal == "reward_mean" else limit)
        return course.below_best(limit, fraction)

    def _tokens_in_reward(self) -> float:
        """How many nats of reward make one nat per token: the answer's length where the reward is a sum, else 1."""
        reward, logprob = self._courses["reward_mean"], self._courses["answer_logprob"]
        if reward.n and logprob.n and reward.early < logprob.early < 0.0:
            return reward.early / logprob.early
        return 1.0

    def _judge(self) -> Verdict:
        found = [e for alarms in self._alarms for e in _gravest(alarms)]
        found.sort(key=lambda e: (e.level != "collapsed", e.step))
        signals = tuple(found)
        if not any(e.level == "collapsed" for e in found) and not self._enough():
            return Verdict("unknown", None, (), self.n)
        if not found:
            return Verdict("healthy", None, (), self.n)
        return Verdict("collapsed" if found[0].level == "collapsed" else "warn", found[0].step, signals, self.n)

    def _enough(self) -> bool:
        return any(count >= MIN_ROWS for name, count in self._seen.items() if name != "non_finite")

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        return {
            "n": self.n,
            "seen": dict(self._seen),
            "courses": {name: course.state() for name, course in self._courses.items()},
            "grad": self._grad.state(),
            "alarms": [{level: alarm.state() for level, alarm in alarms.items()} for alarms in self._alarms],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.n = state["n"]
        self._seen |= state["seen"]
        for name, course in self._courses.items():
            course.load(state["courses"][name])
        self._grad.load(state["grad"])
        for alarms, stored in zip(self._alarms, state["alarms"], strict=True):
            for level, alarm in alarms.items():
                alarm.load(stored[level])
        for number in range(len(THRESHOLDS)):
            self._note(number)
        self._verdict = None


def _alarms_of(row: Threshold) -> dict[Level, _Alarm]:
    alarms: dict[Level, _Alarm] = {}
    if row.warn is not None:
        alarms["warn"] = _Alarm(row, "warn")
    if row.collapse is not None:
        alarms["collapsed"] = _Alarm(row, "collapsed")
    return alarms


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


def _gravest(alarms: Mapping[Level, _Alarm]) -> Iterable[Evidence]:
    """The collapse of one threshold, else its warning."""
    found = [e for alarm in alarms.values() if (e := alarm.evidence()) is not None]
    collapsed = [e for e in found if e.level == "collapsed"]
    return (collapsed or [e for e in found if e.recovered] or found)[:1]


def judge(rows: Iterable[Row]) -> Verdict:
    """The verdict on a sequence of metric rows in step order.

    >>> judge([{"step": s, "answer_logprob": -1.0 if s < 50 else -9.0} for s in range(1, 101)]).onset_step
    50
    """
    monitor = HealthMonitor()
    for row in rows:
        monitor.absorb(row)
    return monitor.verdict()


def thresholds_table() -> list[dict[str, Any]]:
    """The table as plain rows, for documentation and reports."""
    return [asdict(row) for row in THRESHOLDS]
