"""A verdict on each run: when it went wrong, which signals say so, the most likely named cause, and what to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markovlm.health.causes import Named, named, portrait
from markovlm.health.evaluations import Measured, independent
from markovlm.health.levels import levels
from markovlm.health.monitor import WATCHED, judge
from markovlm.health.named_causes import CAUSES, DOUBTS, Cause
from markovlm.health.remedies import in_framework_words
from markovlm.health.rules import Case, Confidence, Finding, findings, percent, scored
from markovlm.health.series import evaluation_groups
from markovlm.health.thresholds import KINDS
from markovlm.health.verdict import Evidence, Verdict, VerdictName
from markovlm.logs.find import Skipped, read_runs
from markovlm.logs.frameworks import Framework
from markovlm.logs.records import RunData, training_rows
from markovlm.logs.schema import FOREIGN_CONFIG, METRIC, components, label

_RANK: Mapping[Confidence, int] = {"high": 0, "medium": 1, "low": 2}


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

    @property
    def path(self) -> Path:
        return self.run.path

    @property
    def why(self) -> str:
        """One short sentence: the strongest reason for the verdict."""
        health = self.case.verdict
        if health.signals and self.verdict in ("collapsed", "warn"):
            return _told(health.signals[0])
        if self.verdict == "warn":
            late = next((f.evidence for f in self.findings if f.rule in _LATE_TROUBLE), None)
            return late or (self.cause.sentence if self.cause is not None else "see the findings")
        if self.run.kind == "evaluation":
            return _evaluated(self.case)
        if self.run.training in ("supervised", "preference"):
            return f"a {self.run.training} run: no sampled reward, so nothing to judge here"
        if self.verdict == "unknown":
            return unjudged(self.case)
        if self.cause is not None:
            return f"stable training; {self.cause.sentence}"
        moved = next((f.evidence for f in self.findings if f.rule == "trend"), None)
        if moved is not None:
            return f"no signal beyond its threshold in {health.rows:,} rows; {moved}"
        return f"no signal beyond its threshold in {health.rows:,} rows" + _from_to(self.case)

    @property
    def doubt(self) -> str | None:
        """A doubt about a run whose training looks healthy, in two or three words."""
        return DOUBTS.get(self.cause.name) if self.cause is not None and self.verdict != "collapsed" else None

    @property
    def best_step(self) -> int | None:
        """The checkpoint to use, where evaluations say."""
        return self.case.best_step

    def as_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "verdict": self.verdict,
            "onset_step": self.onset_step,
            "signals": [{"name": e.name, "step": e.step, "value": e.value, "threshold": e.threshold} for e in self.signals],
            "cause": None if self.cause is None else f"{self.cause.name}: {self.cause.sentence}",
            "advice": list(self.advice),
            "launch": {"number": self.run.launch[0], "of": self.run.launch[1]},
        }


def _told(e: Evidence) -> str:
    """`the answer's log-probability crashed: answer log-prob, actor -41 at step 999, threshold -12.4`"""
    name = METRIC[e.name].label if e.name in METRIC else e.name.replace("_", " ")
    back = "; it recovered" if e.recovered else ""
    bound = f"threshold {e.threshold:.3g}"
    return f"{KINDS.get(e.kind, e.kind)}: {name} {e.value:.3g} at step {e.step:,}{e.between}, {bound}{back}{e.rarity}"


def judge_run(run: RunData) -> Verdict:
    """The guard's verdict on a run's metrics."""
    if run.training in ("supervised", "preference"):
        return Verdict("unknown", None, (), run.steps)
    columns = [key for key in ("step", *WATCHED) if key in run.metrics.columns]
    series = max(
        evaluation_groups(run), key=lambda group: (len(group), group[-1].n), default=[]
    )  # of a mixture all tasks together
    measured = [Measured(e.step, e.score.accuracy, independent(e.n, e.texts)) for e in series if e.of_actor]
    return judge(training_rows(run).select(columns).iter_rows(named=True), measured)


def named_collapses(case: Case) -> tuple[Named, ...]:
    """The named collapses whose signature the run shows, the most telling first."""
    rows = training_rows(case.run)
    keys = ("step", *WATCHED, "eval_accuracy", *components(rows.columns))
    return named(portrait({key: rows[key].to_list() for key in keys if key in rows.columns}, case.verdict))


def diagnose_run(run: RunData) -> Diagnosis:
    """Verdict, findings and cause of one run, by itself."""
    case = Case(run, judge_run(run), _checkpoints(run))
    found = findings(case)
    return _conclude(case, found)


def _checkpoints(run: RunData) -> tuple[int, ...]:
    folder = (run.path if run.path.is_dir() else run.path.parent) / "checkpoints"
    if not (run.native and folder.is_dir()):
        return ()
    names = (entry.name.removeprefix("step-") for entry in folder.iterdir() if entry.name.startswith("step-"))
    return tuple(sorted(int(name) for name in names if name.isdecimal()))


# Named collapses that make a run that looked healthy a warning, and those that are only worth a note.
_NAMED_WARNINGS = frozenset({"garbage_is_paid", "groups_hopeless", "nothing_moves", "reward_hacking"})
_TOLD_AS: Mapping[str, str] = {
    "nothing_moves": "no_gradient",
    "reward_hacking": "reward_without_accuracy",
    "length_inflation": "cot_length_saturation",
}
_NAMED_NOTES = frozenset({"groups_solved", "healed_spike"})


def _as_cause(telling: Named, framework: str) -> Cause:
    return Cause(telling.name, f"{telling.sentence} ({telling.evidence})", telling.advice(framework), lambda *_: None)


def _as_finding(telling: Named, framework: str) -> Finding:
    note = telling.name in _NAMED_NOTES
    advice = () if note else telling.advice(framework)
    return Finding(
        telling.name, f"{telling.sentence}: {telling.evidence}", "medium", "note" if note else "caution", advice=advice
    )


def _conclude(case: Case, found: Sequence[Finding]) -> Diagnosis:
    by_rule: dict[str, Finding] = {}
    for finding in found:
        by_rule.setdefault(finding.rule, finding)
    candidates: list[tuple[Confidence, Cause]] = [
        (sure, cause) for cause in CAUSES if (sure := cause.applies(case, by_rule)) is not None
    ]
    best = min(candidates, key=lambda c: _RANK[c[0]], default=None)
    verdict, onset = case.verdict.verdict, case.verdict.onset_step
    if verdict == "healthy" and unjudgeable(case.run):
        verdict = "unknown"
    telling = [n for n in named_collapses(case) if _TOLD_AS.get(n.name, n.name) not in by_rule] if verdict != "unknown" else []
    main = next((n for n in telling if n.name not in _NAMED_NOTES), None)
    # our own settings say more than a signature; another framework's log has none that we know
    if main is not None and (best is None or best[1].name == "unknown_collapse" or (case.collapsed and case.run.framework)):
        best = ("medium", _as_cause(main, case.run.framework))
        telling.remove(main)
        if verdict == "healthy" and main.name in _NAMED_WARNINGS:
            verdict = "warn"
    found = [*found, *(_as_finding(n, case.run.framework) for n in telling)]
    late = _late_trouble(found)
    if verdict in ("healthy", "unknown") and late is not None and (late.rule != "no_gradient" or case.run.steps >= LEAST_ROWS):
        verdict, onset = "warn", late.step
    return Diagnosis(
        run=case.run,
        verdict=verdict,
        onset_step=onset,
        signals=case.verdict.signals,
        cause=best[1] if best else None,
        cause_confidence=best[0] if best else None,
        findings=tuple(found),
        advice=_advice(case, verdict, best[1] if best else None, found),
        case=case,
    )


# Findings whose advice the cause already gives.
_TOLD_BY: Mapping[str, tuple[str, ...]] = {
    "ppo_frozen_anchor": ("frozen_anchor", "no_evaluation_during_training"),
    "reward_gradient_swamps_policy": ("term_balance",),
}


def _late_trouble(found: Sequence[Finding]) -> Finding | None:
    """A finding of hindsight that makes a run that looked healthy a warning: it surely got worse, or holds no reasoning."""
    sure = (f for f in found if f.rule in _LATE_TROUBLE and f.confidence == "high" and f.weight != "note")
    return min(sure, key=lambda f: _LATE_TROUBLE.index(f.rule), default=None)


_LATE_TROUBLE = ("copies_question", "ignores_question", "answer_gone", "no_gradient", "decay_after_peak")
LEAST_ROWS = 20  # a course of fewer is too short for a clean bill
_READABLE = (
    "reward_mean", "normalized_reward_mean", "answer_logprob", "answer_correct_fraction", "cot_contains_answer", "accuracy", "grad_norm",
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
    """Too few rows, or nothing in them that tells of reward, log-prob or gradient."""
    return run.steps < LEAST_ROWS or not any(run.has(key) for key in _READABLE)


def unjudged(case: Case) -> str:
    """Why nothing is said of a run's health, with what was there: `12 rows: too early to judge; answer log-prob -5.4 to -4.9`."""
    run = case.run
    if not run.steps:
        return "no rows of metrics: nothing to judge"
    span = f" over {run.last_step - int(run.metrics['step'][0]) + 1:,} steps" if run.last_step else ""
    there = [c for key in _READABLE[:-1] if (c := case.course(key)) is not None]
    told = "; ".join(f"{label(c.key)} {c.values[0]:.3g} to {c.values[-1]:.3g}" for c in there[:3])
    if not any(run.has(key) for key in _READABLE):
        columns = ", ".join(key for key in run.metrics.columns if key != "step") or "nothing else"
        return f"{run.steps:,} rows without reward, log-prob or gradient: not enough to judge (there are: {columns[:120]})"
    dense = run.last_step is not None and run.steps * 2 > run.last_step - int(run.metrics["step"][0])
    what = "too early to judge" if dense else "not enough to judge"
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


def _advice(case: Case, verdict: VerdictName, cause: Cause | None, found: Sequence[Finding]) -> tuple[str, ...]:
    lines: list[str] = []
    early = _unknown_advice(case) if verdict == "unknown" and case.run.training not in ("supervised", "preference") else []
    if cause is None:
        lines += early
    if case.collapsed and case.verdict.onset_step is not None:
        before = case.safe_step(case.verdict.onset_step - 1)
        usable = [step for step in case.checkpoints if before is not None and step <= before and case.safe_step(step) == step]
        trusted = (
            f"the last one before is step {usable[-1]:,}"
            if usable
            else f"use one before step {before + 1:,}, if it was kept"
            if before is not None
            else "there is none before it that holds reasoning"
        )
        if before is not None and before + 1 < case.verdict.onset_step:
            rule = next(name for start, _, name in case.stretches if start == before + 1)
            trusted += f" (from step {before + 1:,} on the CoT {rule.replace('_', ' its ')} already)"
        lines.append(f"do not use checkpoints from step {case.verdict.onset_step:,} on; {trusted}")
    if cause is not None:
        lines += cause.advice
        lines += next((f.advice for f in found if f.rule == cause.name), ())
    for finding in found:
        if finding.weight != "note" and not (cause is not None and finding.rule in _TOLD_BY.get(cause.name, ())):
            lines += finding.advice
    lines += early if cause is not None else []
    if not lines and case.best_step is not None:
        lines.append(f"use the checkpoint at step {case.best_step:,}, the best evaluated")
    if case.run.kind in ("g1", "g1b", "g1c", "g1d", "g2", "g3", "g4"):
        lines = [in_their_words(line) for line in lines]
    return tuple(dict.fromkeys(in_framework_words(line, case.run.framework) for line in lines))


def _unknown_advice(case: Case) -> list[str]:
    if case.run.kind == "evaluation":
        return ["name the run it belongs to, or evaluate the base with the same command, to have something to compare with"]
    if not case.run.steps:
        return ["too few rows to judge: check that the right file was given"]
    if not any(case.run.has(key) for key in _READABLE):
        return ["log reward, log-prob or gradient norm, or check that the right file was given"]
    return ["too few rows to judge: let it run, or check that the right file was given"]


# Our keys in advice -> the research code's, for runs of that code.
_THEIR_KEYS = {ours: theirs for theirs, ours in FOREIGN_CONFIG.items() if "." in ours} | {
    "objective.name: grpo": "parallel_samples: true"
}


def in_their_words(line: str) -> str:
    """Advice with the research code's keys in place of ours, where it has them."""
    for ours, theirs in _THEIR_KEYS.items():
        line = line.replace(ours, theirs)
    return line


# --- several runs ------------------------------------------------------------------------------------------------------

# Settings that name or place a run, or are only there because of the kind of log, and explain nothing.
_NOT_EXPLAINING = (
    "use_ppo",
    "data.",
    "logging.",
    "loading.",
    "task",
    "seed",
    "training.steps",
    "resume",
    "num_batches",
)


def diagnose_all(runs: Sequence[RunData]) -> list[Diagnosis]:
    """Diagnoses in the order of the runs, with what only a comparison shows."""
    single = [diagnose_run(run) for run in runs]
    shared = _shared_by_collapsed(single)
    if not shared:
        return single
    text = "only the collapsed runs have " + ", ".join(f"{name} = {value}" for name, value in shared)
    others = sum(d.verdict != "collapsed" for d in single)
    finding = Finding(
        "only_collapsed_runs_share",
        f"{text} (of {len(single)} runs; {others} others do not)",
        "low",
        "caution",
        advice=("change that setting alone and repeat the run: being shared is not being the cause",),
    )
    return [_conclude(d.case, [*d.findings, finding]) if d.verdict == "collapsed" else d for d in single]


def _shared_by_collapsed(all_of_them: Sequence[Diagnosis]) -> list[tuple[str, Any]]:
    """Settings with one value in every collapsed run and another in every other run that has the setting."""
    bad = [d.run.config for d in all_of_them if d.verdict == "collapsed" and d.run.config]
    good = [d.run.config for d in all_of_them if d.case.verdict.verdict in ("healthy", "warn") and d.run.config]
    if not bad or len(good) < 2:
        return []
    found = []
    for name in bad[0]:
        values = {_plain(config.get(name)) for config in bad}
        others = [_plain(config[name]) for config in good if name in config]
        if len(values) == 1 and len(others) >= 2 and not values & set(others) and not name.startswith(_NOT_EXPLAINING):
            found.append((name, bad[0][name]))
    return found[:6]


def _plain(value: Any) -> str:
    return repr(value)


def diagnose_paths(
    paths: Sequence[str | Path], skipped: list[Skipped] | None = None, mapping: Framework | None = None
) -> list[Diagnosis]:
    """A diagnosis for each run named by the arguments, in their order; files of directories that are no runs go to `skipped`.

    `mapping` names the columns of tables (`--map`).
    """
    return diagnose_all(list(read_runs(paths, skipped=skipped, mapping=mapping)))
