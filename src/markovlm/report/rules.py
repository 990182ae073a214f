"""What hindsight sees in a run: rules as data, each with the evidence it found and how sure it is.

`RULES` is the table; `rules_table()` prints it. A rule's check is a small function of a `Case` (one run with its verdict and its
evaluations) that returns findings, usually none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from markovlm.evaluation.reference import Reference, lookup
from markovlm.health.verdict import Verdict
from markovlm.logs.records import Evaluation, RunData, Sample
from markovlm.logs.schema import label
from markovlm.report.series import (
    Course,
    base_evaluation,
    best_evaluation,
    course,
    difference_z,
    evaluation_series,
    halves_gain,
    largest_jump,
    last_evaluation,
    noise,
    peak,
    reward_course,
)

Confidence = Literal["high", "medium", "low"]
Weight = Literal["note", "caution", "problem"]  # how much a finding should worry the reader


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a rule found: `evidence` is a sentence with the numbers in it."""

    rule: str
    evidence: str
    confidence: Confidence
    weight: Weight = "note"
    step: int | None = None
    advice: tuple[str, ...] = ()


@dataclass
class Case:
    """One run as the rules see it."""

    run: RunData
    verdict: Verdict
    checkpoints: tuple[int, ...] = ()  # steps that can be loaded

    @cached_property
    def series(self) -> list[Evaluation]:
        return evaluation_series(self.run)

    @cached_property
    def base(self) -> Evaluation | None:
        return base_evaluation(self.series)

    @cached_property
    def best(self) -> Evaluation | None:
        return best_evaluation(self.series)

    @cached_property
    def last(self) -> Evaluation | None:
        return last_evaluation(self.series)

    @cached_property
    def reward(self) -> Course | None:
        return reward_course(self.run)

    def course(self, key: str) -> Course | None:
        return course(self.run, key)

    def setting(self, name: str) -> Any:
        return self.run.config.get(name)

    @property
    def collapsed(self) -> bool:
        return self.verdict.verdict == "collapsed"


def percent(value: float) -> str:
    """57.1 %"""
    return f"{100 * value:.1f} %"


def scored(e: Evaluation) -> str:
    """`57.1 % [54.4, 59.8], n = 1,319`"""
    s = e.score
    interval = f" [{100 * s.low:.1f}, {100 * s.high:.1f}]" if s.low is not None and s.high is not None else ""
    return f"{percent(s.accuracy)}{interval}, n = {e.n:,}"


# --- courses -----------------------------------------------------------------------------------------------------------

_LEAST_JUMP = {"answer_correct_fraction": 0.2, "answer_logprob": 0.7, "normalized_reward_mean": 0.7, "reward_mean": 0.7}


def _change_point(case: Case) -> Iterable[Finding]:
    for key, least in _LEAST_JUMP.items():
        c = case.course(key)
        jump = largest_jump(c, least) if c is not None else None
        if jump is not None:
            down = jump.after < jump.before
            text = (
                f"{label(key)} {'fell' if down else 'rose'} from {jump.before:.3g} to {jump.after:.3g} around step {jump.step:,}"
            )
            yield Finding("change_point", text, "high" if jump.z > 15 else "medium", "caution" if down else "note", jump.step)


def _decay_of_accuracy(case: Case) -> Iterable[Finding]:
    best, last = case.best, case.last
    if best is None or last is None or best.step == last.step:
        return
    lost = best.score.accuracy - last.score.accuracy
    z = difference_z(best, last)
    if lost <= 0 or (z < 1.64 and lost < 0.05):
        return
    sure: Confidence = "high" if z > 2.6 else "medium" if z > 1.64 else "low"
    yield Finding(
        "decay_after_peak",
        f"the best checkpoint is step {best.step:,} ({scored(best)}); the last, step {last.step:,}, is "
        f"{100 * lost:.1f} points lower ({scored(last)})",
        sure,
        "note" if sure == "low" else "caution",
        best.step,
        (
            f"use the checkpoint at step {best.step:,}, not the last",
            "lower the learning rate over training, or stop earlier",
        ),
    )


def _decay_of_reward(case: Case) -> Iterable[Finding]:
    if case.best is not None or case.reward is None or case.collapsed:
        return
    top = peak(case.reward)
    if top is None:
        return
    lost = top.best - top.last
    if lost < max(0.3, 5.0 * top.error):
        return
    nearest = _nearest_checkpoint(case, top.step)
    yield Finding(
        "decay_after_peak",
        f"{label(case.reward.key)} was best around step {top.step:,} ({top.best:.3g}) and ended at {top.last:.3g}",
        "high" if lost > 10 * top.error else "medium",
        "caution",
        top.step,
        (f"evaluate the checkpoint {nearest}; it may be better than the last",),
    )


def _nearest_checkpoint(case: Case, step: int) -> str:
    if case.checkpoints:
        nearest = min(case.checkpoints, key=lambda s: (abs(s - step), s))
        return f"at step {nearest:,}"
    return f"closest to step {step:,}"


def _plateau(case: Case) -> Iterable[Finding]:
    c = case.reward
    if c is None or len(c) < 100 or case.collapsed:
        return
    first, middle, last = halves_gain(c)
    error = noise(c.values) * math.sqrt(2.0 / max(1, len(c) // 10))
    top = peak(c)
    if abs(last - first) < max(0.1, 2.5 * error):
        if top is not None and top.best - first < max(0.3, 5.0 * error):
            yield Finding(
                "no_learning",
                f"{label(c.key)} ends where it began ({first:.3g} to {last:.3g}, noise {error:.2g})",
                "medium",
                "caution",
                advice=("check that the adapter trains (gradient norm, KL above 0) and that groups have a spread of rewards",),
            )
    elif last > first and abs(last - middle) < max(0.05, 2.0 * error):
        yield Finding(
            "plateau",
            f"{label(c.key)} gained {middle - first:.3g} in the first half of training and {last - middle:+.2g} in the second",
            "medium",
            advice=(
                "the second half added little: stop earlier, or change what limits it (CoT length, group size, temperature)",
            ),
        )


def _length_saturation(case: Case) -> Iterable[Finding]:
    c = case.course("cot_length_saturated_fraction")
    if c is None or len(c) < 10 or case.setting("rollouts.fixed_length") is True:
        return
    tenth = max(1, len(c) // 10)
    first, last = float(c.values[:tenth].mean()), float(c.values[-tenth:].mean())
    if last > 0.8 and last - first > 0.2:
        yield Finding(
            "cot_length_saturation",
            f"CoTs that use the whole budget rose from {percent(first)} to {percent(last)}",
            "high",
            "caution",
            advice=("raise rollouts.max_cot_tokens: reasoning is being cut off",),
        )


def _idle_groups(case: Case) -> Iterable[Finding]:
    c = case.course("groups_without_spread")
    if c is None or len(c) < 20:
        return
    level = float(c.values[-max(1, len(c) // 5) :].mean())
    correct = case.course("answer_correct_fraction")
    solved = correct is not None and float(correct.values[-max(1, len(correct) // 5) :].mean()) > 0.75
    if level > 0.5 and not solved:
        yield Finding(
            "idle_groups",
            f"{percent(level)} of groups had no spread of rewards in the last fifth: they teach nothing",
            "high",
            "caution",
            advice=("use larger groups, a higher temperature, or questions the model sometimes gets right",),
        )


def _term_balance(case: Case) -> Iterable[Finding]:
    policy, actor = case.course("grad_norm_policy"), case.course("grad_norm_actor_reward")
    if policy is None or actor is None or not float(np.median(policy.values)) > 0:
        return
    share = float(np.median(actor.values)) / float(np.median(policy.values))
    if share > 10 or 0 < share < 0.01:
        what = "swamps" if share > 10 else "is swamped by"
        advice = "use objective.cot_logprob: sum, or lower objective.actor_reward_weight to about 0.1" if share > 10 else ""
        yield Finding(
            "term_balance",
            f"the actor-reward gradient {what} the policy gradient (median norms {share:.3g} : 1)",
            "high",
            "caution",
            advice=(advice,) if advice else (),
        )


# --- accuracy ----------------------------------------------------------------------------------------------------------


def _extractors_disagree(case: Case) -> Iterable[Finding]:
    e = case.last or case.base
    if e is None or len(e.scores) < 2:
        return
    ordered = sorted(e.scores.items(), key=lambda item: item[1].accuracy)
    (low_name, low), (high_name, high) = ordered[0], ordered[-1]
    gap = high.accuracy - low.accuracy
    if gap < 0.03 or high.low is None or high.low <= low.accuracy:
        return
    yield Finding(
        "extractors_disagree",
        f"on the same outputs {high_name} finds {percent(high.accuracy)} and {low_name} {percent(low.accuracy)} at step "
        f"{e.step:,}",
        "high" if gap > 0.1 else "medium",
        "caution",
        e.step,
        ("read outputs on which the extractors differ before quoting either number",),
    )


def _reward_without_accuracy(case: Case) -> Iterable[Finding]:
    c = case.reward
    first = case.base or next((e for e in case.series if e.of_actor), None)
    last = case.last
    if c is None or len(c) < 40 or first is None or last is None or first.step >= last.step:
        return
    start, _, end = halves_gain(c)
    error = noise(c.values) * math.sqrt(2.0 / max(1, len(c) // 10))
    if end - start > max(0.3, 5.0 * error) and difference_z(last, first) < 1.0:
        yield Finding(
            "reward_without_accuracy",
            f"{label(c.key)} rose from {start:.3g} to {end:.3g} while accuracy went from {scored(first)} to {scored(last)}",
            "high" if last.n >= 200 else "low",
            "problem",
            advice=(
                "read the best-rewarded wrong samples: what does the reward pay for?",
                "compare the reader of training with the reader of evaluation (objective.reader, evaluation.reader)",
                "set objective.actor_reward_weight lower: it raises the answer's likelihood after every CoT, good or bad",
            ),
        )


def _no_evaluation(case: Case) -> Iterable[Finding]:
    last = case.run.last_step
    steps = {e.step for e in case.run.evals if e.of_actor and e.step > 0}
    if last is None or last < MIN_STEPS_FOR_EVALUATION or len(steps) > 1:
        return
    when = f"evaluated once, at step {next(iter(steps)):,}," if steps else "never evaluated"
    yield Finding(
        "no_evaluation_during_training",
        f"{when} in {last:,} steps: whether an earlier checkpoint was better cannot be said",
        "high",
        "caution",
        advice=(
            "evaluate every 500 to 1,000 steps (training.eval_every) and the base before training",
            *_earlier_checkpoints(case),
        ),
    )


MIN_STEPS_FOR_EVALUATION = 200


def _earlier_checkpoints(case: Case) -> tuple[str, ...]:
    saved = case.checkpoints
    if saved:
        return (f"evaluate the saved checkpoints now: markovlm eval {case.run.path} --checkpoints all",)
    return ("evaluate earlier checkpoints now, if they were kept",) if not case.run.native else ()


def _small_evaluation(case: Case) -> Iterable[Finding]:
    e = case.last or case.base
    if e is None or e.n == 0 or e.n >= 200 or e.score.low is None or e.score.high is None:
        return
    half = (e.score.high - e.score.low) / 2
    yield Finding(
        "evaluation_too_small",
        f"{e.n} questions leave ±{100 * half:.0f} points around {percent(e.score.accuracy)}",
        "high",
        "caution" if half > 0.07 else "note",
        advice=("evaluate on the whole test split before comparing runs",),
    )


def reference_of(case: Case) -> tuple[Reference, ...]:
    """Published accuracies of the run's task and model."""
    task, model = case.run.task, case.setting("model")
    if not isinstance(model, str) or task is None:
        return ()
    name = {"llama": "Llama-3.1-8B-Instruct", "qwen3": "Qwen3-4B"}.get(model.lower(), model)
    return tuple(r for r in lookup(task, name) if r.metric == "accuracy" and not r.setting.startswith("seed"))


UNEXPLAINED_TESTS = (
    "evaluate the untrained base with the same command: if it scores higher, evaluation or loading is at fault",
    "check that the evaluated checkpoint is the trained one: KL to the base above 0, answer log-prob as in training",
    "evaluate with the reader of training (actor or frozen) and compare",
    "run every extractor on the stored outputs and read 20 on which none agrees with the gold answer (commas, units, early "
    "numbers)",
    "evaluate on training questions: a high score there means overfitting, a low one a different prompt or decoding",
    "use the prompt, CoT length, temperature and answer header of training in evaluation",
    "evaluate earlier checkpoints: the last need not be the best",
)


def _reference_gap(case: Case) -> Iterable[Finding]:
    e = case.best or case.last
    found = [r for r in reference_of(case) if r.setting == "markovian"]
    if e is None or not found or e.score.high is None:
        return
    reference = found[0]
    gap = reference.value - e.score.accuracy
    if gap <= 0.1 or reference.value <= e.score.high:
        return
    yield Finding(
        "gap_to_reference",
        f"{scored(e)} at step {e.step:,}; published for this task and model: {percent(reference.value)} ({reference.source})",
        "high",
        "note" if case.collapsed else "problem",
        e.step,
        UNEXPLAINED_TESTS if not case.collapsed else (),
    )


def _unexplained_accuracy(case: Case) -> Iterable[Finding]:
    """Stable training whose answer log-prob promises much more than evaluation finds."""
    c, e = case.course("answer_logprob"), case.last
    if c is None or e is None or case.collapsed:
        return
    level = float(c.values[-max(1, len(c) // 10) :].mean())
    promised = math.exp(MOST_ANSWER_TOKENS * min(level, 0.0))
    high = e.score.high if e.score.high is not None else e.score.accuracy
    if promised - high > 0.3:
        yield Finding(
            "unexplained_accuracy",
            f"training ended with ln pi(answer | CoT) = {level:.3g} per token, a right answer in about {percent(promised)} of "
            "cases or more; "
            f"evaluation found {scored(e)}",
            "high" if promised - high > 0.5 else "medium",
            "problem",
            e.step,
            UNEXPLAINED_TESTS,
        )


MOST_ANSWER_TOKENS = 4  # numbers and letters; a cautious exponent


# --- samples -----------------------------------------------------------------------------------------------------------


def _late(samples: Sequence[Sample]) -> list[Sample]:
    steps = sorted({s.step for s in samples})
    if not steps:
        return []
    bound = steps[-1] - (steps[-1] - steps[0]) / 3
    return [s for s in samples if s.step >= bound]


def _copies_answer(case: Case) -> Iterable[Finding]:
    late = [s for s in _late(case.run.samples) if s.answer.strip()]
    if len(late) < 10:
        return
    copied = sum(_is_bare_answer(s) for s in late) / len(late)
    if copied > 0.5:
        yield Finding(
            "copies_answer",
            f"{percent(copied)} of {len(late)} late CoTs are little more than the answer",
            "medium",
            "caution",
            advice=("check fragility (markovlm perturb): an answer without reasoning is a code, not an explanation",),
        )


_WORD = re.compile(r"\w+")


def _is_bare_answer(sample: Sample) -> bool:
    """Is the CoT nothing but the answer, perhaps repeated or announced?"""
    answer, cot = sample.answer.strip().lower(), sample.cot.strip().lower()
    if not answer or answer not in cot:
        return False
    rest = [word for word in _WORD.findall(cot.replace(answer, " ")) if word not in ("answer", "the", "is", "final", "so")]
    return len(rest) <= 2


# --- the research code's known faults, and the end of the run ------------------------------------------------------------


def _known_faults(case: Case) -> Iterable[Finding]:
    if case.run.native or case.run.kind in ("unknown", "evaluation"):
        return
    weight = case.setting("objective.actor_reward_weight")
    if isinstance(weight, (int, float)) and weight > 0:
        yield Finding(
            "dead_actor_reward",
            f"actor_reward_weight is {weight:g}, but in that code the reward's gradient is zero (computed under no_grad): "
            "this run trained with the policy gradient alone",
            "high",
            "note",
        )
    if case.setting("use_ppo") is True:
        yield Finding(
            "frozen_anchor",
            "use_ppo takes the ratio against the frozen base, not the policy that sampled, and drops the KL and actor-reward "
            "terms",
            "high",
            "caution",
            advice=("use objective.name: ppo, whose ratio is to the policy that sampled, or no PPO",),
        )


def _stopped_early(case: Case) -> Iterable[Finding]:
    planned, last = case.setting("training.steps"), case.run.last_step
    ended = any(e.get("kind") == "end" for e in case.run.events)
    if isinstance(planned, int) and last is not None and not ended and last + 1 < planned:
        share = (last + 1) / planned
        yield Finding(
            "not_finished",
            f"{last:,} of {planned:,} planned steps are logged ({percent(share)}); the run may still be going",
            "high",
        )


# --- the table ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: what is looked at, when it fires, and where its confidence comes from."""

    name: str
    looks_at: str
    fires: str
    confidence: str
    check: Callable[[Case], Iterable[Finding]]


RULES: tuple[Rule, ...] = (
    Rule(
        "change_point",
        "reward, answer log-prob, right answers",
        "a sharp change of level of 0.7 nats (0.2 of a fraction)",
        "high over 15, medium over 8 standard errors",
        _change_point,
    ),
    Rule(
        "decay_after_peak",
        "evaluations",
        "the best checkpoint beats the last",
        "high z > 2.6, medium z > 1.6, low for 5 points",
        _decay_of_accuracy,
    ),
    Rule(
        "decay_after_peak",
        "reward, where nothing was evaluated",
        "smoothed peak over the end by 0.3 nats and 5 standard errors",
        "high over 10 standard errors",
        _decay_of_reward,
    ),
    Rule("plateau / no_learning", "reward", "second half, or whole run, without a gain beyond noise", "medium", _plateau),
    Rule(
        "cot_length_saturation", "cot_length_saturated_fraction", "rises by 0.2 to over 0.8", "high: a count", _length_saturation
    ),
    Rule("idle_groups", "groups_without_spread", "over half in the last fifth, task not solved", "high: a count", _idle_groups),
    Rule(
        "term_balance",
        "gradient norms by loss term",
        "actor-reward over 10 times, or under a hundredth of, the policy term",
        "high: measured",
        _term_balance,
    ),
    Rule(
        "extractors_disagree",
        "extractors of one evaluation",
        "3 points apart and outside the interval",
        "high over 10 points",
        _extractors_disagree,
    ),
    Rule(
        "reward_without_accuracy",
        "reward and evaluations",
        "reward gains 0.3 nats and 5 standard errors, accuracy does not (z < 1)",
        "high from 200 questions",
        _reward_without_accuracy,
    ),
    Rule("no_evaluation_during_training", "evaluations", "fewer than two steps evaluated", "high: a count", _no_evaluation),
    Rule("evaluation_too_small", "evaluations", "under 200 questions", "high: Wilson interval", _small_evaluation),
    Rule(
        "gap_to_reference",
        "best accuracy, published number",
        "10 points under and outside the interval",
        "high for the gap; what explains it is open",
        _reference_gap,
    ),
    Rule(
        "unexplained_accuracy",
        "answer log-prob in training, last accuracy",
        "the log-prob promises 30 points more than the interval's upper end",
        "high over 50 points",
        _unexplained_accuracy,
    ),
    Rule(
        "copies_answer",
        "late samples",
        "over half are little more than the answer",
        "medium: from a choice of samples",
        _copies_answer,
    ),
    Rule(
        "dead_actor_reward / frozen_anchor",
        "research code's settings",
        "settings known to do something else than they say",
        "high: read in that code",
        _known_faults,
    ),
    Rule(
        "not_finished", "planned and logged steps", "fewer steps than planned and no end event", "high: a count", _stopped_early
    ),
)


def findings(case: Case) -> list[Finding]:
    """Everything the rules find, problems first."""
    order = {"problem": 0, "caution": 1, "note": 2}
    found = [finding for rule in RULES for finding in rule.check(case)]
    return sorted(found, key=lambda f: order[f.weight])


def rules_table() -> list[dict[str, str]]:
    """The rules as plain rows, for documentation and reports."""
    table = [{"rule": r.name, "looks at": r.looks_at, "fires when": r.fires, "confidence": r.confidence} for r in RULES]
    shared = "a setting that every collapsed run has and no other run"
    table.append(
        {
            "rule": "only_collapsed_runs_share",
            "looks at": "settings of all runs",
            "fires when": shared,
            "confidence": "low: association",
        }
    )
    return table
