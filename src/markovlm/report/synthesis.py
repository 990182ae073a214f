"""What only several runs show together: patterns by task, hypotheses with the runs for and against, one list of advice, next steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markovlm.health.diagnose import Diagnosis
from markovlm.health.levels import Levels
from markovlm.health.rules import RULES, percent, scored
from markovlm.logs.schema import label
from markovlm.models.registry import lr_above_tried
from markovlm.report.run_rows import run_row
from markovlm.report.trust import UNNAMED, verdict_on_tasks

_MOST_NAMES = 4
_MOST_ADVICE = 12


@dataclass(frozen=True, slots=True)
class Pattern:
    """A sentence about the runs of one task, or of all of them where `task` is empty."""

    task: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A claim with the names of the runs that speak for it and against it. Runs that share a setting share much else: association."""

    claim: str
    speaks_for: tuple[str, ...]
    speaks_against: tuple[str, ...]
    test: str  # what would decide it


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One piece of advice and the runs it is for."""

    advice: str
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Synthesis:
    """All of it. Empty parts are empty tuples."""

    patterns: tuple[Pattern, ...]
    hypotheses: tuple[Hypothesis, ...]
    recommendations: tuple[Recommendation, ...]
    next_steps: tuple[str, ...]


def synthesis(all_of_them: Sequence[Diagnosis]) -> Synthesis:
    """What the runs say together."""
    runs = [d for d in all_of_them if d.run.steps or d.run.evals]
    return Synthesis(tuple(_patterns(runs)), tuple(_hypotheses(runs)), tuple(_recommendations(runs)), tuple(_next_steps(runs)))


def names(runs: Sequence[Diagnosis]) -> str:
    """`a, b and 3 more`"""
    listed = ", ".join(d.run.name for d in runs[:_MOST_NAMES])
    return listed + (f" and {len(runs) - _MOST_NAMES} more" if len(runs) > _MOST_NAMES else "")


def _has(d: Diagnosis, *rules: str) -> bool:
    return any(f.rule in rules and f.confidence != "low" for f in d.findings)


# --- patterns ----------------------------------------------------------------------------------------------------------

_SHARED = {rule.name: rule.plural for rule in RULES if rule.plural}


def _patterns(runs: Sequence[Diagnosis]) -> list[Pattern]:
    tasks: dict[str, list[Diagnosis]] = {}
    for d in runs:
        if d.run.kind != "evaluation":
            tasks.setdefault(d.run.task or UNNAMED, []).append(d)
    found = [Pattern(task, sentence) for task, of_task in sorted(tasks.items()) for sentence in _of_task(of_task)]
    if len(tasks) > 1:
        found += [Pattern("", sentence) for sentence in _shared([d for of_task in tasks.values() for d in of_task], least=3)]
    return found


def _of_task(runs: Sequence[Diagnosis]) -> list[str]:
    counts = Counter(d.verdict for d in runs)
    words = {"collapsed": "collapsed", "warn": "to look at", "healthy": "healthy", "unknown": "that cannot be judged"}
    parts = [f"{counts[v]} {words[v]} ({names([d for d in runs if d.verdict == v])})" for v in words if counts[v]]
    said = [f"{len(runs)} run{'' if len(runs) == 1 else 's'}: {', '.join(parts)}."]
    rows = [run_row(d) for d in runs]
    for key in ("answer_logprob", "cot_contains_answer"):
        ends = sorted((row.signals[key].end.mean, row.run) for row in rows if key in row.signals and row.rows >= 20)
        if len(ends) > 1 and ends[-1][0] - ends[0][0] > (0.3 if key == "answer_logprob" else 0.1):
            said.append(f"{label(key)} ends between {ends[0][0]:.3g} ({ends[0][1]}) and {ends[-1][0]:.3g} ({ends[-1][1]}).")
    risen = [row.run for row in rows if _gained(row.signals.get("answer_logprob"))]
    if risen and len(runs) > 1:
        said.append(f"The answer's log-prob ends above its start in {len(risen)} of {len(runs)}.")
    evaluated = [(e, d) for d in runs if (e := d.case.best or d.case.last) is not None]
    if evaluated:
        e, d = max(evaluated, key=lambda pair: pair[0].score.accuracy)
        chance = d.case.chance
        against = f", chance {percent(chance)}" if chance else ""
        said.append(f"Best accuracy: {scored(e)} ({d.run.name}){against}.")
    return said + (_shared(runs, least=2) if len(runs) > 1 else _own(runs[0]))


def _gained(found: Levels | None) -> bool:
    if found is None or found.start.error is None or found.end.error is None:
        return False
    return found.end.mean - found.start.mean > 2.6 * (found.start.error**2 + found.end.error**2) ** 0.5


def _shared(runs: Sequence[Diagnosis], least: int) -> list[str]:
    said = []
    for rule, what in _SHARED.items():
        having = [d for d in runs if _has(d, rule)]
        if len(having) >= least:
            said.append(f"{len(having)} of {len(runs)} {what} ({names(having)}).")
    return said


def _own(d: Diagnosis) -> list[str]:
    singular = [f.evidence for f in d.findings if f.rule in _SHARED and f.weight == "problem"]
    return [f"{text[0].upper()}{text[1:]}." for text in singular[:2]]


# --- hypotheses --------------------------------------------------------------------------------------------------------

Test = Callable[[Diagnosis], bool]


@dataclass(frozen=True, slots=True)
class _Claim:
    """Runs with `premise` and `outcome` speak for it, runs with the premise alone against it."""

    claim: str
    premise: Test
    outcome: Test
    test: str


def _number(d: Diagnosis, key: str) -> float | None:
    value = d.case.setting(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _high_rate(d: Diagnosis) -> bool:
    return lr_above_tried(str(d.case.setting("model")), d.case.setting("training.lr")) is not None


def _learns(d: Diagnosis) -> bool:
    return any(f.rule == "trend" and f.weight == "note" for f in d.findings)


def _went_bad(d: Diagnosis) -> bool:
    return d.verdict == "collapsed" or _has(d, "copies_question", "ignores_question", "decay_after_peak", "answer_gone")


def _judged(d: Diagnosis) -> bool:
    return d.verdict != "unknown"


def _evaluated(d: Diagnosis) -> bool:
    return (d.case.best or d.case.last) is not None and d.run.kind != "evaluation"


CLAIMS: tuple[_Claim, ...] = (
    _Claim(
        "PPO with its ratio against the frozen base makes runs collapse",
        lambda d: "ppo_frozen_anchor" in str(d.case.setting("objective.name")) and _judged(d),
        lambda d: d.verdict == "collapsed",
        "repeat a collapsed run with PPO off and nothing else changed, three seeds each",
    ),
    _Claim(
        "the learning rate is too high",
        lambda d: _high_rate(d) and _judged(d),
        _went_bad,
        "repeat with half the learning rate",
    ),
    _Claim(
        "groups are too small to give a direction",
        lambda d: (size := _number(d, "rollouts.group_size")) is not None and size < 8 and _judged(d),
        lambda d: _went_bad(d) or _has(d, "no_learning", "cannot_tell"),
        "repeat with 16 or more CoTs per question",
    ),
    _Claim(
        "a rising reward means better answers",
        lambda d: any(f.rule == "trend" and "reward" in f.evidence and f.weight == "note" for f in d.findings),
        lambda d: not _has(d, "answer_gone", "reward_without_accuracy", "copies_question", "ignores_question"),
        "evaluate accuracy at the start, the middle and the end",
    ),
    _Claim(
        "evaluation or extraction, not training, is why accuracy is low",
        lambda d: _evaluated(d) and d.verdict != "collapsed",
        lambda d: _has(d, "unexplained_accuracy", "gap_to_reference", "below_chance", "extractors_disagree"),
        "evaluate the untrained base model with the same command and read twenty outputs in which no answer was found",
    ),
    _Claim(
        "training was too short",
        lambda d: _judged(d) and d.verdict != "collapsed" and (d.run.last_step or 0) > 0,
        lambda d: _learns(d) and not _has(d, "plateau", "decay_after_peak") and not _went_bad(d),
        "continue the run that is still improving, and evaluate every 500 steps",
    ),
    _Claim(
        "training went on too long",
        lambda d: _judged(d) and (d.run.last_step or 0) > 0,
        lambda d: _has(d, "decay_after_peak", "copies_question", "ignores_question") or d.verdict == "collapsed",
        "evaluate the checkpoints before the onset",
    ),
)


def _hypotheses(runs: Sequence[Diagnosis]) -> list[Hypothesis]:
    found = []
    for claim in CLAIMS:
        concerned = [d for d in runs if d.run.kind != "evaluation" and claim.premise(d)]
        pro = tuple(d.run.name for d in concerned if claim.outcome(d))
        if pro:
            found.append(Hypothesis(claim.claim, pro, tuple(d.run.name for d in concerned if d.run.name not in pro), claim.test))
    return found


# --- what to do --------------------------------------------------------------------------------------------------------

_GRAVITY = {"collapsed": 0, "warn": 1, "healthy": 2, "unknown": 3}


def _recommendations(runs: Sequence[Diagnosis]) -> list[Recommendation]:
    """Every piece of advice once, the most wanted first; of equals the one for the gravest run."""
    having: dict[str, list[Diagnosis]] = {}
    for d in runs:
        for line in d.advice:
            having.setdefault(line, []).append(d)
    ordered = sorted(having.items(), key=lambda item: (-len(item[1]), min(_GRAVITY[d.verdict] for d in item[1])))
    return [Recommendation(line, tuple(d.run.name for d in of)) for line, of in ordered[:_MOST_ADVICE]]


def _next_steps(runs: Sequence[Diagnosis]) -> list[str]:
    """What to do with these runs, in order: use, leave, measure, repeat."""
    steps: list[str] = []
    none: list[str] = []
    for found in verdict_on_tasks(runs):
        if found.run is not None:
            steps.append(f"{found.task}: use {found.run.run.name}, step {found.run.best_step:,} ({found.why})")
        elif any(d.run.kind != "evaluation" for d in runs if (d.run.task or UNNAMED) == found.task):
            none.append(found.task)
    if none:
        steps.append(f"trust no run yet on {', '.join(none)} (for the reasons see “No run to trust”)")
    spoilt = [d for d in runs if d.verdict == "collapsed" or _has(d, "copies_question", "ignores_question")]
    if spoilt:
        listed = "; ".join(f"{d.run.name} from step {d.onset_step:,}" for d in spoilt[:6] if d.onset_step is not None)
        steps.append(f"ignore or delete what came after the onset: {listed or names(spoilt)}")
    unevaluated = [d for d in runs if _has(d, "no_evaluation_during_training") and d.verdict != "collapsed"]
    if unevaluated:
        steps.append(f"evaluate the saved checkpoints and the base of {names(unevaluated)}: without that, no run can be chosen")
    small = [d for d in runs if any(f.rule == "evaluation_too_small" for f in d.findings)]
    if small:
        steps.append(f"evaluate {names(small)} on the whole test split: the intervals are too wide to compare")
    odd = [d for d in runs if _has(d, "unexplained_accuracy", "gap_to_reference", "below_chance") and d.verdict != "collapsed"]
    if odd:
        steps.append(f"find out why evaluation disagrees with training in {names(odd)} before training any further")
    single = {d.run.task for d in runs if d.run.task}
    alone = sorted(task for task in single if sum(d.run.task == task for d in runs) == 1)
    if alone:
        steps.append(f"repeat with other seeds: {', '.join(alone[:6])} {'has' if len(alone) == 1 else 'have'} only a single run")
    return steps
