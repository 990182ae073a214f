"""How long the damage to a state lasts: s_{t+1} is perturbed and the chain continues from there with the same random streams."""

from __future__ import annotations

from typing import Any

from markovlm.analysis.chain_study import ChainStudy
from markovlm.analysis.fragility import pool_of
from markovlm.analysis.perturb import PERTURBATIONS, Context, TokenPool, perturb_ids, perturb_text
from markovlm.analysis.scoring import encode_cot
from markovlm.analysis.study import CHANGE, RATE, estimate, estimate_some
from markovlm.chains.prompter import Ids
from markovlm.chains.walk import Walk
from markovlm.evaluation.chains import ChainReading
from markovlm.rollouts.streams import stream

_MOST_STEPS = 6  # damaged of a long chain, spread over it


def damage(study: ChainStudy, name: str, severity: float) -> list[dict[str, Any]]:
    """Rows by what is predicted and by lag: drop of what is predicted `lag` chunks after the damaged state, and is that state another?"""
    pool = pool_of(study.setup) if PERTURBATIONS[name].level == "token" else None
    before = {_about(r): r for r in study.read(study.all_jobs(study.walks), "undamaged")}
    lost: dict[tuple[str, int], list[tuple[str, float, float | None]]] = {}
    other: dict[int, list[tuple[str, float]]] = {}
    for t in damaged_steps(study):
        few = [one for one in study.walks if one.text.states >= t]
        starts = [(one, _damaged(study, one, t, name, severity, pool)) for one in few]
        later = study.go_on(starts, t + 1)
        jobs = [
            (new, t, state, target) for new, (_, state) in zip(later, starts, strict=True) for target in study.targets(new, t)
        ]
        for reading in study.read(jobs + study.all_jobs(later), f"{name} {severity:g} at {t}"):
            intact = before[_about(reading)]
            right = None if intact.correct is None or reading.correct is None else float(intact.correct) - float(reading.correct)
            lost.setdefault((reading.kind, reading.t - t), []).append((reading.text, intact.logprob - reading.logprob, right))
        for old, new in zip(few, later, strict=True):
            for lag in range(1, old.text.states - t + 1):
                other.setdefault(lag, []).append((old.text.id, float(old.state(t + lag + 1) != new.state(t + lag + 1))))
    seed = study.how.seed
    rows: list[dict[str, Any]] = []
    for (kind, lag), values in sorted(lost.items()):
        texts = [text for text, _, _ in values]
        changed = other.get(lag, [])
        rows.append(
            {
                "perturbation": name,
                "severity": severity,
                "lag": lag,
                "predicted": kind,
                "n": len(values),
                "drop_logprob": estimate([value for _, value, _ in values], texts, seed),
                "drop_accuracy": estimate_some([right for _, _, right in values], texts, seed, CHANGE),
                "state_differs": estimate_some([v for _, v in changed], [text for text, _ in changed], seed, RATE),
            }
        )
    return rows


def damaged_steps(study: ChainStudy) -> list[int]:
    """The turns whose states are perturbed: all of a short chain, some spread over a long one."""
    states = max(one.text.states for one in study.walks)
    if states <= _MOST_STEPS:
        return list(range(1, states + 1))
    return sorted({1 + round(i * (states - 1) / (_MOST_STEPS - 1)) for i in range(_MOST_STEPS)})


def _damaged(study: ChainStudy, one: Walk, t: int, name: str, severity: float, pool: TokenPool | None) -> Ids:
    """The state written at `t`, damaged; severity 0 leaves the sampled ids as they are."""
    ids = one.state(t + 1)
    if severity == 0 or not ids:
        return ids
    rng = stream(study.how.seed, "perturb", name, one.text.id, t)
    if pool is not None:
        return perturb_ids(name, ids, severity, rng, pool)
    walks = study.walks
    stranger = walks[(walks.index(one) + 1) % len(walks)]
    other = study.prompter.text(stranger.state(min(t, stranger.text.states) + 1))
    context = Context(one.text.chunks[t - 1], other)
    return encode_cot(study.prompter, perturb_text(name, study.prompter.text(ids), severity, rng, context))


def _about(reading: ChainReading) -> tuple[str, int, str, str | None]:
    return reading.text, reading.t, reading.kind, reading.question
