"""Do intervals and trend tests hold their level? Simulations behind what the package claims.

    python benchmarks/intervals.py                    # a few minutes of one core
    python benchmarks/intervals.py --only crossed --draws 2000

crossed: coverage of 95 % intervals of an accuracy over seeds and questions, of Student's t over seeds alone, of the crossed percentile
bootstrap, and of `statistics.crossed_mean_ci`; right answers are drawn with effects of seeds and questions on the logit scale.
trends: how often `report.trend.claimed` calls a trendless AR(1) course a trend. windows: coverage of a window's mean plus or minus two of
its standard errors. Markdown goes to standard output.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from markovlm.health.levels import level
from markovlm.health.series import Course
from markovlm.health.trend import claimed, trend
from markovlm.statistics import crossed_mean_ci, wilson
from markovlm.sweeps.compare import mean_t

Floats = NDArray[np.float64]
CASES = (  # seeds, questions, logit of the mean, spread of seeds, spread of questions
    (3, 300, 3.5, 0.05, 1.0), (3, 300, 0.0, 0.1, 2.0), (3, 300, 0.0, 0.6, 2.0), (3, 300, 1.5, 1.5, 1.0),
    (5, 300, 3.5, 0.05, 1.0), (5, 300, 0.0, 0.1, 2.0), (5, 300, 0.0, 0.6, 2.0), (5, 300, 1.5, 1.5, 1.0),
)  # fmt: skip
RHOS = (0.0, 0.5, 0.9, 0.95)


def over_seeds(table: Floats, _: np.random.Generator) -> tuple[float, float]:
    found = mean_t(table.mean(axis=1).tolist())
    return (found.low, found.high) if found.low == found.low else (found.mean, found.mean)


def bootstrapped(table: Floats, rng: np.random.Generator) -> tuple[float, float]:
    seeds, questions = table.shape
    rows = rng.multinomial(seeds, [1 / seeds] * seeds, size=500) / seeds
    columns = rng.multinomial(questions, [1 / questions] * questions, size=500) / questions
    low, high = np.quantile(((rows @ table) * columns).sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def crossed(table: Floats, _: np.random.Generator) -> tuple[float, float]:
    found = crossed_mean_ci(table)
    return (found.low, found.high) if found.low == found.low else (found.mean, found.mean)


WAYS: dict[str, Callable[[Floats, np.random.Generator], tuple[float, float]]] = {
    "Student's t over seeds": over_seeds,
    "crossed percentile bootstrap": bootstrapped,
    "crossed_mean_ci": crossed,
}


def crossed_table(draws: int, rng: np.random.Generator) -> list[list[str]]:
    rows = []
    for seeds, questions, mu, of_seed, of_question in CASES:
        wide = rng.standard_normal(400_000) * np.hypot(of_seed, of_question)
        truth = float(expit(mu + wide).mean())
        hits = dict.fromkeys(WAYS, 0)
        for _ in range(draws):
            effects = mu + of_seed * rng.standard_normal((seeds, 1)) + of_question * rng.standard_normal((1, questions))
            table = (rng.random((seeds, questions)) < expit(effects)).astype(float)
            for name, way in WAYS.items():
                low, high = way(table, rng)
                hits[name] += low <= truth <= high
        shares = [share(hits[name], draws) for name in WAYS]
        rows.append([str(seeds), str(questions), f"{truth:.2f}", f"{of_seed:g}", f"{of_question:g}", *shares])
    return rows


def autoregressive(rng: np.random.Generator, n: int, rho: float) -> Floats:
    rows = np.empty(n)
    last = rng.standard_normal() / np.sqrt(1 - rho * rho)
    for i, noise in enumerate(rng.standard_normal(n)):
        last = rho * last + noise
        rows[i] = last
    return rows


def course(values: Floats) -> Course:
    return Course("reward_mean", np.arange(1, len(values) + 1, dtype=np.float64), values)


def trend_table(draws: int, rng: np.random.Generator) -> list[list[str]]:
    rows = []
    for n in (20, 40, 100, 400, 1000):
        row = [str(n)]
        for rho in RHOS:
            found = [trend(course(autoregressive(rng, n, rho))) for _ in range(draws)]
            row.append(share(sum(t is not None and claimed(t) for t in found), draws))
        rows.append(row)
    return rows


def window_table(draws: int, rng: np.random.Generator) -> list[list[str]]:
    """A window of the last tenth (at least 10 rows) of a course: does it hold the course's level?"""
    rows = []
    for n, window in ((40, 10), (100, 10), (400, 40), (1000, 100)):
        row = [str(n), str(window)]
        for rho in RHOS:
            hits = given = 0
            for _ in range(draws):
                one = level(course(autoregressive(rng, n, rho)), n - window, n)
                if one.error is not None:
                    given += 1
                    hits += abs(one.mean) <= 2.0 * one.error
            row.append(share(hits, given) if given else "no error given")
        rows.append(row)
    return rows


def share(count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"{count / n:.3f} [{low:.3f}, {high:.3f}]"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join([f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *(f"| {' | '.join(row)} |" for row in rows)])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["crossed", "trends", "windows"], default=None)
    arguments = parser.parse_args(argv)
    rhos = [f"rho {rho:g}" for rho in RHOS]
    if arguments.only in (None, "crossed"):
        columns = ("seeds", "questions", "accuracy", "spread of seeds", "spread of questions", *WAYS)
        print(markdown(columns, crossed_table(arguments.draws, np.random.default_rng(arguments.seed))) + "\n")
    if arguments.only in (None, "trends"):
        print(markdown(("rows", *rhos), trend_table(arguments.draws, np.random.default_rng(arguments.seed))) + "\n")
    if arguments.only in (None, "windows"):
        print(markdown(("rows", "window", *rhos), window_table(arguments.draws, np.random.default_rng(arguments.seed))))


if __name__ == "__main__":
    main()
