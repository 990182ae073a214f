"""Attributions as people see them: coloured text for the terminal, and one self-contained HTML page.

Everything from a model or a data set is hostile: markup stays text, and control characters, including those that reorder a line, are
shown and have no effect.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

from markovlm.analysis.attribution import TOP_UNITS, Attribution, UnitDrop
from markovlm.analysis.units import KINDS
from markovlm.intervals import found_text, p_text
from markovlm.pages import page_environment
from markovlm.present.table import NOTHING, Cell, Table, number_cell, percent_cell, table_of
from markovlm.studies.fields import Estimate
from markovlm.studies.files import read_result
from markovlm.studies.records import Explain, KindLoad, PositionLoad, ResampledCot
from markovlm.studies.tables import sentences_of, tables_of
from markovlm.tasks.equations import equations

LEAST_LIMIT = 0.1  # nats: the end of the colour scale is never nearer, so that noise stays pale
CUTS = (0.1, 0.4, 0.7)  # fractions of the scale's end where three shades begin
_CONTEXT = 14  # characters on each side of a unit in the table
_LONGEST = 60  # characters of a unit in the table
_JOINERS = "\u200c\u200d"  # they spell words and emoji, and hide nothing


# -------------------------------------------------------------------------------------------------------------- shared


def visible(text: str) -> str:
    """`text` with every character shown that would act on the terminal or the page; only line feeds stay.

    ESC becomes U+241B, a right-to-left override `<U+202E>`, half of a surrogate pair `<U+D800>`.
    """
    return "".join(map(_shown, text))


def _shown(char: str) -> str:
    if char == "\n" or char in _JOINERS:
        return char
    if char < " ":
        return chr(0x2400 + ord(char))
    if char == "\x7f":
        return "\N{SYMBOL FOR DELETE}"
    return f"<U+{ord(char):04X}>" if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") else char


def nats(value: float) -> str:
    """With its sign; small ones with one place more: `+1.23`, `-0.042`. What rounds to zero has no sign."""
    text = f"{value:+.2f}" if abs(value) >= 0.095 else f"{value:+.3f}"
    return text if text.strip("+-0.") else text[1:]


def limit_of(attributions: Sequence[Attribution]) -> float:
    """The end of a colour scale that all of these share, in nats."""
    return max([LEAST_LIMIT, *(abs(unit.drop) for a in attributions for unit in a.units)])


def role(attribution: Attribution) -> str:
    """Whose answer the target is, as text."""
    target = attribution.target.strip()
    if target and target == attribution.gold.strip():
        return "gold answer"
    own = target in (attribution.answer.strip(), attribution.extracted)
    return "model's own answer" if own else "answer"


def outcome(attribution: Attribution) -> str:
    """What was read from the CoT, and whether it is right."""
    verdict = {True: "right", False: "wrong", None: "not judged"}[attribution.correct]
    if attribution.extracted is not None:
        return f"{visible(attribution.extracted)}, {verdict}"
    raw = f"'{visible(attribution.answer)}'"
    return f"{raw}, not judged" if attribution.correct is None else f"no answer found in {raw}"


def false_equations(attribution: Attribution) -> str:
    """The CoT's equations that are checked and false, the first few; '' where there is none."""
    return ", ".join(_one_line(one.text) for one in [e for e in equations(attribution.cot) if not e.holds][:TOP_UNITS])


def split_unit(unit: UnitDrop) -> tuple[str, str]:
    """White space before a unit, and the rest as it is shown. A unit of white space only is shown by its signs."""
    lead = unit.text[: len(unit.text) - len(unit.text.lstrip())]
    if lead == unit.text:
        return "", visible(lead.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}\n"))
    return visible(lead), visible(unit.text[len(lead) :])


def label_of_unit(unit: UnitDrop) -> str:
    """A unit in one line of a table."""
    text = unit.text.strip() or unit.text.replace(" ", "\N{OPEN BOX}")
    return _one_line(text)[:_LONGEST] or "(no text)"


def _one_line(text: str) -> str:
    return visible(text.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"))


def named_units(attribution: Attribution) -> list[tuple[str, int]]:
    """The units that a table names: the top ones by rank, then the one that hurts most, if it is none of them."""
    named = [(str(rank), i) for rank, i in enumerate(attribution.top(), 1)]
    hurting = attribution.hurting()
    return named if hurting is None or any(i == hurting for _, i in named) else [*named, ("hurts", hurting)]


def where_of(attribution: Attribution, number: int) -> str:
    """A unit in its surroundings: `…4=«21»,21+79…`."""
    unit = attribution.units[number]
    before = "".join(other.text for other in attribution.units[:number]) + unit.text[: -len(unit.text.strip()) or None]
    after = "".join(other.text for other in attribution.units[number + 1 :])
    left = ("…" if len(before) > _CONTEXT else "") + before[-_CONTEXT:]
    right = after[:_CONTEXT] + ("…" if len(after) > _CONTEXT else "")
    return f"{_one_line(left)}«{label_of_unit(unit)}»{_one_line(right)}"


def same_cot(attributions: Sequence[Attribution]) -> list[list[Attribution]]:
    """Neighbours that explain the same CoT towards several answers, together."""
    return [list(group) for _, group in groupby(attributions, key=lambda a: (a.id, a.question, a.cot))]


def method_of(attribution: Attribution) -> str:
    done = {"remove": "removed", "replace": "replaced"}[attribution.how]
    return f"each {attribution.by} {done} in turn"


# ---------------------------------------------------------------------------------------------------------------- page


def cots_page(template: str, *packages: str, **values: Any) -> str:
    """A page with CoTs in it; of these packages' templates, before ours."""
    environment = page_environment(*packages, "markovlm.analysis")
    environment.filters.update(
        visible=lambda value: visible(str(value)),
        one_line=lambda value: _one_line(str(value)),
        nats=nats,
        ci=partial(found_text, places=2),
    )
    return environment.get_template(template).render(values)


def explain_html(attributions: Sequence[Attribution], aggregate: Mapping[str, Any] | None, title: str) -> str:
    """One page without scripts or anything from outside. `aggregate`: what `attribution.aggregate` returned."""
    cards = [card_of(number, group) for number, group in enumerate(same_cot(attributions), 1)]
    return cots_page(
        "explain.html",
        title=title,
        cards=cards,
        study=_study(aggregate) if aggregate else None,
        top_units=TOP_UNITS,
        replaced=any(one.how == "replace" for one in attributions),
    )


def resample_html(result: Mapping[str, Any], cots: Sequence[Any], title: str) -> str:
    """Both maps of CoTs whose sentences were resampled (`analysis.resample.Resampled`), as one page without scripts."""
    study = read_result(result, [])
    tables = tables_of(study) if study else []
    return cots_page("resample.html", title=title, result=result, tables=tables, cots=[_both_maps(one) for one in cots])


def _both_maps(one: Any) -> dict[str, Any]:
    limit = max([LEAST_LIMIT, *(abs(s.occlusion) for s in one.sentences)])
    return {
        "of": one,
        "table": sentences_of(ResampledCot.model_validate(one.to_json())),
        "bears": [_shaded(s.text, s.occlusion / limit, f"{nats(s.occlusion)} nats") for s in one.sentences],
        "causes": [
            _shaded(s.text, s.causes, f"TV {found_text(s.tv, 2)}, p {p_text(s.p)}" if s.tv else "never a different sentence here")
            for s in one.sentences
        ],
    }


def _shaded(text: str, strength: float, title: str) -> dict[str, str]:
    tone, strength = ("warm" if strength > 0 else "cool"), min(1.0, abs(strength))
    style = f"background:rgb(var(--{tone})/{strength:.2f})" if strength >= 0.02 else ""
    return {"text": visible(text), "style": style, "title": title}


def card_of(number: int, group: Sequence[Attribution]) -> dict[str, Any]:
    """What the page shows of one CoT."""
    first, limit = group[0], limit_of(group)
    return {
        "anchor": f"cot-{number}",
        "of": first,
        "verdict": {True: "right", False: "wrong", None: "unknown"}[first.correct],
        "outcome": outcome(first),
        "false": false_equations(first),
        "limit": limit,
        "sections": [
            {
                "role": role(a),
                "of": a,
                "method": method_of(a),
                "spans": _spans(a, limit),
                "named": units_table(a),
            }
            for a in group
        ],
    }


def units_table(attribution: Attribution) -> Table:
    """The most load-bearing units, and the one that hurts most."""
    target = visible(attribution.target.strip())
    named = [(rank, number, attribution.units[number]) for rank, number in named_units(attribution)]
    columns: dict[str, Callable[[Any], Any]] = {
        "rank": lambda one: one[0],
        "unit": lambda one: label_of_unit(one[2]),
        "kind": lambda one: one[2].kind,
        "at": lambda one: percent_cell(one[2].start),
        "drop, nats": lambda one: number_cell(one[2].drop, nats(one[2].drop)),
    }
    if attribution.how == "replace":
        columns["filler alone"] = lambda one: (
            NOTHING if one[2].filler is None else number_cell(one[2].filler, nats(one[2].filler))
        )
    columns["where"] = lambda one: Cell(None, where_of(attribution, one[1]), None, "text")
    return table_of("units", f"Largest drops of ln pi('{target}')", named, columns)


def _spans(attribution: Attribution, limit: float) -> list[dict[str, Any]]:
    """Every unit as text, colour and tooltip; the top ones carry their rank."""
    ranks = {number: rank for rank, number in enumerate(attribution.top(), 1)}
    spans: list[dict[str, Any]] = []
    for number, unit in enumerate(attribution.units):
        lead, rest = split_unit(unit)
        tone = "warm" if unit.drop > 0 else "cool"
        strength = min(1.0, abs(unit.drop) / limit)
        style = f"background:rgb(var(--{tone})/{strength:.2f})" if strength >= 0.02 else ""
        hurts = unit.drop <= -CUTS[1] * limit
        tip = f"{nats(unit.drop)} nats, {unit.kind}"
        spans.append({"lead": lead, "text": rest, "rank": ranks.get(number), "style": style, "hurts": hurts, "title": tip})
    return spans


def _study(aggregate: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of an aggregate with a bar for each row; both share one axis."""
    found = read_result({**aggregate, "kind": "explain"}, [])
    shown: list[tuple[Table, Sequence[KindLoad | PositionLoad]]] = []
    if isinstance(found, Explain):
        groups = (found.by_kind, [place for place in found.by_position if place.units])
        shown = list(zip(tables_of(found), filter(None, groups), strict=True))
    values = [v for _, rows in shown for row in rows for v in (row.drop.mean, *row.drop.ci95) if v is not None]
    low, high = min([0.0, *values]), max([0.0, *values])
    tables = [(_described(table), [_bar(row.drop, low, high) for row in rows]) for table, rows in shown]
    return {"of": aggregate, "axis": (low, high), "tables": tables}


def _described(table: Table) -> Table:
    """What a kind of unit is, beside its name."""
    rows = (
        (replace(row[0], text=": ".join(filter(None, (row[0].text, KINDS.get(row[0].value, ""))))), *row[1:])
        for row in table.rows
    )
    return replace(table, rows=tuple(rows))


def _bar(drop: Estimate, low: float, high: float) -> dict[str, float] | None:
    """Percentages along the axis: the zero line, the bar from it to the mean, and the interval's whisker."""
    if drop.mean is None:
        return None
    width = (high - low) or 1.0

    def at(value: float) -> float:
        return round(100 * (value - low) / width, 2)

    zero, mean = at(0.0), at(drop.mean)
    bar = {"zero": zero, "left": min(zero, mean), "width": round(abs(mean - zero), 2)}
    if drop.low is not None and drop.high is not None:
        bar |= {"low": at(drop.low), "span": round(at(drop.high) - at(drop.low), 2)}
    return bar
