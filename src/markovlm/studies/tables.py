"""Tables of studies: to read, in report, terminal and pages (an interval in each cell); and long ones, with full values, as CSV."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from markovlm.intervals import MISSING, percent_text
from markovlm.present.table import (
    NOTHING,
    Cell,
    Columns,
    Source,
    Table,
    decimal_cell,
    estimate_cell,
    p_cell,
    percent_cell,
    plain,
    table_of,
)
from markovlm.studies.chains import Chains, LagDamage, chief_damage, damage_by_lag, known_by
from markovlm.studies.fields import Estimate, est
from markovlm.studies.records import (
    Bypass,
    Damage,
    Explain,
    Intervention,
    Leak,
    Own,
    Perturb,
    Resample,
    ResampledCot,
    Sentence,
    Study,
    Transfer,
)  # fmt: skip
from markovlm.studies.words import cell_text, severity_text, spoken

Named = tuple[str, Study]  # run and study
Of = Callable[[Damage], Estimate]
MOST_LAGS = 8  # columns of a table to read; the CSV has all
CONTROLS = {"own": "its own", "empty": "none", "other": "another question's"}


def tables_of(study: Study) -> list[Table]:
    """The tables of one study, to be read. Columns of which nothing is known are left out."""
    source = Source(study.path) if study.path.name else None
    return [table.with_known() for table in _MAKERS[type(study)](study, source) if table.rows]


def _level(e: Estimate, source: Source | None, scale: float = 1.0, places: int = 2) -> Cell:
    """`1.20 [0.90, 1.50]`"""
    return estimate_cell(e.mean, e.low, e.high, source=source, scale=scale, places=places)


def _change(e: Estimate, source: Source | None, scale: float = 1.0, places: int = 2) -> Cell:
    """The same of a number that may be 0: muted where the interval holds 0."""
    return estimate_cell(e.mean, e.low, e.high, source=source, scale=scale, places=places, judged=True)


def _counted(e: Estimate, source: Source | None, scale: float = 1.0, places: int = 2) -> Cell:
    """With what it is over."""
    cell = _level(e, source, scale, places)
    return cell if not e or e.n is None else replace(cell, text=f"{cell.text} (n={e.n:,})")


# --- damage ------------------------------------------------------------------------------------------------------------


def severities(rows: Iterable[Damage]) -> list[float | None]:
    """The severities in order, without the identity check at 0; None (no severity) last."""
    known = {row.severity for row in rows if row.severity != 0}
    return [*sorted(s for s in known if s is not None), *([None] if None in known else [])]


def _perturb(study: Perturb, source: Source | None) -> list[Table]:
    choices: list[tuple[str, Of, float, int]] = [
        ("Fragility in nats per answer token: this run's drop minus the other run's", lambda r: r.fragility, 1.0, 2),
        ("Fragility in points of accuracy", lambda r: r.fragility_accuracy, 100.0, 0),
        ("Drop of ln pi(a|CoT), nats per answer token", lambda r: r.drop_logprob, 1.0, 2),
        ("Drop of accuracy, points", lambda r: r.drop_accuracy, 100.0, 0),
    ]
    there = [choice for choice in choices if any(map(choice[1], study.rows))]
    made = [_pivot(study, source, *choice) for choice in there]
    made = [replace(table, note=_perturb_note(study) if i == 0 else "") for i, table in enumerate(made)]
    meant: Columns = {
        "perturbation": "label",
        "should": "expect",
        "does, % of the changed": lambda r: _counted(r.as_expected, source, 100, 0),
        "paraphrases": lambda r: _paraphrases(r),
    }
    rows = [row for row in study.rows if row.severity != 0 and (row.expect or row.paraphrases.asked)]
    return [*made, table_of("loadbearing-perturb-meaning", "Does the answer do what it should?", rows, meant)]


def _pivot(study: Perturb, source: Source | None, title: str, of: Of, scale: float, places: int) -> Table:
    """Perturbations down, severities across."""
    across = severities(study.rows)
    cells = {(row.label, row.severity): row for row in study.rows}
    rows: list[tuple[Cell, ...]] = []
    for label in dict.fromkeys(row.label for row in study.rows):
        own = [row for row in study.rows if row.label == label and row.severity != 0]
        if not own:
            continue
        here = [cells.get((label, s)) for s in across]
        values = [NOTHING if r is None else _change(of(r), source, scale, places) for r in here]
        shares = [None if r.changed is None else round(100 * r.changed) for r in own]
        rows.append((plain(label), *values, _span([r.n for r in own]), _span(shares, " %")))
    columns = ("perturbation", *(severity_text(s) for s in across), "n", "CoTs changed")
    return Table("loadbearing-perturb", title, columns, tuple(rows))


def _span(values: Sequence[int | None], after: str = "") -> Cell:
    """`96 to 100 %`"""
    known = [v for v in values if v is not None]
    if not known:
        return NOTHING
    low, high = min(known), max(known)
    return Cell(high, f"{low:,}{after}" if low == high else f"{low:,} to {high:,}{after}", None, "number")


def _paraphrases(row: Damage) -> str:
    """`18 of 20 replies accepted, rejected: numbers 2`"""
    found = row.paraphrases
    if found.asked is None:
        return ""
    rejected = ", ".join(f"{reason} {count:,}" for reason, count in found.rejected.items())
    how = f" at temperature {found.temperature:g}" if found.temperature else " (greedy)" if found.temperature == 0 else ""
    return f"{found.accepted} of {found.asked} replies accepted{how}" + (
        f"; rejected, CoT left unchanged: {rejected}" if rejected else ""
    )


def _perturb_note(study: Perturb) -> str:
    said = ["95 % intervals, bootstrap over questions; grey where the interval contains 0. Columns: severity."]
    for name, found in (("Intact CoT", study.intact), ("The other run, intact", study.intact_against)):
        parts = [f"ln pi(a|CoT) {cell_text(found.logprob)}"] if found.logprob else []
        parts += [f"accuracy {cell_text(found.accuracy, 100, 0)} %"] if found.accuracy else []
        said += [f"{name}: {', '.join(parts)}."] if parts else []
    gap = study.round_trip_gap
    if gap:
        changed = f", changed {percent_text(gap.changed)} of the CoTs" if gap.changed is not None else ""
        said.append(f"Decoding and encoding alone cost {cell_text(gap)} nats{changed}; the drops here do not include this.")
    if any(row.severity == 0 and row.drop_logprob.mean == 0 for row in study.rows):
        said.append("At severity 0 the drop is 0, as it must be.")
    return " ".join(said)


# --- other readers -----------------------------------------------------------------------------------------------------


def _transfer(study: Transfer, source: Source | None) -> list[Table]:
    models = study.models
    points: Columns = {
        "CoTs of": "checkpoint",
        "reader": "reader",
        "model": lambda p: models.get(p.reader),
        "ln pi(a|CoT)": lambda p: _level(p.logprob, source),
        "accuracy, %": lambda p: _level(p.accuracy, source, 100, 0),
        "over base": lambda p: _change(p.vs_base.logprob, source),
        "over base, points": lambda p: _change(p.vs_base.accuracy, source, 100, 0),
        "n": "n",
    }
    note = (
        "The actor is the checkpoint itself, reading its own CoTs; other readers get them as text and use their own tokens. “Over "
        "base”: the gain over the base model's CoTs, read by the same reader; grey where its interval contains 0."
    )
    ranks: Columns = {
        "reader": "reader",
        "Spearman": lambda c: decimal_cell(c.spearman, 2, source=source),
        "checkpoints": "n",
        "p": lambda c: p_cell(c.p),
    }
    return [
        table_of("loadbearing-transfer", "CoTs read by the model itself and by others", study.points, points, note),
        table_of(
            "loadbearing-correlation",
            "Does a reader's curve follow the actor's? Spearman's rank correlation",
            study.correlation,
            ranks,
            f"Over checkpoints, not over questions: with a handful of them even a perfect order can be chance (see p).{_floor(study)}",
        ),
    ]


def _floor(study: Transfer) -> str:
    few = min((c.n for c in study.correlation if c.n and c.spearman is not None), default=0)
    return f" With {few} checkpoints no p is below {2 / math.factorial(few):.2f}." if 2 <= few <= 4 else ""


# --- which parts of a CoT ----------------------------------------------------------------------------------------------


def _explain(study: Explain, source: Source | None) -> list[Table]:
    drops: Columns = {
        "drop": lambda k: _change(k.drop, source),
        "filler alone": lambda k: _change(k.filler, source),
        "units": "units",
    }
    kinds: Columns = {
        "kind": "kind",
        **drops,
        "questions": "questions",
        "share of load": lambda k: percent_cell(k.share, source=source),
        "share of units": lambda k: percent_cell(k.share_of_units, source=source),
    }
    title = f"Drop when one {study.unit} is {study.done}"
    note = "Nats per answer token, for one unit. Shares have no interval: they describe these CoTs."
    beside = (
        " “Filler alone”: the same amount of filler put before the unit, nothing removed."
        if any(k.filler for k in study.by_kind)
        else ""
    )
    places = [place for place in study.by_position if place.units]
    return [
        table_of("loadbearing-explain-kinds", f"{title}, by kind", study.by_kind, kinds, note + beside),
        table_of("loadbearing-explain-positions", f"{title}, by position in the CoT", places, {"place": "label", **drops}),
    ]


def _resample(study: Resample, source: Source | None) -> list[Table]:
    columns: Columns = {
        "place": "label",
        "sentences": "sentences",
        "causes: TV": lambda p: _level(p.tv, source),
        "TV by chance": lambda p: _level(p.chance, source),
        "KL, nats": lambda p: _level(p.kl, source),
        "accuracy lost, points": lambda p: _change(p.accuracy_drop, source, 100, 0),
        "bears: drop, nats": lambda p: _change(p.occlusion, source),
    }
    note = "TV is above 0 even by chance: compare it with the column beside it. Grey where the interval contains 0."
    title = "What a sentence causes, and what the reader loses without it, by position in the CoT"
    places = [place for place in study.by_position if place.sentences]
    return [table_of("loadbearing-resample", title, places, columns, note)]


def sentences_of(cot: ResampledCot, title: str = "") -> Table:
    """What each sentence of one CoT causes and bears."""

    def rates(s: Sentence) -> str:
        shown = [MISSING if rate is None else f"{rate:.2f}" for rate in (s.accuracy_with, s.accuracy_without)]
        return " → ".join(shown)

    columns: Columns = {
        "sentence": lambda s: Cell(s.text, " ".join(s.text.split())[:100], None, "text"),
        "bears, nats": lambda s: decimal_cell(s.occlusion, 2, signed=True),
        "causes: TV": lambda s: _level(s.tv, None),
        "by chance": lambda s: decimal_cell(s.chance, 2),
        "p": lambda s: p_cell(s.p),
        "KL, nats": lambda s: _level(s.kl, None),
        "right with → without": lambda s: Cell(s.accuracy_without, rates(s), None, "number"),
        "lacking it": "lacking",
    }
    return table_of("loadbearing-resample-cot", title, cot.sentences, columns)


# --- without the CoT, or with another ----------------------------------------------------------------------------------


def _bypass(study: Bypass, source: Source | None) -> list[Table]:
    columns: Columns = {
        "CoT": lambda r: CONTROLS.get(r.control, r.control),
        "reader": "reader",
        "accuracy, %": lambda r: _level(r.accuracy, source, 100, 0),
        "ln pi(a|CoT)": lambda r: _level(r.logprob, source),
        "survives, %": lambda r: _level(r.survives, source, 100, 0),
        "of": lambda r: r.survives.n,
        "n": "n",
    }
    note = "“Survives”: still right, among those right with their own CoT (“of”). A guess survives too."
    return [table_of("loadbearing-bypass", "The answer without its CoT", study.rows, columns, note)]


def _leak(study: Leak, source: Source | None) -> list[Table]:
    where = study.position
    place = "" if where.mean is None else f"{percent_text(where.mean)} of the way"
    if where.quartiles:
        place += f" (quartiles {', '.join(f'{100 * q:.0f}' for q in where.quartiles)} %)"
    rows = {
        "CoTs with the gold answer in them, %": _level(study.leaks, source, 100, 0),
        "CoTs with another question's answer in them, %": _level(study.leaks_other, source, 100, 0),
        "where it first appears, mean": Cell(where.mean, place, source) if place else NOTHING,
        "accuracy of those CoTs, whole, %": _level(study.accuracy, source, 100, 0),
        "accuracy, cut before the answer, %": _level(study.accuracy_cut_before, source, 100, 0),
        "ln pi(a|CoT), whole": _level(study.logprob, source),
        "ln pi(a|CoT), cut before the answer": _level(study.logprob_cut_before, source),
    }
    columns: Columns = {
        "what": lambda row: row[0],
        "value": lambda row: replace(row[1], kind=""),
    }  # texts and numbers: all to the left
    note = "A CoT may well end in its answer; what counts is how much is left when it is cut before the answer."
    return [table_of("loadbearing-leak", "The answer as a plain copy in the CoT", rows.items(), columns, note)]


def _intervention(study: Intervention, source: Source | None) -> list[Table]:
    columns: Columns = {
        "reader": "reader",
        "right before, %": lambda r: _level(r.right_before, source, 100, 0),
        "follows the changed CoT, %": lambda r: _level(r.follows, source, 100, 0),
        "stays with the question, %": lambda r: _level(r.question, source, 100, 0),
        "neither, %": lambda r: _level(r.neither, source, 100, 0),
        "n": "n",
    }
    had = f"{study.changed:,} of {study.cots:,} CoTs had a number to change. " if study.changed is not None and study.cots else ""
    note = f"{had}An answer that follows the CoT was read from it; one that stays with the question bypassed the CoT."
    title = "One number of the CoT changed, the rest recalculated: what does the answer follow?"
    return [table_of("loadbearing-intervention", title, study.rows, columns, note)]


def _chains(study: Chains, source: Source | None) -> list[Table]:
    """Damage with lags across, at one severity of each perturbation; answers by age of their fact."""
    return [_lags(study, source, list(chief_damage(study).values()), *_LAGGED[0]), _facts(study, source)]


def chain_tables(study: Chains) -> list[Table]:
    """The same with all severities, and with what the damage does to accuracy and to the states that follow."""
    rows = list(damage_by_lag(study).values())
    made = [replace(_lags(study, None, rows, *measure), note="") for measure in _LAGGED[1:]]
    made.insert(0, _lags(study, None, rows, *_LAGGED[0]))
    return [table.with_known() for table in (*made, _facts(study, None)) if table.rows]


_LAGGED: list[tuple[str, Callable[[LagDamage], Estimate], float, int]] = [
    ("drop in nats per predicted token", lambda row: row.drop_logprob, 1.0, 2),
    ("drop of accuracy, points", lambda row: row.drop_accuracy, 100.0, 0),
    ("states that differ there, %", lambda row: row.state_differs, 100.0, 0),
]


def _lags(
    study: Chains, source: Source | None, rows: Sequence[Sequence[LagDamage]], what: str, of: Callable[[LagDamage], Estimate],
    scale: float, places: int,
) -> Table:  # fmt: skip
    """Lags across; `rows`: one perturbation at one severity each, of which those are shown that have what is asked for."""
    rows = [own for own in rows if any(map(of, own))]

    def at(lag: int) -> Callable[[Sequence[LagDamage]], Cell]:
        return lambda own: next((_change(of(row), source, scale, places) for row in own if row.lag == lag), NOTHING)

    columns: Columns = {
        "perturbation": lambda own: spoken(own[0].perturbation),
        "severity": lambda own: severity_text(own[0].severity),
        "predicted": lambda own: own[0].predicted.replace("_", " "),
        **{f"lag {lag}": at(lag) for lag in sorted({row.lag for own in rows for row in own})[:MOST_LAGS]},
        "n": lambda own: _span([row.n for row in own]),
    }
    note = f"Lag: {'pieces written' if study.thinks else 'chunks read'} since. Grey where the interval contains 0."
    return table_of(
        "loadbearing-chains-damage",
        f"Perturbing a {'piece' if study.thinks else 'state'}, seen later: {what}",
        rows,
        columns,
        note,
    )


def _facts(study: Chains, source: Source | None) -> Table:
    name, known = known_by(study)
    columns: Columns = {
        name: "at",
        "accuracy, %": lambda k: _level(k.accuracy, source, 100, 0),
        "ln pi(a|state)": lambda k: _level(k.logprob, source),
        "n": "n",
    }
    return table_of("loadbearing-chains-facts", "Every question asked of every state", known, columns)


def _own(study: Own, source: Source | None) -> list[Table]:
    def cell(value: Any) -> Any:
        return _level(value, source) if isinstance(value, Estimate) else value

    names = dict.fromkeys(name for row in study.rows for name in row)
    columns: Columns = {name: lambda row, name=name: cell(row.get(name)) for name in names}
    return [table_of(f"loadbearing-own-{study.study}", study.study.replace("_", " "), study.rows, columns)]


_MAKERS: dict[type[Study], Callable[[Any, Source | None], list[Table]]] = {
    Perturb: _perturb,
    Transfer: _transfer,
    Explain: _explain,
    Bypass: _bypass,
    Leak: _leak,
    Chains: _chains,
    Intervention: _intervention,
    Resample: _resample,
    Own: _own,
}


# --- CSV ---------------------------------------------------------------------------------------------------------------


def long_tables(studies: Sequence[Named]) -> list[Table]:
    """All numbers of all studies, a table a kind; none for kinds without rows."""
    made = [_long(name, kind, columns.split(), studies, rows) for name, (kind, columns, rows) in _LONG.items()]
    return [table for table in made if table.rows]


def _long(
    name: str, kind: type[Study], columns: Sequence[str], studies: Sequence[Named], rows: Callable[[Any], Iterable[Sequence[Any]]]
) -> Table:
    """`columns`: what is looked for in the things of a row, the first that has it; `NAME=KEY` where the column has another name.

    `*NAME` is an estimate, and three columns: NAME, NAME_low and NAME_high.
    """
    cells: list[tuple[Cell, ...]] = []
    for run, study in studies:
        if isinstance(study, kind):
            first = Cell(run, run, Source(study.path))
            head = (first, plain(study.checkpoint), plain(study.step), plain(study.conditioning), plain(study.split))
            cells += [
                (*head, *(plain(value) for column in columns for value in _values(column, (*row, study)))) for row in rows(study)
            ]
    names = [name for column in columns for name in _names(column)]
    return Table(
        f"loadbearing-{name}", f"loadbearing-{name}", ("run", "checkpoint", "step", "conditioning", "split", *names), tuple(cells)
    )


def _names(column: str) -> tuple[str, ...]:
    name = column.lstrip("*").partition("=")[0]
    return (name, f"{name}_low", f"{name}_high") if column.startswith("*") else (name,)


def _values(column: str, things: Sequence[Any]) -> Iterator[Any]:
    name, _, key = column.lstrip("*").partition("=")
    value: Any = next((_get(thing, key or name) for thing in things if _has(thing, key or name)), None)
    if not column.startswith("*"):
        yield value
    else:
        yield from (value.mean, value.low, value.high) if value is not None else (None, None, None)


def _has(thing: Any, key: str) -> bool:
    return key in thing if isinstance(thing, dict) else hasattr(thing, key.partition(".")[0])


def _get(thing: Any, key: str) -> Any:
    if isinstance(thing, dict):
        return thing[key]
    for part in key.split("."):
        thing = getattr(thing, part)
    return thing


def _of_leak(study: Leak) -> list[tuple[dict[str, Any]]]:
    names = ("leaks", "leaks_other", "accuracy", "accuracy_cut_before", "logprob", "logprob_cut_before")
    found = {name: getattr(study, name) for name in names} | {"position_mean": est(study.position.mean)}
    found |= {f"position_quartile_{i}": est(q) for i, q in enumerate(study.position.quartiles, 1)}
    return [({"what": name, "value": e},) for name, e in found.items() if e]


def _of_bypass(study: Bypass) -> list[tuple[Any, ...]]:
    whole = {"control": "bypass", "reader": "", "n": None, "accuracy": None, "logprob": None, "survives": study.bypass}
    return [*((row, {"survives_n": row.survives.n}) for row in study.rows), (whole | {"survives_n": study.bypass.n},)]


def _of_own(study: Own) -> Iterator[tuple[dict[str, Any]]]:
    for number, row in enumerate(study.rows):
        for column, value in row.items():
            is_text = isinstance(value, str | bool)
            found = value if isinstance(value, Estimate) else est(None if is_text else value)
            yield ({"row": number, "column": column, "value": found, "text": value if is_text else None},)


_Rows = Callable[[Any], Iterable[Sequence[Any]]]
_THREE = "*accuracy *logprob"
_LONG: dict[str, tuple[type[Study], str, _Rows]] = {
    "perturb": (
        Perturb,
        "perturbation level severity n changed *drop_logprob *drop_accuracy *fragility *fragility_accuracy against=other.run paraphraser",
        lambda s: [(row, {"other.run": s.against.run}) for row in s.rows],
    ),
    "transfer": (
        Transfer,
        "cots_of=checkpoint cots_of_step=step reader model n *logprob *accuracy "
        "*over_base_logprob=vs_base.logprob *over_base_accuracy=vs_base.accuracy",
        lambda s: [({"model": s.models.get(p.reader)}, p) for p in s.points],
    ),
    "correlation": (Transfer, "reader spearman checkpoints=n p", lambda s: [(c,) for c in s.correlation]),
    "explain-kinds": (Explain, "by=unit how kind units questions *drop share share_of_units", lambda s: [(k,) for k in s.by_kind]),
    "explain-positions": (Explain, "by=unit how from=start to=end units *drop", lambda s: [(p,) for p in s.by_position]),
    "explain-examples": (
        Explain,
        "id question gold answer correct unit text kind drop",
        lambda s: [({"unit": i}, u, e) for e in s.explained for i, u in enumerate(e.units)],
    ),
    "bypass": (Bypass, f"control reader n {_THREE} *survives survives_n", _of_bypass),
    "leak": (Leak, "what *value", _of_leak),
    "chains-damage": (
        Chains, "perturbation severity lag predicted n *drop_logprob *drop_accuracy *state_differs", lambda s: [(d,) for d in s.damage.rows]
    ),
    "chains-facts": (
        Chains, f"by at n {_THREE}", lambda s: [({"by": by}, k) for by, own in (("age", s.facts.by_age), ("t", s.facts.by_t)) for k in own]
    ),
    "chains-questions": (Chains, "text question answer fact t logprob correct", lambda s: [(k, q) for q in s.facts.read for k in q.known]),
    "own": (Own, "study row column *value text", _of_own),
    "intervention": (Intervention, "reader n *right_before *follows *question *neither", lambda s: [(r,) for r in s.rows]),
    "resample": (
        Resample,
        "id question gold answer correct sentence text *tv chance p occlusion accuracy_with accuracy_without",
        lambda s: [({"sentence": i}, one, c) for c in s.resampled for i, one in enumerate(c.sentences)],
    ),
}  # fmt: skip
