"""Rules about evaluations: against chance, the base, published numbers, the reward and each other."""

from __future__ import annotations

import math
from collections.abc import Iterable

from markovlm.health.rules.case import Case, Finding, percent, scored
from markovlm.health.rules.ends import UNEXPLAINED_TESTS, end_is_scored, ends_seen, promise
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
        ("read outputs on which the extractors differ before quoting either number",),
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
            advice=(
                "read the best-rewarded wrong samples: what does the reward pay for?",
                "compare the reader of training with the reader of evaluation (objective.reader, evaluation.reader)",
                "read the answers that the evaluation kept: where they run on (1500 for 150), set objective.answer_end: scored",
                "set objective.actor_reward_weight lower: it raises the answer's likelihood after every CoT, good or bad",
            ),
        )


def no_evaluation(case: Case) -> Iterable[Finding]:
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
        advice=("evaluate on the whole test split before comparing runs",),
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
            f"{scored(e)} at step {e.step:,} against {scored(base)} of its base: no gain that {e.n:,} questions could show",
            "high",
            "caution",
            e.step,
            ("evaluate both on more questions (markovlm eval RUN --baseline, whole test split)",),
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


def unexplained_accuracy(case: Case) -> Iterable[Finding]:
    """Stable training whose answer log-prob promises much more than evaluation finds, though the end of the reply was scored or seen."""
    found = promise(case)
    if found is not None and (end_is_scored(case) or ends_seen(case) is not None):
        yield Finding(
            "unexplained_accuracy",
            found.evidence,
            "high" if found.excess > 0.5 else "medium",
            "problem",
            found.step,
            UNEXPLAINED_TESTS,
        )
