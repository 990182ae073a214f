"""Every table of a report, each number with its source."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from markovlm.health.diagnose import Diagnosis
from markovlm.health.levels import Level, milestone_levels
from markovlm.health.rules import THRESHOLDS, reference_of, rules_table
from markovlm.health.series import base_evaluation, best_evaluation, evaluation_groups, last_evaluation
from markovlm.health.thresholds import Threshold
from markovlm.logs.find import Skipped
from markovlm.logs.records import LoggedEvaluation, RunData
from markovlm.logs.schema import METRIC
from markovlm.present.table import NOTHING, Cell, Columns, Source, Table, number_cell, number_text, percent_cell, plain, table_of
from markovlm.report.run_rows import SIGNALS, run_rows
from markovlm.report.synthesis import Synthesis
from markovlm.report.trust import verdict_on_tasks


def row_source(run: RunData, step: int) -> Source | None:
    """File and line of the metrics row of a step."""
    path = run.files.get("metrics")
    if path is None:
        return None
    line = run.lines.get(step)
    if line is None:
        line = run.row_of(step)
    return Source(path, line)


def eval_source(run: RunData, e: LoggedEvaluation) -> Source | None:
    """File and line of an evaluation."""
    path = run.files.get("evals")
    return None if path is None else Source(path.with_name(e.source or path.name), e.line or None)


# --- the verdicts ------------------------------------------------------------------------------------------------------

_GRAVITY = {"collapsed": 0, "warn": 1, "healthy": 2, "unknown": 3}


def by_gravity(all_of_them: Sequence[Diagnosis]) -> list[Diagnosis]:
    """Collapsed runs first, then warnings, then the healthy; what cannot be judged last; each in the order given."""
    return sorted(all_of_them, key=lambda d: _GRAVITY[d.verdict])


def verdicts(all_of_them: Sequence[Diagnosis]) -> Table:
    """One row a run: verdict, when, why, accuracy, what to do."""
    rows = []
    for d in by_gravity(all_of_them):
        best = d.case.best or d.case.last or d.case.base or next((e for e in d.run.evals if e.scores), None)
        rows.append(
            (
                Cell(d.verdict, d.verdict, None, f"verdict {d.verdict}"),
                Cell(d.run.name, d.run.name, None, "run"),
                plain(d.run.task),
                number_cell(d.run.last_step),
                _onset(d),
                Cell(d.why, d.why),
                accuracy_cell(d.run, best) if best else NOTHING,
                Cell(d.advice[0] if d.advice else None, d.advice[0] if d.advice else "nothing", None, "advice"),
            )
        )
    columns = ("verdict", "run", "task", "last step", "onset", "why", "best accuracy", "do next")
    return Table("verdicts", "Verdicts", columns, tuple(rows))


def runs(all_of_them: Sequence[Diagnosis]) -> Table:
    """One row a run: length, verdict, and start, best and end of each signal and of accuracy."""
    rows = run_rows(all_of_them)
    keys = [key for key in SIGNALS if any(key in row.signals for row in rows)]
    evaluated = any(row.base or row.best or row.last for row in rows)
    columns = ["run", "task", "verdict", "rows", "last step"]
    columns += [f"{METRIC[key].label if key in METRIC else key}, {when}" for key in keys for when in _WHEN]
    columns += [f"accuracy, {when}" for when in ("base", "best", "last")] if evaluated else []
    lines = []
    for d, row in zip(all_of_them, rows, strict=True):
        verdict = Cell(row.verdict, row.verdict + (f" ({row.doubt})" if row.doubt else ""), None, f"verdict {row.verdict}")
        cells = [plain(row.run, "run"), plain(row.task), verdict, plain(row.rows, "number"), plain(row.last_step, "number")]
        for key in keys:
            found = row.signals.get(key)
            cells += [level_cell(found and getattr(found, when), d.run, steps=when == "best") for when in _WHEN]
        if evaluated:
            cells += [accuracy_cell(d.run, e) if e else NOTHING for e in (row.base, row.best, row.last)]
        lines.append(tuple(cells))
    note = (
        "Means over windows ± standard error (with autocorrelation taken into account): start and end are the first and the last tenth of the "
        "rows, best is the best window of that length, and a little too high for being picked. Accuracies with 95 % Wilson intervals."
    )
    return Table("runs", "Runs", tuple(columns), tuple(lines), note)


_WHEN = ("start", "best", "end")


def level_cell(found: Level | None, run: RunData, steps: bool = False) -> Cell:
    """`-1.31 ± 0.05`, with the steps of the window where `steps` is set."""
    if found is None:
        return NOTHING
    mean, error = level_texts(found)
    where = f" @ {found.first_step:,}–{found.last_step:,}" if steps and found.rows > 1 else ""
    text = f"{mean} ± {error}" if error else mean
    return Cell(found.mean, f"{text}{where}", row_source(run, found.first_step), "number")


def level_texts(found: Level) -> tuple[str, str]:
    """(mean, its standard error; empty if there is none)"""
    rounding = 1e-9 * max(1.0, abs(found.mean))  # of a constant
    error = "" if found.error is None else f"{found.error if found.error > rounding else 0:.1g}"
    return f"{found.mean:.3g}", error


def _onset(d: Diagnosis) -> Cell:
    if d.onset_step is None:
        return NOTHING
    return Cell(d.onset_step, f"{d.onset_step:,}", row_source(d.run, d.onset_step), "number")


def signals(all_of_them: Sequence[Diagnosis]) -> Table:
    """The signals behind each verdict."""
    rows = [
        (
            plain(d.run.name, "run"),
            plain(e.level + (" (recovered)" if e.recovered else "")),
            plain(e.kind.replace("_", " ")),
            plain(e.name),
            number_cell(e.step, None, row_source(d.run, e.step)),
            number_cell(e.value, number_text(e.value), row_source(d.run, e.step)),
            number_cell(e.threshold, number_text(e.threshold)),
        )
        for d in by_gravity(all_of_them)
        for e in d.signals
    ]
    return Table("signals", "Signals", ("run", "level", "kind", "signal", "step", "value", "threshold"), tuple(rows))


def findings(all_of_them: Sequence[Diagnosis]) -> Table:
    """What hindsight found, with its confidence."""
    columns: Columns = {
        "run": lambda one: plain(one[0].run.name, "run"), "weight": lambda one: one[1].weight, "rule": lambda one: one[1].rule.replace("_", " "),
        "evidence": lambda one: one[1].evidence, "confidence": lambda one: one[1].confidence, "step": lambda one: one[1].step,
    }  # fmt: skip
    return table_of("findings", "Findings", [(d, f) for d in by_gravity(all_of_them) for f in d.findings], columns)


def patterns(found: Synthesis) -> Table:
    """Sentences about several runs."""
    return table_of("patterns", "Patterns", found.patterns, {"task": lambda p: p.task or "all", "pattern": "sentence"})


def hypotheses(found: Synthesis) -> Table:
    """Claims with the runs for and against."""
    columns: Columns = {
        "hypothesis": "claim", "runs for": lambda h: ", ".join(h.speaks_for), "runs against": lambda h: ", ".join(h.speaks_against),
        "what would decide": "test",
    }  # fmt: skip
    return table_of("hypotheses", "Hypotheses", found.hypotheses, columns)


def recommendations(found: Synthesis) -> Table:
    """All advice, each piece once."""
    columns: Columns = {"advice": "advice", "runs": lambda r: ", ".join(r.runs)}
    return table_of("recommendations", "Recommendations", found.recommendations, columns)


def untrusted(all_of_them: Sequence[Diagnosis]) -> Table:
    """The tasks of which no run is to be trusted, and why; a row for each run that was evaluated."""
    rows: list[tuple[Cell, ...]] = []
    for found in verdict_on_tasks(all_of_them):
        if found.run is None:
            reasons = [(plain(d.run.name, "run"), plain(why)) for d, why in found.objections]
            rows += [(plain(found.task), *reason) for reason in reasons or [(plain(None), plain(found.why))]]
    return Table("untrusted", "Why no run is to be trusted", ("task", "run", "why not"), tuple(rows))


# --- accuracy ----------------------------------------------------------------------------------------------------------


def accuracy_cell(run: RunData, e: LoggedEvaluation, extractor: str | None = None) -> Cell:
    """`57.1 % [54.4, 59.8]`"""
    score = e.scores[extractor or e.main]
    return percent_cell(score.accuracy, score.low, score.high, places=1, source=eval_source(run, e))


def accuracies(all_of_them: Sequence[Diagnosis]) -> Table:
    """Base, best and last checkpoint of every run under every extractor, a row for each way of evaluating."""
    rows = [row for d in all_of_them for series in evaluation_groups(d.run) for row in _accuracy_rows(d, series)]
    columns = ("run", "split", "extractor", "base", "best", "last", "best at", "last at", "no answer", "n", "published")
    note = (
        "95 % Wilson intervals in brackets. The best checkpoint was picked on these same questions, so its number is a little "
        "too high. “No answer” counts as wrong and is also listed by itself. “Published” is the paper's Markovian result for task and model."
    )
    return Table("accuracy", "Accuracy", columns, tuple(rows), note)


def _accuracy_rows(d: Diagnosis, series: list[LoggedEvaluation]) -> Iterator[tuple[Cell, ...]]:
    base, best, last = base_evaluation(series), best_evaluation(series), last_evaluation(series)
    at = last or best or base or series[-1]
    published = next((r for r in reference_of(d.case) if r.setting == "markovian"), None)
    extractors = dict.fromkeys(name for e in (base, best, last) if e for name in e.scores)
    for name in extractors:
        none = at.scores[name].no_answer if name in at.scores else None
        yield (
            plain(d.run.name, "run"),
            plain(f"{at.split}, {at.how['task']}" if "task" in at.how else at.split),  # of a run on several tasks
            plain(name + (" (main)" if name == at.main and len(extractors) > 1 else "")),
            *(_at(d.run, e, name) for e in (base, best, last)),
            plain(best.step if best else None, "number"),
            plain(last.step if last else None, "number"),
            percent_cell(none, places=1, source=eval_source(d.run, at)),
            Cell(at.n, f"{at.n:,}", eval_source(d.run, at), "number"),
            percent_cell(published.value if published else None, places=1),
        )


def _at(run: RunData, e: LoggedEvaluation | None, extractor: str) -> Cell:
    return NOTHING if e is None or extractor not in e.scores else accuracy_cell(run, e, extractor)


# --- milestones --------------------------------------------------------------------------------------------------------

MILESTONE_KEYS = (
    "loss", "reward_mean", "normalized_reward_mean", "answer_logprob", "baseline_answer_logprob", "answer_correct_fraction",
    "cot_contains_answer", "ratio_mean", "kl", "entropy", "grad_norm", "cot_length", "distinct_bigram_fraction", "longest_char_run",
)  # fmt: skip


def milestone_steps(d: Diagnosis, most: int = 9) -> list[int]:
    """Steps to show: first and last, powers of ten, onset, best checkpoint, and the largest spread in between."""
    steps = d.run.metrics["step"].to_list()
    if len(steps) <= most:
        return steps
    wanted = [steps[0], steps[-1], *(s for s in (d.onset_step, d.best_step) if s is not None)]
    wanted += [at - (1 if steps[0] == 0 else 0) for at in (10**k for k in range(2, 8)) if at < steps[-1]]
    wanted += [steps[0] + (steps[-1] - steps[0]) * i // 4 for i in (1, 2, 3)]
    nearest = dict.fromkeys(steps[min(bisect_left(steps, s), len(steps) - 1)] for s in wanted)
    return sorted(list(nearest)[:most])


def milestones(d: Diagnosis) -> Table:
    """One run's metrics at a few steps, each number that of one row."""
    run = d.run
    keys = [key for key in MILESTONE_KEYS if run.has(key)]
    chosen = milestone_steps(d)
    rows = []
    for row in run.metrics.filter(run.metrics["step"].is_in(chosen)).iter_rows(named=True):
        source = row_source(run, row["step"])
        marks = [name for name, step in (("onset", d.onset_step), ("best", d.best_step)) if step == row["step"]]
        step = Cell(row["step"], f"{row['step']:,}" + (f" ({', '.join(marks)})" if marks else ""), source, "number")
        rows.append((step, *(number_cell(row[key], None, source) for key in keys)))
    labels = tuple(METRIC[key].label for key in keys)
    return Table("milestones", run.name, ("step", *labels), tuple(rows), "Each row is one step of the log, not an average.")


def milestone_means(d: Diagnosis) -> Table:
    """One run's metrics around a few steps: mean ± standard deviation of the rows of a window."""
    run, chosen = d.run, milestone_steps(d)
    keys = [key for key in MILESTONE_KEYS if run.has(key)]
    columns = [milestone_levels(run, key, chosen) for key in keys]
    rows = []
    for at, step in enumerate(chosen):
        marks = [name for name, marked in (("onset", d.onset_step), ("best", d.best_step)) if marked == step]
        named = Cell(step, f"{step:,}" + (f" ({', '.join(marks)})" if marks else ""), row_source(run, step), "number")
        rows.append((named, *(_spread_cell(column[at], run) for column in columns)))
    labels = tuple(METRIC[key].label for key in keys)
    widest = max((found.rows for column in columns for found in column if found), default=1)
    note = (
        f"Mean ± standard deviation of up to {widest:,} rows around the step."
        if widest > 1
        else "Too few rows for windows: each number is that of one row."
    )
    return Table("milestone-means", run.name, ("around step", *labels), tuple(rows), note)


def _spread_cell(found: Level | None, run: RunData) -> Cell:
    if found is None:
        return NOTHING
    spread = "" if found.spread is None else f" ± {found.spread:.2g}"
    return Cell(found.mean, f"{number_text(found.mean)}{spread}", row_source(run, found.first_step), "number")


def all_milestone_means(all_of_them: Sequence[Diagnosis]) -> Table:
    """The window means of all runs in long form, for CSV."""
    rows = []
    for d in all_of_them:
        chosen = milestone_steps(d)
        for key in (key for key in MILESTONE_KEYS if d.run.has(key)):
            for step, found in zip(chosen, milestone_levels(d.run, key, chosen), strict=True):
                if found is None:
                    continue
                numbers = (found.mean, found.spread, found.error, found.rows, found.first_step, found.last_step)
                rows.append((plain(d.run.name), plain(step), plain(key), *(plain(n) for n in numbers)))
    columns = ("run", "step", "metric", "mean", "standard_deviation", "standard_error", "rows", "first_step", "last_step")
    return Table("milestone-means", "Milestones", columns, tuple(rows))


def all_milestones(all_of_them: Sequence[Diagnosis]) -> Table:
    """The milestones of all runs in long form, for CSV."""
    rows = []
    for d in all_of_them:
        keys = [key for key in MILESTONE_KEYS if d.run.has(key)]
        wanted = d.run.metrics.filter(d.run.metrics["step"].is_in(milestone_steps(d)))
        for row in wanted.iter_rows(named=True):
            source = row_source(d.run, row["step"])
            rows += [(plain(d.run.name), plain(row["step"]), plain(key), number_cell(row[key], None, source)) for key in keys]
    return Table("milestones", "Milestones", ("run", "step", "metric", "value"), tuple(rows))


# --- the rest ----------------------------------------------------------------------------------------------------------


_OF_SAMPLE = (
    "question", "cot", "baseline_cot", "answer", "correct", "reward", "normalized_reward", "advantage", "answered",
)  # fmt: skip


def samples(runs: Sequence[RunData]) -> Table:
    """The samples that the report shows."""
    rows = tuple(
        (
            plain(run.name),
            Cell(s.step, f"{s.step:,}", Source(run.files.get("samples", run.path), s.line)),
            *(plain(getattr(s, key)) for key in _OF_SAMPLE),
        )
        for run in runs
        for s in run.samples
    )
    return Table("samples", "Samples", ("run", "step", *_OF_SAMPLE), rows)


def problems(runs: Sequence[RunData], skipped: Sequence[Skipped] = ()) -> Table:
    """What could not be read, and what was left out of directories."""
    rows = [(plain(run.name, "run"), plain(problem)) for run in runs for problem in run.problems]
    rows += [(plain(s.path.name), plain(f"left out: {s.why}")) for s in skipped]
    return Table("problems", "What could not be read", ("run", "problem"), tuple(rows))


def thresholds() -> Table:
    """The table of the guard."""

    def span(row: Threshold) -> str:
        if row.rows > 1:
            return f"{row.needed} of {row.rows}"
        return "windows of 3, 10, 100" if row.measure.startswith(("below", "frac")) else "1"

    columns: Columns = {
        "signal": "signal",
        "measure": lambda row: f"{row.measure.replace('_', ' ')}, {row.comparison}",
        "warn": "warn",
        "collapse": "collapse",
        "rows": span,
        "shows": lambda row: row.kind.replace("_", " "),
        "why this threshold": "reason",
    }
    return table_of("thresholds", "Thresholds of the verdict", THRESHOLDS, columns)


def rules() -> Table:
    """The rules of hindsight."""
    table = rules_table()
    return table_of("rules", "Hindsight rules", table, {column: column for column in table[0]})
