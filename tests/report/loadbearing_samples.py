"""Files of RUN/loadbearing/ as the studies write them, with numbers made up for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SEVERITIES = (0.2, 0.4, 0.6, 0.8, 1.0)
PERTURBATIONS = (
    ("delete", "character"), ("truncate_front", "character"), ("truncate_back", "character"), ("digit_replace", "character"),
    ("char_replace", "character"), ("token_delete", "token"), ("token_truncate_front", "token"), ("token_truncate_back", "token"),
)  # fmt: skip
MEANINGS = (
    ("swap_numbers", 0.02),
    ("change_result", 0.35),
    ("shuffle_sentences", 0.1),
    ("other_cot", 1.4),
    ("filler", 1.1),
)


def est(mean: float | None, half: float | None = None, **more: Any) -> dict[str, Any]:
    """`mean` ± `half`; no interval without `half`."""
    ends = [None, None] if mean is None or half is None else [round(mean - half, 6), round(mean + half, 6)]
    return {"mean": mean, "ci95": ends} | more


def head(kind: str, step: int = 50, **more: Any) -> dict[str, Any]:
    return {
        "kind": kind, "run": "run", "checkpoint": f"step-{step:06d}" if step else "base", "step": step, "split": "test",
        "task": "arithmetic", "model": "embedded", "conditioning": "markovian", "n": 100, "seed": 0,
    } | more  # fmt: skip


def damage(name: str, level: str, severity: float | None, drop: float, half: float = 0.3, **more: Any) -> dict[str, Any]:
    return {
        "perturbation": name, "level": level, "severity": severity, "n": 100, "changed": 1.0, "drop_logprob": est(drop, half),
        "drop_accuracy": est(round(drop / 2.2, 6), 0.09), "fragility": None, "fragility_accuracy": None,
    } | more  # fmt: skip


def perturb(against: bool = False, **more: Any) -> dict[str, Any]:
    """Deleting 40 % costs 1.20 nats (0.90 to 1.50) and 55 points (46 to 64)."""
    rows = [damage("delete", "character", 0.0, 0.0, 0.0)]
    for i, (name, level) in enumerate(PERTURBATIONS):
        for s in SEVERITIES:
            drop = round(3.0 * s * (1 - 0.11 * i), 6)
            rows.append(damage(name, level, s, drop, drop_accuracy=est(round(min(0.8, 1.375 * s * (1 - 0.11 * i)), 6), 0.09)))
    rows += [damage(name, "meaning", 1.0, drop, 0.1, changed=0.4 if name == "swap_numbers" else 1.0) for name, drop in MEANINGS]
    other = {"run": "runs/twin", "checkpoint": "step-000050", "conditioning": "non_markovian", "model": "embedded"}
    if against:
        for row in rows:
            drop = row["drop_logprob"]["mean"]
            row["fragility"] = est(round(0.5 * drop - 0.35, 6), 0.2)
            row["fragility_accuracy"] = est(round(0.2 * drop - 0.1, 6), 0.08)
    return head("perturb") | {
        "cots_per_question": 1, "against": other if against else None, "round_trip_gap": est(0.001, 0.002, changed=0.03),
        "intact": {"logprob": est(-0.21, 0.05), "accuracy": est(0.9, 0.05)},
        "intact_against": {"accuracy": est(0.8, 0.06)} if against else None, "rows": rows, "notes": ["a note of the study"],
    } | more  # fmt: skip


def transfer(**more: Any) -> dict[str, Any]:
    points = []
    for reader, start, gain in (("actor", -1.6, 1.35), ("gpt2", -2.4, 0.8), ("tiny-llama", -2.0, 0.05)):
        for step in (0, 10, 20, 30, 40, 50):
            up = gain * step / 50
            points.append(
                {
                    "checkpoint": f"step-{step:06d}" if step else "base", "step": step, "reader": reader, "n": 100,
                    "logprob": est(round(start + up, 6), 0.2), "accuracy": est(round(0.1 + 0.5 * up, 6), 0.08),
                    "vs_base": {"logprob": est(round(up, 6), 0.15), "accuracy": est(round(0.5 * up, 6), 0.06)} if step else None,
                }
            )  # fmt: skip
    readers = [{"reader": r, "model": m, "prompt_style": "plain"} for r, m in (("gpt2", "openai/gpt2"), ("tiny-llama", "x/tiny"))]
    correlation = [{"reader": "gpt2", "spearman": 1.0, "n": 6, "p": 0.0028}, {"reader": "tiny-llama", "spearman": None, "n": 6}]
    return head("transfer") | {"readers": readers, "points": points, "correlation": correlation} | more


def example(id: str = "test/3", correct: bool = True) -> dict[str, Any]:
    parts = (
        ("17", "number", 0.9), ("+", "operator", 0.2), ("4", "number", 0.4), ("=", "operator", 0.05), ("21", "number", 1.6),
        (",", "punctuation", 0.0), (" so", "filler", -0.3), (" 21", "number", 0.7), ("+", "operator", 0.1), ("9", "number", 1.1),
        ("=", "operator", 0.3), ("30" if correct else "31", "number", 2.2),
    )  # fmt: skip
    units, start = [], 0
    for text, kind, drop in parts:
        units.append({"text": text, "kind": kind, "start": start / 22, "drop": drop})
        start += len(text)
    written = "30" if correct else "31"
    return {
        "id": id, "question": "17+4+9", "gold": "30", "answer": written, "correct": correct, "target": "30", "logprob": -0.1,
        "units": units,
    }  # fmt: skip


def explain(**more: Any) -> dict[str, Any]:
    kinds = (("number", 0.8, 0.1, 0.71, 0.4), ("operator", 0.2, 0.05, 0.25, 0.3), ("punctuation", 0.05, 0.02, 0.05, 0.2))
    by_kind = [
        {"kind": k, "units": 400, "questions": 80, "drop": est(d, h), "share": s, "share_of_units": u}
        for k, d, h, s, u in (*kinds, ("filler", -0.01, 0.03, -0.01, 0.1))
    ]
    drops = (0.1, 0.2, 0.15, 0.3, 0.35, 0.3, 0.5, 0.6, 0.9, 1.4)
    by_position = [{"from": i / 10, "to": (i + 1) / 10, "units": 90, "drop": est(d, 0.15)} for i, d in enumerate(drops)]
    examples = [example(), example("test/4", False)]
    found = {"by": "word", "how": "remove", "by_kind": by_kind, "by_position": by_position, "examples": examples}
    return head("explain") | found | more


def bypass(share: float = 0.03, half: float = 0.02, **more: Any) -> dict[str, Any]:
    rows = [
        {
            "control": control, "reader": reader, "n": 100,
            "accuracy": est(0.9 if control == "own" else share + 0.02, 0.05), "logprob": est(-0.2 if control == "own" else -2.1, 0.2),
            "survives": None if control == "own" else est(share, half, n=90),
        }
        for reader in ("sees the question", "question hidden")
        for control in ("own", "empty", "other", "filler")
    ]  # fmt: skip
    return head("bypass") | {"rows": rows, "bypass": est(share, half)} | more


def own(**more: Any) -> dict[str, Any]:
    rows = [
        {"CoT": "as written", "accuracy": est(0.9, 0.05), "length": 21.5, "n": 100},
        {"CoT": "no spaces", "accuracy": est(0.4, 0.1), "length": 16, "changed": True, "why": None},
    ]
    return head("own") | {"study": "spacing", "question": "Is the answer still read?", "rows": rows} | more


def leak(**more: Any) -> dict[str, Any]:
    found = {
        "leaks": est(0.92, 0.04), "leaks_other": est(0.05, 0.03),
        "position": {"mean": 0.78, "quartiles": [0.66, 0.8, 0.93]}, "accuracy": est(0.95, 0.03),
        "accuracy_cut_before": est(0.4, 0.1), "logprob": est(-0.15, 0.04), "logprob_cut_before": est(-1.1, 0.2),
    }  # fmt: skip
    return head("leak") | found | more


def chains(kind: str = "notes_then_questions", **more: Any) -> dict[str, Any]:
    """At 60 % another text's state costs 0.84 nats at once and 0.36 two chunks later; answers are right in 95 % and, three chunks on, 40 %."""
    thinking = kind == "thinking"
    rows = [
        {
            "perturbation": name, "severity": severity, "lag": lag, "predicted": "answer", "n": 100,
            "drop_logprob": est(round(severity * drop - 0.4 * severity * lag, 6), 0.2 * severity), "drop_accuracy": est(0.3 * severity, 0.1),
            "state_differs": est(0.9 * severity, 0.05) if lag else None,
        }
        for name, drop in (("delete", 1.1), ("other_cot", 1.4))
        for severity in (0.0, 0.6, 1.0)
        for lag in range(3)
    ]  # fmt: skip
    questions = [
        {
            "text": f"test/{i}", "question": "bob?", "answer": str(10 + i), "fact": None if thinking else 1 + i % 3, "after": 4,
            "known": [
                {"t": t, "logprob": -0.05 if t >= 1 + i % 3 else -2.5, "correct": t >= 1 + i % 3} for t in range(1, 5)
            ],
        }
        for i in range(30)
    ]  # fmt: skip
    ages = [
        {"age": age, "n": 60 if age >= 0 else 20, "accuracy": est(a, 0.08), "logprob": est(-2 * (1 - a), 0.1)}
        for age, a in ((-1, 0.1), (0, 0.95), (1, 0.8), (2, 0.6), (3, 0.4))
    ]
    steps = [{"t": t, "n": 30, "accuracy": est(0.2 * t, 0.1), "logprob": est(-1.0, 0.1)} for t in range(1, 5)]
    words = [{"word": "bob=3", "drop": 0.4, "drop_next": 0.1, "survives": True}]
    return head("chains", chain=kind) | {
        "state_tokens": 24, "notes": [], "damage": {"steps_damaged": [1, 2, 3], "rows": rows},
        "words": {"texts": [{"text": "test/0", "states": [{"t": 1, "chunk": "bob+3", "words": words}]}], "survival": est(0.45, 0.05)},
        "facts": {"questions": questions, "by_age": [] if thinking else ages, "by_t": steps},
    } | more  # fmt: skip


def intervention(follows: float = 0.8, question: float = 0.0, **more: Any) -> dict[str, Any]:
    """Of 60 CoTs with a number to change: with the question hidden .80 (.70 to .90) follow; visible half as many."""
    ways = {"question hidden": (follows, question), "sees the question": (follows / 2, 0.5)}
    rows = [
        {"reader": reader, "n": 60, "right_before": est(0.9, 0.05), "follows": est(f, 0.1), "question": est(q, 0.1 if q else 0.0),
         "neither": est(round(1 - f - q, 6), 0.1)}
        for reader, (f, q) in ways.items()
    ]  # fmt: skip
    changed = {
        "id": "test/1", "question": "17+4+79", "gold": "100", "cot": "17+4=21,21+79=100", "changed": "17+4=21,21+52=73",
        "result": "73", "answers": {"question hidden": "73", "sees the question": None},
    }  # fmt: skip
    return head("intervention") | {"cots": 100, "changed": 60, "rows": rows, "examples": [changed]} | more


def resample(**more: Any) -> dict[str, Any]:
    """Three sentences: the first causes and is written down again, the second bears, the third is always written."""
    none = {"tv": None, "chance": None, "p": None, "kl": None, "accuracy_with": 1.0, "accuracy_without": None}
    sentences = [
        {"text": "17 and 4 are 21.", "start": 0.0, "occlusion": 0.01, "tv": est(0.7, 0.1), "chance": 0.2, "p": 0.001, "accuracy_with": 0.9,
         "accuracy_without": 0.2},
        {"text": " 21 and 79 are 100.", "start": 0.4, "occlusion": 2.5, "tv": est(0.25, 0.1), "chance": 0.2, "p": 0.4, "accuracy_with": 0.9,
         "accuracy_without": 0.8},
        {"text": " So 100.", "start": 0.8, "occlusion": -0.2, **none},
    ]  # fmt: skip
    places = [
        {"from": i / 5, "to": (i + 1) / 5, "sentences": 12 if i % 2 == 0 else 0, "tv": est(0.5, 0.2) if i % 2 == 0 else None,
         "chance": est(0.2, 0.02) if i % 2 == 0 else None, "kl": est(0.9, 0.3), "accuracy_drop": est(0.1, 0.2), "occlusion": est(1.0, 0.4)}
        for i in range(5)
    ]  # fmt: skip
    cot = {
        "id": "test/1",
        "question": "17+4+79",
        "gold": "100",
        "cot": "…",
        "answer": "100",
        "correct": True,
        "sentences": sentences,
    }
    found = {"k": 20, "criterion": "a sentence differs if it is not equal", "by_position": places, "cots": [cot]}
    return head("resample") | found | {"rank_correlation": est(0.2, 0.4, cots=8)} | more


def write_studies(run: Path, *studies: dict[str, Any]) -> Path:
    """Write studies where `analysis` leaves them; the names count up."""
    folder = run / "loadbearing"
    folder.mkdir(exist_ok=True)
    start = len(list(folder.iterdir()))
    for i, study in enumerate(studies, start):
        (folder / f"{study.get('kind', 'x')}-{i:02d}.json").write_text(json.dumps(study), encoding="utf-8")
    return run


def everything(run: Path, against: bool = True) -> Path:
    """One study of each kind."""
    return write_studies(run, perturb(against), transfer(), explain(), bypass(), leak(), intervention(), resample())
