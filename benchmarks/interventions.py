"""Does the answer follow the CoT, the question, or neither? Twins of embedded-words over seeds, and their base.

    python benchmarks/interventions.py --out DIR --seeds 0,1,2,3,4          # two runs a seed: hours on two cores

For each seed a Markovian run and its non-Markovian twin in DIR/NAME-seedS, all else the model's defaults. Then accuracy, and the
three-way table: one number of each CoT is changed and the rest worked out anew. Each model reads as it was trained to, and with the question hidden
and visible. Intervals are 95 %, from drawing seeds and questions both with replacement (Owen 2007, the pigeonhole bootstrap); with one
seed, questions alone. Twins are paired by seed and question. A second call continues where the first one stopped, and makes only the tables
again. Markdown goes to standard output, numbers to DIR/interventions.json.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from training_runs import TEST_QUESTIONS, made, markdown, write_json

from markovlm.analysis.intervention import OUTCOMES, READERS
from markovlm.analysis.loadbearing import Request, run_studies
from markovlm.config import RunConfig, build_config, nest
from markovlm.evaluation.run import Control, evaluate_targets
from markovlm.models.registry import model_defaults
from markovlm.runs.directory import RunDirectory
from markovlm.runs.targets import Target, conditioned, sighted
from markovlm.sweeps.compare import mean_t

TWINS = ("markovian", "non_markovian")
BASE = "base"
DRAWS = 10_000
Cell = tuple[int, str]  # seed and question
Values = Mapping[Cell, Sequence[float]]  # of the CoTs of that question in that run


@dataclass(frozen=True)
class Estimate:
    """Mean over CoTs with its interval (none where one question is all there is), and how many questions it is of."""

    mean: float
    low: float
    high: float
    questions: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "ci95": [self.low, self.high], "questions": self.questions}


def crossed(values: Values) -> Estimate | None:
    """Mean of all values; a draw weighs a value by how often its seed times how often its question was drawn."""
    if not values:
        return None
    seeds, questions = (sorted({cell[i] for cell in values}) for i in (0, 1))
    sums, counts = (np.zeros((len(seeds), len(questions))) for _ in range(2))
    for (seed, question), found in values.items():
        at = seeds.index(seed), questions.index(question)
        sums[at], counts[at] = sum(found), len(found)
    rng = np.random.default_rng(0)
    s = _weights(rng, len(seeds))
    q = _weights(rng, len(questions))
    with np.errstate(invalid="ignore"):
        drawn = np.einsum("ds,sq,dq->d", s, sums, q) / np.einsum("ds,sq,dq->d", s, counts, q)
    low, high = np.nanquantile(drawn, [0.025, 0.975]) if len(questions) > 1 else (np.nan, np.nan)
    return Estimate(float(sums.sum() / counts.sum()), float(low), float(high), len(questions))


def _weights(rng: np.random.Generator, n: int) -> Any:
    """How often each of n was drawn, [DRAWS, n]."""
    return rng.multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(float)


# --------------------------------------------------------------------------------------------------------------- one seed


def config_of(name: str, seed: int, steps: int | None) -> RunConfig:
    flat: dict[str, Any] = {
        "model": "embedded-words", "seed": seed, "loading.device": "cpu", "logging.samples_every": 0, "objective.conditioning": name,
        "training.eval_every": 0,
    }  # fmt: skip
    defaults = model_defaults("embedded-words")
    last = steps or defaults["training"]["steps"]
    return build_config(defaults, nest({**flat, "training.steps": last, "training.checkpoint_every": last}))


def measure(name: str, seed: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One run, made or read: of its last checkpoint, and with the Markovian one of the base too, accuracy and outcomes."""
    out = arguments.out / f"{name}-seed{seed}"
    config = config_of(name, seed, arguments.steps)
    failed = made(config, out)
    if failed:
        return [{"name": name, "seed": seed, "failed": failed}]
    run = RunDirectory(out)
    found = [_measured(name, seed, Target(str(out), config, run, run.saved_steps()[-1]), arguments)]
    if name == TWINS[0]:
        found.append(_measured(BASE, seed, Target(str(out), config, run, None), arguments))
    return found


def _measured(name: str, seed: int, target: Target, arguments: argparse.Namespace) -> dict[str, Any]:
    """`right`: conditioning -> question -> 0 or 1. `outcomes`: a row a CoT, as `analysis.intervention` has them."""
    as_read = {target.config.objective.conditioning: target}
    if name == BASE:
        as_read = {"markovian": target, "non_markovian": sighted(target)}
    assert target.run is not None
    right = {}
    for conditioning, one in as_read.items():
        (result,) = evaluate_targets(
            [one], one.config.data.test_split, arguments.test, Control(), target.run.path / "evaluations"
        )
        method = result.evaluation.extractors[0]
        right[conditioning] = {reading.id: float(reading.correct[method]) for reading in result.evaluation.readings}
    study = run_studies(Request(target, ("intervention",), limit=arguments.limit, cots=arguments.cots))
    result = study.results["intervention"]
    return {"name": name, "seed": seed, "failed": None, "right": right, "cots": result["cots"], "outcomes": result["outcomes"]}


# ----------------------------------------------------------------------------------------------------------------- tables


def values_of(found: Sequence[Mapping[str, Any]], reader: str, outcome: str) -> Values:
    """1 where a CoT's answer came out so."""
    values: dict[Cell, list[float]] = defaultdict(list)
    for one in found:
        for row in one["outcomes"]:
            values[one["seed"], row["id"]].append(float(row[reader] == outcome))
    return values


def accuracy_of(found: Sequence[Mapping[str, Any]], conditioning: str) -> Values:
    return {(one["seed"], question): [right] for one in found for question, right in one["right"][conditioning].items()}


def paired(ours: Values, theirs: Values) -> Values:
    """Differences of the means of each seed and question that both have."""
    both = ours.keys() & theirs.keys()
    return {cell: [sum(ours[cell]) / len(ours[cell]) - sum(theirs[cell]) / len(theirs[cell])] for cell in both}


def tables(runs: Sequence[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Markdown, and the same as numbers."""
    whole = {name: [run for run in runs if run["name"] == name and not run["failed"]] for name in (BASE, *TWINS)}
    rows, numbers = [], []
    for name, found in whole.items():
        for conditioning, reader in READERS.items():
            accuracy = crossed(accuracy_of(found, conditioning)) if found and conditioning in found[0]["right"] else None
            shares = {outcome: crossed(values_of(found, reader, outcome)) for outcome in OUTCOMES}
            had = sum(len(run["outcomes"]) for run in found), sum(run["cots"] for run in found)
            each = ", ".join(_alone(run, reader) for run in found)
            own = " (its own)" if conditioning == name else ""
            rows.append([name, reader + own, _text(accuracy), f"{had[0]} of {had[1]}", *map(_text, shares.values()), each or "-"])
            numbers.append(
                {"name": name, "reader": reader, "accuracy": _json(accuracy)} | {k: _json(v) for k, v in shares.items()}
            )
    compared, differences = _compared(whole)
    heads = (
        "model",
        "reader",
        "accuracy",
        "CoTs changed",
        "follows the changed CoT",
        "stays with the question",
        "neither",
        "follows, seed by seed",
    )
    pairs = ("Markovian minus its control", "accuracy", "follows", "question", "neither", "questions paired")
    text = f"{markdown(heads, rows)}\n\n{markdown(pairs, compared)}"
    return text, {"models": numbers, "differences": differences}


def _compared(whole: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """Each as it was trained to read, and both with the same reader."""
    ours, theirs = (whole[name] for name in TWINS)
    rows, numbers = [], []
    sights = [("each as trained", tuple(READERS[name] for name in TWINS)), *((f"both: {r}", (r, r)) for r in READERS.values())]
    for label, readers in sights:
        shares = {
            outcome: crossed(
                paired(*(values_of(found, reader, outcome) for found, reader in zip((ours, theirs), readers, strict=True)))
            )
            for outcome in OUTCOMES
        }
        accuracy = None
        if label == sights[0][0]:
            accuracy = crossed(paired(*(accuracy_of(found, name) for found, name in zip((ours, theirs), TWINS, strict=True))))
        count = shares[OUTCOMES[0]].questions if shares[OUTCOMES[0]] else 0
        rows.append([label, _text(accuracy), *map(_text, shares.values()), str(count)])
        numbers.append({"readers": label, "accuracy": _json(accuracy)} | {name: _json(value) for name, value in shares.items()})
    return rows, numbers


def _alone(run: Mapping[str, Any], reader: str) -> str:
    found = [row[reader] == OUTCOMES[0] for row in run["outcomes"]]
    return f"{sum(found) / len(found):.2f}" if found else "-"


def transferred(seeds: Sequence[int], arguments: argparse.Namespace) -> tuple[str, list[dict[str, Any]]]:
    """What a reader that never saw the training makes of the twins' CoTs and of the base's, beside what they read themselves; the
    question hidden. Means over seeds, Student's t; the last row is Markovian minus its control, seed by seed."""
    points = []
    for seed in seeds:
        for name in TWINS:
            out = arguments.out / f"{name}-seed{seed}"
            last = Target(str(out), config_of(name, seed, arguments.steps), (run := RunDirectory(out)), run.saved_steps()[-1])
            base = Target(str(out), last.config, run, None)
            hidden = [conditioned(one, "markovian") for one in (base, last)]
            request = Request(
                hidden[1], ("transfer",), checkpoints=tuple(hidden), readers=(arguments.reader,), limit=arguments.limit
            )
            for point in run_studies(request).results["transfer"]["points"]:
                is_base = point["checkpoint"] == "base"
                if is_base and name != TWINS[0]:
                    continue
                reader = "itself" if point["reader"] == "actor" else "the other model"
                found = {key: point[key]["mean"] for key in ("accuracy", "logprob")}
                points.append({"name": BASE if is_base else name, "seed": seed, "reader": reader, **found})
    rows = []
    for name in (BASE, *TWINS):
        for reader in ("itself", "the other model"):
            some = [point for point in points if point["name"] == name and point["reader"] == reader]
            rows.append([name, reader, *(_over_seeds([p[key] for p in some]) for key in ("accuracy", "logprob"))])
    for reader in ("itself", "the other model"):
        pairs = [
            [next(p for p in points if (p["name"], p["seed"], p["reader"]) == (name, seed, reader)) for name in TWINS]
            for seed in seeds
        ]
        gaps = [_over_seeds([ours[key] - theirs[key] for ours, theirs in pairs]) for key in ("accuracy", "logprob")]
        rows.append(["Markovian minus its control", reader, *gaps])
    return markdown(("CoTs of", "read by", "accuracy", "ln pi(a given CoT), nats a token"), rows), points


def _over_seeds(values: Sequence[float]) -> str:
    found = mean_t(values)
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _text(found: Estimate | None) -> str:
    return "-" if found is None else str(found)


def _json(found: Estimate | None) -> dict[str, Any] | None:
    return None if found is None else found.to_json()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="runs and interventions.json go here")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--steps", type=int, help="default: the model's")
    parser.add_argument("--limit", type=int, default=200, help="questions whose CoTs are changed")
    parser.add_argument("--cots", type=int, default=1, help="CoTs of each")
    parser.add_argument("--test", type=int, default=TEST_QUESTIONS, help="questions of the accuracy")
    parser.add_argument(
        "--reader", help="a model of its own that reads all CoTs too, e.g. the second copy of src/markovlm/assets/words/README.md"
    )
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    runs: list[dict[str, Any]] = []
    text = ""
    for seed in seeds:
        for name in TWINS:
            runs += measure(name, seed, arguments)
        text, numbers = tables(runs)
        write_json(arguments.out / "interventions.json", {"seeds": seeds, **numbers, "runs": runs})
    print(text)
    if arguments.reader:
        table, points = transferred(seeds, arguments)
        write_json(arguments.out / "transferred.json", points)
        print(f"\n{table}")
    failed = [f"{run['name']} seed {run['seed']}: {run['failed']}" for run in runs if run["failed"]]
    print("\n".join(["", *(f"failed: {line}" for line in failed)]) if failed else "")
    steps = arguments.steps or model_defaults("embedded-words")["training"]["steps"]
    print(
        f"embedded-words, {steps} steps, otherwise the model's defaults; seeds {arguments.seeds}; {arguments.test} questions for accuracy, "
        f"{arguments.limit} x {arguments.cots} CoTs to change. 95 % intervals over seeds and questions, crossed; n counts CoTs."
    )


if __name__ == "__main__":
    main()
