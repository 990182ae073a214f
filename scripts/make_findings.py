"""Tables and figures of the studies: `make findings`, or `python scripts/make_findings.py [--runs DIR] [STUDY ...]`.

Run directories (`DIR/NAME-sweep`, made by `markovlm sweep studies/NAME.yaml`; default DIR is `runs`) are boiled down to rows in `studies/results/`;
without them the rows that are there are used. From rows and nothing else come the parts of docs/findings.md between `<!-- study:NAME -->` and
`<!-- /study:NAME -->`, and docs/figures/. What is said about them is written by hand, around those parts.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from study_derived import DERIVED
from study_rows import ROOT, Row, collect, outcomes, read, study_files, study_of, write
from study_text import markdown

from markovlm.intervals import MISSING, estimate_text, p_text
from markovlm.report.draw import Drawers
from markovlm.runs.rows import replace_whole
from markovlm.statistics import Estimate, crossed_mean_ci, log_rank_p, sign_flip_p
from markovlm.sweeps.compare import Comparison, Outcome, compare, holm, mean_t, paired_t
from markovlm.sweeps.page import CONFIG, figures_of
from markovlm.sweeps.run import Sweep, open_sweep

FINDINGS = ROOT / "docs" / "findings.md"
EARLIER = ROOT / "docs" / "findings-open.md"  # studies made before the end of the reply was scored
FIGURES = ROOT / "docs" / "figures"

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def section(sweep: Sweep, rows: Sequence[Row]) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    """(Markdown of a study, its figures as (file stem, Vega-Lite))."""
    study, name = study_of(sweep), sweep.path.stem
    known = outcomes(sweep, rows)
    runs = [replace(o, group=short(o.values)) for o in known]
    reference = None if sweep.spec.reference is None else next(short(o.values) for o in known if o.group == sweep.reference)
    metric = "logprob" if sweep.spec.metric == "logprob" else "accuracy"
    found = compare(runs, reference, metric)
    parts = [
        f"*Question.* {study.question}",
        f"*Design, fixed before running* (`studies/{name}.yaml`). {study.design}",
        f"*What decides.* {study.decides}",
        _missing(runs),
    ]
    if study.columns is not None:
        parts.append(markdown(*pivot(rows, study.rows, study.columns)))
        parts.append(_legend())
        parts.append(markdown(*by_setting(runs, study.rows, study.columns)))
    else:
        parts.append(markdown(*cells_table(found, metric)))
    if found.factors and sweep.spec.matrix:
        parts.append("One factor at a time, all else and the seed equal:\n\n" + markdown(*factors_table(found)))
    if name == "answer_end":
        parts.append(markdown(*interaction(rows)))
    if name == "answer_end_again":
        parts.append(rank_sum(rows))
    if name in ("ppo_clock", "ppo_live"):
        parts.append(log_rank(rows))
    parts += [markdown(*table(rows)) for measure in study.measures for table in TABLES.get(measure, ())]
    figures = []
    for title, spec in figures_of(runs, found, metric)[:1]:  # the scores; learning curves are on the sweep's own page
        figures.append((f"{name}-1", spec))
        parts.append(f"![{title}](figures/{name}-1.svg)")
    if name == "answer_end":
        figures.append(("likelihood-gap", gap_figure(rows)))
    return "\n\n".join(part for part in parts if part), figures


def gap_figure(rows: Sequence[Row], window: int = 10) -> dict[str, Any]:
    """Over training, every seed: the answer's log-prob, and the share of replies that are likely and run on; means of `window` steps."""
    panels = []
    cells = list(dict.fromkeys(short(row["values"]) for row in rows))
    for key, title in (
        ("answer_logprob", "ln pi(answer | CoT), nats a token"),
        ("answer_run_on_fraction", "share of replies that run on"),
    ):
        values = []
        for row in rows:
            course = row["course"].get(key, [])
            for end in range(window, len(course) + 1, window):
                known = [value for value in course[end - window : end] if value is not None]
                if known:
                    values.append(
                        {"cell": short(row["values"]), "seed": row["seed"], "step": end, "value": sum(known) / len(known)}
                    )
        colour = {"field": "cell", "type": "nominal", "sort": cells, "title": None, "legend": {"orient": "bottom", "columns": 2}}
        encoding = {
            "x": {"field": "step", "type": "quantitative"}, "y": {"field": "value", "type": "quantitative", "title": title},
            "color": colour, "detail": {"field": "seed"},
        }  # fmt: skip
        mark = {"type": "line", "strokeWidth": 1.6, "opacity": 0.8}
        panels.append({"width": 330, "height": 220, "data": {"values": values}, "mark": mark, "encoding": encoding})
    return {"hconcat": panels}


def short(values: Mapping[str, Any]) -> str:
    """`grpo, kl_weight=0.1`: the last parts of the keys."""
    named = [
        str(value) if key == "objective.name" or key == "model" else f"{key.rpartition('.')[2]}={value}"
        for key, value in values.items()
    ]
    return ", ".join(named) or "base"


def _missing(runs: Sequence[Outcome]) -> str:
    failed = [o for o in runs if o.status == "failed"]
    left = [o for o in runs if o.score is None and o.status != "failed"]
    parts = [f"{len(runs) - len(left)} of {len(runs)} runs are in."] if left else []
    if failed:
        parts.append(f"{len(failed)} of them broke off (a loss that is not finite); each counts with an accuracy of 0.")
    return " ".join(parts)


# ------------------------------------------------------------------------------------------------------------------ tables


def number(estimate: Estimate, places: int = 3) -> str:
    return estimate_text(*estimate, places=places)


def p_value(p: float | None) -> str:
    return MISSING if p is None or math.isnan(p) else p_text(p)


def cells_table(found: Comparison, metric: str) -> Table:
    """A row a cell: mean over seeds, range, difference from the reference."""
    against = {d.group: d for d in found.differences}
    rows = []
    for g in found.groups:
        d = against.get(g.group)
        bad = g.verdicts.get("collapsed", 0)
        rows.append(
            [
                g.group + (" (reference)" if d is None else ""), str(len(g.seeds)), number(g.score),
                MISSING if g.lowest is None else f"{g.lowest:.3f} to {g.highest:.3f}",
                "" if d is None else number(d.difference), "" if d is None else p_value(d.p_adjusted),
                "" if d is None else p_value(d.p_unpaired), f"{bad} of {g.planned}", MISSING if g.seconds is None else f"{g.seconds:.0f}",
            ]
        )  # fmt: skip
    over = " or ".join(dict.fromkeys(g.over for g in found.groups))
    score = "accuracy" if metric == "accuracy" else r"ln pi(answer\|CoT) per token"
    columns = (
        "cell",
        "seeds",
        f"{score} (over {over})",
        "lowest to highest",
        "minus the reference",
        "p (Holm)",
        "p unpaired",
        "collapsed",
        "seconds",
    )
    return columns, rows


def factors_table(found: Comparison) -> Table:
    rows = [
        [f.key, f"{f.value} minus {f.reference}", str(f.pairs), str(f.seeds), number(f.difference), p_value(f.p_adjusted)]
        for f in found.factors
    ]
    return ("factor", "values", "pairs", "seeds", "difference of accuracy", "p (Holm)"), rows


def pivot(rows: Sequence[Row], keys: Sequence[str], column: str) -> Table:
    """Combinations of `keys` down, values of `column` across: mean accuracy over seeds (lowest to highest), collapsed runs in brackets."""
    across = list(dict.fromkeys(row["values"][column] for row in sorted(rows, key=lambda r: float(r["values"][column]))))
    down = list(dict.fromkeys(tuple(row["values"][key] for key in keys) for row in sorted(rows, key=lambda r: r["group"])))
    body = []
    for combination in down:
        cells = []
        for value in across:
            here = [r for r in rows if r["values"][column] == value and tuple(r["values"][k] for k in keys) == combination]
            scores = [r["score"] for r in here if r["score"] is not None]
            bad = sum(r["verdict"] == "collapsed" for r in here)
            text = f"{sum(scores) / len(scores):.2f} ({min(scores):.2f} to {max(scores):.2f})" if scores else MISSING
            failed = sum(r["status"] == "failed" for r in here)
            cells.append(text + (f" [{bad}]" if bad else "") + (f" {failed} broke off" if failed else ""))
        body.append([*map(str, combination), *cells])
    return (*(key.rpartition(".")[2] for key in keys), *(f"{column.rpartition('.')[2]} {value}" for value in across)), body


def _legend() -> str:
    return (
        "Mean accuracy over seeds (lowest to highest); in brackets the number of runs that the guard reports as collapsed. "
        "The effect of the first factor, by the others:"
    )


def by_setting(runs: Sequence[Outcome], keys: Sequence[str], column: str) -> Table:
    """What the first of `keys` does at each value of the others, and at each of the last one's with each of `column`: everything else and the
    seed equal, averaged within a seed first; p adjusted over the table."""
    key, *others = keys
    values = {one: list(dict.fromkeys(o.values[one] for o in runs)) for one in (*others, column)}
    wheres = [{one: value} for one in (*others, column) for value in values[one]]
    wheres += [{others[-1]: a, column: b} for a in values[others[-1]] for b in values[column]] if others else []
    found = []
    for where in wheres:
        some = [
            replace(o, values={k: v for k, v in o.values.items() if k not in where})
            for o in runs
            if all(o.values[k] == v for k, v in where.items())
        ]
        found += [(short(where), factor) for factor in compare(some).factors if factor.key == key]
    adjusted = holm([factor.p for _, factor in found])
    rows = [
        [where, f"{f.value} minus {f.reference}", str(f.pairs), str(f.seeds), number(f.difference), p_value(p)]
        for (where, f), p in zip(found, adjusted, strict=True)
    ]
    return ("where", key.rpartition(".")[2], "pairs", "seeds", "difference of accuracy", "p (Holm)"), rows


def reader_table(rows: Sequence[Row]) -> Table:
    """What every trained reader makes of the same CoTs; means over seeds."""
    body = []
    for group, members in by_group(rows).items():
        cells = [number(mean_t([r["measures"]["reader"][key] for r in members]), 3) for key, _ in READER]
        body.append([group, *cells])
    return ("cell", *(title for _, title in READER)), body


READER = (
    ("logprob_right", "ln pi(gold), right sums"), ("logprob_wrong", "… last result wrong"), ("logprob_idle", "… the base's idle CoTs"),
    ("auc_wrong", "AUC right over wrong"), ("auc_idle", "AUC right over idle"),
)  # fmt: skip


def load_table(rows: Sequence[Row]) -> Table:
    """Reward and CoTs at the end of training, and what another CoT costs."""
    body = []
    for group, members in by_group(rows).items():
        garbage = sum(is_garbage(r["course"]) for r in members)
        drops = [r["measures"]["load"]["other_cot@1"] for r in members if "other_cot@1" in r["measures"]["load"]]
        ends = {key: mean_t([tail(r["course"][key]) for r in members if key in r["course"]]) for key in GARBAGE}
        lost = (number(mean_t([drop[key] for drop in drops]), 2) for key in ("accuracy", "logprob"))
        early = number(mean_t([unsaid(r["course"]) for r in members]), 2)
        body.append([group, *(number(ends[key], 2) for key in GARBAGE), *lost, early, f"{garbage} of {len(members)}"])
    return (
        "cell",
        *GARBAGE.values(),
        "other CoT: accuracy lost",
        "… nats lost",
        "right though not in the CoT, steps 11 to 20",
        "garbage",
    ), body


GARBAGE = {
    "reward_mean": "ln pi(gold given CoT), last ten steps", "cot_contains_answer": "CoTs with the answer",
    "distinct_bigram_fraction": "distinct bigrams", "identical_cot_fraction": "same as another of the group",
}  # fmt: skip


def tail(values: Sequence[float | None], count: int = 10) -> float:
    known = [v for v in values[-count:] if v is not None]
    return sum(known) / len(known) if known else math.nan


def unsaid(course: Mapping[str, Sequence[float | None]]) -> float:
    """In steps 11 to 20, the share of gold answers that the reader finds most likely less the share that the CoT contains."""
    return tail(course["answer_correct_fraction"][:20]) - tail(course["cot_contains_answer"][:20])


def best_ten(values: Sequence[float | None]) -> float:
    """The highest mean of ten steps in a row."""
    known = [v for v in values if v is not None]
    return max((sum(known[i : i + 10]) / 10 for i in range(len(known) - 9)), default=math.nan)


def is_garbage(course: Mapping[str, Sequence[float | None]], nats: float = 0.3) -> bool:
    """The reward is within `nats` of its best ten steps, and CoTs contain the answer half as often as they did at best."""
    said = course["cot_contains_answer"]
    return tail(course["reward_mean"]) >= best_ten(course["reward_mean"]) - nats and tail(said) < best_ten(said) / 2


def twins_table(rows: Sequence[Row]) -> Table:
    """Damage with the question visible to both readers, Markovian less its twin, over seeds."""
    body = []
    for moment in ("last", "matched"):
        pairs = twin_pairs(rows, moment)
        kinds = sorted({kind for ours, theirs in pairs for kind in ours if kind in theirs and "@" in kind})
        tests = []
        for kind in kinds:
            mine, other = ([pair[i][kind]["accuracy"] for pair in pairs] for i in (0, 1))
            gaps = [a - b for a, b in zip(mine, other, strict=True)]
            tests.append(paired_t(gaps))
            body.append(
                [moment, kind, str(len(pairs)), number(mean_t(mine), 2), number(mean_t(other), 2), number(mean_t(gaps), 2)]
            )
        for row, p in zip(body[-len(kinds) :], holm(tests), strict=True):
            row.append(p_value(p))
    return ("checkpoints", "damage", "seeds", "drop, Markovian", "drop, twin", "difference", "p (Holm)"), body


def twin_pairs(rows: Sequence[Row], moment: str) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    def of(conditioning: str) -> dict[int, Mapping[str, Any]]:
        return {
            r["seed"]: r["measures"]["twins"][moment]
            for r in rows
            if r["values"]["objective.conditioning"] == conditioning and moment in r["measures"]["twins"]
        }

    ours, theirs = of("markovian"), of("non_markovian")
    return [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]


def matched_table(rows: Sequence[Row]) -> Table:
    """Which checkpoints were matched, and how accurate they are on dev."""
    body = []
    for seed in sorted({r["seed"] for r in rows}):
        cells = [str(seed)]
        for conditioning in ("markovian", "non_markovian"):
            row = next(r for r in rows if r["seed"] == seed and r["values"]["objective.conditioning"] == conditioning)
            step = row["measures"]["twins"].get("matched", {}).get("step")
            cells.append(MISSING if step is None else f"step {step}: {dict(map(tuple, row['curve']))[step]:.3f}")
        body.append(cells)
    return ("seed", "Markovian, dev accuracy", "its twin, dev accuracy"), body


def ends_table(rows: Sequence[Row]) -> Table:
    """How the replies of the last evaluation end; intervals over seeds and questions."""
    body = []
    for group, members in by_group(rows).items():
        likeliest, exact = (marks(members, name) for name in ("likeliest", "exact"))
        body.append(
            [
                group, str(len(members)), *(number(within(crossed_mean_ci(table).estimate)) for table in (likeliest, exact)),
                number(of_those(likeliest - exact, likeliest)),
            ]
        )  # fmt: skip
    return ("cell", "seeds", "replies that begin with all gold tokens", "… and then end", "of these, run on"), body


def within(share: Estimate) -> Estimate:
    """Shares end at 0 and 1."""
    return Estimate(share.mean, max(share.low, 0.0), min(share.high, 1.0)) if share.low == share.low else share


def run_on(row: Row) -> float:
    """Of the replies of a run that begin with all gold tokens, the share that run on."""
    likeliest, exact = (marks([row], name).sum() for name in ("likeliest", "exact"))
    return float(1 - exact / likeliest) if likeliest else 0.0


def rank_sum(rows: Sequence[Row]) -> str:
    """What was to decide: the runs' shares of replies that run on, open against scored."""
    sides = [sorted(run_on(row) for row in rows if row["values"]["objective.answer_end"] == end) for end in ("open", "scored")]
    ranks = stats.rankdata([*sides[0], *sides[1]])
    parts = (ranks[: len(sides[0])], ranks[len(sides[0]) :])
    ways = math.comb(len(ranks), len(sides[0]))
    found = stats.permutation_test(
        parts, lambda ours, theirs, axis: ours.mean(axis) - theirs.mean(axis), vectorized=True, n_resamples=ways
    )
    told = ["; ".join(f"{share:.3f}" for share in side) for side in sides]
    return (
        f"Share of replies that run on, run by run: open {told[0]}; scored {told[1]}. Rank-sum test over all {ways:,} ways to divide the "
        f"{len(rows)} runs, two-sided: p {p_value(float(found.pvalue))}."
    )


def marks(rows: Sequence[Row], name: str) -> np.ndarray:
    """[S, Q] of 0 and 1."""
    return np.array([[int(mark) for mark in row["measures"]["ends"][name]] for row in rows], dtype=float)


def of_those(part: np.ndarray, whole: np.ndarray) -> Estimate:
    """The ratio of two means over one table of seeds and questions, its error from what is linear in it (Cochran 1977, section 6.4)."""
    share = float(part.mean() / whole.mean()) if whole.any() else math.nan
    found = crossed_mean_ci(part - share * whole)
    half = (found.high - found.mean) / float(whole.mean()) if whole.any() else math.nan
    return (
        Estimate(share, max(share - half, 0.0), min(share + half, 1.0)) if half == half else Estimate(share, math.nan, math.nan)
    )


def interaction(rows: Sequence[Row]) -> Table:
    """Of the 2 x 2: the end scored less open, with the live gradient and without, and how much more with it; accuracy and replies that run on."""

    def table(end: str, weight: float, of: str) -> np.ndarray:
        cell = [
            r
            for r in rows
            if r["values"]["objective.answer_end"] == end and r["values"]["objective.actor_reward_weight"] == weight
        ]
        cell.sort(key=lambda r: r["seed"])
        return marks(cell, "likeliest") - marks(cell, "exact") if of == "run on" else marks(cell, "correct")

    body = []
    for of in ("accuracy", "run on"):
        live, idle = (table("scored", w, of) - table("open", w, of) for w in (1.0, 0.0))
        for name, gap in (("w = 1: scored minus open", live), ("w = 0: scored minus open", idle), ("interaction", live - idle)):
            found = crossed_mean_ci(gap)
            body.append([of, name, number(found.estimate), p_value(found.p)])
    return ("of replies", "comparison", "difference", "p"), body


def composite_table(rows: Sequence[Row]) -> Table:
    """Twins matched with the question visible: the composite of damage, Markovian less its twin."""
    found = {(r["values"]["objective.conditioning"], r["seed"]): r["measures"]["twins_visible"]["matched"] for r in rows}
    seeds = sorted({seed for _, seed in found})
    body, gaps = [], []
    for seed in seeds:
        ours, theirs = (found.get((kind, seed)) for kind in ("markovian", "non_markovian"))
        if not ours or not theirs:
            body.append([str(seed), *[MISSING] * 4])
            continue
        gaps.append(ours["composite"] - theirs["composite"])
        steps = f"{ours['step']} and {theirs['step']}"
        body.append(
            [str(seed), f"{steps}: {ours['gap']:.3f}", *(f"{one['composite']:.3f}" for one in (ours, theirs)), f"{gaps[-1]:+.3f}"]
        )
    flip = sign_flip_p(gaps, None, 0)
    body.append(["all", "", "", "", f"{number(mean_t(gaps))}; p {p_value(paired_t(gaps))} (t), {p_value(flip)} (sign flips)"])
    return ("seed", "steps, and gap of dev accuracy", "composite, Markovian", "composite, its control", "difference"), body


def survival_table(rows: Sequence[Row]) -> Table:
    """When runs collapsed, by cell."""
    body = []
    for group, members in by_group(rows).items():
        times = [ended(row) for row in members]
        died = sum(end for _, end in times)
        told = ", ".join(f"{step:,}" if end else f"alive at {step:,}" for step, end in sorted(times))
        body.append([group, str(len(members)), f"{died} of {len(members)}", told])
    return ("cell", "seeds", "collapsed", "when"), body


def log_rank(rows: Sequence[Row]) -> str:
    """The anchors' times to collapse against each other."""
    sides = [[ended(row) for row in rows if row["values"]["objective.anchor"] == anchor] for anchor in ("behavior", "frozen")]
    return f"Time to collapse, frozen against behaviour anchor: log-rank test over all ways to divide the runs, p {p_value(log_rank_p(*sides, 0))}."


def ended(row: Row) -> tuple[int, bool]:
    """(step, did the run collapse there? else it was alive so long); a run that broke off collapsed at its last row."""
    if row["status"] == "failed":
        return row["steps"], True
    found = row["measures"]["collapse"]
    return found["step"], found["died"]


def by_group(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(short(row["values"]), []).append(row)
    return found


TABLES: Mapping[str, Sequence[Callable[[Sequence[Row]], Table]]] = {
    "reader": (reader_table,), "load": (load_table,), "twins": (matched_table, twins_table), "ends": (ends_table,),
    "twins_visible": (composite_table,), "collapse": (survival_table,),
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- document


def placed(documents: dict[Path, str], name: str, text: str) -> None:
    """The document that has a place for a study, with that part exchanged. SystemExit where none has."""
    pattern = re.compile(rf"(<!-- study:{name} -->\n).*?(<!-- /study:{name} -->)", re.DOTALL)
    for path, document in documents.items():
        if pattern.search(document):
            documents[path] = pattern.sub(lambda found: f"{found[1]}{text}\n{found[2]}", document)
            return
    names = " or ".join(str(path.relative_to(ROOT)) for path in documents)
    raise SystemExit(f"{names}: has no place for {name}; write <!-- study:{name} --> and <!-- /study:{name} --> where it belongs")


def render(documents: Mapping[Path, str], only: Sequence[str] = ()) -> tuple[dict[Path, str], list[tuple[str, dict[str, Any]]]]:
    """(documents with the parts made anew from the rows, all figures)."""
    made, figures = dict(documents), list[tuple[str, dict[str, Any]]]()
    for path in study_files():
        name = path.stem
        rows = read(name)
        if rows and (not only or name in only):
            text, drawn = section(open_sweep(path, None), rows)
            placed(made, name, text)
            figures += drawn
    for name, make in DERIVED.items():
        if not only or name in only:
            placed(made, name, make())
    return made, figures


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("studies", nargs="*", help="names; default all of studies/")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where NAME-sweep directories are")
    arguments = parser.parse_args(argv)
    known = [path.stem for path in study_files()]
    for name in arguments.studies:
        if name not in known and name not in DERIVED:
            raise SystemExit(f"{name}: no study; known are {', '.join((*known, *DERIVED))}")
    for path in study_files():
        if not arguments.studies or path.stem in arguments.studies:
            rows = collect(path, arguments.runs / f"{path.stem}-sweep")
            if rows:
                write(path.stem, rows)
                print(f"{path.stem}: {len(rows)} finished runs", file=sys.stderr)
    documents, figures = render({path: path.read_text(encoding="utf-8") for path in (FINDINGS, EARLIER)}, arguments.studies)
    FIGURES.mkdir(exist_ok=True)
    with Drawers() as drawers:
        for stem, drawing in [(stem, drawers.svg(spec, CONFIG)) for stem, spec in figures]:
            # clip paths are numbered over all that a helper drew, and which helper draws what is chance
            drawn = re.sub(r"\bclip\d+\b", "clip", drawing.result())
            replace_whole(FIGURES / f"{stem}.svg", drawn.encode())
    for path, document in documents.items():
        replace_whole(path, document.encode())
    print(
        f"{', '.join(str(path.relative_to(ROOT)) for path in documents)}, {len(figures)} figures in {FIGURES.relative_to(ROOT)}"
    )


if __name__ == "__main__":
    main()
