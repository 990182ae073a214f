"""A verdict on each run: when it went wrong, which signals say so, the most likely named cause, and what to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markovlm.health.advice import advice_of
from markovlm.health.case import OUTCOME_KINDS, Case, percent, scored
from markovlm.health.cause import Cause, CauseEvent, cause_of, consequences, events, explaining
from markovlm.health.cost import Cost, cost_of
from markovlm.health.evaluations import Measured, independent
from markovlm.health.levels import levels
from markovlm.health.monitor import WATCHED, judge
from markovlm.health.rule import SURE, Confidence, Finding
from markovlm.health.rules import RULE, findings
from markovlm.health.series import evaluation_groups
from markovlm.health.verdict import Evidence, Verdict, VerdictName
from markovlm.logs.find import Skipped, read_runs
from markovlm.logs.frameworks import Framework
from markovlm.logs.records import RunData, training_rows
from markovlm.logs.schema import METRIC, label


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is to be said about one run. `as_json` is a row of `markovlm diagnose --json`."""

    run: RunData
    verdict: VerdictName
    onset_step: int | None
    signals: tuple[Evidence, ...]
    cause: Cause | None
    cause_confidence: Confidence | None
    findings: tuple[Finding, ...]
    advice: tuple[str, ...]
    case: Case = field(repr=False)
    events: tuple[CauseEvent, ...] = ()  # what moved, in the order of appearance
    found: tuple[Finding, ...] = field(default=(), repr=False)  # all that the rules found, consequences and fallbacks too

    def __repr__(self) -> str:
        since = "" if self.onset_step is None else f" since step {self.onset_step}"
        return f"Diagnosis({self.path}: {self.verdict}{since}; {self.why})"

    @property
    def path(self) -> Path:
        return self.run.path

    @property
    def why(self) -> str:
        """One short sentence: the strongest reason for the verdict."""
        health = self.case.verdict
        spoken = health.signals[0] if health.signals and self.verdict in ("collapsed", "warn") else None
        moved = self.cause is not None and RULE[self.cause.rule].explains == "mechanism"
        if spoken is not None and (self.verdict == "collapsed" or spoken.kind in _OUTCOMES or not moved):
            return _told(spoken)
        if self.verdict == "warn":
            if self.cause is not None:
                return next(
                    (f"{RULE[f.rule].sentence}: {f.evidence}" for f in self.findings if f.rule == self.cause.rule),
                    self.cause.sentence,
                )
            return next((f.evidence for f in self.findings if RULE[f.rule].warns and f.weight != "note"), "see the findings")
        if self.run.kind == "evaluation":
            return _evaluated(self.case)
        if self.run.training in ("supervised", "preference"):
            return f"a {self.run.training} run: no sampled reward, so nothing to judge here"
        if self.verdict == "unknown":
            return unjudged(self.case)
        if self.cause is not None:
            return f"stable training; {self.cause.sentence}"
        course = next((f.evidence for f in self.findings if f.rule == "trend"), None)
        if course is not None:
            return f"no signal beyond its threshold in {health.rows:,} rows; {course}"
        return f"no signal beyond its threshold in {health.rows:,} rows" + _from_to(self.case)

    @property
    def doubt(self) -> str | None:
        """A doubt about a run whose training looks healthy, in two or three words."""
        return (RULE[self.cause.rule].doubt or None) if self.cause is not None and self.verdict != "collapsed" else None

    @property
    def best_step(self) -> int | None:
        """The checkpoint to use, where evaluations say."""
        return self.case.best_step

    @property
    def error(self) -> str | None:
        """The error that ended the log, quoted."""
        return str(self.run.error["text"]) if self.run.error else None

    @property
    def cost(self) -> Cost:
        """What was paid for nothing."""
        return cost_of(self.run, self.onset_step if self.verdict == "collapsed" else None)

    def as_json(self) -> dict[str, Any]:
        number, of = self.run.launch
        return {
            "path": str(self.path),
            "verdict": self.verdict,
            "onset_step": self.onset_step,
            "signals": [{"name": e.name, "step": e.step, "value": e.value, "threshold": e.threshold} for e in self.signals],
            "cause": None if self.cause is None else f"{self.cause.name}: {self.cause.sentence}",
            "advice": list(self.advice),
            "cost": self.cost.as_json(),
            "run": self.run.name,
            "launch": {"number": number, "of": of},
            "framework": self.run.framework,
            "rows": self.run.steps,
            "last_step": self.run.last_step,
            "why": self.why,
            "cause_confidence": self.cause_confidence,
            "events": [{"step": e.step, "rule": e.rule, "what": e.what} for e in self.events],
            "findings": [
                {"rule": f.rule, "evidence": f.evidence, "confidence": f.confidence, "weight": f.weight, "step": f.step}
                for f in self.findings
            ],
            "best_step": self.best_step,
            "error": self.error,
            "reading": list(self.run.problems),
        }


def _told(e: Evidence) -> str:
    """`the answer's log-probability crashed: answer log-prob, actor -41 at step 999, threshold -12.4`"""
    name = METRIC[e.name].label if e.name in METRIC else e.name.replace("_", " ")
    back = "; it recovered" if e.recovered else ""
    bound = f"threshold {e.threshold:.3g}"
    return f"{e.says or e.kind}: {name} {e.value:.3g} at step {e.step:,}{e.between}, {bound}{back}{e.rarity}"


def judge_run(run: RunData) -> Verdict:
    """The guard's verdict on a run's metrics."""
    if run.training in ("supervised", "preference"):
        return Verdict("unknown", None, (), run.steps)
    columns = [key for key in ("step", *WATCHED) if key in run.metrics.columns]
    # of a mixture all tasks together
    series = max(evaluation_groups(run), key=lambda group: (len(group), group[-1].n), default=[])
    measured = [Measured(e.step, e.score.accuracy, independent(e.n, e.texts)) for e in series if e.of_actor]
    return judge(training_rows(run).select(columns).iter_rows(named=True), measured)


def diagnose_run(run: RunData) -> Diagnosis:
    """Verdict, findings and cause of one run, by itself."""
    case = Case(run, judge_run(run), _checkpoints(run))
    return _conclude(case, findings(case) if run.training not in ("supervised", "preference") else _unjudged_findings(case))


def _unjudged_findings(case: Case) -> list[Finding]:
    """Of a run that nothing is sampled in: how it ended."""
    rules = (RULE[name] for name in ("not_finished", "ended_in_error", "non_finite"))
    return [finding for rule in rules if rule.check is not None for finding in rule.check(case)]


def _checkpoints(run: RunData) -> tuple[int, ...]:
    folder = (run.path if run.path.is_dir() else run.path.parent) / "checkpoints"
    if not (run.native and folder.is_dir()):
        return ()
    names = (entry.name.removeprefix("step-") for entry in folder.iterdir() if entry.name.startswith("step-"))
    return tuple(sorted(int(name) for name in names if name.isdecimal()))


def _conclude(case: Case, found: Sequence[Finding]) -> Diagnosis:
    verdict, onset = case.verdict.verdict, case.verdict.onset_step
    if verdict == "healthy" and unjudgeable(case.run):
        verdict = "unknown"
    likely = explaining(case, found)
    first = likely[0] if likely else None
    alarming = [
        f for f in found if _alarms(f) and (verdict != "unknown" or case.run.steps >= LEAST_ROWS or f.rule in _SURE_OF_FEW)
    ]
    if verdict in ("healthy", "unknown") and alarming:
        worst = first if first in alarming else alarming[0]
        verdict, onset = "warn", worst.step
    cause = cause_of(case, first) if first is not None else None
    followed = consequences(case, first, found) if first is not None and verdict in ("warn", "collapsed") else []
    shown = [
        f
        for f in found
        if f is first or (RULE[f.rule].explains not in ("fallback", "settings") and f not in _silent(followed, verdict))
    ]
    return Diagnosis(
        run=case.run,
        verdict=verdict,
        onset_step=onset,
        signals=case.verdict.signals,
        cause=cause,
        cause_confidence=first.confidence if first is not None else None,
        findings=tuple(shown),
        advice=_advice(case, verdict, cause, first, [f for f in found if f not in followed]),
        case=case,
        events=events(case, found),
        found=tuple(found),
    )


def _alarms(f: Finding) -> bool:
    """Does a finding make a run that looked healthy a warning?"""
    least = RULE[f.rule].warns
    return least is not None and SURE[f.confidence] <= SURE[least] and f.weight != "note"


def _silent(followed: Sequence[Finding], verdict: VerdictName) -> list[Finding]:
    """Consequences that say nothing new beside the cause."""
    return (
        [f for f in followed if RULE[f.rule].explains == "summary" or f.rule in ("cannot_tell", "plateau")]
        if verdict == "collapsed"
        else []
    )


_OUTCOMES = {*OUTCOME_KINDS, "decay"}
# Findings whose advice the cause already gives.
_TOLD_BY: Mapping[str, tuple[str, ...]] = {
    "ppo_frozen_anchor": ("frozen_anchor", "no_evaluation_during_training"),
    "reward_gradient_swamps_policy": ("term_balance",),
}
_SURE_OF_FEW = ("truncated_from_start", "rewards_equal")  # counts that a handful of rows settle
LEAST_ROWS = 20  # a course of fewer is too short for a clean bill
_READABLE = (
    "reward_mean", "normalized_reward_mean", "answer_logprob", "answer_correct_fraction", "cot_contains_answer", "accuracy",
)  # fmt: skip


def _from_to(case: Case) -> str:
    """`; answer log-prob -5.7 at the start, -1.5 at the end`"""
    told = [
        (c.key, levels(c))
        for key in ("answer_logprob", "cot_contains_answer", *_READABLE[:2])
        if (c := case.course(key)) is not None
    ]
    return "".join(
        f"; {label(key)} {found.start.mean:.3g} at the start, {found.end.mean:.3g} at the end" for key, found in told[:2]
    )


def unjudgeable(run: RunData) -> bool:
    """Too few rows, or nothing in them that tells of reward or log-prob."""
    return run.steps < LEAST_ROWS or not any(run.has(key) for key in _READABLE)


def unjudged(case: Case) -> str:
    """Why nothing is said of a run's health, with what was there: `12 rows: too early to judge; answer log-prob -5.4 to -4.9`."""
    run = case.run
    if not run.steps:
        return "no rows of metrics: nothing to judge"
    span = f" over {run.last_step - int(run.metrics['step'][0]) + 1:,} steps" if run.last_step else ""
    there = [c for key in _READABLE if (c := case.course(key)) is not None]
    told = "; ".join(f"{label(c.key)} {c.values[0]:.3g} to {c.values[-1]:.3g}" for c in there[:3])
    if not any(run.has(key) for key in _READABLE):
        columns = ", ".join(key for key in run.metrics.columns if key != "step") or "nothing else"
        return f"{run.steps:,} rows without reward or log-prob: nothing to judge by (there are: {columns[:120]})"
    dense = run.last_step is not None and run.steps * 2 > run.last_step - int(run.metrics["step"][0])
    what = "too early to judge" if dense else "not enough to judge"
    if run.error:
        what = f"ended with an error, {run.error['text']}"
    return f"{run.steps:,} row{'' if run.steps == 1 else 's'}{span}: {what}" + (f"; {told}" if told else "")


def _evaluated(case: Case) -> str:
    """What a lone evaluation file says."""
    e = case.best or case.last or case.base or next(iter(case.run.evals), None)
    if e is None:
        return "an evaluation without an accuracy"
    others = "; ".join(f"{name} {percent(s.accuracy)}" for name, s in e.scores.items() if name != e.main)
    none = e.score.no_answer
    failed = f"; {percent(none)} of outputs without an answer" if none else ""
    return (
        f"an evaluation, no training: {scored(e)} ({e.main})" + (f"; {others}" if others else "") + failed
        + "; nothing in it tells whether it is of a base or a trained model"
    )  # fmt: skip


def _advice(
    case: Case, verdict: VerdictName, cause: Cause | None, first: Finding | None, found: Sequence[Finding]
) -> tuple[str, ...]:
    lines: list[str] = []
    early = _unknown_advice(case) if verdict == "unknown" and case.run.training not in ("supervised", "preference") else []
    if cause is None:
        lines += early
    if case.collapsed and case.verdict.onset_step is not None:
        lines.append(_which_checkpoint(case, case.verdict.onset_step))
    if cause is not None:
        lines += cause.advice
    for finding in found:
        if finding is first or finding.weight == "note" or (cause is not None and finding.rule in _TOLD_BY.get(cause.rule, ())):
            continue
        if RULE[finding.rule].explains not in ("settings", "fallback"):
            lines += advice_of(finding.advice or RULE[finding.rule].advice, case)
    lines += early if cause is not None else []
    if not lines and case.best_step is not None:
        lines.append(f"use the checkpoint at step {case.best_step:,}, the best evaluated")
    return tuple(dict.fromkeys(lines))


def _which_checkpoint(case: Case, onset: int) -> str:
    before = case.safe_step(onset - 1)
    usable = [step for step in case.checkpoints if before is not None and step <= before and case.safe_step(step) == step]
    trusted = (
        f"the last one before is step {usable[-1]:,}"
        if usable
        else f"use one before step {before + 1:,}, if it was kept"
        if before is not None
        else "there is none before it that holds reasoning"
    )
    if before is not None and before + 1 < onset:
        rule = next(name for start, _, name in case.stretches if start == before + 1)
        trusted += f" (from step {before + 1:,} on the CoT {rule.replace('_', ' its ')} already)"
    return f"do not use checkpoints from step {onset:,} on; {trusted}"


def _unknown_advice(case: Case) -> list[str]:
    if case.run.kind == "evaluation":
        return ["name the run it belongs to, or evaluate the base with the same command, to have something to compare with"]
    if not case.run.steps:
        return ["too few rows to judge: check that the right file was given"]
    if not any(case.run.has(key) for key in _READABLE):
        return ["log the reward, or name the column that is it: --map reward=COLUMN"]
    if case.run.error:
        return ["mend the error that ended it and start again: there are too few rows to say more"]
    return ["too few rows to judge: let it run, or check that the right file was given"]


# --- several runs ------------------------------------------------------------------------------------------------------

# Settings that name or place a run, or are only there because of the kind of log, and explain nothing.
_NOT_EXPLAINING = ("use_ppo", "data.", "logging.", "loading.", "task", "seed", "training.steps", "resume", "num_batches")


def diagnose_all(runs: Sequence[RunData]) -> list[Diagnosis]:
    """Diagnoses in the order of the runs, with what only a comparison shows."""
    single = [diagnose_run(run) for run in runs]
    shared = _shared_by_collapsed(single)
    if not shared:
        return single
    text = "only the collapsed runs have " + ", ".join(f"{name} = {value}" for name, value in shared)
    others = sum(d.verdict != "collapsed" for d in single)
    finding = Finding("only_collapsed_runs_share", f"{text} (of {len(single)} runs; {others} others do not)", "low", "caution")
    return [_conclude(d.case, [*d.found, finding]) if d.verdict == "collapsed" else d for d in single]


def _shared_by_collapsed(all_of_them: Sequence[Diagnosis]) -> list[tuple[str, Any]]:
    """Settings with one value in every collapsed run and another in every other run that has the setting."""
    bad = [d.run.config for d in all_of_them if d.verdict == "collapsed" and d.run.config]
    good = [d.run.config for d in all_of_them if d.case.verdict.verdict in ("healthy", "warn") and d.run.config]
    if not bad or len(good) < 2:
        return []
    found = []
    for name in bad[0]:
        values = {repr(config.get(name)) for config in bad}
        others = [repr(config[name]) for config in good if name in config]
        if len(values) == 1 and len(others) >= 2 and not values & set(others) and not name.startswith(_NOT_EXPLAINING):
            found.append((name, bad[0][name]))
    return found[:6]


def diagnose_paths(
    paths: Sequence[str | Path], skipped: list[Skipped] | None = None, mapping: Framework | None = None
) -> list[Diagnosis]:
    """A diagnosis for each run named by the arguments, in their order; files of directories that are no runs go to `skipped`.

    `mapping` names the columns of tables (`--map`).
    """
    return diagnose_all(list(read_runs(paths, skipped=skipped, mapping=mapping)))
