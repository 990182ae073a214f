"""How often `diagnose` is right about what broke: verdict, onset and cause, on made logs of known faults and on other people's healthy ones.

    python benchmarks/faults.py [--seeds 20] [--faults ../shared/data/rl-faults] [--logs ../shared/data/rl-logs] [--wrong]

Made logs: each kind of fault, and of healthy run, is drawn anew for each seed: number of rows, steps a row stands for, level, scale and noise of the
reward, when the fault begins, how fast, which metrics are logged, and in which framework's form (TRL's printed dictionaries and JSON lines, verl's
console lines, OpenRLHF's JSON lines). A kind counts as right where the verdict and the cause both are among those that an expert would accept
(`KINDS`); a healthy one where nothing is said beyond a note. The rules were written by whoever wrote this generator: the rates say how firm they are,
not how they do on faults that nobody thought of.

--faults: the 22 small logs of faults that were found in public logs and threads, each with the right value (`FILES`). --logs: real logs, of which
those in `BROKEN` ended badly: how many of the others are called collapsed. --wrong prints each miss.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from markovlm.health.compare import parting
from markovlm.health.diagnose import Diagnosis, diagnose_paths
from markovlm.health.series import Course
from markovlm.statistics import wilson

Rows = list[dict[str, float]]
BAD = frozenset({"warn", "collapsed"})


@dataclass(frozen=True)
class Right:
    """What is right to say: the verdicts, the names of causes ("" for none needed), the rows around the onset in which it may begin."""

    verdicts: frozenset[str]
    causes: frozenset[str]
    never: tuple[str, ...] = ()  # not to be in the advice


def right(verdicts: str, causes: str = "", never: tuple[str, ...] = ()) -> Right:
    return Right(frozenset(verdicts.split()), frozenset(causes.split()), never)


# --- made runs ---------------------------------------------------------------------------------------------------------


class Draw:
    """One made run of our keys, steady but for learning, and the means to break it."""

    def __init__(self, seed: int, most: int = 160, least: int = 50) -> None:
        self.rng = np.random.default_rng(seed)
        self.n = int(self.rng.integers(least, most + 1))
        self.every = int(self.rng.choice([1, 1, 5, 10]))
        self.at = int(self.n * self.rng.uniform(0.35, 0.75))  # row at which the fault begins
        self.noise = float(self.rng.uniform(0.015, 0.06))
        self.level = float(self.rng.uniform(0.5, 0.85))
        self.scale = float(self.rng.choice([1.0, 1.0, 1.0, 3.0]))  # a reward of several parts
        self.limit = float(self.rng.choice([256, 512, 1024, 2048]))
        length = self.limit * float(self.rng.uniform(0.25, 0.5))
        entropy = float(self.rng.uniform(0.15, 0.8))
        x = np.linspace(0, 1, self.n)
        learned = self.level * (1.0 - float(self.rng.uniform(0.0, 0.4)) * np.exp(-4 * x))
        self.rows: dict[str, np.ndarray] = {
            "reward_mean": learned + self.noise * self.rng.normal(size=self.n),
            "reward_std": self.near(0.3, 0.1),
            "groups_without_spread": np.clip(self.near(0.25, 0.2), 0, 1),
            "cot_length": self.near(length, 0.06),
            "cot_length_saturated_fraction": np.clip(0.02 + 0.015 * self.rng.normal(size=self.n), 0, 1),
            "entropy": self.near(entropy, 0.08) * np.linspace(1, float(self.rng.uniform(0.6, 1.0)), self.n),
            "grad_norm": self.near(0.3, 0.3),
            "lr": np.full(self.n, float(self.rng.choice([5e-7, 1e-6, 3e-6]))),
        }
        if self.rng.random() < 0.6:
            self.rows["kl"] = np.abs(0.002 + 0.05 * x * self.near(1.0, 0.2))
        self.extra: dict[str, np.ndarray] = {}

    def near(self, level: float, spread: float) -> np.ndarray:
        return level * np.exp(spread * self.rng.normal(size=self.n))

    def ramp(self, begin: int, rows: int) -> np.ndarray:
        """0 before `begin`, 1 after `rows` more."""
        return np.clip((np.arange(self.n) - begin + 1) / max(rows, 1), 0, 1)

    def lose(self, begin: int, rows: int, left: float = 0.0) -> None:
        """The reward falls to a share of its level."""
        ramp = self.ramp(begin, rows)
        rest = np.abs(0.01 * self.rng.normal(size=self.n)) + left * self.level
        self.rows["reward_mean"] = self.rows["reward_mean"] * (1 - ramp) + rest * ramp
        self.rows["groups_without_spread"] = np.clip(
            self.rows["groups_without_spread"] + ramp * (0.7 if left < 0.05 else 0.1), 0, 1
        )
        self.rows["reward_std"] = self.rows["reward_std"] * (1 - 0.9 * ramp * (left < 0.05))

    def blend(self, key: str, begin: int, rows: int, to: np.ndarray | float, log: bool = False) -> None:
        ramp, was = self.ramp(begin, rows), self.rows[key]
        goal = np.broadcast_to(np.asarray(to, float), was.shape)
        self.rows[key] = (
            np.exp(np.log(np.maximum(was, 1e-9)) * (1 - ramp) + np.log(goal) * ramp) if log else was * (1 - ramp) + goal * ramp
        )

    def cut(self, begin: int, rows: int) -> None:
        """Completions run into the limit."""
        self.blend("cot_length_saturated_fraction", begin, rows, np.clip(self.near(0.99, 0.01), 0, 1))
        self.blend("cot_length", begin, rows, self.limit)

    def need(self, key: str, values: np.ndarray) -> None:
        self.rows.setdefault(key, values)

    def soon(self, least: int = 0, most: int = 6) -> int:
        return int(self.rng.integers(least, most + 1))


def entropy_explodes(d: Draw) -> None:
    d.blend("entropy", d.at, 1 + d.soon(0, 5), d.near(float(d.rng.uniform(3, 8)), 0.05), log=True)
    d.lose(d.at + d.soon(0, 4), 1 + d.soon(0, 5))
    if d.rng.random() < 0.7:
        d.cut(d.at + d.soon(1, 6), 1 + d.soon(0, 4))


def dies_at_once(d: Draw) -> None:
    d.at = int(d.rng.integers(2, 5))
    d.blend("entropy", d.at, 1, d.near(float(d.rng.uniform(3, 8)), 0.05), log=True)
    d.lose(d.at, 1)
    d.cut(d.at, 1)


def runs_into_the_limit(d: Draw) -> None:
    d.cut(d.at, 3 + d.soon(0, 6))
    d.lose(d.at + 3 + d.soon(0, 4), 3 + d.soon(0, 6))


def says_nothing(d: Draw) -> None:
    d.blend("cot_length", d.at, 1 + d.soon(0, 2), d.near(float(d.rng.uniform(2, 5)), 0.05))
    d.lose(d.at, 1 + d.soon(0, 2))
    d.rows["cot_length_saturated_fraction"] *= 1 - d.ramp(d.at, 1)
    if d.rng.random() < 0.5:
        d.rows["grad_norm"][d.at - 1] = 4.0


def forgets_to_end(d: Draw) -> None:
    d.cut(d.at, 2 + d.soon(0, 10))


def drifts_and_dies(d: Draw) -> None:
    d.need("kl", np.abs(d.near(0.02, 0.2)))
    d.blend("kl", d.at, 1 + d.soon(0, 6), d.near(float(d.rng.uniform(3, 30)), 0.1), log=True)
    d.lose(d.at + d.soon(0, 4), 1 + d.soon(0, 4))


def drifts_for_nothing(d: Draw) -> None:
    d.rows["reward_mean"] = d.level + d.noise * d.rng.normal(size=d.n)
    d.need("kl", np.abs(d.near(0.02, 0.2)))
    d.blend("kl", d.at, 5 + d.soon(0, 10), d.near(float(d.rng.uniform(2, 6)), 0.1), log=True)


def sampler_apart(d: Draw) -> None:
    d.extra["sampler_gap"] = d.near(float(d.rng.uniform(0.2, 0.6)), 0.1)


def sampler_leaves(d: Draw) -> None:
    gap = d.near(0.006, 0.15)
    ramp = d.ramp(d.at, 1 + d.soon(0, 8))
    d.extra["sampler_gap"] = np.exp(np.log(gap) * (1 - ramp) + np.log(d.near(float(d.rng.uniform(0.1, 0.4)), 0.1)) * ramp)
    if d.rng.random() < 0.5:
        d.lose(d.at + 6 + d.soon(0, 4), 4 + d.soon(0, 4), left=0.1)


def steps_too_far(d: Draw) -> None:
    ramp = d.ramp(d.at, 1 + d.soon(0, 4))
    d.extra["behavior_kl"] = np.abs(d.near(4e-4, 0.5)) * (1 - ramp) + d.near(float(d.rng.uniform(0.5, 6)), 0.2) * ramp


def hacks_the_format(d: Draw) -> None:
    d.scale = 1.0
    good, ramp = float(d.rng.uniform(0.15, 0.6)), d.ramp(d.at, 4 + d.soon(0, 20))
    accuracy = np.clip(good * (1 - ramp) + 0.01 * ramp + d.noise * 0.6 * d.rng.normal(size=d.n), 0, 1)
    form = np.clip(0.4 + (0.58 + 0.0 * good) * ramp + d.noise * 0.6 * d.rng.normal(size=d.n), 0, 1)
    d.extra |= {"reward/accuracy_reward": accuracy, "reward/format_reward": form}
    d.rows["reward_mean"] = accuracy + form
    d.blend("cot_length", d.at, 10, float(d.rng.uniform(0.2, 0.6)) * float(d.rows["cot_length"][0]))


def falls_after_the_format_was_learned(d: Draw) -> None:
    """A format learned in the first rows, and long after a fall of everything: no hacking."""
    d.scale = 1.0
    form = np.clip(0.3 + 0.69 * d.ramp(1, 6) + 0.01 * d.rng.normal(size=d.n), 0, 1) * (1 - 0.6 * d.ramp(d.at, 3))
    accuracy = np.clip((d.level + d.noise * d.rng.normal(size=d.n)) * (1 - 0.97 * d.ramp(d.at, 3)), 0, 1)
    d.extra |= {"reward/accuracy_reward": accuracy, "reward/format_reward": form}
    d.rows["reward_mean"] = accuracy + form


def cut_from_the_start(d: Draw) -> None:
    d.cut(0, 1)
    d.rows["reward_mean"] = np.zeros(d.n)
    d.rows["reward_std"] = np.zeros(d.n)
    d.rows["groups_without_spread"] = np.ones(d.n)
    d.rows["grad_norm"] = np.zeros(d.n)


def rewards_alike(d: Draw) -> None:
    d.rows["reward_mean"] = np.clip(0.5 + 0.1 * d.rng.normal(size=d.n), 0.1, 0.9)
    d.rows["reward_std"] = np.zeros(d.n)
    d.rows["groups_without_spread"] = np.ones(d.n)
    d.rows["grad_norm"] = np.zeros(d.n)


def overfits(d: Draw) -> None:
    """The training reward rises, evaluations (every five rows) fall."""
    peak = int(d.n * d.rng.uniform(0.2, 0.5))
    x = np.arange(d.n)
    best = float(d.rng.uniform(0.4, 0.8))
    lost = float(d.rng.uniform(0.06, 0.2))
    course = best - lost * np.clip((x - peak) / (d.n - peak), 0, 1) - 0.1 * np.clip(1 - x / max(peak, 1), 0, 1)
    values = course + float(d.rng.uniform(0.004, 0.012)) * d.rng.normal(size=d.n)
    d.extra["eval_accuracy" if d.rng.random() < 0.5 else "eval_reward"] = np.where(x % 3 == 2, values, np.nan)


def entropy_creeps(d: Draw) -> None:
    d.rows["entropy"] = 0.3 + float(d.rng.uniform(1.2, 3.0)) * np.linspace(0, 1, d.n) ** 1.2 + 0.02 * d.rng.normal(size=d.n)
    d.at = int(d.n * d.rng.uniform(0.75, 0.85))
    d.lose(d.at, 5 + d.soon(0, 5), left=float(d.rng.uniform(0.2, 0.45)))


def numbers_break(d: Draw) -> None:
    d.extra["loss"] = np.where(np.arange(d.n) >= d.at, np.nan, 0.05 * d.rng.normal(size=d.n))
    d.rows["grad_norm"] = np.where(np.arange(d.n) >= d.at, np.nan, d.rows["grad_norm"])
    d.lose(d.at, 1)


def loss_explodes(d: Draw) -> None:
    ramp = d.ramp(d.at, 1)
    d.extra["loss"] = 0.05 * d.rng.normal(size=d.n) + ramp * d.near(float(10 ** d.rng.uniform(3, 6)), 0.5)
    if d.rng.random() < 0.5:
        d.lose(d.at + 1, 2)


def gradient_explodes(d: Draw) -> None:
    d.blend("grad_norm", d.at, 2, d.near(float(10 ** d.rng.uniform(2.2, 4)), 0.3), log=True)
    d.lose(d.at + 2 + d.soon(0, 3), 3 + d.soon(0, 3))


def nothing_is_trained(d: Draw) -> None:
    d.rows["reward_mean"] = d.level + d.noise * d.rng.normal(size=d.n)
    d.rows["grad_norm"] = np.zeros(d.n)


def all_is_wrong(d: Draw) -> None:
    d.rows["reward_mean"] = np.zeros(d.n)
    d.rows["reward_std"] = np.zeros(d.n)
    d.rows["groups_without_spread"] = np.ones(d.n)


def grows_for_nothing(d: Draw) -> None:
    d.rows["reward_mean"] = d.level + d.noise * d.rng.normal(size=d.n)
    d.rows["cot_length"] = d.rows["cot_length"] * (1 + 1.6 * np.linspace(0, 1, d.n) ** 1.5)


def learns(d: Draw) -> None:
    pass


def is_level(d: Draw) -> None:
    d.rows["reward_mean"] = d.level + d.noise * d.rng.normal(size=d.n)


def is_solved(d: Draw) -> None:
    d.rows["reward_mean"] = np.clip(0.97 - 0.4 * np.exp(-8 * np.linspace(0, 1, d.n)) + 0.02 * d.rng.normal(size=d.n), 0, 1)
    d.rows["groups_without_spread"] = np.clip(np.linspace(0.3, 0.92, d.n), 0, 1)
    d.rows["entropy"] = d.rows["entropy"] * np.linspace(1, 0.15, d.n)


def thinks_longer(d: Draw) -> None:
    x = np.linspace(0, 1, d.n)
    d.rows["reward_mean"] = 0.25 + 0.45 * x + d.noise * d.rng.normal(size=d.n)
    d.rows["cot_length"] = d.rows["cot_length"] * (1 + 0.9 * x)
    d.rows["cot_length_saturated_fraction"] = np.clip(d.rows["cot_length_saturated_fraction"] + 0.1 * x, 0, 1)


def spikes_once(d: Draw) -> None:
    d.rows["grad_norm"][d.at] = float(d.rng.uniform(30, 500))
    if "kl" in d.rows:
        d.rows["kl"][d.at] = 5.0


def is_evaluated(d: Draw) -> None:
    x = np.arange(d.n)
    d.extra["eval_accuracy"] = np.where(x % 3 == 2, 0.4 + 0.2 * x / d.n + 0.012 * d.rng.normal(size=d.n), np.nan)


@dataclass(frozen=True)
class Kind:
    make: Callable[[Draw], None]
    right: Right


_FELL = "learning_rate_too_high unknown_collapse trained_past_its_best"
KINDS: Mapping[str, Kind] = {
    "entropy explodes": Kind(entropy_explodes, right("collapsed", "entropy_explosion")),
    "dies within five rows": Kind(dies_at_once, right("collapsed", "entropy_explosion", ("raise the limit", "max_completion_length from"))),
    "runs into the limit": Kind(runs_into_the_limit, right("collapsed", "truncated_to_zero")),
    "completions of nothing": Kind(says_nothing, right("collapsed", "completions_collapsed", ("double the length", "max_completion_length from"))),
    "end token lost": Kind(forgets_to_end, right("warn", "end_token_lost")),
    "drifts and dies": Kind(drifts_and_dies, right("collapsed", "kl_runaway")),
    "drifts for nothing": Kind(drifts_for_nothing, right("warn", "kl_runaway")),
    "sampler apart from the start": Kind(sampler_apart, right("warn", "sampler_mismatch")),
    "sampler leaves the trainer": Kind(sampler_leaves, right("warn collapsed", "sampler_mismatch")),
    "updates go too far": Kind(steps_too_far, right("warn collapsed", "off_policy")),
    "format is hacked": Kind(hacks_the_format, right("warn", "reward_hacking")),
    "plain fall after the format": Kind(falls_after_the_format_was_learned, right("collapsed", _FELL)),
    "cut off from the start": Kind(cut_from_the_start, right("warn", "truncated_from_start")),
    "rewards alike in groups": Kind(rewards_alike, right("warn", "rewards_equal")),
    "overfits": Kind(overfits, right("warn", "held_out_fell")),
    "entropy creeps up": Kind(entropy_creeps, right("warn collapsed", "entropy_growth")),
    "not finite": Kind(numbers_break, right("collapsed", "numbers_overflowed")),
    "loss explodes": Kind(loss_explodes, right("warn collapsed", "loss_explosion")),
    "gradient explodes": Kind(gradient_explodes, right("collapsed", "gradient_blow_up")),
    "nothing is trained": Kind(nothing_is_trained, right("warn", "nothing_trained")),
    "all is wrong": Kind(all_is_wrong, right("warn", "groups_hopeless")),
    "longer, not better": Kind(grows_for_nothing, right("warn", "length_inflation")),
}  # fmt: skip
HEALTHY: Mapping[str, Callable[[Draw], None]] = {
    "learns": learns, "level": is_level, "solved": is_solved, "thinks longer": thinks_longer, "spikes once": spikes_once,
    "evaluated": is_evaluated,
}  # fmt: skip

# --- forms -------------------------------------------------------------------------------------------------------------

_TRL = {
    "reward_mean": "reward", "reward_std": "reward_std", "groups_without_spread": "frac_reward_zero_std", "kl": "kl", "entropy": "entropy",
    "loss": "loss", "cot_length": "completions/mean_length", "cot_length_saturated_fraction": "completions/clipped_ratio", "grad_norm": "grad_norm",
    "lr": "learning_rate", "sampler_gap": "sampling/sampling_logp_difference/mean", "behavior_kl": "policy/approxkl_avg",
    "eval_reward": "eval_reward", "eval_accuracy": "eval_rewards/accuracy/mean", "reward/accuracy_reward": "rewards/accuracy_reward/mean",
    "reward/format_reward": "rewards/format_reward/mean",
}  # fmt: skip
_VERL = {
    "reward_mean": "critic/score/mean", "kl": "actor/kl_loss", "entropy": "actor/entropy", "loss": "actor/pg_loss",
    "cot_length": "response_length/mean", "cot_length_saturated_fraction": "response_length/clip_ratio",
    "grad_norm": "actor/grad_norm", "lr": "actor/lr", "behavior_kl": "actor/ppo_kl",
    "eval_accuracy": "val-core/math/acc/mean@1", "eval_reward": "val-core/math/reward/mean@1",
}  # fmt: skip
_OPENRLHF = {
    "reward_mean": "reward", "reward_std": "group_reward_stds", "kl": "kl", "entropy": "entropy_loss", "loss": "policy_loss",
    "cot_length": "response_length", "cot_length_saturated_fraction": "truncated",
    "grad_norm": "actor_grad_norm", "lr": "actor_lr", "behavior_kl": "ppo_kl",
    "eval_accuracy": "eval_math_pass1",
}  # fmt: skip
FORMS: Mapping[str, Mapping[str, str]] = {"TRL printed": _TRL, "TRL lines": _TRL, "verl": _VERL, "OpenRLHF": _OPENRLHF}


def table(d: Draw) -> Rows:
    columns = d.rows | d.extra
    scaled = {"reward_mean", "reward_std"}
    rows: Rows = []
    for i in range(d.n):
        row = {key: float(values[i]) * (d.scale if key in scaled else 1.0) for key, values in columns.items()}
        evaluations = {key for key in row if key.startswith("eval")}
        rows.append({key: value for key, value in row.items() if not (key in evaluations and math.isnan(value))})
    return rows


def form_for(d: Draw) -> str:
    """A form that has a name for all that the fault shows itself in."""
    needed = {"reward_mean", *d.extra} | (
        {"groups_without_spread"} if not d.rows["grad_norm"].any() or not d.rows["reward_std"].any() else set()
    )
    fit = [name for name, names in FORMS.items() if needed <= names.keys()]
    return str(d.rng.choice(fit or ["TRL lines"]))


def write(d: Draw, form: str, path: Path) -> None:
    names, out = FORMS[form], []
    for i, row in enumerate(table(d), 1):
        theirs = {names[key]: value for key, value in row.items() if key in names}
        if form == "TRL printed":
            out.append(str({**theirs, "epoch": round(i / d.n, 4)}).replace("nan", "nan"))
        elif form == "verl":
            out.append(
                f"(TaskRunner pid=1) step:{i * d.every} - " + " - ".join(f"{key}:{value:.6g}" for key, value in theirs.items())
            )
        else:
            out.append(json.dumps({"step": i * d.every, **theirs}))
    path.write_text("\n".join(out) + "\n", encoding="utf-8")


# --- counting ----------------------------------------------------------------------------------------------------------


def judged(found: Diagnosis, want: Right) -> tuple[bool, bool]:
    """(is the verdict right?, is the cause?)."""
    said = " ".join(found.advice)
    cause = found.cause.name if found.cause is not None else ""
    return found.verdict in want.verdicts, (not want.causes or cause in want.causes) and not any(
        words in said for words in want.never
    )


def share(k: int, n: int) -> str:
    if n == 0:
        return "none"
    low, high = wilson(k, n)
    return f"{k} of {n} ({100 * k / n:.0f} % [{100 * low:.0f}, {100 * high:.0f}])"


def made(seeds: int, wrong: bool) -> None:
    total = verdicts = both = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, kind) in enumerate(KINDS.items()):
            right_here = 0
            for seed in range(seeds):
                d = Draw(1000 * number + seed)
                kind.make(d)
                form = form_for(d)
                path = Path(folder) / "run.log"
                write(d, form, path)
                found = diagnose_paths([path])[-1]
                verdict, cause = judged(found, kind.right)
                verdicts, both, right_here, total = (
                    verdicts + verdict,
                    both + (verdict and cause),
                    right_here + (verdict and cause),
                    total + 1,
                )
                if wrong and not (verdict and cause):
                    said = found.cause.name if found.cause else "-"
                    step = d.every * (d.at + 1) if form != "TRL printed" else d.at + 1
                    print(
                        f"    {name} seed {seed} ({form}, {d.n} rows, from {step}): {found.verdict} {found.onset_step}, {said}",
                        flush=True,
                    )
            print(f"  {name}: {right_here} of {seeds}", flush=True)
        print(f"made faults: verdict right {share(verdicts, total)}, verdict and cause right {share(both, total)}")
        rows = collapsed = warned = runs = 0
        for number, (name, make) in enumerate(HEALTHY.items()):
            for seed in range(2 * seeds):
                d = Draw(500_000 + 1000 * number + seed)
                make(d)
                path = Path(folder) / "run.log"
                form = form_for(d)
                write(d, form, path)
                found = diagnose_paths([path])[-1]
                rows, runs = rows + d.n, runs + 1
                collapsed, warned = collapsed + (found.verdict == "collapsed"), warned + (found.verdict == "warn")
                if wrong and found.verdict in BAD:
                    print(
                        f"    {name} seed {seed} ({form}, {d.n} rows): {found.verdict} {found.onset_step}, {found.why}",
                        flush=True,
                    )
    print(f"made healthy runs: {runs} ({rows:,} rows); called collapsed {share(collapsed, runs)}, warned {share(warned, runs)}")


# What an expert says of each file of `rl-faults`: (launch -> right, steps in which it may begin).
FILES: Mapping[str, tuple[tuple[Right, tuple[int, int] | None], ...]] = {
    "a-dead-in-three-rows": ((right("collapsed", "entropy_explosion"), (40, 40)),),
    "b-early-entropy-explosion": ((right("collapsed", "entropy_explosion", ("max_completion_length",)), (5, 5)),),
    "c-validation-in-the-log": ((right("warn", "held_out_fell", ("evaluate every",)), None),),
    "d-mean-reward-names": ((right("collapsed", _FELL), (65, 75)),),
    "e-printed-samples": ((right("healthy"), None),),
    "f-last-line-cut": ((right("healthy"), None),),
    "g-all-cut-from-start": ((right("warn", "truncated_from_start"), (1, 1)),),
    "h-rewards-equal-in-groups": ((right("warn", "rewards_equal"), (1, 1)),),
    "i-sampler-apart-from-start": ((right("warn", "sampler_mismatch"), (1, 1)),),
    "j-verl-probs-apart": ((right("warn", "sampler_mismatch"), (45, 55)),),
    "k-verl-ppo-kl": ((right("warn collapsed", "off_policy"), (58, 62)),),
    "l-format-hacked": ((right("warn", "reward_hacking"), None),),
    "m-preference-training": ((right("unknown"), None),),
    "n-no-reward-at-all": ((right("unknown"), None),),
    "o-slow-entropy": ((right("warn", "entropy_growth"), None),),
    "p-three-launches": ((right("healthy"), None), (right("collapsed", "kl_runaway loss_explosion"), (49, 53)), (right("healthy"), None)),
    "q-actor-lr-1e-6": ((right("collapsed", f"kl_runaway {_FELL}", ("5e-5", "objective.")), (68, 72)),),
    "r-completions-of-three-tokens": ((right("collapsed", "completions_collapsed", ("max_completion_length",)), (9, 9)),),
    "s-end-token-lost": ((right("warn", "end_token_lost"), (25, 45)),),
    "t-kl-grows-while-nothing-is-gained": ((right("warn", "kl_runaway"), (1, 27)),),
    "u-ended-in-an-error": ((right("unknown"), None),),
    "v-four-ranks-print": ((right("healthy"), None),),
}  # fmt: skip


def misses(path: Path) -> list[str]:
    """What is said wrongly of one file of `rl-faults`; [] where all is right."""
    wanted, found = FILES[path.stem], diagnose_paths([path])
    if len(found) != len(wanted):
        return [f"{len(found)} runs, not {len(wanted)}"]
    wrong: list[str] = []
    for d, (want, onset) in zip(found, wanted, strict=True):
        verdict, cause = judged(d, want)
        if not verdict:
            wrong.append(f"{d.run.name}: {d.verdict}, not {' or '.join(sorted(want.verdicts))}")
        if not cause:
            wrong.append(f"{d.run.name}: {d.cause.name if d.cause else 'no cause'}, {d.advice}")
        if onset is not None and not (d.onset_step is not None and onset[0] <= d.onset_step <= onset[1]):
            wrong.append(f"{d.run.name}: from step {d.onset_step}, not {onset[0]} to {onset[1]}")
    return wrong


def files(folder: Path, wrong: bool) -> None:
    paths = sorted(path for path in folder.iterdir() if path.stem in FILES)
    said = {path.stem: misses(path) for path in paths}
    if wrong:
        for name, lines in said.items():
            for line in lines:
                print(f"    {name}: {line}")
    print(
        f"logs of faults that people met: {share(sum(not lines for lines in said.values()), len(paths))} right in verdict, cause, onset and advice"
    )


BROKEN = ("exp1a-rho0.30_seed43", "exp1a-rho1.00_seed42", "exp2-adabalance_seed42")  # of rl-logs: reward .87 to 0


def real(folder: Path, wrong: bool) -> None:
    found = [d for d in diagnose_paths([folder]) if d.run.steps and d.run.training == "reinforcement"]
    broken = [d for d in found if any(name in d.run.name for name in BROKEN)]
    well = [d for d in found if d not in broken]
    bad = [d for d in well if d.verdict == "collapsed"]
    print(
        f"real logs: {sum(d.verdict == 'collapsed' for d in broken)} of {len(broken)} that broke are called collapsed; of the others "
        f"{share(len(bad), len(well))} in {sum(d.run.steps for d in well):,} rows, {sum(d.verdict == 'warn' for d in well)} warned"
    )
    if wrong:
        for d in [*bad, *(d for d in well if d.verdict == "warn")]:
            print(f"    {d.run.name}: {d.verdict} {d.onset_step}, {d.cause.name if d.cause else d.why}")


def pairs(seeds: int) -> None:
    """`diagnose --compare`: how often two made runs of one kind part in a metric, and how often a fall of one of them is found."""
    for n in (12, 40, 100, 400):
        for rho in (0.0, 0.5, 0.9):
            false = found = 0
            late: list[int] = []
            for seed in range(seeds):
                rng = np.random.default_rng(seed)
                steps = np.arange(1.0, n + 1)
                a, b = (0.5 + np.linspace(0, 0.2, n) + 0.05 * autoregressive(n, rho, rng) for _ in range(2))
                false += parting(Course("reward_mean", steps, a), Course("reward_mean", steps, b)) is not None
                fallen = np.where(steps > n // 2, 0.01 * np.abs(rng.normal(size=n)), b)
                said = parting(Course("reward_mean", steps, a), Course("reward_mean", steps, fallen))
                found += said is not None
                late += [said.step - (n // 2 + 1)] if said is not None else []
            delay = f", median {np.median(late):.0f} rows late" if late else ""
            print(
                f"  {n} rows, correlation {rho}: parted falsely {share(false, seeds)}; a fall found {share(found, seeds)}{delay}",
                flush=True,
            )


def autoregressive(n: int, rho: float, rng: np.random.Generator) -> np.ndarray:
    """Of variance 1."""
    out = rng.normal(size=n)
    for i in range(1, n):
        out[i] = rho * out[i - 1] + math.sqrt(1 - rho**2) * out[i]
    return out


def main(argv: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--faults", type=Path)
    parser.add_argument("--logs", type=Path)
    parser.add_argument("--pairs", type=int, default=0, help="pairs of runs for `diagnose --compare`")
    parser.add_argument("--wrong", action="store_true")
    given: Any = parser.parse_args(None if argv is None else list(argv))
    if given.faults is not None:
        files(given.faults, given.wrong)
    if given.logs is not None:
        real(given.logs, given.wrong)
    if given.pairs:
        pairs(given.pairs)
    if given.seeds:
        made(given.seeds, given.wrong)


if __name__ == "__main__":
    main()
