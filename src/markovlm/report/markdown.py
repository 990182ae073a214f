"""The report as Markdown with SVG figures beside it: for a repository, a paper's appendix, a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markovlm.health.diagnose import Diagnosis
from markovlm.logs.find import Skipped
from markovlm.present.markdown import escaped, fenced, table
from markovlm.present.table import Table, number_text
from markovlm.report import tables
from markovlm.report.figures import Figure
from markovlm.report.html import sentence
from markovlm.report.loadbearing.section import NOTE, NOTHING_CLAIMED, TITLE, RunPart, Section, ShownExample
from markovlm.report.settings import settings
from markovlm.report.synthesis import Synthesis, synthesis
from markovlm.report.trust import verdict_on_tasks

SAMPLES_OF_A_RUN = 3
MOST_STUDIED = 3  # runs with their tables of studies; all have their sentences, and CSV files


def render_markdown(
    all_of_them: Sequence[Diagnosis],
    section: Section,
    figures: Sequence[tuple[Figure, str | None]],
    about: Mapping[str, str],
    skipped: Sequence[Skipped] = (),
) -> str:
    """The whole document; `figures` come with the paths of their SVG files."""
    runs = [d.run for d in all_of_them]
    found = settings(runs)
    of_studies = {figure.name for figure in section.printed}
    parts = [
        f"# Training report\n\n**{sentence(all_of_them)}** {about['runs']}, {about['steps']}, written {about['time']}.",
        "## Verdicts\n\n" + table(tables.verdicts(all_of_them)),
        "## Runs\n\n" + _noted(tables.runs(all_of_them)),
        _trusted(all_of_them),
        _together(synthesis(all_of_them)),
        "\n\n".join(_run(d) for d in tables.by_gravity(all_of_them)),
        "## Settings\n\n" + (table(found.differ) if len(found.differ.columns) > 2 else "All runs have the same settings."),
        "### Settings that only some logs record\n\n" + table(found.partial) if found.partial.rows else "",
        "### Settings in common\n\n" + table(found.common) if found.common.rows else "",
        "## Accuracy from the CoT alone\n\n" + _accuracy(all_of_them),
        "## Learning curves and rewards\n\n" + "\n\n".join(_figure(f, path) for f, path in figures if f.name not in of_studies),
        "## Milestones\n\n" + "\n\n".join(_milestones(d) for d in all_of_them if d.run.steps),
        _loadbearing(section, {figure.name: path for figure, path in figures}),
        "## Samples\n\n" + ("\n\n".join(_samples(d) for d in all_of_them if d.run.samples) or "No samples were logged."),
        _methods(all_of_them, about, skipped),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _figure(figure: Figure, path: str | None) -> str:
    title = escaped(figure.title)
    return f"![{title}]({path})" if path else f"({title}: could not be drawn)"


def _trusted(all_of_them: Sequence[Diagnosis]) -> str:
    found = verdict_on_tasks(all_of_them)
    good = "; ".join(
        f"{escaped(t.task)}: {escaped(t.run.run.name)}, step {t.run.best_step:,}, {escaped(t.why)}" for t in found if t.run
    )
    none = table(tables.untrusted(all_of_them))
    parts = [
        f"**Run to trust** (the most accurate whose interval beats chance and its base, and that is not in doubt): {good}."
        if good
        else "",
        f"**No run to trust:**\n\n{none}" if none else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _together(found: Synthesis) -> str:
    """Patterns, hypotheses, recommendations and next steps."""
    parts = []
    if found.next_steps:
        parts.append("## Next steps\n\n" + "\n".join(f"{i}. {escaped(step)}" for i, step in enumerate(found.next_steps, 1)))
    if found.patterns:
        tasks = dict.fromkeys(p.task for p in found.patterns)
        listed = "\n".join(
            f"- **{escaped(task or 'all tasks')}**: " + " ".join(escaped(p.sentence) for p in found.patterns if p.task == task)
            for task in tasks
        )
        parts.append(f"## Patterns\n\n{listed}")
    if found.hypotheses:
        listed = "\n".join(
            f"- *{escaped(h.claim[0].upper() + h.claim[1:])}.* For: {escaped(', '.join(h.speaks_for))}. Against: "
            f"{escaped(', '.join(h.speaks_against) or 'no run here')}. To decide: {escaped(h.test)}."
            for h in found.hypotheses
        )
        note = "Runs that share a setting share much else, so a run “for” is an association, not a proof."
        parts.append(f"## Hypotheses\n\n{note}\n\n{listed}")
    if found.recommendations:
        listed = "\n".join(f"- {escaped(r.advice)} ({escaped(_for_runs(r.runs))})" for r in found.recommendations)
        parts.append(f"## Recommendations\n\n{listed}")
    return "\n\n".join(parts)


def _for_runs(runs: Sequence[str]) -> str:
    return ", ".join(runs[:4]) + (f" and {len(runs) - 4} more" if len(runs) > 4 else "")


def _run(d: Diagnosis) -> str:
    lines = [f"### {escaped(d.run.name)}: {d.verdict}", escaped(d.why)]
    if d.cause is not None:
        lines.append(f"**Most likely cause** ({d.cause_confidence} confidence): {escaped(d.cause.sentence)}.")
    if len(d.events) > 1:
        lines.append("**In order**: " + "; ".join(f"step {e.step:,} {escaped(e.what)}" for e in d.events) + ".")
    lines += [f"**Cost**: {escaped(line)}." for line in d.cost.lines]
    if d.advice:
        lines.append("\n".join(f"{i}. {escaped(line)}" for i, line in enumerate(d.advice, 1)))
    if d.signals:
        lines.append(table(tables.signals([d])))
    if d.findings:
        lines.append(
            "\n".join(
                f"- *{f.weight}*, {f.rule.replace('_', ' ')}: {escaped(f.evidence)} ({f.confidence} confidence)"
                for f in d.findings
            )
        )
    if d.run.problems:
        lines.append("\n".join(f"- could not be read: {escaped(problem)}" for problem in d.run.problems))
    return "\n\n".join(lines)


def _accuracy(all_of_them: Sequence[Diagnosis]) -> str:
    found = tables.accuracies(all_of_them)
    return _noted(found) if found.rows else "No run was evaluated."


def _noted(found: Table) -> str:
    return f"{table(found)}\n\n{found.note}"


def _milestones(d: Diagnosis) -> str:
    return f"### {escaped(d.run.name)}\n\n{_noted(tables.milestone_means(d))}\n\n{_noted(tables.milestones(d))}"


def _loadbearing(section: Section, paths: Mapping[str, str | None]) -> str:
    """The section of the studies; one line where there are none."""
    line = escaped(section.not_measured_line)
    without = f"{TITLE} Not measured: `markovlm loadbearing RUN`, {line}." if line else ""
    if not section.parts:
        return without
    said = "\n".join(
        f"- **{escaped(part.run)}** ({escaped(part.claims[0].study.where)}): {escaped(part.line or NOTHING_CLAIMED)}"
        for part in section.parts
    )
    parts = (_run_studies(part, paths) for part in section.parts[:MOST_STUDIED])
    return "\n\n".join(part for part in (f"## {TITLE}", NOTE, said, *parts, without) if part)


def _run_studies(part: RunPart, paths: Mapping[str, str | None]) -> str:
    more = [f"- *{c.about}* ({escaped(c.study.where)}): {escaped(c.more)}" for c in part.claims if c.more]
    lines = [f"### {escaped(part.run)}", "\n".join([*more, *(f"- {escaped(note)}" for note in part.notes)])]
    lines += [part.legend] if part.of_chains else []
    lines += [_figure(figure, paths[figure.name]) for figure in part.figures if figure.name in paths]
    for shown in part.studies:
        for found in shown.tables:
            lines.append(f"**{escaped(found.title)}** ({escaped(shown.study.where)})\n\n{table(found)}\n\n{found.note}")
    lines += [_example(example) for example in part.examples[:1]]
    if part.missing:
        lines.append(f"Not measured here: {', '.join(part.missing)} (`markovlm loadbearing RUN`).")
    return "\n\n".join(line for line in lines if line)


def _example(example: ShownExample) -> str:
    found = example.found
    cot = "".join(unit.text for unit in found.units)
    heavy = ", ".join(f"“{escaped(text)}” ({escaped(kind)}, {drop:.2g} nats)" for text, kind, drop in example.heaviest)
    outcome = "" if found.correct is None else ", right" if found.correct else ", wrong"
    return (
        f"**One CoT** {escaped(found.id)}{outcome}; gold answer {escaped(found.gold[:80])}; the most costly to lose: "
        f"{heavy or 'nothing'}\n\n{fenced(f'{found.question}{chr(10)}---{chr(10)}{cot}')}"
    )


def _samples(d: Diagnosis) -> str:
    """The worst, the best and the last sample of a run."""
    chosen = sorted((s for s in d.run.samples if s.reward is not None), key=lambda s: s.reward or 0.0)
    picked = [chosen[0], chosen[-1], d.run.samples[-1]] if chosen else d.run.samples[-SAMPLES_OF_A_RUN:]
    lines = [f"### {escaped(d.run.name)}"]
    for s in {(s.line, s.step): s for s in picked}.values():
        outcome = "" if s.correct is None else ", right" if s.correct else ", wrong"
        reward = "" if s.reward is None else f", reward {number_text(s.reward)}"
        answered = "" if s.answered is None else f", answered {escaped(s.answered[:80])}"
        lines.append(
            f"Step {s.step:,}{outcome}{reward}; gold answer {escaped(s.answer[:80])}{answered}; {escaped(s.source)}, line {s.line:,}"
        )
        lines.append(fenced(f"{s.question}\n---\n{s.cot}"))
    return "\n\n".join(lines)


def _methods(all_of_them: Sequence[Diagnosis], about: Mapping[str, str], skipped: Sequence[Skipped]) -> str:
    problems = tables.problems([d.run for d in all_of_them], skipped)
    return "\n\n".join(
        part
        for part in (
            "## Methods and caveats",
            "The verdict comes from the thresholds below, which the live guard uses too; they were set by reasoning, not fitted "
            "to these "
            "runs. Findings come from hindsight rules, each with a confidence; a cause is the most likely of a fixed list, "
            "not a "
            f"proof. Intervals are 95 % Wilson intervals over questions and leave out the spread between seeds: {about['seeds']}",
            "### What could not be read\n\n" + table(problems) if problems.rows else "",
            "### Thresholds of the verdict\n\n" + table(tables.thresholds()),
            "### Hindsight rules\n\n" + table(tables.rules()),
        )
        if part
    )
