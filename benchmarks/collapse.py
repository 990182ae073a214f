"""Real collapses: the embedded model at a learning rate of 4e-3. How early does the guard see them, and does rollback help?

    python benchmarks/collapse.py --out DIR                       # 11 objectives, with and without rollback, one seed
    python benchmarks/collapse.py --out DIR --only grpo,ppo --seeds 0,1 --steps 60

Each objective runs twice with the same seed: under `health.policy: warn`, which changes nothing, and under `rollback`. The first
gives the lead time: the step at which dev accuracy had fallen under half its best (and stayed there at the next evaluation),
minus the step at which the verdict `collapsed` was spoken. Positive: the guard was first. The second says what was saved.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from training_runs import Variant, chosen, dev_rows, embedded, made, markdown, write_json

from markovlm.config import RunConfig
from markovlm.runs.rows import read_rows

DEV = 100


def config_of(variant: Variant, seed: int, policy: str, arguments: argparse.Namespace) -> RunConfig:
    more = {
        "training.steps": arguments.steps,
        "training.lr": arguments.lr,
        "training.eval_every": arguments.eval_every,
        "training.checkpoint_every": arguments.checkpoint_every,
        "evaluation.dev_size": DEV,
        "health.policy": policy,
    }
    return embedded(variant, seed, more)


def fell(evaluations: Sequence[dict[str, Any]]) -> int | None:
    """The step of the first of two evaluations in a row under half of the best accuracy so far; None where there is none.

    A best under 0.2 is the untrained model's own level: nothing to lose.
    """
    best = 0.0
    for now, after in pairwise(evaluations):
        best = max(best, now["accuracy"])
        if best >= 0.2 and now["accuracy"] < best / 2 and after["accuracy"] < best / 2:
            return now["step"]
    return None


def verdicts(out: Path) -> tuple[int | None, int | None, str]:
    """(step at which `collapsed` was first spoken, the onset it named, its words)."""
    for event in read_rows(out / "events.jsonl"):
        if event["kind"] == "verdict" and event["verdict"] == "collapsed":
            onset = min(signal["step"] for signal in event["signals"] if signal["level"] == "collapsed")
            return event["step"], onset, event["message"]
    return None, None, ""


def measure(variant: Variant, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {"name": variant.name, "seed": seed}
    for policy in ("warn", "rollback"):
        out = arguments.out / f"{variant.name}-seed{seed}-{policy}"
        found[f"{policy}_ended"] = made(config_of(variant, seed, policy, arguments), out)
        evaluations = dev_rows(out)
        found[f"{policy}_best"] = max(row["accuracy"] for row in evaluations)
        found[f"{policy}_last"] = evaluations[-1]["accuracy"]
        found[f"{policy}_steps"] = evaluations[-1]["step"]
        if policy == "warn":
            found["fell"] = fell(evaluations)
            found["spoken"], found["onset"], found["verdict"] = verdicts(out)
        else:
            found["rollbacks"] = sum(event["kind"] == "rollback" for event in read_rows(out / "events.jsonl"))
    when_fell, when_spoken = found["fell"], found["spoken"]
    found["lead"] = None if when_fell is None or when_spoken is None else when_fell - when_spoken
    return found


def table_row(found: dict[str, Any]) -> list[str]:
    def text(value: Any) -> str:
        return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)

    names = (
        "name",
        "seed",
        "warn_best",
        "warn_last",
        "fell",
        "onset",
        "spoken",
        "lead",
        "rollbacks",
        "rollback_best",
        "rollback_last",
    )
    return [text(found[name]) for name in names]


COLUMNS = (
    "objective", "seed", "best dev", "last dev", "fell under half at", "onset", "called at", "lead, steps", "rollbacks",
    "best dev with rollback", "last dev with rollback",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="runs and collapse.json go here")
    parser.add_argument("--only", help="names, comma-separated")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--eval-every", type=int, default=4)
    parser.add_argument("--checkpoint-every", type=int, default=4)
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    record = []
    for variant in chosen(arguments.only):
        for seed in arguments.seeds.split(","):
            record.append(measure(variant, int(seed), arguments))
            write_json(arguments.out / "collapse.json", {"steps": arguments.steps, "lr": arguments.lr, "runs": record})
    print(markdown(COLUMNS, [table_row(found) for found in record]))
    print(
        f"\nEmbedded model, constant lr {arguments.lr:g}, {arguments.steps} steps, dev accuracy on {DEV} questions every "
        f"{arguments.eval_every} steps (95 % half-width up to 0.10). `-`: did not happen; lead = fell - spoken."
    )


if __name__ == "__main__":
    main()
