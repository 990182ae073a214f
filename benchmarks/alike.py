"""A whole training run whose equal CoTs are computed once, against the same run that computes each CoT by itself, turn by turn.

    OMP_NUM_THREADS=1 python benchmarks/alike.py [--model embedded-words] [--steps 50] [--repeats 3]

Both make the same run: same CoTs, same updates to rounding (the mean reward of the last step is compared).
Seconds are those of the steps; no evaluations are made on the way.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from step import ratio_interval
from training_runs import markdown

from markovlm.config import RunConfig, build_config, nest
from markovlm.models.language import LanguageModel
from markovlm.models.registry import KNOWN, model_defaults
from markovlm.rollouts.hf import HFSampler
from markovlm.runs.rows import read_rows
from markovlm.training.loop import train

PHASES = ("step", "sampling", "baseline", "scoring", "training")


def run(config: RunConfig, out: Path, alike: bool) -> dict[str, float]:
    """Seconds by phase over the run, and the mean reward of its last step."""
    made = HFSampler.__init__

    def apart(sampler: HFSampler, lm: LanguageModel, batch_tokens: int = 32768) -> None:
        made(sampler, lm, batch_tokens, joined=False)

    if alike:
        train(config, out)
    else:
        with mock.patch.object(HFSampler, "__init__", apart), mock.patch.object(LanguageModel, "repeatable", False):
            train(config, out)
    rows = read_rows(out / "metrics.jsonl")
    found = {phase: sum(row.get(f"{phase}_seconds") or 0.0 for row in rows) for phase in PHASES}
    return {**found, "reward": rows[-1]["reward_mean"]}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="embedded", choices=KNOWN, help="an embedded model, at its defaults")
    parser.add_argument("--steps", type=int, help="default the model's")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    flat = {"model": arguments.model, "seed": arguments.seed, "loading.device": "cpu", "training.eval_every": 0}
    if arguments.steps:
        flat["training.steps"] = arguments.steps
    config = build_config(model_defaults(arguments.model), nest(flat))
    sides: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.repeats):
            for side in (0, 1) if number % 2 else (1, 0):
                sides[side].append(run(config, Path(folder) / f"{number}-{side}", alike=side == 0))
    gap = max(abs(ours["reward"] - theirs["reward"]) for ours, theirs in zip(*sides, strict=True))
    rows = []
    for phase in PHASES:
        ours, theirs = ([one[phase] for one in side] for side in sides)
        median, low, high = ratio_interval(ours, theirs)
        rows.append(
            [phase, f"{statistics.median(ours):.1f}", f"{statistics.median(theirs):.1f}", f"{median:.2f} [{low:.2f}, {high:.2f}]"]
        )
    print(
        f"{arguments.model}, {config.training.steps} steps, n={arguments.repeats} runs each; mean reward of the last step {gap:.1e} apart\n"
    )
    print(markdown(("seconds of a run", "equal CoTs once", "each by itself", "ratio"), rows))
    print("\nIn brackets: 95 % bootstrap interval of the median ratio of neighbouring runs.")


if __name__ == "__main__":
    sys.exit(main())
