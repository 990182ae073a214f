"""Evaluations: those inside the log against the training reward; against chance, the base, published numbers and each other."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from markovlm.health.case import Case, percent, scored
from markovlm.health.held_out import LEAST, HeldOut
from markovlm.health.rule import Finding, Rule
from markovlm.health.rules.ends import UNEXPLAINED_TESTS
from markovlm.health.series import base_evaluation, difference_z, halves_gain, last_evaluation, noise
from markovlm.logs.schema import label
from markovlm.tasks.reference import Reference, lookup


def extractors_disagree(case: Case) -> Iterable[Finding]:
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
    )


def reward_without_accuracy(case: Case) -> Iterable[Finding]:
    c = case.reward
    first = base_evaluation(case.series) or next((e for e in case.series if e.of_actor), None)
    last = last_evaluation(case.series)
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
        )


def no_evaluation(case: Case) -> Iterable[Finding]:
    last = case.run.last_step
    steps = {e.step for e in case.run.evals if e.of_actor and e.step > 0}
    steps |= {int(step) for held in case.held_out.values() for step in held.course.steps if step > 0}
    if last is None or last < MIN_STEPS_FOR_EVALUATION or len(steps) > 1:
        return
    when = f"evaluated once, at step {next(iter(steps)):,}," if steps else "never evaluated"
    yield Finding(
        "no_evaluation_during_training",
        f"{when} in {last:,} steps: whether an earlier checkpoint was better is unknown",
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


def small_evaluation(case: Case) -> Iterable[Finding]:
    e = case.last or case.base
    if e is None or e.n == 0 or e.n >= 200 or e.score.low is None or e.score.high is None:
        return
    half = (e.score.high - e.score.low) / 2
    yield Finding(
        "evaluation_too_small",
        f"{e.n} questions leave ±{100 * half:.0f} points around {percent(e.score.accuracy)}",
        "high",
        "caution" if half > 0.07 else "note",
    )


def against_chance(case: Case) -> Iterable[Finding]:
    e, chance = case.best or case.last, case.chance
    if e is None or not chance or e.score.low is None or e.score.high is None or e.score.low > chance:
        return
    under = e.score.high < chance
    yield Finding(
        "below_chance" if under else "at_chance",
        f"{scored(e)} at step {e.step:,} is {'under' if under else 'not above'} chance ({percent(chance)} by guessing)",
        "high",
        "problem",
        e.step,
        (
            "answers are lost between model and extractor: read outputs, try every extractor, count those without an answer"
            if under
            else "do not use this run: guessing is as good",
        ),
    )


def against_base(case: Case) -> Iterable[Finding]:
    e, base = case.best or case.last, case.base
    if e is None or base is None or base is e:
        return
    z = difference_z(e, base)
    if z < -1.96:
        yield Finding(
            "below_base", f"{scored(e)} at step {e.step:,} is below its own base, {scored(base)}", "high", "problem", e.step
        )
    elif z < 1.96:
        yield Finding(
            "not_above_base",
            f"{scored(e)} at step {e.step:,}, {scored(base)} for its base: no gain that {e.n:,} questions could detect",
            "high",
            "caution",
            e.step,
        )


def reference_of(case: Case) -> tuple[Reference, ...]:
    """Published accuracies of the run's task and model."""
    task, model = case.run.task, case.setting("model")
    if not isinstance(model, str) or task is None:
        return ()
    name = {"llama": "Llama-3.1-8B-Instruct", "qwen3": "Qwen3-4B"}.get(model.lower(), model)
    return tuple(r for r in lookup(task, name) if r.metric == "accuracy" and not r.setting.startswith("seed"))


def reference_gap(case: Case) -> Iterable[Finding]:
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


# --- evaluations inside a log ----------------------------------------------------------------------------------------

_SURE_Z = 4.0  # the best of several windows is lucky


def held_out_fell(case: Case) -> Iterable[Finding]:
    """Held-out accuracy or reward falls while the training reward rises or stays."""
    fallen = [held for held in case.held_out.values() if _fell(held)]
    if not fallen:
        return
    worst = max(fallen, key=lambda held: (held.is_accuracy, held.z))
    said, with_training = _training_since(case, worst)
    others = ", ".join(f"{held.name} {held.best:.3g} to {held.last:.3g}" for held in fallen if held is not worst)
    best = f"use the checkpoint near step {worst.best_step:,}, the best by held-out {worst.name}"
    yield Finding(
        "held_out_fell",
        f"held-out {worst.name} was best around step {worst.best_step:,} ({worst.best:.3g}) and ended at {worst.last:.3g}, {said}"
        + (f" (also {others})" if others else ""),
        "high" if worst.z > 6.0 else "medium",
        "caution" if with_training else "problem",
        worst.fell_from,
        (best,)
        if with_training
        else (best, "kl", "rate", "read held-out completions from before and after: what did training unlearn?"),
    )


def _fell(held: HeldOut) -> bool:
    if len(held.course) < LEAST or held.z < _SURE_Z or held.best_step >= held.course.steps[-1]:
        return False
    scale = 1.0 if held.is_accuracy or held.course.is_share else max(abs(held.best), 1e-9)
    return held.lost >= 0.02 * scale


def _training_since(case: Case, held: HeldOut) -> tuple[str, bool]:
    """(what the training reward did meanwhile, did it fall too?)."""
    c = case.course("reward_mean") or case.course("accuracy")
    if c is None:
        return "no training reward to compare with", False
    before, after = c.values[c.steps <= held.best_step][-20:], c.values[-20:]
    if len(before) < 2 or len(after) < 2:
        return "the training reward is too short to compare", False
    was, now = float(before.mean()), float(after.mean())
    error = 3.0 * math.hypot(float(before.std(ddof=1)) / math.sqrt(len(before)), float(after.std(ddof=1)) / math.sqrt(len(after)))
    name = "reward" if c.key == "reward_mean" else "accuracy"
    if now > was + error:
        return f"while the training {name} rose from {was:.3g} to {now:.3g}", False
    if now < was - max(error, 0.5 * held.lost):
        return f"as the training {name} did ({was:.3g} to {now:.3g})", True
    return f"while the training {name} stayed at {now:.3g}", False


def best_by_reward(case: Case) -> Iterable[Finding]:
    """The best checkpoint by reward is not the best by held-out accuracy."""
    right = next((held for held in case.held_out.values() if held.is_accuracy), None)
    if right is None or len(right.course) < LEAST:
        return
    paid = next((held for held in case.held_out.values() if not held.is_accuracy and len(held.course) >= LEAST), None)
    if paid is not None:
        step, by = paid.best_step, f"held-out {paid.name}"
    else:
        c = case.course("reward_mean")
        if c is None or len(c) < 20:
            return
        at = int(np.argmax(np.convolve(c.values, np.ones(5) / 5, "valid"))) + 2
        step, by = int(c.steps[at]), "training reward"
    near = int(np.argmin(np.abs(right.course.steps - step)))
    around = right.course.values[max(0, near - right.window // 2) : near + right.window // 2 + 1]
    there = float(around.mean())
    if right.best - there < max(0.02, 0.75 * right.lost, _SURE_Z * _noise_of(right)):
        return
    yield Finding(
        "best_by_reward",
        f"the best checkpoint by {by} (near step {step:,}) has a held-out accuracy of {there:.3g}; the best by accuracy is near step "
        f"{right.best_step:,} ({right.best:.3g})",
        "high",
        "caution",
        right.best_step,
        (f"choose the checkpoint by held-out accuracy, not by reward: near step {right.best_step:,}",),
    )


def _noise_of(held: HeldOut) -> float:
    return noise(held.course.values) * math.sqrt(2.0 / held.window)


RULES = (
    Rule(
        "gap_to_reference",
        "unexplained accuracy: far below the published one, and nothing in the log explains it",
        "best accuracy, published number",
        "10 points below and outside the interval",
        "high for the gap; what explains it is open",
        check=reference_gap,
        explains="summary",
        doubt="accuracy unexplained",
        plural="are far below the published accuracy",
    ),
    Rule(
        "held_out_fell",
        "held-out results fall while training continues: the run overfits, or is rewarded for something other than what "
        "is evaluated",
        "evaluations inside the log, training reward",
        "the last window of evaluations is below the best by 4 standard errors and 0.02",
        "high over 6 standard errors",
        check=held_out_fell,
        explains="mechanism",
        doubt="held-out falls",
        plural="fall on held-out questions while they train",
        warns="medium",
        seen=("https://github.com/huggingface/trl/pull/5790",),
    ),
    Rule(
        "best_by_reward",
        "the best checkpoint by reward is not the best by accuracy",
        "held-out accuracy and reward inside the log",
        "accuracy at the best reward is below the best accuracy by 4 standard errors and 0.02",
        "high: measured",
        check=best_by_reward,
        plural="have different best checkpoints by reward and by accuracy",
        seen=("https://github.com/huggingface/trl/pull/5790", "https://github.com/modelscope/ms-swift/issues/8030"),
    ),
    Rule(
        "extractors_disagree",
        "extractors disagree on the same outputs",
        "extractors of one evaluation",
        "3 points apart and outside the interval",
        "high over 10 points",
        check=extractors_disagree,
        advice=("read outputs on which the extractors differ before quoting either number",),
        plural="have extractors that disagree",
    ),
    Rule(
        "reward_without_accuracy",
        "the reward pays for something other than right answers",
        "reward and evaluations",
        "reward gains 0.3 nats and 5 standard errors, accuracy does not (z < 1)",
        "high from 200 questions",
        check=reward_without_accuracy,
        explains="summary",
        advice=(
            "read the wrong samples with the highest rewards: what does the reward pay for?",
            "compare the reader of training with the reader of evaluation (objective.reader, evaluation.reader)",
            "read the answers that the evaluation kept: where they run on (1500 for 150), set objective.answer_end: scored",
            "set objective.actor_reward_weight lower: it raises the answer's likelihood after every CoT, good or bad",
        ),
        doubt="reward misleads",
    ),
    Rule(
        "below_chance",
        "right less often than by guessing",
        "best accuracy, choices of the task",
        "the interval lies below chance",
        "high: Wilson interval",
        check=against_chance,
        explains="summary",
        doubt="below chance",
        plural="are right less often than by guessing",
    ),
    Rule(
        "at_chance",
        "no better than guessing",
        "the same",
        "the interval is not entirely above chance",
        "high: Wilson interval",
        explains="summary",
        doubt="at chance",
        plural="are no better than guessing",
    ),
    Rule(
        "below_base",
        "right less often than before training",
        "best accuracy, base",
        "below the base (z of 1.96)",
        "high: z",
        check=against_base,
        explains="summary",
        doubt="below its base",
    ),
    Rule(
        "not_above_base",
        "no better than before training",
        "the same",
        "not above the base (z of 1.96)",
        "high: z",
        advice=("evaluate the run and its base on more questions (markovlm eval RUN --baseline, whole test split)",),
    ),
    Rule(
        "no_evaluation_during_training",
        "not evaluated during training",
        "evaluations, also those inside the log",
        "fewer than two steps evaluated",
        "high: a count",
        check=no_evaluation,
        plural="were not evaluated during training",
    ),
    Rule(
        "evaluation_too_small",
        "too few questions",
        "evaluations",
        "under 200 questions",
        "high: Wilson interval",
        check=small_evaluation,
        advice=("evaluate on the whole test split before comparing runs",),
    ),
)
