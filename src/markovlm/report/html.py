"""The report as one self-contained HTML file. Everything from a log is escaped: in the page, and in the data for its script."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment
from markupsafe import Markup

from markovlm.health.diagnose import Diagnosis
from markovlm.logs.find import Skipped
from markovlm.logs.records import LoggedSample, RunData
from markovlm.pages import page_environment
from markovlm.present.table import Source, Table
from markovlm.report import tables
from markovlm.report.figures import Figure, curves, final_accuracy, first_shown, reward_distributions, run_domain
from markovlm.report.figures.printing import best_of, checkpoints_of
from markovlm.report.loadbearing.section import NOTE, NOTHING_CLAIMED, TITLE, Section
from markovlm.report.overview import FEW_RUNS, folded, groupings, overview
from markovlm.report.settings import settings
from markovlm.report.synthesis import synthesis
from markovlm.report.trust import verdict_on_tasks

LIBRARY = "MIT/BSD: Vega, Vega-Lite and Vega-Embed, © University of Washington Interactive Data Lab"
MANY_SAMPLES = 500  # above this, texts of samples are cut shorter
SCRIPTS = ("page", "table", "curves", "samples", "last")  # in this order: each uses what stands before


def script_json(value: Any) -> Markup:
    """JSON that is safe inside a <script> element: no `<`, no line separators, no value that is not finite."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:  # rare, and looking at every value is slow
        text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char, written in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        text = text.replace(char, written)
    return Markup(text)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def packed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows as columns, texts by number: a third of the size. The script unpacks them."""
    columns: dict[str, Any] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key) for row in rows]
        if all(isinstance(v, str) for v in values):
            index = {text: i for i, text in enumerate(dict.fromkeys(values))}
            columns[key] = {"texts": list(index), "index": [index[v] for v in values]}
        else:
            columns[key] = values
    return {"n": len(rows), "columns": columns}


def script_text(library: str) -> Markup:
    """A script without anything that could end the element it is in."""
    return Markup(library.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


@cache
def _own_file(name: str) -> Markup:
    return Markup(resources.files("markovlm.report").joinpath("templates", name).read_text(encoding="utf-8"))


def _own_script() -> Markup:
    return Markup('"use strict";\n(() => {\n') + Markup("\n").join(_own_file(f"{name}.js") for name in SCRIPTS) + Markup("})();")


def sentence(all_of_them: Sequence[Diagnosis]) -> str:
    """`2 of 10 runs collapsed, 1 needs a look, 7 are healthy.`"""
    n = len(all_of_them)
    count = {name: sum(d.verdict == name for d in all_of_them) for name in ("collapsed", "warn", "healthy", "unknown")}
    if n == 1:
        return {
            "collapsed": "The run collapsed.",
            "warn": "The run needs a look.",
            "healthy": "The run is healthy.",
            "unknown": "Nothing can be said about the run yet.",
        }[all_of_them[0].verdict]
    verbs = {"collapsed": ("collapsed",) * 2, "warn": ("needs a look", "need a look"), "healthy": ("is healthy", "are healthy")}
    verbs["unknown"] = ("cannot be judged",) * 2
    parts = [f"{count[k]} {verbs[k][count[k] != 1]}" for k in verbs if count[k]]
    doubts = {name: sum(d.doubt is not None for d in all_of_them if d.verdict == name) for name in ("healthy", "unknown")}
    parts = [
        f"{part} ({doubts[name]} in doubt)" if doubts.get(name) else part
        for part, name in zip(parts, (k for k in verbs if count[k]), strict=True)
    ]
    parts[0] = parts[0].replace(" ", f" of {n} runs ", 1)
    return ", ".join(parts) + "."


class _Links:
    """Links from the page to the files that numbers came from."""

    def __init__(self, out_dir: Path) -> None:
        self.out_dir = out_dir.resolve()

    @cache  # noqa: B019  (one object a report)
    def href(self, path: Path) -> str:
        try:
            return quote(Path(os.path.relpath(path.resolve(), self.out_dir)).as_posix())
        except (OSError, ValueError):
            return quote(path.as_posix())

    def of(self, source: Source) -> str:
        return self.href(source.path)


def _environment(links: _Links, library: str) -> Environment:
    environment = page_environment("markovlm.report")
    environment.globals.update(href=links.of, script=_own_script(), vega=script_text(library))
    environment.filters["words"] = lambda text: str(text).replace("_", " ")
    environment.filters["as_source"] = Source
    environment.filters["groupby_in_order"] = _by_group
    return environment


def _by_group(figures: Sequence[Figure]) -> list[tuple[str, list[Figure]]]:
    """Figures under the headings of their groups, in the order of the first of each."""
    return [(name, [f for f in figures if f.group == name]) for name in dict.fromkeys(f.group for f in figures)]


def render_html(
    all_of_them: Sequence[Diagnosis],
    section: Section,
    out_dir: Path,
    about: Mapping[str, str],
    library: str,
    skipped: Sequence[Skipped] = (),
) -> str:
    """The whole page. `library` is Vega's script."""
    runs = [d.run for d in all_of_them]
    ids = {d.run.name: f"run-{i}" for i, d in enumerate(all_of_them)}
    figures = curves(all_of_them)
    accuracy = final_accuracy(all_of_them)
    spreads = reward_distributions(all_of_them)
    context = {
        "about": about,
        "sentence": sentence(all_of_them),
        "diagnoses": tables.by_gravity(all_of_them),
        "cards": _cards(all_of_them),
        "few": len(all_of_them) <= FEW_RUNS,
        "folds": folded(all_of_them),
        "overview": overview(all_of_them),
        "groupings": groupings(all_of_them),
        "ids": ids,
        "trusted": trusted(all_of_them),
        "untrusted": tables.untrusted(all_of_them),
        "synthesis": synthesis(all_of_them),
        "scores": {d.run.name: tables.accuracy_cell(d.run, e) for d in all_of_them if (e := d.case.best or d.case.last)},
        "settings": settings(runs),
        "accuracies": tables.accuracies(all_of_them),
        "milestones": {d.run.name: _milestones(d) for d in all_of_them if d.run.steps},
        "signals": {d.run.name: tables.signals([d]).without("run") for d in all_of_them},
        "problems": tables.problems(runs, skipped),
        "thresholds": tables.thresholds(),
        "rules": tables.rules(),
        "figures": figures,
        "accuracy_figure": accuracy,
        "spreads": spreads,
        "loadbearing": section,
        "loadbearing_title": TITLE,
        "loadbearing_note": NOTE,
        "nothing_claimed": NOTHING_CLAIMED,
        "toggles": [run for run, d in zip(_runs(all_of_them, ids), all_of_them, strict=True) if d.run.steps or d.run.evals],
        "shown": set(first_shown(all_of_them)),
        "runs": runs,
        "samples": sum(len(run.samples) for run in runs),
        "sample_rows": sum(run.sample_rows for run in runs),
        "data": script_json(_data(all_of_them, ids, [*figures, *([accuracy] if accuracy else []), *spreads, *section.figures])),
        "library": LIBRARY,
    }
    return _environment(_Links(out_dir), library).get_template("report.html").render(context)


def trusted(all_of_them: Sequence[Diagnosis]) -> list[tuple[str, Diagnosis]]:
    """For each task that has one, the run to trust: the most accurate whose interval beats chance and its base, not in doubt."""
    return [(found.task, found.run) for found in verdict_on_tasks(all_of_them) if found.run is not None]


def _cards(all_of_them: Sequence[Diagnosis]) -> list[Diagnosis]:
    """The runs that get reason and next step on the first screens: all of few, the gravest of many."""
    ordered = tables.by_gravity(all_of_them)
    if len(ordered) <= FEW_RUNS:
        return ordered
    return [d for d in ordered if d.verdict in ("collapsed", "warn")][:FEW_RUNS]


def _milestones(d: Diagnosis) -> tuple[Table, Table | None]:
    """(means around a few steps, the single rows at them, None if these are the same)."""
    means, single = tables.milestone_means(d), tables.milestones(d)
    same = [[c.value for c in row] for row in means.rows] == [[c.value for c in row] for row in single.rows]
    return means, None if same else single


def _runs(all_of_them: Sequence[Diagnosis], ids: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the script knows of each run."""
    by = groupings(all_of_them)
    return [
        {
            "name": name,
            "short": _shortened(name),
            "colour": colour,
            "dash": dash,
            "verdict": d.verdict,
            "id": ids[name],
            "onset": d.onset_step,
            "best": best_of(d),
            "checkpoints": checkpoints_of(d),
            "steps": _span(d),
            "samples": len(d.run.samples),
            "by": [values[name] for values in by.values()],
        }
        for d, name, colour, dash in zip(all_of_them, *run_domain(all_of_them), strict=True)
    ]


def _shortened(name: str) -> str:
    """A long name without its middle: names differ at their ends."""
    return name if len(name) <= 34 else f"{name[:13]}…{name[-20:]}"


def _span(d: Diagnosis) -> list[int] | None:
    """First and last step with anything to draw."""
    steps = [*(int(d.run.metrics["step"][i]) for i in ((0, -1) if d.run.steps else ())), *(e.step for e in d.case.series)]
    return [min(steps), max(steps)] if steps else None


def _data(all_of_them: Sequence[Diagnosis], ids: Mapping[str, str], figures: Sequence[Figure]) -> dict[str, Any]:
    """What the script needs."""
    runs = [d.run for d in all_of_them]
    index = {run.name: i for i, run in enumerate(runs)}
    many = sum(len(run.samples) for run in runs) > MANY_SAMPLES
    return {
        "runs": _runs(all_of_them, ids),
        "figures": {f.name: _figure(f, index) for f in figures},
        "samples": [_sample(run, s, 1_500 if many else 4_000) for run in runs for s in run.samples],
    }


def _figure(f: Figure, index: Mapping[str, int]) -> dict[str, Any]:
    """A figure as the script knows it: lines as lists, runs and series by number."""
    series = list(dict.fromkeys(line.series for line in f.lines))
    return {
        "spec": f.spec,
        "rows": {k: packed(v) for k, v in f.rows.items()},
        "perRun": f.per_run,
        "run": f.run,
        "series": series,
        "packed": [[index[x.run], series.index(x.series), x.steps, x.means, x.raw] for x in f.lines],
        "limits": [[index[run], value] for run, value in f.limits],
        "scale": f.scale,
        "bounds": f.bounds,
    }


def _sample(run: RunData, sample: LoggedSample, most: int) -> dict[str, Any]:
    row = asdict(sample)
    for key in ("question", "cot", "baseline_cot", "answer", "answered"):
        value = row[key]
        if value is not None and len(value) > most:
            row[key] = f"{value[:most]} … [cut here; {sample.source}, line {sample.line:,}]"
    if sample.answered is None:
        row["unanswered"] = _unanswered(run, sample)
    return {key: value for key, value in row.items() if value is not None} | {"run": run.name}


def _unanswered(run: RunData, sample: LoggedSample) -> str:
    """Why a sample shows no answer: training scores the gold answer and writes none."""
    if not run.native or sample.correct is None:
        return "the log does not say"
    if sample.correct:
        return "the gold answer is the likeliest one (training scores it and writes no answer)"
    return "another answer is likelier than the gold one (training scores the gold answer and writes no answer)"
