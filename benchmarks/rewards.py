"""Every likelihood reward, question hidden and visible, on both embedded models: the table of docs/objectives.md.

    python benchmarks/rewards.py --out DIR                                   # 5 seeds, 2 models: hours on two cores
    python benchmarks/rewards.py --out DIR --only logprob,prob_rloo --models embedded --seeds 0 --conditionings markovian

Run by run in DIR; a second call continues where the first one stopped and makes only the table again. Markdown goes to standard
output, numbers to DIR/rewards.json. Accuracy on held-out questions; calibration is the reader's p(a|z) minus right or wrong over the last
ten steps (above 0: too sure of itself); load-bearing: drop of accuracy where the CoT is replaced by another question's.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training_runs import Variant, made, markdown, test_accuracy, write_json

from markovlm.analysis.loadbearing import Request, run_studies
from markovlm.analysis.perturb import Plan
from markovlm.config import RunConfig, build_config, nest
from markovlm.models.registry import model_defaults
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import read_rows
from markovlm.runs.targets import Target
from markovlm.statistics import Estimate
from markovlm.sweeps.compare import Outcome, compare, mean_t

W0 = {"objective.actor_reward_weight": 0}
REWARDS: tuple[Variant, ...] = (
    Variant("logprob", {}, "grpo"),
    Variant("logprob_sum", {"objective.answer_logprob": "sum"}, "grpo"),
    Variant("prob", {"objective.reward": "prob"}, "grpo"),
    Variant("prob_rloo", {"objective.reward": "prob", "objective.name": "rloo"}, "rloo, as VeriFree"),
    Variant("mean_prob", {"objective.reward": "mean_prob", **W0}, "grpo, w = 0"),
    Variant(
        "bound",
        {
            "objective.reward": "bound",
            "objective.name": "reinforce",
            "objective.baseline_every": 1,
            "objective.normalize_reward": False,
        },
        "reinforce, as JEPO",
    ),
    Variant("exact_match", {"objective.reward": "exact_match", **W0}, "grpo, w = 0"),
    Variant("readers", {"objective.reward": "readers", "objective.readers": ["actor", "frozen"]}, "grpo, actor and frozen"),
    Variant("logprob_ema", {"objective.reader": "ema", **W0}, "grpo, slow reader, w = 0"),
    Variant("logprob_frozen", {"objective.reader": "frozen", **W0}, "grpo, frozen reader, w = 0"),
)
STUDIED = 50  # questions of the load-bearing score


def config_of(variant: Variant, model: str, conditioning: str, seed: int, steps: int) -> RunConfig:
    flat = {
        "model": model, "seed": seed, "loading.device": "cpu", "logging.samples_every": 0, "objective.conditioning": conditioning,
        "training.steps": steps, "training.eval_every": 0, "training.checkpoint_every": steps,
    }  # fmt: skip
    return build_config(model_defaults(model), nest({**flat, **variant.overrides}))


def measure(variant: Variant, model: str, conditioning: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run, made or read, and what it came to."""
    out = arguments.out / f"{variant.name}-{model}-{conditioning}-seed{seed}"
    config = config_of(variant, model, conditioning, seed, arguments.steps)
    failed = made(config, out)
    rows = read_rows(out / "metrics.jsonl")[-10:]
    found: dict[str, Any] = {"name": variant.name, "model": model, "conditioning": conditioning, "seed": seed, "failed": failed}
    if failed:
        return found
    return {
        **found,
        "test": test_accuracy(config, out),
        "calibration": statistics.fmean(row["reader_calibration"] for row in rows),
        "load": _load(config, out),
    }


def _load(config: RunConfig, out: Path) -> float | None:
    """Drop of accuracy with another question's CoT."""
    run = RunDirectory(out)
    target = Target(str(out), config, run, run.saved_steps()[-1])
    done = run_studies(Request(target, ("perturb",), limit=STUDIED, plan=Plan(("other_cot",))))
    row = next(row for row in done.results["perturb"]["rows"] if row["severity"] > 0)
    return row["drop_accuracy"]["mean"] if row.get("drop_accuracy") else None


def table(variants: Sequence[Variant], model: str, conditioning: str, runs: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A row a reward: means over seeds with Student's t interval, and the difference from the first one, seed by seed."""
    outcomes = [
        Outcome(
            f"{run['name']}-{run['seed']}", run["name"], {}, run["seed"], "failed" if run["failed"] else "done",
            None if run["failed"] else run["test"]["accuracy"],
        )
        for run in runs
    ]  # fmt: skip
    found = compare(outcomes, variants[0].name)
    against = {row.group: row for row in found.differences}
    rows = []
    for variant, group in zip(variants, found.groups, strict=True):
        mine = [run for run in runs if run["name"] == variant.name]
        whole = [run for run in mine if not run["failed"]]
        d = against.get(variant.name)
        rows.append(
            [
                variant.name,
                variant.note,
                model,
                "hidden" if conditioning == "markovian" else "visible",
                _number(group.score),
                ", ".join("failed" if run["failed"] else f"{run['test']['accuracy']:.3f}" for run in mine),
                "" if d is None else _number(d.difference),
                "" if d is None or d.p_adjusted is None else f"{d.p_adjusted:.3f}",
                _number(mean_t([run["calibration"] for run in whole]), sign=True),
                _number(mean_t([run["load"] for run in whole if run["load"] is not None]), 2),
            ]
        )
    return rows


def _number(estimate: Estimate, digits: int = 3, sign: bool = False) -> str:
    if math.isnan(estimate.mean):
        return "-"
    plus = "+" if sign else ""
    mean = f"{estimate.mean:{plus}.{digits}f}"
    return mean if math.isnan(estimate.low) else f"{mean} [{estimate.low:{plus}.{digits}f}, {estimate.high:{plus}.{digits}f}]"


COLUMNS = (
    "reward",
    "objective",
    "model",
    "question",
    "accuracy",
    "seed by seed",
    "less the first",
    "p (Holm)",
    "calibration",
    "other CoT: drop of accuracy",
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="runs and rewards.json go here")
    parser.add_argument("--only", help="names, comma-separated")
    parser.add_argument("--models", default="embedded,embedded-shortcut")
    parser.add_argument("--conditionings", default="markovian,non_markovian")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args(argv)
    names = arguments.only.split(",") if arguments.only else [variant.name for variant in REWARDS]
    unknown = set(names) - {variant.name for variant in REWARDS}
    if unknown:
        raise SystemExit(f"--only: unknown {', '.join(sorted(unknown))}; choose from {', '.join(v.name for v in REWARDS)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    variants = [one for one in REWARDS if one.name in names]
    rows: list[list[str]] = []
    record: list[dict[str, Any]] = []
    for model in arguments.models.split(","):
        for conditioning in arguments.conditionings.split(","):
            runs: list[dict[str, Any]] = []
            for variant in variants:
                runs += [measure(variant, model, conditioning, seed, arguments) for seed in seeds]
                write_json(arguments.out / "rewards.json", {"steps": arguments.steps, "runs": [*record, *runs]})
            record += runs
            rows += table(variants, model, conditioning, runs)
    print(markdown(COLUMNS, rows))
    print(
        f"\n{arguments.steps} steps, otherwise the models' defaults; seeds {arguments.seeds}. Means over seeds, Student's t, 95 %; differences from "
        f"{variants[0].name} seed by seed, p adjusted by Holm's method for a model and reader."
    )


if __name__ == "__main__":
    main()
