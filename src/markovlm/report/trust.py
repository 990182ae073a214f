"""Which run is to be trusted: the most accurate of its task whose interval beats chance and its base. Or none, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markovlm.health.diagnose import Diagnosis
from markovlm.health.levels import levels
from markovlm.health.rules import percent, reference_of, scored
from markovlm.health.series import difference_z
from markovlm.logs.schema import label
from markovlm.tasks.reference import Reference

_SURE = 1.96
UNNAMED = "task not named"


@dataclass(frozen=True, slots=True)
class Trust:
    """What is said of one task: the run to trust, or why there is none."""

    task: str
    run: Diagnosis | None
    why: str
    objections: tuple[tuple[Diagnosis, str], ...] = ()  # where there is none: of each evaluated run, the most accurate first


def _published_base(d: Diagnosis) -> Reference | None:
    return next((r for r in reference_of(d.case) if r.setting == "base"), None)


def objection(d: Diagnosis) -> str | None:
    """Why a run's result is not to be trusted; None if it is."""
    case, e = d.case, d.case.best or d.case.last
    if d.run.kind == "evaluation":
        return "an evaluation without its run"
    if d.verdict == "collapsed":
        return f"collapsed from step {d.onset_step:,}" if d.onset_step is not None else "collapsed"
    if e is None:
        return "never evaluated"
    if d.best_step is None:
        return "its evaluated checkpoints are from a stretch in which the CoT holds no reasoning"
    low = e.score.low
    if low is None:
        return f"{percent(e.score.accuracy)} on an unknown number of questions"
    chance = case.chance or 0.0
    if low <= chance:
        return f"{scored(e)}: not above chance, {percent(chance)}"
    base, published = case.base, _published_base(d)
    if base is not None and base is not e:
        if difference_z(e, base) < _SURE:
            return f"{scored(e)}: not above its base, {scored(base)}"
    elif published is not None:
        if low <= published.value:
            return f"{scored(e)}: not above the published base, {percent(published.value)}, and its own was not evaluated"
    else:
        return f"{scored(e)}: its base was never evaluated (markovlm eval RUN --baseline)"
    if d.doubt is not None:
        return f"{scored(e)}: in doubt, {d.doubt}"
    return None


def verdict_on_tasks(all_of_them: Sequence[Diagnosis]) -> list[Trust]:
    """For each task with a run: the run to trust or why there is none. In the order of the tasks' names."""
    tasks: dict[str, list[Diagnosis]] = {}
    for d in all_of_them:
        if d.run.steps or d.run.evals:
            tasks.setdefault(d.run.task or UNNAMED, []).append(d)
    return [_of_task(task, runs) for task, runs in sorted(tasks.items())]


def _accuracy(d: Diagnosis) -> float:
    e = d.case.best or d.case.last
    return e.score.accuracy if e is not None else -1.0


_BY_LOG = ("cot_contains_answer", "answer_correct_fraction", "answer_logprob")


def _by_log(runs: Sequence[Diagnosis]) -> str:
    """Which of several runs ends best by its own log, where no evaluation says."""
    sound = [d for d in runs if d.verdict in ("healthy", "warn") and d.doubt is None]
    for key in _BY_LOG:
        ends = [(levels(c).end, d) for d in sound if (c := d.case.course(key)) is not None]
        if ends and (key != "cot_contains_answer" or max(end.mean for end, _ in ends) > 0.05):
            end, d = max(ends, key=lambda pair: pair[0].mean)
            return f"; judging by logs alone, {d.run.name} ends best ({label(key)} {end.mean:.3g}): evaluate it first"
    return ""


def _of_task(task: str, runs: Sequence[Diagnosis]) -> Trust:
    told = {id(d): objection(d) for d in runs}
    sound = [d for d in runs if told[id(d)] is None]
    if sound:
        best = max(sound, key=_accuracy)
        e = best.case.best or best.case.last
        return Trust(task, best, scored(e) if e is not None else "")
    ordered = sorted(runs, key=_accuracy, reverse=True)
    evaluated = [d for d in ordered if d.case.best or d.case.last]
    if not evaluated:
        return Trust(
            task, None, ("no run was evaluated" if len(runs) > 1 else f"{runs[0].run.name} was never evaluated") + _by_log(runs)
        )
    listed = "; ".join(f"{d.run.name}: {told[id(d)]}" for d in evaluated[:3])
    reasons = tuple((d, told[id(d)] or "") for d in evaluated)
    return Trust(task, None, listed + (f"; and {len(runs) - 3} more" if len(runs) > 3 else ""), reasons)
