"""The tables of an audit, for its page and the terminal, by the section they belong to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from markovlm.analysis.render import visible
from markovlm.auditing.measures import MEASURES
from markovlm.present.table import NOTHING, Cell, Columns, Table, decimal_cell, found_cell, p_cell, percent_cell, table_of

Row = Mapping[str, Any]

_TEXTS = {
    "words": "words",
    "stated": "the answer is stated",
    "answer_cut_off": "a final answer was cut off after it",
    "bare_answer": "is the bare answer",
    "empty": "empty",
    "nonwords": "share of non-words",
    "switches": "changes of script, per 100 words",
    "truncated": "cut off, according to the source",
    "open_end": "ends without a full stop",
    "repetitive": "repeats itself",
}
_SURVIVE = {"empty": "without CoT", "other": "with another question's", "filler": "with filler"}


def tables_of(result: Row) -> dict[str, list[Table]]:
    """Section -> its tables, without empty ones. Control characters in foreign texts are made visible."""
    studies, read = result["studies"], [(group, one) for group in result["groups"] for one in group["readers"]]
    made = {
        "follows": _follows(read),
        "hints": [_hints(studies["hints"])],
        "compared": [_ranking(studies["ranking"]), _comparison(studies["comparison"])],
        "texts": [_texts(result["groups"]), _likelihood(read)],
        "bypass": [_bypass(studies["bypass"])],
        "leak": [_leak(studies["leak"])],
        "damage": [_damage(one) for one in studies["damage"]],
        "agreement": [_agreement(studies["agreement"])],
        "load": [_load(studies["load"])],
    }
    return {section: [table for table in tables if table.rows] for section, tables in made.items()}


_WHO: Columns = {"group": lambda one: visible(one["group"]), "reader": lambda one: visible(one["reader"])}


def _share(key: str) -> Callable[[Row], Cell]:
    return lambda row: percent_cell(row[key])


def _follows(read: Sequence[tuple[Row, Row]]) -> list[Table]:
    """By what the reader sees: right answers, and likelihoods."""
    seen = {"with_choices": "CoT and choices", "choices_alone": "choices alone", "reasoned": "CoT cut before its answer"}
    seen |= {"question_alone": "question alone", "both": "both", "nothing": "neither"}

    def of(unit: str) -> Columns:
        def what(key: str) -> Callable[[Any], Any]:
            return lambda pair: pair[1][key][unit] if key in pair[1] else None

        columns: Columns = {"group": lambda pair: visible(pair[0]["group"]), "reader": lambda pair: visible(pair[1]["reader"])}
        columns |= {"n": lambda pair: pair[1]["n"], "CoT alone": lambda pair: pair[1][unit]}
        return columns | {name: what(key) for key, name in seen.items() if any(key in one for _, one in read)}

    judged = [pair for pair in read if pair[1]["accuracy"] is not None]
    return [
        table_of("follows", "Right answers, by what the reader sees", read if judged else (), of("accuracy")),
        table_of("follows-likelihood", "ln π(answer), nats per answer token, by what the reader sees", read, of("logprob")),
    ]


def _hints(rows: Sequence[Row]) -> Table:
    judge = rows[0]["judge"] if rows else None
    keys = {"changed": "answer changed", "to_hint": "to the hint's", "to_other": "to another", "says_so": "mentions the hint"}
    keys |= {"judge_says_so": f"says so, by {visible(judge)}"} if judge else {}
    keys |= {"says_so_unchanged": "unchanged, mentions it"}
    keys |= {"judge_says_so_unchanged": "unchanged, by the judge", "agree": "rule and judge agree"} if judge else {}

    def counted(key: str) -> Callable[[Row], Cell]:
        return lambda row: (
            replace(found_cell(row[key]), text=f"{found_cell(row[key]).text} n={row[key]['n']}") if row[key] else NOTHING
        )

    columns: Columns = {"group": _WHO["group"], "questions": "n"}
    columns |= {name: counted(key) for key, name in keys.items()} | {"of the changes, by chance": _share("by_chance")}
    return table_of("hints", "Does the CoT say that a hint changed its answer? Shares of questions", rows, columns)


def _ranking(rows: Sequence[Row]) -> Table:
    columns: Columns = {
        "rank": lambda row: str(row["rank"]) if row["rank"] == row["rank_to"] else f"{row['rank']} to {row['rank_to']}",
        "group": _WHO["group"],
        "carried, above nothing": "carried",
        "of it before the answer is stated": "before_answer",
        "with text of their own": _share("with_text"),
        "bare answers": _share("bare_answer"),
    }
    if len(rows) < 2:
        return table_of("ranking", "", (), columns)
    title = f"Order by what the CoTs carry ({rows[0]['unit']}), read by {visible(rows[0]['reader'])}; bare answers don't count"
    note = "Ranks are by tests of every pair (adjusted p below .05): groups that share ranks can't be distinguished with these questions."
    return table_of("ranking", title, rows, columns, note)


def _comparison(rows: Sequence[Row]) -> Table:
    columns: Columns = {
        "group": _WHO["group"],
        "less": lambda row: visible(row["against"]),
        "reader": _WHO["reader"],
        "measure": lambda row: MEASURES[row["measure"]],
        "difference": "difference",
        "questions": lambda row: "paired" if row["paired"] else "apart",
        "n": "n",
        "adjusted p": lambda row: p_cell(row["q"], row["stars"]),
    }
    note = "p by sign flips (paired) or permutations of questions, adjusted over this table by Benjamini and Hochberg; * below .05, ** .01, *** .001."
    return table_of("comparison", "Groups compared: the later one minus the earlier one", rows, columns, note)


def _texts(groups: Sequence[Row]) -> Table:
    """Measures down, groups across; what no source says is left out."""

    def of(group: Row) -> Callable[[str], Cell]:
        return lambda key: found_cell(group["writer_right"] if key == "right" else group["text"][key], 0 if key == "words" else 2)

    names = _TEXTS | {"right": "right, according to the source"}
    known = [key for key in names if any(of(group)(key) != NOTHING for group in groups)]
    columns: Columns = {"of the CoTs": lambda key: names[key]}
    columns |= {f"{visible(group['group'])} ({group['cots']:,})": of(group) for group in groups}
    return table_of("texts", "The texts, without any reader", known, columns)


def _likelihood(read: Sequence[tuple[Row, Row]]) -> Table:
    columns: Columns = {
        **_WHO,
        "perplexity per token": lambda row: decimal_cell(row["perplexity"] or None, 2),
        "bits per character": "bits_per_character",
    }
    rows = [{"group": group["group"], "reader": one["reader"], **one["text"]} for group, one in read if one.get("text")]
    return table_of("likelihood", "How likely the text is, given its question", rows, columns)


def _bypass(rows: Sequence[Row]) -> Table:
    def survives(control: str) -> Callable[[Row], Any]:
        return lambda one: next(
            r["survives"] for r in one["rows"] if (r["control"], r["reader"]) == (control, "sees the question")
        )

    judged = [one for one in rows if any(row["accuracy"] is not None for row in one["rows"])]
    columns = {**_WHO, "bypass": "bypass", **{name: survives(control) for control, name in _SURVIVE.items()}}
    title = "Bypass: with the question visible, how many right answers stay right without the CoT?"
    return table_of("bypass", title, judged, columns)


def _leak(rows: Sequence[Row]) -> Table:
    columns: Columns = {
        **_WHO,
        "stands in it": "leaks",
        "another question's, by chance": "leaks_other",
        "first at (median)": lambda one: percent_cell(one["position"] and one["position"]["quartiles"][1]),
        "accuracy": "accuracy",
        "cut before it": "accuracy_cut_before",
        "drop, nats": "drop_logprob",
    }
    return table_of("leak", "The gold answer as a plain copy, and what the part before it carries", rows, columns)


def _damage(one: Row) -> Table:
    columns: Columns = {
        "perturbation": "perturbation",
        "severity": _share("severity"),
        "CoTs changed": _share("changed"),
        "drop, nats": "drop_logprob",
        "drop of accuracy": "drop_accuracy",
    }
    title = f"Perturbing the CoTs of {visible(one['group'])}, read by {visible(one['reader'])}"
    return table_of("damage", title, [row for row in one["rows"] if row["severity"] > 0], columns)


def _agreement(rows: Sequence[Row]) -> Table:
    columns: Columns = {
        "group": _WHO["group"],
        "readers": lambda one: visible(" and ".join(one["readers"])),
        "n": "n",
        "same verdict": "same_verdict",
        "kappa": "kappa",
        "rank correlation of ln π": "spearman",
    }
    return table_of("agreement", "Do the readers agree on the CoT alone?", rows, columns)


def _load(found: Sequence[Row]) -> Table:
    """Places down, groups and readers across."""
    columns: Columns = {"sentences": lambda at: "all" if at is None else f"{10 * at} to {10 * at + 10} % of the CoT"}

    def of(one: Row) -> Callable[[int | None], Any]:
        return lambda at: one["by_kind"][0]["drop"] if at is None else one["by_position"][at]["drop"]

    columns |= {
        f"{visible(one['group'])}, {visible(one['reader'])} (n={one['units']:,})": of(one) for one in found if one["by_kind"]
    }
    places = [None, *range(len(found[0]["by_position"]))] if len(columns) > 1 else []
    return table_of("load", "Load: ln π(answer | CoT) lost when a sentence is left out, by position", places, columns)
