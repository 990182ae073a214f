"""Runs of the embedded model that benchmarks share: made once, kept in a directory, continued after an interruption."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markovlm.config import RunConfig, build_config, load_yaml, nest
from markovlm.errors import MarkovlmError
from markovlm.evaluation.run import Control, evaluate_targets
from markovlm.models.registry import model_defaults
from markovlm.runs.directory import RunDirectory
from markovlm.runs.rows import read_rows
from markovlm.runs.targets import Target
from markovlm.training.loop import train

TEST_QUESTIONS = 500


@dataclass(frozen=True)
class Variant:
    """One row of a table: what differs from the embedded model's defaults."""

    name: str
    overrides: Mapping[str, Any]
    note: str = ""


# With 50 steps the paper's 25 warm-up batches of expert iteration would be half of the run.
VARIANTS: tuple[Variant, ...] = (
    Variant("grpo", {}),
    Variant("rloo", {"objective.name": "rloo"}),
    Variant("dr_grpo", {"objective.name": "dr_grpo"}),
    Variant("ema", {"objective.name": "ema"}),
    Variant("expert_iteration", {"objective.name": "expert_iteration", "objective.warmup_batches": 5}, "5 warm-up batches"),
    Variant("ppo", {"objective.name": "ppo"}, "ratio per token, 2 passes"),
    Variant("ppo_sequence", {"objective.name": "ppo", "objective.ratio": "sequence"}, "ratio per sequence, 2 passes"),
    Variant("ppo_frozen_anchor", {"objective.name": "ppo_frozen_anchor"}, "as the research code: no KL, w = 0"),
    Variant("prob", {"objective.reward": "prob"}, "grpo, reward pi(a given z)"),
    Variant("exact_match", {"objective.reward": "exact_match", "objective.actor_reward_weight": 0}, "grpo, 0/1 reward, w = 0"),
    Variant("non_markovian", {"objective.conditioning": "non_markovian"}, "grpo, the reader sees the question"),
)


def chosen(names: str | None) -> list[Variant]:
    """Of `--only a,b`; all where it is not given."""
    wanted = names.split(",") if names else [variant.name for variant in VARIANTS]
    unknown = set(wanted) - {variant.name for variant in VARIANTS}
    if unknown:
        raise SystemExit(f"--only: unknown {', '.join(sorted(unknown))}; choose from {', '.join(v.name for v in VARIANTS)}")
    return [variant for variant in VARIANTS if variant.name in wanted]


def embedded(variant: Variant, seed: int, more: Mapping[str, Any]) -> RunConfig:
    flat = {"model": "embedded", "seed": seed, "loading.device": "cpu", "logging.samples_every": 0}
    return build_config(model_defaults("embedded"), nest({**flat, **more, **variant.overrides}))


def made(config: RunConfig, out: Path) -> str | None:
    """Train in `out`, or continue what is there; a finished run is left alone. Returns why it ended early, if it did."""
    run = RunDirectory(out)
    if run.config.exists():
        recorded = build_config(load_yaml(run.config))
        if recorded.training != config.training or recorded.objective != config.objective or recorded.health != config.health:
            raise SystemExit(f"{out}: is a run with other settings; name another --out")
    if (words := ended(out)) is not None:
        return words or None
    print(f"{out.name} ...", file=sys.stderr, flush=True)
    try:
        train(config, out, resume=run.config.exists())
    except MarkovlmError as error:
        return str(error)
    return None


def ended(out: Path) -> str | None:
    """None: not yet. Empty: at its last step. Else the words with which the guard stopped it."""
    for event in read_rows(out / "events.jsonl"):
        if event["kind"] in ("end", "stopped"):
            return event["message"] if event["kind"] == "stopped" else ""
    return None


def test_accuracy(config: RunConfig, out: Path) -> dict[str, Any]:
    """Of the last checkpoint on held-out questions; readings are kept in the run."""
    run = RunDirectory(out)
    target = Target(str(out), config, run, run.saved_steps()[-1])
    (result,) = evaluate_targets([target], config.data.test_split, TEST_QUESTIONS, Control(), out / "evaluations")
    summary = result.evaluation.summary()
    return {"right": result.evaluation.right(), "n": summary["n"], "accuracy": summary["accuracy"], "ci95": summary["ci95"]}


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def dev_rows(out: Path) -> list[dict[str, Any]]:
    """Evaluations during training, in order."""
    return [row for row in read_rows(out / "evals.jsonl") if row["role"] == "dev"]


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
