"""Where the policy is: far from its start, far from what was sampled, and not what the sampler runs."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from markovlm.health.advice import BEFORE
from markovlm.health.case import Case
from markovlm.health.levels import surely_above, window_of
from markovlm.health.moves import rise
from markovlm.health.rule import Finding, Rule
from markovlm.health.series import Course, smooth
from markovlm.health.thresholds import Threshold
from markovlm.health.tracks import Watched

_GAPS = ("sampler_gap", "sampler_prob_gap", "sampler_kl")
_UNIT = {
    "sampler_gap": "nats per token between the log-probs of sampler and trainer",
    "sampler_prob_gap": "between the probabilities of sampler and trainer",
    "sampler_kl": "nats of KL between sampler and trainer",
    "sampler_ratio_mean": "is the mean ratio of trainer and sampler",
}
_APART = {"sampler_gap": 0.1, "sampler_prob_gap": 0.03, "sampler_kl": 0.1}  # from the first rows on: more is no rounding
_GRAVE = {"sampler_gap": 0.04, "sampler_prob_gap": 0.015, "sampler_kl": 0.04}  # grown to less, it is worth a line and no cause
_RATIO = (0.5, 1.5)
_SAME = "check that sampler and trainer use the same temperature, top_p, top_k, dtype and chat template, and that weights are synchronised every step"


def kl_runaway(case: Case) -> Iterable[Finding]:
    c = case.course("kl")
    spoken = {"kl_runaway", "drift"} & case.kinds
    move = rise(c, factor=8.0, by=0.3, least=0.5)
    if c is None or (not spoken and (move is None or _gained(case))):
        return
    step = min(
        [e.step for e in case.verdict.signals if e.kind in ("kl_runaway", "drift")] + ([move.step] if move is not None else [])
    )
    before = float(np.median(c.values[c.steps < step][-10:])) if (c.steps < step).any() else float(c.values[0])
    top = float(c.values[c.steps >= step].max())
    if not spoken and top < 1.0:
        return
    gained = "" if case.outcome_lost or _gained(case) else "; the reward gained nothing from it"
    yield Finding(
        "kl_runaway",
        f"KL to the start rose from {before:.3g} to {top:.3g} nats per token from step {step:,} on{gained}",
        "high" if case.outcome_lost else "medium",
        "problem" if case.outcome_lost or top >= 4.0 else "caution",
        step,
    )


def _gained(case: Case) -> bool:
    """Has the reward gained more than noise, and something worth it?"""
    c = case.outcome
    if c is None or len(c) < 8:
        return False
    window = window_of(len(c))
    means = smooth(c.values, window)
    at = int(np.argmax(means))
    best, start = c.values[max(0, at - window // 2) :][:window], c.values[:window]
    worth = 0.1 if c.is_share else 0.1 * float(np.ptp(c.values))
    return float(best.mean() - start.mean()) > worth and surely_above(c, best, start)


def off_policy(case: Case) -> Iterable[Finding]:
    c = case.course("behavior_kl")
    if c is None:
        return
    move = rise(Course(c.key, c.steps, np.abs(c.values)), factor=5.0, by=0.05, least=0.1)
    spoken = case.spoken("off_policy")
    if move is None and spoken is None:
        return
    step = min(s for s in (move.step if move else None, spoken.step if spoken else None) if s is not None)
    sizes, prior = np.abs(c.values), np.abs(c.values[c.steps < step])[-10:]
    before, top = float(np.median(prior)) if len(prior) else 0.0, float(sizes[c.steps >= step].max())
    yield Finding(
        "off_policy",
        f"KL to the policy that sampled rose from {before:.3g} to {top:.3g} nats per token at step {step:,}: an update moves far from the policy "
        "that sampled for it",
        "high",
        "problem",
        step,
    )


def sampler_mismatch(case: Case) -> Iterable[Finding]:
    """Sampler and trainer apart: from the first rows on, or more and more."""
    apart = _apart_from_start(case)
    if apart is not None:
        key, c = apart
        ratios = case.course("sampler_ratio_mean") if key != "sampler_ratio_mean" else None
        ratio = float(np.median(ratios.values)) if ratios is not None else 1.0
        also = "" if _RATIO[0] < ratio < _RATIO[1] else f", mean ratio {ratio:.3g}"
        yield Finding(
            "sampler_mismatch",
            f"sampler and trainer disagree from the first row on: {float(np.median(c.values)):.3g} {_UNIT[key]}{also}. Something differs between "
            "them: temperature, top-p or top-k, precision, the chat template, or the weights are stale",
            "high",
            "problem",
            int(c.steps[0]),
            (_SAME, "sampler"),
        )
        return
    found = case.spoken("sampler_mismatch")
    if found is None:
        return
    c = case.course(found.name)
    early, now = case.early(found.name), case.now(found.name)
    grave = _GRAVE[found.name]
    top = float(c.values[c.steps >= found.step][:10].max()) if c is not None and (c.steps >= found.step).any() else 0.0
    if c is None or early is None or now is None or max(now, top) < grave or now < 2.0 * early:
        return
    yield Finding(
        "sampler_mismatch",
        f"from {early:.3g} to {max(now, top):.3g} {_UNIT[found.name]}, from step {found.step:,} on",
        "high" if not case.outcome_lost else "medium",
        "problem",
        found.step,
    )


def _apart_from_start(case: Case) -> tuple[str, Course] | None:
    for key in _GAPS:
        c = case.course(key)
        if c is not None and len(c) >= 3 and float(np.quantile(np.abs(c.values[:10]), 0.2)) > _APART[key]:
            return key, Course(key, c.steps, np.abs(c.values))
    c = case.course("sampler_ratio_mean")
    if (
        c is not None
        and len(c) >= 5
        and (np.quantile(c.values[:10], 0.1) > _RATIO[1] or np.quantile(c.values[:10], 0.9) < _RATIO[0])
    ):
        return "sampler_ratio_mean", c
    return None


RULES = (
    Rule(
        "kl_runaway",
        "the policy drifts away from its start without gaining anything",
        "KL, reward",
        "eight times the early level and over 1 nat per token, or one of the live tests, and nothing gained",
        "high if the outcome is lost too",
        live=(Watched("kl", "log_rise", 0.1, math.log(8.0), 1.0, follows=True),),
        check=kl_runaway,
        explains="mechanism",
        advice=(BEFORE, "rate", "kl", "clip"),
        plural="drift away from their start",
        warns="medium",
        seen=("https://github.com/huggingface/open-r1/issues/257", "https://github.com/huggingface/trl/issues/41"),
    ),
    Rule(
        "drift",
        "the policy is far from the frozen model",
        live=(
            Threshold(
                "kl", "value", "above", 4.0, 12.0, 4, 5,
                "Nats per token from the frozen model. 12 is the distance between a uniform choice among 128,000 tokens "
                "and certainty.",
                gain_excuses=True, solved_excuses=True,
            ),
        ),
    ),
    Rule(
        "off_policy",
        "one update moves the policy too far from the one that sampled",
        "KL from the policy that sampled",
        "five times the early level and over 0.1 nats per token, for three rows",
        "high: measured",
        live=(
            Watched("off_policy_kl", "log_rise", 0.3, math.log(5.0), 0.1),
        ),
        check=off_policy,
        explains="mechanism",
        advice=("rate", "passes", "clip"),
        doubt="off-policy",
        plural="moved too far from the policy that sampled",
        warns="medium",
        seen=("https://github.com/verl-project/verl/issues/2738",),
    ),
    Rule(
        "sampler_mismatch",
        "sampler and trainer disagree on probabilities, so training is off-policy without knowing it",
        "log-probs, probabilities and KL of sampler and trainer",
        "differ from the first rows on (by 0.1 nats, a probability of 0.03, or a mean ratio outside 0.5 to 1.5), or by "
        "three times as much as before",
        "high: measured",
        live=(
            Watched("sampler_gap", "log_rise", 0.1, math.log(3.0), 0.02),
            Watched("sampler_kl", "log_rise", 0.1, math.log(3.0), 0.02),
            Watched("sampler_prob_gap", "log_rise", 0.1, math.log(3.0), 0.01),
            Threshold(
                "sampler_gap", "value", "above", 0.1, None, 9, 10,
                "Nats per token. Two precisions of one model differ by 0.005 to 0.03; 0.1 means different settings or "
                "different weights.",
            ),
            Threshold(
                "sampler_prob_gap", "value", "above", 0.03, None, 9, 10,
                "Difference of a token's probability. verl calls values under 0.005 healthy.",
            ),
        ),
        check=sampler_mismatch,
        explains="mechanism",
        advice=("sampler", "rate"),
        doubt="sampler differs",
        plural="have a sampler that disagrees with the trainer",
        warns="medium",
        seen=(
            "https://github.com/huggingface/trl/pull/3867",
            "https://github.com/verl-project/verl/pull/3694",
            "https://github.com/huggingface/trl/issues/4772",
        ),
    ),
)  # fmt: skip
