"""Markovian and non-Markovian twins on the second embedded model: does the CoT of the first bear more of the load?

    python benchmarks/twins.py --out DIR [--seeds 0,1,2] [--questions 300]        # about half an hour on two idle cores

Trains configs/embedded/markovian.yaml and non_markovian.yaml for each seed in DIR/NAME-SEED, then measures the fragility (METHOD
§4) on held-out questions, each model with its own fresh CoTs: once as each model is read by its training, and once with the
question visible to both readers, which takes the difference of the readers out and leaves that of the training. A second
call continues where the first one stopped. Markdown goes to standard output, numbers to DIR/twins.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from training_runs import made, markdown, test_accuracy, write_json

from markovlm.analysis.loadbearing import Request, run_studies
from markovlm.analysis.perturb import Plan
from markovlm.config import RunConfig, build_config, load_yaml
from markovlm.intervals import found_text
from markovlm.models.registry import model_defaults
from markovlm.runs.targets import Target, open_targets, sighted
from markovlm.studies.files import FOLDER

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "embedded"
TWINS = ("markovian", "non_markovian")
PAPER = ("delete", "truncate_front", "truncate_back", "digit_replace", "char_replace")
WHOLE = ("other_cot", "filler", "question", "change_result")


def configuration(name: str, seed: int) -> RunConfig:
    layer = load_yaml(CONFIGS / f"{name}.yaml")
    return build_config(model_defaults("embedded-shortcut"), layer, {"seed": seed, "loading": {"device": "cpu"}})


def study(ours: Target, theirs: Target, questions: int) -> dict[str, Any]:
    """Fragility and bypass of a pair."""
    assert ours.run is not None
    parts = ("perturb", "bypass")
    found = run_studies(Request(ours, parts, theirs, limit=questions, plan=Plan(PAPER + WHOLE)))
    return found.results


def of_seed(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    runs, accuracy = [], {}
    for name in TWINS:
        out = arguments.out / f"{name}-{seed}"
        config = configuration(name, seed)
        made(config, out)
        accuracy[name] = test_accuracy(config, out)
        runs.append(open_targets(str(out), "last", {})[0])
    ours, theirs = runs
    return {
        "seed": seed,
        "accuracy": accuracy,
        "as trained": study(ours, theirs, arguments.questions),
        "question visible to both": study(sighted(ours), theirs, arguments.questions),
    }


def table(found: list[dict[str, Any]], manner: str, key: str) -> str:
    """Perturbations by seed."""
    rows = []
    for row in found[0][manner]["perturb"]["rows"]:
        cell = (row["perturbation"], row["severity"])
        if row["severity"] > 0:
            same = [
                next(r for r in one[manner]["perturb"]["rows"] if (r["perturbation"], r["severity"]) == cell) for one in found
            ]
            rows.append([cell[0], f"{cell[1]:.0%}", *(found_text(one[key], 2) for one in same)])
    return markdown(["perturbation", "severity", *(f"seed {one['seed']}" for one in found)], rows)


def bypass_table(found: list[dict[str, Any]]) -> str:
    rows = []
    for name, key in zip(TWINS, ("bypass", "bypass_against"), strict=True):
        for control in ("own", "empty", "other", "filler"):
            picked = [
                next(r for r in one["as trained"][key]["rows"] if r["control"] == control and r["reader"] == "sees the question")
                for one in found
            ]
            rows.append([name.replace("_", "-"), control, *(found_text(row["accuracy"], 2) for row in picked)])
        rows.append([name.replace("_", "-"), "bypass", *(found_text(one["as trained"][key]["bypass"], 2) for one in found)])
    return markdown(["model", "CoT", *(f"seed {one['seed']}" for one in found)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--questions", type=int, default=300)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = [of_seed(int(seed), arguments) for seed in arguments.seeds.split(",")]
    write_json(arguments.out / "twins.json", found)
    for one in found:
        for name, test in one["accuracy"].items():
            low, high = test["ci95"]
            print(f"seed {one['seed']}, {name}: accuracy {test['accuracy']:.3f} [{low:.3f}, {high:.3f}] (n={test['n']})")
    for manner in ("as trained", "question visible to both"):
        for key in ("fragility", "fragility_accuracy"):
            print(f"\n{key}, {manner} (n={arguments.questions})\n\n{table(found, manner, key)}")
    print(f"\nAccuracy with the question visible (n={arguments.questions})\n\n{bypass_table(found)}")
    print(f"\nPer-example rows: {arguments.out}/*/{FOLDER}/")


if __name__ == "__main__":
    main()
