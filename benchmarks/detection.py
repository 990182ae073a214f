"""The detector as a detector: delay from the step at which a run broke, false alarms per 1,000 healthy rows, warnings in vain.

    python benchmarks/detection.py [--logs ../shared/data/rl-logs] [--rows 20000]

Three sources. Our own runs (`benchmarks/data/detection.jsonl.gz`, made by detection_runs.py: no training here), real logs of other
frameworks (a directory; not part of the package), and simulated healthy rows. A run *broke* where its outcome (share of right
answers, else the reward) fell under half of its best level and the next thirty rows (as far as there are) stayed there; a run that
did not must never be called collapsed. Beside the detector stands a plain threshold: median of ten rows under a fifth of the best
one (what the guard used before). Alarm levels come from simulation (calibrate_alarms.py), so every run, whatever its family, is
judged by levels that it did not set.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from scipy.stats import chi2

from markovlm.health.monitor import WATCHED, HealthMonitor
from markovlm.logs.find import read_runs
from markovlm.logs.records import training_rows
from markovlm.statistics import wilson

PACKED = Path(__file__).parent / "data" / "detection.jsonl.gz"
OUTCOMES = ("answer_correct_fraction", "accuracy", "reward_mean")
LONG = 10  # rows of a level
LEAST = 0.2  # an outcome that was never above this had nothing to lose


@dataclass
class Run:
    """One run: its rows in order, and its dev evaluations."""

    name: str
    family: str
    rows: list[dict[str, Any]]
    dev: Sequence[tuple[int, float, int]] = ()


def packed() -> Iterable[Run]:
    for line in gzip.decompress(PACKED.read_bytes()).decode().splitlines() if PACKED.exists() else ():
        run = json.loads(line)
        columns = run["columns"]
        n = len(columns["step"])
        rows = [{**run["constant"], **{key: values[i] for key, values in columns.items()}} for i in range(n)]
        yield Run(run["name"], run["family"], rows, [(step, accuracy, size) for step, accuracy, size in run["dev"]])


def logs(folder: Path) -> Iterable[Run]:
    for run in read_runs([folder]):
        frame = training_rows(run)
        keys = [key for key in ("step", *WATCHED) if key in frame.columns]
        if run.training == "reinforcement" and "reward_mean" in keys and frame.height >= 10:
            family = run.path.name.split("-results-")[-1].split("-")[0]
            yield Run(run.path.name[-48:], family, list(frame.select(keys).iter_rows(named=True)))


def broke(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """Index of the row at which the outcome halved for good, or None."""
    key = next((key for key in OUTCOMES if any(row.get(key) is not None for row in rows)), None)
    values = [float(row[key]) for row in rows if key is not None and row.get(key) is not None]
    if min(values, default=-1.0) < 0.0:
        return None  # no share of anything
    best, long = -math.inf, LONG if len(values) < 100 else 2 * LONG  # a long log has few samples a row
    for i in range(5, len(values) - 4):
        best = max(
            best, fmean(values[i - long : i]) if i >= long else -math.inf if len(values) >= 100 else fmean(values[i - 5 : i])
        )
        if best >= LEAST and fmean(values[i : i + 30]) < best / 2 and median(values[i - 1 : i + 2]) < best / 2:
            return i
    return None


def threshold(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """What was used before: the median of ten rows under a fifth of the best one, at least 0.3."""
    key = next((key for key in OUTCOMES if any(row.get(key) is not None for row in rows)), None)
    values = [float(row[key]) for row in rows if key is not None and row.get(key) is not None]
    best = -math.inf
    for i in range(9, len(values)):
        now = median(values[i - 9 : i + 1])
        if best >= 0.3 and now < 0.2 * best:
            return i
        best = max(best, now)
    return None


def watch(run: Run, evaluations: bool) -> dict[str, Any]:
    """Live: index of the first row at which each level was said, and how often a warning began."""
    monitor, said, warned, before = HealthMonitor(), {}, 0, "unknown"
    dev = {step: (accuracy, n) for step, accuracy, n in run.dev} if evaluations else {}
    for i, row in enumerate(run.rows):
        verdict = monitor.update(row)
        if row.get("step") in dev:
            verdict = monitor.evaluated(int(row["step"]), *dev[row["step"]])
        if verdict.verdict != before:
            said.setdefault(verdict.verdict, i)
            warned += verdict.verdict == "warn"
            before = verdict.verdict
    return {"collapsed": said.get("collapsed"), "warn": said.get("warn"), "warnings": warned}


def table(runs: Sequence[Run], title: str) -> None:
    """One line a run that broke or was called collapsed; the rest in sums."""
    print(
        f"\n### {title}\n\n| run | rows | broke at row | said | delay | with dev | warned before | the same with dev | plain threshold |"
    )
    print("|---" * 9 + "|")
    delays: list[int] = []
    by_dev: list[int] = []
    plain: list[int] = []
    healthy = false = vain = vain_dev = rows = found = broken = measured = 0
    for run in runs:
        at, live = broke(run.rows), watch(run, False)
        seen = watch(run, True) if run.dev else {"collapsed": None, "warn": None, "warnings": 0}
        dev = seen["collapsed"]
        said, old = live["collapsed"], threshold(run.rows)
        if at is None:
            healthy += 1
            rows += len(run.rows)
            false += said is not None or dev is not None
            vain, vain_dev = vain + live["warnings"], vain_dev + seen["warnings"]
            measured += len(run.dev)
        else:
            broken += 1
            found += said is not None
            delays += [said - at] if said is not None else []
            by_dev += [dev - at] if dev is not None else []
            plain += [old - at] if old is not None else []
        if at is not None or said is not None:
            early = at - live["warn"] if at is not None and live["warn"] is not None else None
            cells = (
                at,
                said,
                None if at is None or said is None else said - at,
                dev,
                early,
                at - seen["warn"] if at is not None and seen["warn"] is not None else None,
                None if at is None or old is None else old - at,
            )
            print(f"| {run.name} | {len(run.rows)} | {' | '.join('-' if c is None else str(c) for c in cells)} |")
    print(f"\n{found} of {broken} broken runs found by their rows; delay {spread(delays)}; plain threshold: {spread(plain)}.")
    if by_dev:
        print(f"With dev evaluations {len(by_dev)} found; delay {spread(by_dev)}.")
    print(f"{healthy} other runs, {rows:,} rows: {rate(false, rows)} called collapsed, {rate(vain, rows)} warnings begun", end="")
    print(f"; with {measured} dev evaluations {rate(vain_dev, rows)} warnings." if measured else ".")


def spread(delays: Sequence[int]) -> str:
    return f"median {median(delays):g} rows of {len(delays)} (all: {sorted(delays)})" if delays else "none"


def rate(events: int, rows: int) -> str:
    """Events, and how many a thousand rows with the exact 95 % interval of a Poisson rate (Garwood 1936)."""
    low = chi2.ppf(0.025, 2 * events) / 2 if events else 0.0
    high = chi2.ppf(0.975, 2 * events + 2) / 2
    thousand = max(rows, 1) / 1000
    return f"{events} ({events / thousand:.1f} per 1,000 rows, 95 % {low / thousand:.1f} to {high / thousand:.1f})"


def simulated(rows: int, seed: int) -> None:
    """False alarms of a reward alone on healthy rows of many kinds."""
    rng = np.random.default_rng(seed)

    def climb(n: int, low: float, high: float) -> Any:
        return low + (high - low) / (1.0 + np.exp(-(np.arange(n) - n / 4) / (n / 12)))

    def correlated(n: int, phi: float, sd: float) -> Any:
        noise, out = rng.standard_normal(n) * sd * math.sqrt(1 - phi * phi), np.empty(n)
        out[0] = noise[0]
        for i in range(1, n):
            out[i] = phi * out[i - 1] + noise[i]
        return out

    kinds: dict[str, Any] = {
        "1 sample a row, 60 % right": lambda n: rng.binomial(1, 0.6, n).astype(float),
        "4 samples a row, 45 %": lambda n: rng.binomial(4, 0.45, n) / 4,
        "8 samples a row, rising .2 to .7": lambda n: rng.binomial(8, climb(n, 0.2, 0.7)) / 8,
        "autocorrelated (.6), rising": lambda n: np.clip(climb(n, 0.3, 0.85) + correlated(n, 0.6, 0.06), 0, 1),
        "log-prob, Student t 3": lambda n: climb(n, -4, -1) + rng.standard_t(3, n) * 0.5,
        "either sign, autocorrelated (.3)": lambda n: climb(n, -0.5, 0.8) + correlated(n, 0.3, 0.5),
        "sum of parts, 2 to 4": lambda n: 2 + rng.binomial(8, 0.5, n) / 4,
        "noise of 2.5 times in between": lambda n: np.clip(
            0.7 + rng.standard_normal(n) * 0.06 * np.where(np.arange(n) // 100 % 3 == 1, 2.5, 1), 0, 1
        ),
        "loses a quarter slowly": lambda n: rng.binomial(16, np.linspace(0.8, 0.6, n)) / 16,
    }
    print(
        f"\n### Simulated healthy runs of 100 to 4,000 rows, {rows:,} rows a kind\n\n| kind | false `collapsed` | false `warn` |\n|---|---|---|"
    )
    total = [0, 0]
    for name, make in kinds.items():
        done = false = warned = 0
        while done < rows:
            values = make(int(rng.choice([100, 400, 1000, 4000])))
            live = watch(Run(name, name, [{"step": i + 1, "reward_mean": float(v)} for i, v in enumerate(values)]), False)
            false, warned, done = false + (live["collapsed"] is not None), warned + live["warnings"], done + len(values)
        total = [total[0] + false, total[1] + warned]
        print(f"| {name} | {false} in {done:,} | {warned} |")
    print(f"\nAll: {total[0]} false `collapsed`, {total[1]} false `warn` in about {rows * len(kinds):,} rows.")


def of_few_questions(runs: int, seed: int) -> None:
    """False alarms of the share of right answers where a row is few questions, each mostly right or mostly wrong in all of its 16 CoTs."""
    print("\n### Healthy runs of 200 rows, 16 CoTs to each question")
    print("\n| questions a row | right, on average | false `collapsed` |\n|---|---|---|")
    for questions, top in ((1, 0.3), (1, 0.6), (2, 0.35)):
        false = 0
        for number in range(runs):
            rng, rows = np.random.default_rng((seed, number)), list[dict[str, Any]]()
            for step in range(1, 201):
                mean = 0.03 + (top - 0.03) * min(1.0, step / 30)
                right = rng.binomial(16, rng.beta(0.3 * mean, 0.3 * (1 - mean), questions)).mean() / 16
                rows.append({"step": step, "answer_correct_fraction": float(right)})
            false += watch(Run("", "", rows), False)["collapsed"] is not None
        low, high = wilson(false, runs)
        print(f"| {questions} | {top} | {false} of {runs} (95 % {low:.2f} to {high:.2f}) |", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--logs", type=Path, help="a directory of logs of other frameworks")
    parser.add_argument("--rows", type=int, default=20_000, help="simulated rows of each kind; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    if own := list(packed()):
        table(own, "Our own runs")
    if arguments.logs:
        table(list(logs(arguments.logs)), "Real logs")
    if arguments.rows:
        simulated(arguments.rows, arguments.seed)
    of_few_questions(100, arguments.seed)


if __name__ == "__main__":
    main()
