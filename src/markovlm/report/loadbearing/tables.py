"""Tables of the section: to read (an interval in each cell, severities as columns) and long ones, with full values, as CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from markovlm.logs.study_records import (
    Bypass,
    Chains,
    Damage,
    Estimate,
    Explain,
    Intervention,
    Leak,
    Perturb,
    Resample,
    Study,
    Transfer,
)
from markovlm.report.loadbearing.chains import chief_damage, known_by
from markovlm.report.loadbearing.words import cell_text, severity_text
from markovlm.report.tables import Cell, Source, Table, number_text, plain

Named = tuple[str, Study]  # run and study
Of = Callable[[Damage], Estimate]
MOST_LAGS = 8  # columns of a table to read; the CSV has all
EXPLAIN = {"remove": "removed", "replace": "replaced"}


def estimate_cell(e: Estimate, source: Source | None, scale: float = 1.0, places: int = 2) -> Cell:
    """`1.20 [0.90, 1.50]`, muted where the interval holds 0 or is missing."""
    if e.mean is None:
        return plain(None, "missing number")
    return Cell(scale * e.mean, cell_text(e, scale, places), source, "number" if e.sign else "number null")


def _level_cell(e: Estimate, source: Source | None, scale: float = 1.0, places: int = 2) -> Cell:
    """The same for a number for which 0 means nothing special."""
    if e.mean is None:
        return plain(None, "missing number")
    return Cell(scale * e.mean, cell_text(e, scale, places), source, "number")


def _percent_cell(value: float | None, source: Source | None) -> Cell:
    return plain(None, "missing number") if value is None else Cell(value, f"{100 * value:.0f} %", source, "number")


def _count_cell(value: int | None) -> Cell:
    return plain(value, "number" if value is not None else "missing number")


def readable(study: Study) -> list[Table]:
    """The tables of one study, to be read."""
    found = study.found
    if isinstance(found, Perturb):
        return _perturb(study, found)
    if isinstance(found, Transfer):
        return _transfer(study, found)
    if isinstance(found, Explain):
        return _explain(study, found)
    if isinstance(found, Bypass):
        return [_bypass(study, found)]
    if isinstance(found, Chains):
        return _chains(study, found)
    if isinstance(found, Intervention):
        return [_intervention(study, found)]
    if isinstance(found, Resample):
        return _resample(study, found)
    return [_leak(study, found)]


# --- damage ------------------------------------------------------------------------------------------------------------


def severities(rows: Iterable[Damage]) -> list[float | None]:
    """The severities in order, without the identity check at 0; None (no severity) last."""
    known = {row.severity for row in rows if row.severity != 0}
    return [*sorted(s for s in known if s is not None), *([None] if None in known else [])]


def _perturb(study: Study, found: Perturb) -> list[Table]:
    choices: list[tuple[str, Of, float, int]] = [
        ("Fragility in nats an answer token: this run's drop less the other run's", lambda r: r.fragility, 1.0, 2),
        ("Fragility in points of accuracy", lambda r: r.fragility_accuracy, 100.0, 0),
        ("Drop of ln pi(a|CoT), nats an answer token", lambda r: r.drop, 1.0, 2),
        ("Drop of accuracy, points", lambda r: r.accuracy, 100.0, 0),
    ]
    there = [choice for choice in choices if any(choice[1](row).mean is not None for row in found.rows)]
    made = [_pivot(study, found, *choice) for choice in there]
    return [replace(table, note=_perturb_note(found) if i == 0 else "") for i, table in enumerate(made)]


def _pivot(study: Study, found: Perturb, title: str, of: Of, scale: float, places: int) -> Table:
    """Perturbations down, severities across."""
    across, source = severities(found.rows), Source(study.path)
    cells = {(row.label, row.severity): row for row in found.rows}
    rows: list[tuple[Cell, ...]] = []
    for label in dict.fromkeys(row.label for row in found.rows):
        own = [row for row in found.rows if row.label == label and row.severity != 0]
        if not own:
            continue
        here = [cells.get((label, s)) for s in across]
        values = [plain(None, "missing number") if r is None else estimate_cell(of(r), source, scale, places) for r in here]
        rows.append((plain(label), *values, _span([r.n for r in own]), _span([_rounded(r.changed) for r in own], " %")))
    columns = ("perturbation", *(severity_text(s) for s in across), "n", "CoTs changed")
    return Table("loadbearing-perturb", title, columns, tuple(rows))


def _rounded(share: float | None) -> int | None:
    return None if share is None else round(100 * share)


def _span(values: Sequence[int | None], after: str = "") -> Cell:
    """`96 to 100 %`"""
    known = [v for v in values if v is not None]
    if not known:
        return plain(None, "missing number")
    low, high = min(known), max(known)
    return Cell(high, f"{low:,}{after}" if low == high else f"{low:,} to {high:,}{after}", None, "number")


def _perturb_note(found: Perturb) -> str:
    said = ["95 % intervals, bootstrap over questions; grey where the interval holds 0. Columns: severity."]
    if found.intact.mean is not None:
        accuracy = f", accuracy {cell_text(found.intact_accuracy, 100, 0)} %" if found.intact_accuracy.mean is not None else ""
        said.append(f"Intact CoT: ln pi(a|CoT) {cell_text(found.intact)}{accuracy}.")
    if found.other_accuracy.mean is not None:
        said.append(f"The other run, intact: accuracy {cell_text(found.other_accuracy, 100, 0)} %.")
    if found.round_trip.mean is not None:
        changed = f", changed {100 * found.round_trip_changed:.0f} % of the CoTs" if found.round_trip_changed is not None else ""
        said.append(f"Decoding and encoding alone: {cell_text(found.round_trip)} nats{changed}; no drop here contains it.")
    if any(row.severity == 0 and row.drop.mean == 0 for row in found.rows):
        said.append("At severity 0 the drop is 0, as it must be.")
    return " ".join(said)


# --- the other studies -------------------------------------------------------------------------------------------------


def _transfer(study: Study, found: Transfer) -> list[Table]:
    source = Source(study.path)
    rows = tuple(
        (
            plain(p.checkpoint),
            plain(p.reader),
            plain(found.models.get(p.reader) or None),
            _level_cell(p.logprob, source),
            _level_cell(p.accuracy, source, 100, 0),
            estimate_cell(p.gain, source),
            estimate_cell(p.gain_accuracy, source, 100, 0),
            _count_cell(p.n),
        )
        for p in found.points
    )
    columns = ("CoTs of", "reader", "model", "ln pi(a|CoT)", "accuracy, %", "over base", "over base, points", "n")
    note = "“Over base”: the gain over the base model's CoTs, read by the same reader; grey where its interval holds 0."
    tables = [Table("loadbearing-transfer", "CoTs read by the model itself and by others", columns, rows, note)]
    if found.correlations:
        tables.append(_correlations(found, source))
    return tables


def _correlations(found: Transfer, source: Source) -> Table:
    rows = tuple(
        (
            plain(c.reader),
            plain(None, "missing number") if c.spearman is None else Cell(c.spearman, f"{c.spearman:.2f}", source, "number"),
            _count_cell(c.n),
            plain(None, "missing number") if c.p is None else Cell(c.p, number_text(c.p), source, "number"),
        )
        for c in found.correlations
    )
    note = "Over checkpoints, not over questions: with a handful of them even a perfect order can be chance (see p)."
    title = "Does a reader's curve follow the actor's? Spearman's rank correlation"
    return Table("loadbearing-correlation", title, ("reader", "Spearman", "checkpoints", "p"), rows, note)


def _explain(study: Study, found: Explain) -> list[Table]:
    source = Source(study.path)
    kinds = tuple(
        (
            plain(k.kind),
            estimate_cell(k.drop, source),
            _count_cell(k.units),
            _count_cell(k.questions),
            _percent_cell(k.share, source),
            _percent_cell(k.share_of_units, source),
        )
        for k in found.kinds
    )
    title = f"Load of one {found.by} when {EXPLAIN.get(found.how, found.how)}, by kind"
    note = "Nats an answer token of one unit. Shares have no interval: they describe these CoTs."
    columns = ("kind", "drop", "units", "questions", "share of load", "share of units")
    return [Table("loadbearing-explain-kinds", title, columns, kinds, note)] if kinds else []


def _bypass(study: Study, found: Bypass) -> Table:
    source = Source(study.path)
    rows = tuple(
        (
            plain({"own": "its own", "other": "another question's"}.get(r.control, r.control)),
            plain(r.reader),
            _level_cell(r.accuracy, source, 100, 0),
            _level_cell(r.logprob, source),
            _level_cell(r.survives, source, 100, 0),
            _count_cell(r.survives.n),
            _count_cell(r.n),
        )
        for r in found.rows
    )
    columns = ("CoT", "reader", "accuracy, %", "ln pi(a|CoT)", "survives, %", "of", "n")
    note = "“Survives”: still right, among those right with their own CoT (“of”). A guess survives too."
    return Table("loadbearing-bypass", "The answer without its CoT", columns, rows, note)


def _leak(study: Study, found: Leak) -> Table:
    source = Source(study.path)
    place = "" if found.position is None else f"{100 * found.position:.0f} % of the way"
    if found.quartiles:
        place += f" (quartiles {', '.join(f'{100 * q:.0f}' for q in found.quartiles)} %)"
    rows = [
        (plain("CoTs with the gold answer in them, %"), _level_cell(found.leaks, source, 100, 0)),
        (plain("CoTs with another question's answer in them, %"), _level_cell(found.leaks_other, source, 100, 0)),
        (plain("where it first appears, mean"), Cell(found.position, place, source) if place else plain(None, "missing")),
        (plain("accuracy of those CoTs, whole, %"), _level_cell(found.accuracy, source, 100, 0)),
        (plain("accuracy, cut before the answer, %"), _level_cell(found.accuracy_cut, source, 100, 0)),
        (plain("ln pi(a|CoT), whole"), _level_cell(found.logprob, source)),
        (plain("ln pi(a|CoT), cut before the answer"), _level_cell(found.logprob_cut, source)),
    ]
    rows = [(what, replace(value, kind="")) for what, value in rows]  # texts and numbers in one column: all to the left
    note = "A CoT that ends in its answer leaks it rightly; what counts is how much is left when it is cut before."
    return Table("loadbearing-leak", "The answer as a plain copy in the CoT", ("what", "value"), tuple(rows), note)


def _chains(study: Study, found: Chains) -> list[Table]:
    """Damage with lags across, at one severity of each perturbation; answers by age of their fact."""
    source = Source(study.path)
    rows: list[tuple[Cell, ...]] = []
    lags = sorted({row.lag for row in found.damage})[:MOST_LAGS]
    for (name, predicted), own in chief_damage(found).items():
        at = {row.lag: row for row in own}
        values = [estimate_cell(at[lag].drop, source) if lag in at else plain(None, "missing number") for lag in lags]
        rows.append((plain(name), plain(severity_text(own[0].severity)), plain(predicted), *values))
    across = tuple(f"lag {lag}" for lag in lags)
    made = []
    if rows:
        title = "Damage to a state, felt later: drop in nats a predicted token"
        note = f"Lag: {'pieces written' if found.thinks else 'chunks read'} since. Grey where the interval holds 0."
        made.append(Table("loadbearing-chains-damage", title, ("damage", "severity", "predicted", *across), tuple(rows), note))
    name, known = known_by(found)
    if known:
        rows = [
            (plain(k.at), _level_cell(k.accuracy, source, 100, 0), _level_cell(k.logprob, source), _count_cell(k.n))
            for k in known
        ]
        columns = (name, "accuracy, %", "ln pi(a|state)", "n")
        made.append(Table("loadbearing-chains-facts", "Every question put to every state", columns, tuple(rows)))
    return made


def _intervention(study: Study, found: Intervention) -> Table:
    source = Source(study.path)
    rows = tuple(
        (
            plain(r.reader),
            _level_cell(r.right_before, source, 100, 0),
            _level_cell(r.follows, source, 100, 0),
            _level_cell(r.question, source, 100, 0),
            _level_cell(r.neither, source, 100, 0),
            _count_cell(r.n),
        )
        for r in found.rows
    )
    columns = ("reader", "right before, %", "follows the changed CoT, %", "stays with the question, %", "neither, %", "n")
    had = f"{found.changed:,} of {found.cots:,} CoTs had a number to change. " if found.changed is not None and found.cots else ""
    note = f"{had}Following the CoT: it bears the load. Staying with the question: the answer came past it."
    title = "One number of the CoT changed, the rest worked out anew: what does the answer follow?"
    return Table("loadbearing-intervention", title, columns, rows, note)


def _resample(study: Study, found: Resample) -> list[Table]:
    source = Source(study.path)
    rows = tuple(
        (
            plain(f"{100 * p.start:.0f} to {100 * p.end:.0f} %"),
            _count_cell(p.sentences),
            _level_cell(p.tv, source),
            _level_cell(p.chance, source),
            _level_cell(p.kl, source),
            estimate_cell(p.accuracy, source, 100, 0),
            estimate_cell(p.occlusion, source),
        )
        for p in found.positions
        if p.sentences
    )
    columns = ("place", "sentences", "causes: TV", "TV by chance", "KL, nats", "accuracy lost, points", "bears: drop, nats")
    note = "TV is above 0 by chance alone: compare the column beside it. Grey where the interval holds 0."
    title = "What a sentence causes, and what it bears, by place in the CoT"
    return [Table("loadbearing-resample", title, columns, rows, note)] if rows else []


# --- CSV ---------------------------------------------------------------------------------------------------------------


def long_tables(studies: Sequence[Named]) -> list[Table]:
    """All numbers of all studies, a table a kind; none for kinds without rows."""
    made = [_long(name, columns, studies, rows) for name, columns, rows in _LONG]
    return [table for table in made if table.rows]


def _long(name: str, columns: Sequence[str], studies: Sequence[Named], rows: Callable[[Any], Iterable[Sequence[Any]]]) -> Table:
    cells: list[tuple[Cell, ...]] = []
    wanted = _KIND[name]
    for run, study in studies:
        if isinstance(study.found, wanted):
            first = Cell(run, run, Source(study.path))
            head = (first, plain(study.checkpoint), plain(study.step), plain(study.conditioning), plain(study.split))
            cells += [(*head, *(plain(value) for value in row)) for row in rows(study.found)]
    return Table(name, name, ("run", "checkpoint", "step", "conditioning", "split", *columns), tuple(cells))


def _spread(e: Estimate) -> tuple[float | None, float | None, float | None]:
    return e.mean, e.low, e.high


def _three(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"


def _damages(found: Perturb) -> Iterable[Sequence[Any]]:
    other = found.against.run if found.against else None
    for r in found.rows:
        numbers = (*_spread(r.drop), *_spread(r.accuracy), *_spread(r.fragility), *_spread(r.fragility_accuracy))
        yield r.perturbation, r.level, r.severity, r.n, r.changed, *numbers, other, r.by or None


def _points(found: Transfer) -> Iterable[Sequence[Any]]:
    for p in found.points:
        numbers = (*_spread(p.logprob), *_spread(p.accuracy), *_spread(p.gain), *_spread(p.gain_accuracy))
        yield p.checkpoint, p.step, p.reader, found.models.get(p.reader), p.n, *numbers


def _leaks(found: Leak) -> Iterable[Sequence[Any]]:
    estimates = {
        "leaks": found.leaks,
        "leaks_other": found.leaks_other,
        "accuracy": found.accuracy,
        "accuracy_cut_before": found.accuracy_cut,
        "logprob": found.logprob,
        "logprob_cut_before": found.logprob_cut,
        "position_mean": Estimate(found.position),
        **{f"position_quartile_{i}": Estimate(q) for i, q in enumerate(found.quartiles, 1)},
    }
    return [(name, *_spread(e)) for name, e in estimates.items() if e.mean is not None]


_LONG: tuple[tuple[str, tuple[str, ...], Callable[[Any], Iterable[Sequence[Any]]]], ...] = (
    (
        "loadbearing-perturb",
        (
            *("perturbation", "level", "severity", "n", "changed", *_three("drop_logprob"), *_three("drop_accuracy")),
            *(*_three("fragility"), *_three("fragility_accuracy"), "against", "paraphraser"),
        ),
        _damages,
    ),
    (
        "loadbearing-transfer",
        (
            *("cots_of", "cots_of_step", "reader", "model", "n", *_three("logprob"), *_three("accuracy")),
            *(*_three("over_base_logprob"), *_three("over_base_accuracy")),
        ),
        _points,
    ),
    (
        "loadbearing-correlation",
        ("reader", "spearman", "checkpoints", "p"),
        lambda f: [(c.reader, c.spearman, c.n, c.p) for c in f.correlations],
    ),
    (
        "loadbearing-explain-kinds",
        ("by", "how", "kind", "units", "questions", *_three("drop"), "share", "share_of_units"),
        lambda f: [(f.by, f.how, k.kind, k.units, k.questions, *_spread(k.drop), k.share, k.share_of_units) for k in f.kinds],
    ),
    (
        "loadbearing-explain-positions",
        ("by", "how", "from", "to", "units", *_three("drop")),
        lambda f: [(f.by, f.how, p.start, p.end, p.units, *_spread(p.drop)) for p in f.positions],
    ),
    (
        "loadbearing-explain-examples",
        ("id", "question", "gold", "answer", "correct", "unit", "text", "kind", "drop"),
        lambda f: [
            (e.id, e.question, e.gold, e.answer, e.correct, i, u.text, u.kind, u.drop)
            for e in f.examples
            for i, u in enumerate(e.units)
        ],
    ),
    (
        "loadbearing-bypass",
        ("control", "reader", "n", *_three("accuracy"), *_three("logprob"), *_three("survives"), "survives_n"),
        lambda f: [
            *(
                (r.control, r.reader, r.n, *_spread(r.accuracy), *_spread(r.logprob), *_spread(r.survives), r.survives.n)
                for r in f.rows
            ),
            ("bypass", "", None, *[None] * 6, *_spread(f.bypass), f.bypass.n),
        ],
    ),
    ("loadbearing-leak", ("what", *_three("value")), _leaks),
    (
        "loadbearing-chains-damage",
        (
            *("perturbation", "severity", "lag", "predicted", "n", *_three("drop_logprob"), *_three("drop_accuracy")),
            *_three("state_differs"),
        ),
        lambda f: [
            (d.perturbation, d.severity, d.lag, d.predicted, d.n, *_spread(d.drop), *_spread(d.accuracy), *_spread(d.differs))
            for d in f.damage
        ],
    ),
    (
        "loadbearing-chains-facts",
        ("by", "at", "n", *_three("accuracy"), *_three("logprob")),
        lambda f: [
            (name, k.at, k.n, *_spread(k.accuracy), *_spread(k.logprob))
            for name, known in (("age", f.by_age), ("t", f.by_t))
            for k in known
        ],
    ),
    (
        "loadbearing-chains-questions",
        ("text", "question", "answer", "fact", "t", "logprob", "correct"),
        lambda f: [(q.text, q.question, q.answer, q.fact, k.t, k.logprob, k.correct) for q in f.facts for k in q.known],
    ),
    (
        "loadbearing-intervention",
        ("reader", "n", *_three("right_before"), *_three("follows"), *_three("question"), *_three("neither")),
        lambda f: [
            (r.reader, r.n, *_spread(r.right_before), *_spread(r.follows), *_spread(r.question), *_spread(r.neither))
            for r in f.rows
        ],
    ),
    (
        "loadbearing-resample",
        ("id", "question", "gold", "answer", "correct", "sentence", "text", *_three("tv"), "chance", "p", "occlusion",
         "accuracy_with", "accuracy_without"),
        lambda f: [
            (c.id, c.question, c.gold, c.answer, c.correct, i, s.text, *_spread(s.tv), s.chance, s.p, s.occlusion, s.right_with, s.right_without)
            for c in f.cots
            for i, s in enumerate(c.sentences)
        ],
    ),
)  # fmt: skip
_KIND: dict[str, type] = {
    "loadbearing-perturb": Perturb,
    "loadbearing-transfer": Transfer,
    "loadbearing-correlation": Transfer,
    "loadbearing-explain-kinds": Explain,
    "loadbearing-explain-positions": Explain,
    "loadbearing-explain-examples": Explain,
    "loadbearing-bypass": Bypass,
    "loadbearing-leak": Leak,
    "loadbearing-chains-damage": Chains,
    "loadbearing-chains-facts": Chains,
    "loadbearing-chains-questions": Chains,
    "loadbearing-intervention": Intervention,
    "loadbearing-resample": Resample,
}
