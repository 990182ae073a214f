"""The collapses people meet, by name: signature, what it means, and what to do in the terms of their framework (docs/detection.md).

`named(portrait(columns, verdict))` gives every signature that fits, the most telling first. Pure functions over columns of metric rows, live
and in hindsight. A signature is a resemblance, not a proof: each says on what it rests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from markovlm.health.remedies import remedy
from markovlm.health.verdict import Verdict

Column = Sequence["float | None"]
_LAST, _BEFORE, _EARLY = 5, 10, 8
_COMPONENT = "reward/"


@dataclass(frozen=True, slots=True)
class Portrait:
    """Levels of every signal: of the first rows, before the onset (or of the middle), of the last rows; values in order."""

    verdict: Verdict
    early: Mapping[str, float]
    before: Mapping[str, float]
    now: Mapping[str, float]
    values: Mapping[str, Sequence[float]]

    @property
    def collapsed(self) -> bool:
        return self.verdict.verdict == "collapsed"

    @property
    def kinds(self) -> set[str]:
        return set(self.verdict.kinds)

    @property
    def outcome_lost(self) -> bool:
        """Has reward, log-prob or accuracy itself fallen?"""
        return bool({e.kind for e in self.verdict.signals if e.level == "collapsed"} & _OUTCOMES)

    def highest(self, key: str) -> float:
        return max(self.values[key])

    def moved(self, key: str) -> float:
        """Change from the early level in standard errors of the last ten rows against the first ten; 0 where unknown."""
        values = self.values.get(key, ())
        if len(values) < 20:
            return 0.0
        first, last = values[:10], values[-10:]
        spread = math.sqrt((_variance(first) + _variance(last)) / 10.0) + 1e-9
        return (sum(last) - sum(first)) / 10.0 / spread


_OUTCOMES = {"reward_crash", "accuracy_crash", "logprob_crash", "evaluation_fell"}


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)


def portrait(columns: Mapping[str, Column], verdict: Verdict) -> Portrait:
    """Of columns of equal length, `step` among them; values that are missing or not finite are left out."""
    steps = columns.get("step") or range(max((len(c) for c in columns.values()), default=0))
    onset = verdict.onset_step
    early: dict[str, float] = {}
    before: dict[str, float] = {}
    now: dict[str, float] = {}
    kept: dict[str, Sequence[float]] = {}
    for key, column in columns.items():
        rows = [(s, float(v)) for s, v in zip(steps, column, strict=True) if v is not None and math.isfinite(v)]
        if key == "step" or not rows:
            continue
        values = [value for _, value in rows]
        prior = [value for step, value in rows if onset is not None and step is not None and step < onset] or values[
            : len(values) // 2 + 1
        ]
        kept[key] = values
        early[key], before[key], now[key] = median(values[:_EARLY]), median(prior[-_BEFORE:]), median(values[-_LAST:])
    return Portrait(verdict, early, before, now, kept)


@dataclass(frozen=True, slots=True)
class Signature:
    """One named collapse: what it means, and when a portrait fits (evidence in words, or None)."""

    name: str
    sentence: str
    fits: Callable[[Portrait], str | None]


@dataclass(frozen=True, slots=True)
class Named:
    """A signature that fits a run."""

    name: str
    sentence: str
    evidence: str

    def advice(self, framework: str = "") -> tuple[str, ...]:
        """What to do, in the terms of TRL, verl, OpenRLHF, ...; "" is markovlm."""
        return remedy(self.name, framework)


def _number(value: float) -> str:
    return f"{value:.3g}"


def _not_finite(p: Portrait) -> str | None:
    bad = [e for e in p.verdict.signals if e.kind == "non_finite" and e.level == "collapsed"]
    return f"values that are not finite from step {bad[0].step:,} on" if bad else None


def _garbage_paid(p: Portrait) -> str | None:
    """The text has lost its content and the reward has not noticed."""
    if p.outcome_lost:
        return None
    seen = []
    if p.now.get("distinct_bigram_fraction", 1.0) < 0.35:
        seen.append(f"distinct bigrams {_number(p.now['distinct_bigram_fraction'])}")
    if p.now.get("compression_ratio", 1.0) < 0.15:
        seen.append(f"CoTs compress to {_number(p.now['compression_ratio'])}")
    run, length = p.now.get("longest_char_run", 0.0), p.now.get("cot_length", 100.0)
    if run >= 20 and run / max(length, 1.0) > 0.5 and p.now.get("distinct_bigram_fraction", 0.0) < 0.5:
        seen.append(f"one character {run:.0f} times in a row")
    outcome = next(
        (key for key in ("answer_correct_fraction", "reward_mean", "answer_logprob", "normalized_reward_mean") if key in p.now),
        None,
    )
    if not seen or outcome is None:
        return None
    return f"{', '.join(seen)}, while {outcome} is {_number(p.now[outcome])} (early {_number(p.early[outcome])})"


def _truncated_to_zero(p: Portrait) -> str | None:
    cut, was = p.now.get("cot_length_saturated_fraction"), p.before.get("cot_length_saturated_fraction", 1.0)
    if p.outcome_lost and cut is not None and cut >= 0.8 and cut - was > 0.3:
        return f"{cut:.0%} of completions at the length limit ({was:.0%} before), the outcome lost"
    return None


def _truncation_spiral(p: Portrait) -> str | None:
    if p.outcome_lost or "truncation" not in p.kinds:
        return None
    cut, was = p.now["cot_length_saturated_fraction"], p.early["cot_length_saturated_fraction"]
    return f"{cut:.0%} of completions at the length limit ({was:.0%} early)" if cut > 0.4 else None


def _entropy_explosion(p: Portrait) -> str | None:
    now, was = p.now.get("entropy"), p.before.get("entropy", math.inf)
    if now is not None and now >= 1.0 and now >= 3.0 * max(was, 0.05):
        return f"entropy {_number(now)} nats a token ({_number(was)} before): the text goes towards noise"
    return None


def _entropy_death(p: Portrait) -> str | None:
    now, was = p.now.get("entropy"), p.early.get("entropy", 0.0)
    if now is not None and now < 0.05 and was > 2.0 * now and (p.collapsed or "entropy_death" in p.kinds):
        return f"entropy {_number(now)} nats a token ({_number(was)} early): nothing new is sampled"
    return None


def _kl_runaway(p: Portrait) -> str | None:
    if not {"kl_runaway", "drift"} & p.kinds or "kl" not in p.now:
        return None
    return f"KL {_number(p.now['kl'])} nats a token ({_number(p.before['kl'])} before)"


def _mismatch(p: Portrait) -> str | None:
    found = next((e for e in p.verdict.signals if e.kind == "sampler_mismatch"), None)
    if found is None or found.recovered:
        return None
    return f"{found.name} {_number(p.now[found.name])} nats a token ({_number(p.early[found.name])} early)"


def _equal(p: Portrait) -> float | None:
    """Share of groups without spread where it is nearly all of them."""
    share = p.now.get("groups_without_spread")
    if share is None and p.now.get("reward_std") == 0.0:
        share = 1.0
    return share if share is not None and share >= 0.9 else None


def _groups_hopeless(p: Portrait) -> str | None:
    share, reward = _equal(p), p.now.get("reward_mean")
    if share is None or reward is None or "reward_mean" not in p.values:
        return None
    worst, best = min(p.values["reward_mean"]), max(p.highest("reward_mean"), 1.0 if _unit(p) else -math.inf)
    if reward <= worst + 0.1 * (best - worst):
        return f"{share:.0%} of groups have equal rewards, and the reward is {_number(reward)}, its lowest"
    return None


def _groups_solved(p: Portrait) -> str | None:
    share, reward = _equal(p), p.now.get("reward_mean")
    if share is None or reward is None or _groups_hopeless(p) is not None:
        return None
    worst, best = min(p.values["reward_mean"]), max(p.highest("reward_mean"), 1.0 if _unit(p) else -math.inf)
    if reward >= best - 0.15 * (best - worst):
        return f"{share:.0%} of groups have equal rewards, and the reward is {_number(reward)}, about its highest"
    return None


def _unit(p: Portrait) -> bool:
    values = p.values["reward_mean"]
    return min(values) >= 0.0 and max(values) <= 1.0


def _from_to(p: Portrait, key: str) -> str:
    return f"from {_number(p.early[key])} to {_number(p.now[key])}"


def _hacking(p: Portrait) -> str | None:
    """The reward rises while something that should rise with it falls."""
    parts = [key for key in p.values if key.startswith(_COMPONENT)]
    up = max(parts, key=p.moved, default=None)
    down = min(parts, key=p.moved, default=None)
    if up is not None and down is not None and p.moved(up) > 5.0 and p.moved(down) < -5.0:
        return f"{up} rose {_from_to(p, up)} while {down} fell {_from_to(p, down)}"
    if p.moved("reward_mean") < 4.0:
        return None
    fell = next((e for e in p.verdict.signals if e.kind == "evaluation_fell"), None)
    if fell is not None:
        return f"the reward rose while accuracy in evaluations fell (step {fell.step:,})"
    for key in ("eval_accuracy", "accuracy", "answer_correct_fraction"):
        if p.moved(key) < -5.0:
            return f"the reward rose while {key} fell {_from_to(p, key)}"
    return None


def _length_inflation(p: Portrait) -> str | None:
    was, now = p.early.get("cot_length", 0.0), p.now.get("cot_length", 0.0)
    cut = p.now.get("cot_length_saturated_fraction", 0.0)
    if was > 0 and now > 2.0 * was and cut > 0.3 and p.moved("reward_mean") < 2.0 and not p.outcome_lost:
        return f"completions grew from {was:.0f} to {now:.0f} tokens, {cut:.0%} of them at the limit, the reward did not rise"
    return None


def _nothing_moves(p: Portrait) -> str | None:
    gradients, rewards = p.values.get("grad_norm", ()), p.values.get("reward_mean", ())
    if len(gradients) >= 5 and not any(gradients):
        return f"the gradient norm is exactly 0 in all {len(gradients)} rows"
    if len(gradients) >= 20 and not any(gradients[-20:]):
        return "the gradient norm is exactly 0 in the last 20 rows"
    spread = p.values.get("reward_std")
    if spread is not None and len(rewards) >= 10 and len(set(rewards[-20:])) == 1 and not any(spread[-20:]):
        return f"the reward is {_number(rewards[-1])} in each of the last {min(len(rewards), 20)} rows, without spread"
    return None


def _healed_spike(p: Portrait) -> str | None:
    """One or two rows far beyond all others, and the same level after them."""
    for key, least in (("grad_norm", 10.0), ("kl", 2.0)):
        values = p.values.get(key, ())
        if len(values) < 12:
            continue
        usual = median(values)
        top = max(values)
        at = values.index(top)
        after = values[at + 1 : at + 6]
        if top >= least and top > 20.0 * max(usual, 1e-6) and after and median(after) < 3.0 * max(usual, 1e-6):
            return f"{key} {_number(top)} in row {at + 1}, {_number(usual)} otherwise; the run went on as before"
    return None


SIGNATURES: tuple[Signature, ...] = (
    Signature("not_finite", "numbers overflowed, and every update since is made of them", _not_finite),
    Signature("truncated_to_zero", "completions run into the length limit before they answer, so all rewards are zero", _truncated_to_zero),
    Signature("entropy_explosion", "the policy went towards uniform noise", _entropy_explosion),
    Signature(
        "garbage_is_paid",
        "the text has no content and the reward stays: the reader has learned the answers, or the question leaks",
        _garbage_paid,
    ),
    Signature("sampler_mismatch", "sampler and trainer no longer agree on probabilities: training is off-policy without knowing it", _mismatch),
    Signature("kl_runaway", "the policy runs away from its start", _kl_runaway),
    Signature("entropy_death", "the policy became certain too early", _entropy_death),
    Signature("truncation_spiral", "completions grow into the length limit", _truncation_spiral),
    Signature("reward_hacking", "suspicion: the reward pays for something else than what is wanted", _hacking),
    Signature("length_inflation", "suspicion: completions get longer without getting better", _length_inflation),
    Signature("groups_hopeless", "all answers of a group are equally wrong: no advantage, no gradient", _groups_hopeless),
    Signature("groups_solved", "all answers of a group are equally right: nothing is left to learn here", _groups_solved),
    Signature("nothing_moves", "no gradient: rewards without spread, a learning rate of 0, or a loss that touches no weight", _nothing_moves),
    Signature("healed_spike", "a spike that healed", _healed_spike),
)  # fmt: skip


def named(p: Portrait) -> tuple[Named, ...]:
    """Every signature that fits, the most telling first."""
    return tuple(Named(s.name, s.sentence, found) for s in SIGNATURES if (found := s.fits(p)) is not None)
