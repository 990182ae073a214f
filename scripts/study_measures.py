"""What a study measures on each of its finished runs, beside the evaluation. Kept in the run directory, so that a second call reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from markovlm.analysis.fragility import Plan
from markovlm.analysis.loadbearing import Request, run_studies
from markovlm.analysis.scoring import Variant, encode_cot, logprobs
from markovlm.config import build_config
from markovlm.evaluation.run import Control, evaluate_targets
from markovlm.models.registry import model_defaults
from markovlm.runs.rows import read_rows, replace_whole
from markovlm.runs.targets import Target, open_targets, sighted
from markovlm.sweeps.cells import Cell
from markovlm.sweeps.run import Sweep
from markovlm.tasks import get_task
from markovlm.tasks.arithmetic_data import parse_question, running_sums
from markovlm.tasks.base import Example, LoadRequest

READ = 200  # questions whose CoTs of known quality every reader reads
EVALUATED = 300  # test questions on which all checkpoints are compared
STUDIED = 200  # questions of a load-bearing study
MATCHED_ABOVE = 0.5  # dev accuracy from which checkpoints of twins are matched

Measured = dict[str, Any]


def measure(name: str, cell: Cell, sweep: Sweep) -> Measured:
    """Read from the run, or measured now."""
    run = sweep.layout.run(cell)
    kept = run / f"study-{name}.json"
    if not kept.exists():
        found = MEASURES[name](run, cell, sweep)
        replace_whole(kept, (json.dumps(found, allow_nan=False) + "\n").encode())
    return json.loads(kept.read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------------------------------------------ reader


def reader(run: Path, cell: Cell, sweep: Sweep) -> Measured:
    """ln pi(gold | CoT) by the trained reader for the same CoTs in every run: the right sums, the same with the last result wrong, and
    what the untrained base wrote where that says no right sum. AUC: P(right CoT scores above the other one), ties half."""
    (target,) = open_targets(str(run), "last", {})
    qualities = _qualities(sweep.layout.path)
    setup = target.prepare()
    found: Measured = {"questions": len(qualities["right"])}
    scores = {}
    for quality, cots in qualities.items():
        variants = [
            Variant(Example(**example), 0, quality, (ids := encode_cot(setup.prompter, text)), ids, "markovian", write=False)
            for example, text in cots
        ]
        scores[quality] = logprobs(setup, variants, 256)
        found[f"logprob_{quality}"] = float(np.mean(scores[quality]))
        found[f"p_{quality}"] = float(np.mean(np.exp(scores[quality])))
    for quality in ("wrong", "idle"):
        found[f"auc_{quality}"] = auc(scores["right"], scores[quality])
    return found


def auc(above: Sequence[float], below: Sequence[float]) -> float:
    """The share of pairs in which the first is larger, ties counted half: Mann-Whitney's U over the number of pairs."""
    return float(stats.mannwhitneyu(above, below).statistic) / (len(above) * len(below))


def _qualities(folder: Path) -> dict[str, list[tuple[dict[str, Any], str]]]:
    """Quality -> (example, CoT). The base's own CoTs are drawn once for the sweep."""
    kept = folder / "cots-of-known-quality.json"
    if not kept.exists():
        examples = list(get_task("arithmetic").load(LoadRequest("test", limit=READ)).examples)
        right = {e.id: running_sums(parse_question(e.question)) for e in examples}
        base = Target("embedded", build_config(model_defaults("embedded")), None, None)
        (result,) = evaluate_targets([base], "test", READ, Control(), None)
        said = {reading.id: reading.cot for reading in result.evaluation.readings}
        plain = {e.id: {"id": e.id, "question": e.question, "answer": e.answer} for e in examples}
        made = {
            "right": [(plain[i], text) for i, text in right.items()],
            "wrong": [(plain[i], with_wrong_result(text)) for i, text in right.items()],
            "idle": [(plain[i], text) for i, text in said.items() if not text.endswith(f"={plain[i]['answer']}")],
        }
        replace_whole(kept, json.dumps(made, ensure_ascii=False).encode())
    return json.loads(kept.read_text(encoding="utf-8"))


def with_wrong_result(text: str) -> str:
    """The last result with its last digit moved by five: as long, as fluent, and wrong."""
    return re.sub(r"(\d)$", lambda digit: str((int(digit[1]) + 5) % 10), text)


# -------------------------------------------------------------------------------------------------------------------- load


def load(run: Path, cell: Cell, sweep: Sweep) -> Measured:
    """Accuracy of fresh CoTs, and what is lost with another question's CoT and without any, read as in training."""
    (target,) = open_targets(str(run), "last", {})
    return _drops(target, ("other_cot", "delete"), 100)


def _drops(target: Target, kinds: tuple[str, ...], questions: int) -> Measured:
    done = run_studies(Request(target, ("perturb",), limit=questions, plan=Plan(kinds, (0.6, 1.0))))
    rows = done.results["perturb"]["rows"]
    found: Measured = {"intact": done.results["perturb"]["intact"]["accuracy"]["mean"]}
    for row in rows:
        drop = row.get("drop_accuracy")
        if row["severity"] > 0 and drop:
            found[f"{row['perturbation']}@{row['severity']:g}"] = {
                "accuracy": drop["mean"],
                "logprob": row["drop_logprob"]["mean"],
            }
    return found


# ------------------------------------------------------------------------------------------------------------------- twins


def twins(run: Path, cell: Cell, sweep: Sweep) -> Measured:
    """The damage that a twin takes with the question visible, at its last checkpoint and where it is as accurate as the other."""
    (last,) = open_targets(str(run), "last", {})
    matched = matched_steps(sweep, cell.seed)
    found: Measured = {"last": _damage(last)}
    if matched is not None:
        mine = matched[0] if cell.values["objective.conditioning"] == "markovian" else matched[1]
        (at,) = open_targets(str(run), str(mine), {})
        found["matched"] = {"step": mine, **_damage(at)}
    return found


def _damage(target: Target) -> Measured:
    return _drops(sighted(target), ("other_cot", "delete", "char_replace"), STUDIED)


def matched_steps(sweep: Sweep, seed: int) -> tuple[int, int] | None:
    """(step of the Markovian twin, step of the other) with the smallest gap on dev, later ones first; None where none is good enough."""
    curves = {}
    for cell in sweep.cells:
        if cell.seed == seed:
            rows = read_rows(sweep.layout.run(cell) / "evals.jsonl")
            curves[cell.values["objective.conditioning"]] = {
                row["step"]: row["accuracy"]
                for row in rows
                if row["role"] == "dev" and row["accuracy"] >= MATCHED_ABOVE and row["step"]
            }
    pairs = [(abs(a - b), -(s + t), s, t) for s, a in curves["markovian"].items() for t, b in curves["non_markovian"].items()]
    if not pairs:
        return None
    *_, ours, theirs = min(pairs)
    return ours, theirs


# ------------------------------------------------------------------------------------------------------------- checkpoints


def checkpoints(run: Path, cell: Cell, sweep: Sweep) -> Measured:
    """Every checkpoint on the same test questions: right or wrong, question by question, by each extractor, as a string of 1 and 0."""
    found: Measured = {}
    targets = open_targets(str(run), "all", {})
    results = evaluate_targets(targets, "test", EVALUATED, Control(), run / "evaluations")
    for target, result in zip(targets, results, strict=True):
        readings = sorted(result.evaluation.readings, key=lambda reading: reading.id)
        found[str(target.step)] = {
            method: "".join("01"[bool(reading.correct[method])] for reading in readings)
            for method in result.evaluation.extractors
        }
    return found


# -------------------------------------------------------------------------------------------------------- ends, and collapses


def ends(run: Path, cell: Cell, sweep: Sweep) -> Measured:
    """The last checkpoint's test readings, question by question in the order of their ids, as strings of 1 and 0: right by the default
    extractor, beginning with all gold tokens, these and then an end; and the first few replies that run on."""
    (target,) = open_targets(str(run), "last", {})
    (result,) = evaluate_targets([target], "test", sweep.spec.evaluate.limit, Control(), run / "evaluations")
    readings = sorted(result.evaluation.readings, key=lambda reading: reading.id)
    first = result.evaluation.extractors[0]
    marks = {
        "correct": [reading.correct[first] for reading in readings],
        "likeliest": [bool(reading.likeliest) for reading in readings],
        "exact": [bool(reading.exact) for reading in readings],
    }
    on = [[one.cot[-40:], one.answer, one.gold] for one in readings if one.likeliest and not one.exact]
    return {**{name: "".join("01"[mark] for mark in found) for name, found in marks.items()}, "run_on": on[:5]}


BEST_AT_LEAST = 0.5  # dev accuracy a run must have had before it can be said to have collapsed


def collapse(run: Path, cell: Cell, sweep: Sweep) -> Measured:
    """The first dev evaluation under half of the best so far; `died` false: censored at the last one."""
    best, at = 0.0, 0
    for row in read_rows(run / "evals.jsonl"):
        if row["role"] != "dev":
            continue
        at, accuracy = row["step"], row["accuracy"]
        if best >= BEST_AT_LEAST and accuracy < best / 2:
            return {"step": at, "died": True}
        best = max(best, accuracy)
    return {"step": at, "died": False}


# ------------------------------------------------------------------------------------- twins, matched where damage is measured


COMPOSITE = ("other_cot@1", "delete@1", "char_replace@0.6")


def twins_visible(run: Path, cell: Cell, sweep: Sweep) -> Measured:
    """Damage with the question visible, at the checkpoint where this twin is as accurate, so read, as the other."""
    curves = {}
    for other in sweep.cells:
        if other.seed == cell.seed:
            curves[other.values["objective.conditioning"]] = _visible_accuracy(sweep.layout.run(other))
    pairs = [
        (abs(a - b), -(s + t), s, t)
        for s, a in curves["markovian"].items()
        for t, b in curves["non_markovian"].items()
        if min(a, b) >= MATCHED_ABOVE
    ]
    if not pairs:
        return {"matched": None}
    gap, _, ours, theirs = min(pairs)
    mine = ours if cell.values["objective.conditioning"] == "markovian" else theirs
    (at,) = open_targets(str(run), str(mine), {})
    found = _damage(at)
    drops = [found[kind]["accuracy"] / found["intact"] for kind in COMPOSITE]
    return {"matched": {"step": mine, "gap": gap, **found, "composite": float(np.mean(drops))}}


def _visible_accuracy(run: Path) -> dict[int, float]:
    """Step -> dev accuracy with the question visible to the reader, of every checkpoint after the first step."""
    kept = run / "study-visible.json"
    if not kept.exists():
        targets = [sighted(target) for target in open_targets(str(run), "all", {}) if target.step]
        config = targets[0].config
        results = evaluate_targets(targets, config.data.dev_split, config.evaluation.dev_size, Control(), run / "evaluations")
        found = {
            str(target.step): result.evaluation.summary()["accuracy"] for target, result in zip(targets, results, strict=True)
        }
        replace_whole(kept, (json.dumps(found) + "\n").encode())
    return {int(step): accuracy for step, accuracy in json.loads(kept.read_text(encoding="utf-8")).items()}


MEASURES: dict[str, Callable[[Path, Cell, Sweep], Measured]] = {
    "reader": reader, "load": load, "twins": twins, "checkpoints": checkpoints, "ends": ends,
    "collapse": collapse, "twins_visible": twins_visible,
}  # fmt: skip
