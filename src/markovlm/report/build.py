"""Write a report: HTML, Markdown with figures, and every table as CSV, each file atomically."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from markovlm.errors import UserError
from markovlm.health.diagnose import Diagnosis, diagnose_all
from markovlm.logs.find import Skipped, read_runs
from markovlm.logs.frameworks import Framework
from markovlm.logs.records import RunData
from markovlm.present.spreadsheet import to_csv
from markovlm.present.table import Table
from markovlm.report import tables
from markovlm.report.draw import Drawers, DrawingFailed
from markovlm.report.figures import (
    PRINT_CONFIG,
    PRINT_POINTS,
    Figure,
    curves,
    final_accuracy,
    first_shown,
    for_print,
    reward_distributions,
)
from markovlm.report.html import render_html
from markovlm.report.loadbearing.section import Section, section_of
from markovlm.report.markdown import render_markdown
from markovlm.report.run_rows import run_rows
from markovlm.report.settings import settings as settings_of
from markovlm.report.synthesis import synthesis
from markovlm.texts.markup import html_table

PRINTED_CURVES = 9  # figures beside the Markdown file; the page has all
PRINTED_SPREADS = 4


@dataclass(frozen=True, slots=True)
class ReportResult:
    """What was written. `as_json` is what `markovlm report --json` prints."""

    html: Path
    markdown: Path
    tables: tuple[Path, ...]
    runs: int
    steps: int
    seconds: float
    diagnoses: tuple[Diagnosis, ...] = ()

    def __repr__(self) -> str:
        return f"ReportResult({self.html}; {self.runs} runs, {self.steps} steps, {self.seconds:.1f} s)"

    def _repr_html_(self) -> str:
        rows = [(one.path, one.verdict, one.onset_step, one.why) for one in self.diagnoses]
        return html_table(f"{self.runs} runs: {self.html}", ["run", "verdict", "since step", "why"], rows)

    def as_json(self) -> dict[str, object]:
        return {
            "html": str(self.html),
            "markdown": str(self.markdown),
            "tables": [str(path) for path in self.tables],
            "runs": self.runs,
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
        }


def write_report(paths: Sequence[str | Path], out_dir: str | Path, mapping: Framework | None = None) -> ReportResult:
    """Read the runs named by `paths`, diagnose them and write the report into `out_dir`.

    Raises UserError if a path does not exist, no run is found, or the directory cannot be written.
    """
    started = time.perf_counter()
    out = Path(out_dir)
    with Drawers() as drawers:
        library = drawers.library()
        skipped: list[Skipped] = []
        runs = list(read_runs(paths, skipped=skipped, mapping=mapping))
        _prepare(out)
        diagnoses = diagnose_all(runs)
        about = _about(runs)
        section = section_of(runs)
        drawings = _start_drawing(diagnoses, section, drawers)
        written = [_write(out / "tables" / f"{t.name}.csv", to_csv(t, out)) for t in _all_tables(diagnoses, section, skipped)]
        levels = json.dumps([row.as_json() for row in run_rows(diagnoses)], indent=1, allow_nan=False)
        written.append(_write(out / "tables" / "runs.json", levels + "\n"))
        html = _write(out / "report.html", render_html(diagnoses, section, out, about, library.result(), skipped))
        markdown = _write(out / "report.md", render_markdown(diagnoses, section, _write_figures(drawings, out), about, skipped))
    steps = sum(run.steps for run in runs)
    return ReportResult(html, markdown, tuple(written), len(runs), steps, time.perf_counter() - started, tuple(diagnoses))


def _about(runs: Sequence[RunData]) -> dict[str, str]:
    n, steps = len(runs), sum(run.steps for run in runs)
    seeds = {str(run.config["seed"]) for run in runs if "seed" in run.config}
    unknown = "no run records its seed, so treat each as a single draw."
    many = "all runs here have the same seed." if len(seeds) == 1 else f"the runs here have {len(seeds)} seeds."
    return {
        "runs": f"{n:,} run" + ("" if n == 1 else "s"),
        "steps": f"{steps:,} logged steps",
        "time": time.strftime("%Y-%m-%d %H:%M"),
        "seeds": many if seeds else unknown,
    }


def _all_tables(diagnoses: Sequence[Diagnosis], section: Section, skipped: Sequence[Skipped]) -> list[Table]:
    runs = [d.run for d in diagnoses]
    settings = settings_of(runs)
    together = synthesis(diagnoses)
    return [
        tables.verdicts(diagnoses),
        tables.runs(diagnoses),
        tables.patterns(together),
        tables.hypotheses(together),
        tables.recommendations(together),
        tables.signals(diagnoses),
        tables.findings(diagnoses),
        settings.whole,
        settings.common,
        tables.accuracies(diagnoses),
        tables.all_milestones(diagnoses),
        tables.all_milestone_means(diagnoses),
        *section.csv,
        tables.samples(runs),
        tables.problems(runs, skipped),
        tables.thresholds(),
        tables.rules(),
    ]


def _start_drawing(diagnoses: Sequence[Diagnosis], section: Section, drawers: Drawers) -> list[tuple[Figure, Future[str]]]:
    """Figures of the runs on show, being drawn."""
    shown = set(first_shown(diagnoses))
    drawn = [d for d in diagnoses if d.run.name in shown]
    final = final_accuracy(drawn)
    figures = [
        *([final] if final else []),
        *curves(drawn, PRINT_POINTS)[:PRINTED_CURVES],
        *reward_distributions(drawn, PRINTED_SPREADS),
        *section.printed,
    ]
    return [(figure, drawers.svg(for_print(figure, drawn), PRINT_CONFIG)) for figure in figures]


def _write_figures(drawings: Sequence[tuple[Figure, Future[str]]], out: Path) -> list[tuple[Figure, str | None]]:
    """(figure, path of its SVG from the Markdown file, or None if it could not be drawn)."""
    written: list[tuple[Figure, str | None]] = []
    for figure, drawing in drawings:
        try:
            path = _write(out / "figures" / f"{figure.name}.svg", drawing.result())
        except DrawingFailed:
            written.append((figure, None))
        else:
            written.append((figure, path.relative_to(out).as_posix()))
    return written


def _prepare(out: Path) -> None:
    try:
        for folder in (out, out / "tables", out / "figures"):
            folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"-o {out}: is, or contains, a file where a directory is needed; name another directory") from None
    except OSError as error:
        raise UserError(f"-o {out}: cannot be created: {error.strerror}; name a directory you can write to") from None


def _write(path: Path, text: str) -> Path:
    """Write beside and rename: a reader never sees half a file."""
    beside = path.with_name(f".{path.name}.tmp")
    try:
        beside.write_text(text, encoding="utf-8", errors="replace", newline="\n")
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written: {error.strerror}; free space, or name another directory") from None
    return path
