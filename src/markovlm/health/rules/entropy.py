"""Entropy of the policy: explosion, slow growth, death."""

from __future__ import annotations

import math
from collections.abc import Iterable

from markovlm.health.advice import BEFORE
from markovlm.health.case import Case
from markovlm.health.moves import Move, fall, left_at, rise
from markovlm.health.rule import Finding, Rule
from markovlm.health.series import Course
from markovlm.health.thresholds import Threshold
from markovlm.health.tracks import Watched

_FACTOR, _LEAST = 3.0, 1.0  # of an explosion: times the early level, nats a token
_SLOW = 10  # rows (or an eighth of the run) from half of an explosion to all of it: more is growth


def _tripled(case: Case) -> tuple[Course, Move, int] | None:
    """(entropy, where it had tripled, the step from which it stayed half again above its early level)."""
    c = case.course("entropy")
    move = rise(c, factor=_FACTOR, by=0.5, least=_LEAST, dies=True)
    return None if c is None or move is None else (c, move, left_at(c, move, 1.5 * move.before))


def _is_slow(c: Course, move: Move, left: int) -> bool:
    return int((c.steps[: move.row] >= left).sum()) > max(_SLOW, len(c) // 8)


def explosion(case: Case) -> Iterable[Finding]:
    found = _tripled(case)
    if found is None or _is_slow(*found):
        return
    _, move, step = found
    yield Finding(
        "entropy_explosion",
        f"entropy rose {move.told()} nats per token from step {step:,} on: the text turns into noise",
        "high" if case.outcome_lost else "medium",
        "problem" if case.outcome_lost or move.peak >= 3.0 else "caution",
        step,
    )


def growth(case: Case) -> Iterable[Finding]:
    found = _tripled(case)
    if found is None or not _is_slow(*found):
        return
    _, move, step = found
    lost = bool({e.kind for e in case.verdict.signals} & {"reward_crash", "accuracy_crash", "logprob_crash"})
    yield Finding(
        "entropy_growth",
        f"entropy grew from {move.before:.3g} to {move.peak:.3g} nats per token from step {step:,} on"
        + (f", long before the reward fell (step {case.verdict.onset_step:,})" if lost and case.verdict.onset_step else ""),
        "high" if lost else "medium",
        "problem" if lost or move.peak >= 2.0 else "caution",
        step,
    )


def death(case: Case) -> Iterable[Finding]:
    now, was = case.now("entropy"), case.early("entropy")
    if "entropy_death" not in case.kinds and not case.collapsed:
        return
    dead = now is not None and was is not None and now < 0.05 and was > 2.0 * now
    if not dead and not {"entropy_death", "identical_cots"} & {e.kind for e in case.verdict.signals if e.level == "collapsed"}:
        return
    said = (
        f"entropy {now:.3g} nats per token ({was:.3g} early)"
        if now is not None and was is not None
        else "all completions are the same"
    )
    moves = (fall(case.course("entropy"), factor=0.5, most=0.05), rise(case.course("identical_cot_fraction"), least=0.8))
    steps = [move.step for move in moves if move is not None]
    steps += [e.step for e in case.verdict.signals if e.kind in ("entropy_death", "identical_cots") and not e.recovered]
    yield Finding("entropy_death", f"{said}: nothing new is sampled", "medium", "problem", min(steps, default=None))


RULES = (
    Rule(
        "entropy_explosion",
        "the policy's entropy exploded",
        "entropy",
        "three times the early level and over 1 nat per token, within a few rows",
        "high if the outcome is lost too",
        live=(Watched("entropy", "log_rise", 0.05, math.log(3.0), 1.0, follows=True),),
        check=explosion,
        explains="mechanism",
        advice=(BEFORE, "rate", "kl", "entropy"),
        plural="saw entropy explode",
        warns="medium",
        seen=(
            "https://github.com/verl-project/verl/issues/2738",
            "https://github.com/verl-project/verl/issues/1066",
            "https://github.com/verl-project/verl/pull/781",
        ),
    ),
    Rule(
        "entropy_growth",
        "entropy grew for most of the run, before anything else moved",
        "entropy",
        "three times the early level and over 1 nat per token, slowly",
        "high if the reward fell afterwards",
        check=growth,
        explains="mechanism",
        advice=("entropy", "kl", "rate"),
        doubt="entropy grows",
        plural="saw entropy keep growing",
        warns="high",
        seen=("https://github.com/verl-project/verl/issues/1066",),
    ),
    Rule(
        "entropy_death",
        "the policy has no entropy left while answers are wrong",
        "entropy, right answers",
        "under 0.05 nats per token and half the early level, in a run that is not healthy",
        "medium: a measurement, not its cause",
        live=(
            Threshold(
                "entropy", "value", "below", 0.05, 0.02, 4, 5,
                "Nats per token. 0.02 is a next token chosen with probability 0.997: no exploration is left. Normal "
                "only when answers are already right.",
                gain_excuses=True, solved_excuses=True,
            ),
        ),
        check=death,
        explains="mechanism",
        cause="entropy_lost",
        advice=("exploration", "groups", BEFORE),
        plural="lost their entropy",
        seen=("https://github.com/huggingface/trl/pull/3118", "https://github.com/verl-project/verl/issues/5953"),
    ),
)  # fmt: skip
