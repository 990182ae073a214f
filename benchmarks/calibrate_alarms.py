"""How often does the detector speak on healthy rows? Measures it and writes `src/markovlm/health/alarm_levels.py`.

    python benchmarks/calibrate_alarms.py [--rows 150000] [--write]

Healthy rows of many kinds, each run begun anew after 200 to 3,000 rows, go through the detector itself, which estimates level, noise and
autocorrelation as it does live: Gaussian rows, autocorrelated ones (0.3, 0.6), moving averages, heavy tails (Student t, 3 degrees of
freedom), shares of 4 and of 16 samples, rewards that rise and then stay, noise that doubles for a while, and block bootstraps
(blocks of 12 rows) of the residuals of real healthy runs (`benchmarks/data/detection.jsonl.gz`). For each k = drop / long-run
noise the rate at which L exceeds h is measured, ln(mean rows between alarms) fitted as a line in h where at least 12 alarms
stand behind it, and the *worst* kind of noise is shipped for each k. Long means are extrapolated along the line.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from markovlm.health.detect import Fall

Floats = NDArray[np.float64]
SHIPPED = Path(__file__).parents[1] / "src" / "markovlm" / "health" / "alarm_levels.py"
PACKED = Path(__file__).parent / "data" / "detection.jsonl.gz"
KS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5)
ALARMS = 12  # alarms that a rate must rest on


def autoregressive(rng: np.random.Generator, n: int, phi: float) -> Floats:
    noise, rows = rng.standard_normal(n), np.empty(n)
    last = noise[0] / math.sqrt(1 - phi * phi)
    for i in range(n):
        last = phi * last + noise[i]
        rows[i] = last
    return rows


def rising(rng: np.random.Generator, n: int) -> Floats:
    return 8.0 / (1.0 + np.exp(-(np.arange(n) - 60.0) / 20.0)) + rng.standard_normal(n)


def doubling(rng: np.random.Generator, n: int) -> Floats:
    return rng.standard_normal(n) * np.where((np.arange(n) // 150) % 3 == 1, 2.0, 1.0)


# name -> (rows of a healthy run, their long-run standard deviation)
KINDS: dict[str, tuple[Callable[[np.random.Generator, int], Floats], float]] = {
    "gauss": (lambda rng, n: rng.standard_normal(n), 1.0),
    "autocorrelated .3": (lambda rng, n: autoregressive(rng, n, 0.3), 1 / 0.7),
    "autocorrelated .6": (lambda rng, n: autoregressive(rng, n, 0.6), 1 / 0.4),
    "moving average of 3": (lambda rng, n: np.convolve(rng.standard_normal(n + 2), np.ones(3) / 3, "valid"), 1.0),
    "student t 3": (lambda rng, n: rng.standard_t(3, n), math.sqrt(3.0)),
    "share of 4": (lambda rng, n: rng.binomial(4, 0.4, n) / 4, math.sqrt(0.24 / 4)),
    "share of 16": (lambda rng, n: rng.binomial(16, 0.85, n) / 16, math.sqrt(0.85 * 0.15 / 16)),
    "rising": (rising, 1.0),
    "noise that doubles": (doubling, 1.4),
}


def residuals() -> list[Floats]:
    """Rows of the healthy packed runs less their level over 15 rows."""
    found = []
    text = gzip.decompress(PACKED.read_bytes()).decode() if PACKED.exists() else ""
    for run in map(json.loads, text.splitlines()):
        if run["lr"].startswith("linear"):
            for key in ("reward_mean", "answer_correct_fraction"):
                values = np.array(run["columns"].get(key, []), dtype=float)
                if len(values) >= 40:
                    level = np.convolve(np.pad(values, 7, mode="edge"), np.ones(15) / 15, "valid")
                    found.append((values - level) / (values - level).std())
    return found


def bootstrap(pool: Sequence[Floats]) -> Callable[[np.random.Generator, int], Floats]:
    def rows(rng: np.random.Generator, n: int) -> Floats:
        source = pool[rng.integers(len(pool))]
        starts = rng.integers(0, len(source) - 12, n // 12 + 1)
        return np.concatenate([source[start : start + 12] for start in starts])[:n]

    return rows


def peaks(make: Callable[[np.random.Generator, int], Floats], drop: float, floor: float, rows: int, seed: int) -> list[float]:
    """The highest L of every excursion from zero."""
    rng, done, found = np.random.default_rng(seed), 0, []
    while done < rows:
        n = int(rng.choice([200, 600, 3000]))
        fall, top = Fall(floor), 0.0
        for step, value in enumerate(make(rng, n).tolist()):
            fall.add(step, value, drop)
            nats = fall.nats[1]
            if nats > top:
                top = nats
            elif nats == 0.0 and top:
                found.append(top)
                top = 0.0
        found.append(top)
        done += n
    return found


def line(found: Sequence[float], rows: int) -> tuple[float, float]:
    """Intercept and slope of ln(rows between alarms) over the level, where 12 to a few hundred alarms stand behind it."""
    ordered = sorted(found, reverse=True)
    counts = [c for c in (12, 16, 24, 36, 54, 80, 120, 180, 270, 400) if c < len(ordered) and ordered[c - 1] > 0.5]
    if len(counts) < 4:
        return 6.0, 1.0  # never: as good as no alarm at all
    level = np.array([ordered[c - 1] for c in counts])
    logs = np.log([rows / c for c in counts])
    slope = float(np.polyfit(level, logs, 1)[0]) if np.ptp(level) > 0.3 else 1.0
    slope = min(max(slope, 0.3), 1.0)
    return float((logs - slope * level).min()), slope


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=150_000)
    parser.add_argument("--write", action="store_true", help="write the table into the package")
    arguments = parser.parse_args(argv)
    kinds = dict(KINDS)
    if pool := residuals():
        kinds["bootstrap of our healthy runs"] = (bootstrap(pool), 1.0)
    shipped = []
    for number, k in enumerate(KS):
        lines = {}
        for name, (make, sd) in kinds.items():
            lines[name] = line(peaks(make, k * sd, 0.15 * sd, arguments.rows, 1000 + number), arguments.rows)
        needed = {name: (math.log(20_000) - a) / b for name, (a, b) in lines.items()}
        worst = max(needed, key=lambda name: needed[name])
        print(f"k {k:4}: " + "; ".join(f"{name} {h:.1f}" for name, h in needed.items()) + f" nats for 20,000 rows; worst {worst}")
        # between the measured k the harder neighbour counts
        shipped.append((k, *lines[worst]))
    rows = ",\n".join(f"    ({'1e9' if k == KS[-1] else k}, {a:.3f}, {b:.3f})" for k, a, b in shipped)
    text = SHIPPED.read_text(encoding="utf-8")
    table = f"LEVELS: tuple[tuple[float, float, float], ...] = (\n{rows},\n)\n"
    print(table)
    if arguments.write:
        SHIPPED.write_text(text[: text.index("LEVELS:")] + table, encoding="utf-8")


if __name__ == "__main__":
    main()
